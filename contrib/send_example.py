"""Sends one request to a receiver, signed as a webhook signs it:  send_example.py URL whsec_SECRET"""

import base64
import hmac
import sys
import time
import urllib.error
import urllib.request
import uuid

url, secret = sys.argv[1:]
body = b'{"event": "created", "object_type": "dcim.site", "data": {"id": 1, "display": "Berlin 1"}, "sequence": 1}'
identity, timestamp = str(uuid.uuid4()), str(int(time.time()))
key = base64.b64decode(secret.removeprefix('whsec_'))
digest = hmac.digest(key, f'{identity}.{timestamp}.'.encode() + body, 'sha256')
headers = {
    'Content-Type': 'application/json',
    'webhook-id': identity,
    'webhook-timestamp': timestamp,
    'webhook-signature': 'v1,' + base64.b64encode(digest).decode(),
}
try:
    print(urllib.request.urlopen(urllib.request.Request(url, body, headers)).status)
except urllib.error.HTTPError as error:
    print(error.code)
