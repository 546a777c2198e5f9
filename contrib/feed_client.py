"""Reads a feed of the NetBox plugin webhooks into SQLite: each change once, in order, whoever is killed meanwhile.

FEED: the address that the webhook's page shows. TOKEN: of a user who may read it. DATABASE: a file.
A change and the cursor behind it are stored in one transaction. Two clients may share the file: an `id` is stored
once. `--skip` accepts that changes were missed (410).
"""

import os
import sqlite3
import sys
import time

import requests

WAIT = 25  # seconds; less than proxies allow

db = sqlite3.connect(os.environ.get('DATABASE', 'feed.sqlite'), timeout=10)
db.execute('CREATE TABLE IF NOT EXISTS inbox (number INTEGER PRIMARY KEY, id TEXT UNIQUE, body TEXT, error TEXT)')
db.execute('CREATE TABLE IF NOT EXISTS cursor (one INTEGER PRIMARY KEY CHECK (one = 1), value TEXT)')
db.commit()
session = requests.Session()
session.headers['Authorization'] = f'Bearer {os.environ["TOKEN"]}'


def handle(item: dict) -> None:
    """Your work. Do it in `db`, or so that it may be done twice: another client may have stored the item."""
    columns = (item['id'], item['body'], item['error'])
    db.execute('INSERT INTO inbox (id, body, error) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING', columns)


def store(cursor: str) -> None:
    db.execute('INSERT INTO cursor VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET value = excluded.value', (cursor,))


def read() -> float:
    """Read on. Returns how many seconds to wait before the next time."""
    known = db.execute('SELECT value FROM cursor').fetchone()
    asked = {'wait': WAIT, 'limit': 500} | ({'after': known[0]} if known else {})
    try:
        answer = session.get(os.environ['FEED'], params=asked, timeout=WAIT + 30)
        if answer.status_code == 410 and '--skip' in sys.argv:
            with db:
                store(answer.json()['cursor'])
            return 0
        if answer.status_code in (400, 401, 403, 404, 410):
            sys.exit(f'{answer.status_code} {answer.text}')  # a person has to look
        if not answer.ok:
            return float(answer.headers.get('Retry-After', 5))
        page = answer.json()
    except (requests.RequestException, ValueError):
        return 5  # NetBox is away, or was killed while it answered
    with db:  # commits
        for item in page['items']:
            handle(item)
        store(page['cursor'])
    return 0


if __name__ == '__main__':
    while True:
        time.sleep(read())
