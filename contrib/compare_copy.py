"""Compares the copy of receiver_copy.py with what NetBox has sent of a webhook's lists, and prints the difference.

WEBHOOK: its address in the REST API, .../api/plugins/webhooks/webhooks/7/. TOKEN: of a user who may view it and its
objects. DATABASE: the copy's file. `--send` asks NetBox for what is missing or outdated: that needs the permission
`backfill`. Extra ones are only printed.
"""

import json
import os
import sqlite3
import sys
from collections import defaultdict
from urllib.request import Request, urlopen

WEBHOOK = os.environ['WEBHOOK'].rstrip('/')
MOST = 1000  # objects that NetBox sends at once


def call(address: str, sent: dict | None = None) -> dict:
    headers = {'Authorization': f'Bearer {os.environ["TOKEN"]}', 'Content-Type': 'application/json'}
    body = None if sent is None else json.dumps(sent).encode()
    with urlopen(Request(address, body, headers), timeout=60) as answer:
        return json.load(answer)


def members() -> dict[tuple[str, int], int]:
    """Return {(type, id): sequence} of what this receiver should have. 0: it is not known which."""
    found, page = {}, f'{WEBHOOK}/members/?limit=1000'
    while page:
        answer = call(page)
        found |= {(one['object_type'], one['object_id']): one['sequence'] for one in answer['results']}
        page = answer['next']
    return found


def main() -> None:
    wanted = members()
    # The last object of a list may have left it.
    types = call(f'{WEBHOOK}/')['filters']
    with sqlite3.connect(os.environ.get('DATABASE', 'copy.sqlite')) as copy:
        rows = copy.execute('SELECT type, id, sequence FROM objects WHERE data IS NOT NULL').fetchall()
    have = {(name, pk): sequence for name, pk, sequence in rows}
    missing = [key for key in wanted if key not in have]
    outdated = [key for key, sequence in wanted.items() if key in have and have[key] < sequence]
    extra = [key for key in have if key not in wanted and key[0] in types]
    for title, keys in (('missing', missing), ('outdated', outdated), ('extra', extra)):
        for name, pk in sorted(keys):
            print(f'{title}: {name} {pk}')
    if '--send' in sys.argv:
        by_type = defaultdict(list)
        for name, pk in missing + outdated:
            by_type[name].append(pk)
        for name, pks in by_type.items():
            for first in range(0, len(pks), MOST):
                call(f'{WEBHOOK}/send-now/', {'object_type': name, 'ids': pks[first : first + MOST]})


if __name__ == '__main__':
    main()
