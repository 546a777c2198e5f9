"""An event source for ansible-rulebook: the changes of a feed of the NetBox plugin webhooks. No packages are needed.

    sources:
      - ansible_rulebook_feed:
          url: https://netbox.example.com/api/plugins/webhooks/webhooks/1/feed/
          token: "{{ netbox_token }}"
          state: /var/lib/rulebook/feed.cursor

Arguments: url, token; state, a file for the cursor; wait, seconds, 25 if left out.
An event is the body of the item, with its `meta`. The cursor is stored once the rulebook has the events.
"""

import asyncio
import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

logger = logging.getLogger(__name__)

PAUSE = 5.0


async def main(queue: asyncio.Queue, args: dict[str, Any]) -> None:
    state = Path(args['state'])
    cursor = state.read_text().strip() if state.exists() else ''
    while True:
        try:
            page = await asyncio.to_thread(_get, args, cursor)
        except HTTPError as error:
            with error:
                told = error.read().decode(errors='replace')
            if error.code < 500 and error.code != 429:
                raise RuntimeError(f'{args["url"]}: {error.code} {told}') from None  # a person has to look
            asked = error.headers.get('Retry-After', '')
            await asyncio.sleep(int(asked) if asked.isdecimal() else PAUSE)
            continue
        except (URLError, OSError, ValueError) as error:
            logger.warning('%s: %s', args['url'], error)
            await asyncio.sleep(PAUSE)
            continue
        for item in page['items']:
            await queue.put(_event(item))
        cursor = page['cursor']
        _store(state, cursor)


def _get(args: dict[str, Any], cursor: str) -> dict[str, Any]:
    wait = int(args.get('wait', 25))
    asked = {'wait': wait, 'limit': 100} | ({'after': cursor} if cursor else {})
    headers = {'Authorization': f'Bearer {args["token"]}'}
    with urlopen(Request(f'{args["url"]}?{urlencode(asked)}', headers=headers), timeout=wait + 30) as answer:
        return json.load(answer)


def _event(item: dict[str, Any]) -> dict[str, Any]:
    made: Any = item['body']
    with contextlib.suppress(TypeError, ValueError):
        made = json.loads(made)
    meta = {name: item[name] for name in ('id', 'published_at', 'headers', 'error')}
    return {**(made if isinstance(made, dict) else {'body': made}), 'meta': meta}


def _store(state: Path, cursor: str) -> None:
    """The file holds the old cursor or the new one, whenever this is killed."""
    new = state.with_name(f'{state.name}.new')
    with new.open('w') as file:
        file.write(cursor)
        file.flush()
        os.fsync(file.fileno())
    new.replace(state)
