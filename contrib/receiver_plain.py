"""A receiver: verifies each request, stores it once in SQLite, answers, and works afterwards.

WEBHOOK_SECRET: of the webhook. PORT: on loopback, behind a server that does TLS. DATABASE: a file.
Put your work into `handle`. It gets one change in the default format. If it fails, the next request tries it again.
"""

import base64
import hmac
import json
import os
import sqlite3
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ['WEBHOOK_SECRET'].removeprefix('whsec_'))
DATABASE = os.environ.get('DATABASE', 'inbox.sqlite')
TOLERANCE = 300  # seconds
LARGEST = 64 * 2**20  # bytes of a request that is not verified yet
there_is_work = threading.Event()


def verify(headers, body: bytes) -> bool:
    identity, timestamp = headers.get('webhook-id', ''), headers.get('webhook-timestamp', '')
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return False
    digest = hmac.digest(KEY, f'{identity}.{timestamp}.'.encode() + body, 'sha256')
    expected = b'v1,' + base64.b64encode(digest)
    return any(hmac.compare_digest(expected, one.encode()) for one in headers.get('webhook-signature', '').split())


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(DATABASE, timeout=10)
    connection.execute('CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY, body BLOB, received REAL, done REAL)')
    return connection


def store(identity: str, body: bytes) -> None:
    with connect() as connection:  # commits
        connection.execute('INSERT OR IGNORE INTO inbox VALUES (?, ?, ?, NULL)', (identity, body, time.time()))
    connection.close()
    there_is_work.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'  # keeps connections open

    def do_POST(self) -> None:
        length = int(self.headers.get('Content-Length', 0))
        if not 0 <= length <= LARGEST:
            self.close_connection = True
            return self.answer(413)
        body = self.rfile.read(length)
        if verify(self.headers, body):
            store(self.headers['webhook-id'], body)
            self.answer(204)
        else:
            self.answer(401)

    def answer(self, status: int) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header('Content-Length', '0')
        self.end_headers()


def work() -> None:
    connection = connect()
    while True:
        there_is_work.wait()
        there_is_work.clear()
        rows = connection.execute('SELECT id, body FROM inbox WHERE done IS NULL ORDER BY received').fetchall()
        for identity, body in rows:
            try:
                handle(json.loads(body))
            except Exception:
                traceback.print_exc()
                continue
            connection.execute('UPDATE inbox SET done = ?, body = NULL WHERE id = ?', (time.time(), identity))
            connection.commit()
        connection.execute('DELETE FROM inbox WHERE done < ?', (time.time() - 7 * 86400,))
        connection.commit()


def handle(event: dict) -> None:
    print('test' if event.get('test') else event['event'], event['object_type'], event['data']['display'], flush=True)


if __name__ == '__main__':
    there_is_work.set()  # left by an earlier run
    threading.Thread(target=work, daemon=True).start()
    ThreadingHTTPServer(('127.0.0.1', int(os.environ.get('PORT', 9000))), Handler).serve_forever()
