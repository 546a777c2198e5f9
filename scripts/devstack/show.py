"""Shows a request to a person, with the body one key a line."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import sys
from datetime import datetime
from typing import Any

from devstack.receiver import Received

WIDTH = max(80, shutil.get_terminal_size((120, 0)).columns)
COLOURS = sys.stdout.isatty() and 'NO_COLOR' not in os.environ
BOLD, DIM, GREEN, RED = '1', '2', '32', '31'


def paint(text: str, colour: str) -> str:
    return f'\033[{colour}m{text}\033[0m' if COLOURS else text


def show(text: str = '') -> None:
    print(text, flush=True)


def title(text: str) -> None:
    show()
    show(paint(text, BOLD))


def show_request(request: Received, secret: str, note: str = '', before: dict[str, Any] | None = None) -> None:
    """An earlier payload as `before` limits `data` to the differences."""
    arrived = datetime.fromtimestamp(request.arrived).strftime('%H:%M:%S.%f')[:-3]
    title(f'{request.method} {request.target}   {arrived}{note}')
    for name, value in request.headers:
        show(f'  {paint(name + ":", DIM)} {value}')
    show()
    for line in body_lines(request.body, before):
        show(f'  {_fitted(line)}')
    show()
    show(signature_line(request, secret))


def body_lines(body: bytes, before: dict[str, Any] | None) -> list[str]:
    try:
        payload = json.loads(body)
    except ValueError:
        payload = None
    if not isinstance(payload, dict):
        return body.decode(errors='replace').splitlines()
    return _braced([_key_lines(key, value, before) for key, value in payload.items()])


def _key_lines(key: str, value: Any, before: dict[str, Any] | None) -> list[str]:
    if key != 'data' or not isinstance(value, dict):
        return [_pair(key, value)]
    first, *rest = _braced(_data_lines(value, before and before['data']))
    return [f'"data": {first}', *rest]


def _data_lines(data: dict[str, Any], before: dict[str, Any] | None) -> list[list[str]]:
    shown = {key: value for key, value in data.items() if before is None or before.get(key, ...) != value}
    lines = [[_pair(key, value)] for key, value in shown.items()]
    return [*lines, [f'… {len(data) - len(shown)} keys as above']] if len(shown) < len(data) else lines


def _braced(items: list[list[str]]) -> list[str]:
    with_commas = [[*lines[:-1], f'{lines[-1]},'] for lines in items[:-1]] + items[-1:]
    return ['{', *(f'  {line}' for lines in with_commas for line in lines), '}']


def _pair(key: str, value: Any) -> str:
    return f'{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}'


def _fitted(line: str) -> str:
    room = WIDTH - 2
    return line if len(line) <= room else f'{line[: room - 1]}…'


def signature_line(request: Received, secret: str) -> str:
    if is_signed(request, secret):
        return paint('  ✓ both signatures verified', GREEN)
    if not request.header('X-Hook-Signature'):
        return paint('  (not signed)', DIM)
    return paint('  ✗ a signature is wrong or absent', RED)


def is_signed(request: Received, secret: str) -> bool:
    """Receivers verify without the plugin's own code."""
    signed = f'{request.header("webhook-id")}.{request.header("webhook-timestamp")}.'.encode() + request.body
    key = base64.b64decode(secret.removeprefix('whsec_'))
    standard = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    netbox = hmac.digest(secret.encode(), request.body, hashlib.sha512).hex()
    return f'v1,{standard}' in (request.header('webhook-signature') or '').split() and hmac.compare_digest(
        netbox, request.header('X-Hook-Signature') or ''
    )
