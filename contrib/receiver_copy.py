"""Keeps a copy of NetBox's objects in SQLite, from a backfill and the changes that follow.

PORT: on loopback. DATABASE: a file. It does not verify requests: add `verify` of receiver_plain.py.
"""

import json
import os
import sqlite3
from http.server import BaseHTTPRequestHandler, HTTPServer

copy = sqlite3.connect(os.environ.get('DATABASE', 'copy.sqlite'))
copy.execute('CREATE TABLE IF NOT EXISTS objects (type, id, sequence, data, PRIMARY KEY (type, id))')
# A deleted object keeps its row, without data: an older change may still come.
KEEP = """
    INSERT INTO objects VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET sequence = excluded.sequence, data = excluded.data
    WHERE excluded.sequence >= sequence"""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        length = int(self.headers['Content-Length'])
        if not 0 <= length <= 2**26:
            return self.send_error(413)
        event = json.loads(self.rfile.read(length))
        if not event.get('test'):
            data = None if event['event'] == 'deleted' else json.dumps(event['data'])
            with copy:  # commits
                copy.execute(KEEP, (event['object_type'], event['data']['id'], event['sequence'], data))
        self.send_response(204)
        self.end_headers()


if __name__ == '__main__':
    HTTPServer(('127.0.0.1', int(os.environ.get('PORT', 9000))), Handler).serve_forever()
