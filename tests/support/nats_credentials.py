"""A NATS server whose users show credentials that an operator has signed, and which may expire."""

import base64
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nkeys

from devstack.brokers import Nats
from devstack.ports import LOOPBACK

UNLIMITED = dict.fromkeys(('subs', 'data', 'payload'), -1)
ACCOUNT_LIMITS = UNLIMITED | dict.fromkeys(
    ('imports', 'exports', 'conn', 'leaf', 'mem_storage', 'disk_storage', 'streams', 'consumer'), -1
)
YEAR_SECONDS = 365 * 24 * 3600


def _pair(kind: int) -> tuple[Any, bytes]:
    """Return a new pair of keys, and its seed."""
    seed = bytes(nkeys.encode_seed(os.urandom(32), kind))
    return nkeys.from_seed(bytearray(seed)), seed


def _name(pair: Any) -> str:
    return bytes(pair.public_key).decode()


def _token(issuer: Any, subject: str, claims: dict[str, Any], expires_at: float = 0) -> str:
    """Return what NATS's tools write: a JSON Web Token that the issuer's key has signed."""
    now = int(time.time())
    content = {'jti': f'{subject}{now}', 'iat': now, 'iss': _name(issuer), 'sub': subject, 'name': 'netbox'}
    content['nats'] = claims | {'version': 2}
    if expires_at:
        content['exp'] = int(expires_at)
    parts = [_encoded(json.dumps(one).encode()) for one in ({'typ': 'JWT', 'alg': 'ed25519-nkey'}, content)]
    return '.'.join([*parts, _encoded(issuer.sign('.'.join(parts).encode()))])


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b'=').decode()


@dataclass
class NatsWithCredentials(Nats):
    """`credentials` is the path of the user's file."""

    account: Any = field(default_factory=lambda: _pair(nkeys.PREFIX_BYTE_ACCOUNT)[0])
    system: Any = field(default_factory=lambda: _pair(nkeys.PREFIX_BYTE_ACCOUNT)[0])
    operator: Any = field(default_factory=lambda: _pair(nkeys.PREFIX_BYTE_OPERATOR)[0])

    @property
    def credentials(self) -> Path:
        return self.folder / 'netbox.creds'

    @property
    def options(self) -> dict[str, Any]:
        servers = [f'nats://{LOOPBACK}:{self.shown_port}']
        return {'driver': self.driver, 'servers': servers, 'user_credentials': str(self.credentials)}

    def write_credentials(self, seconds: float = YEAR_SECONDS) -> None:
        """Write the user's file, which is good for so long."""
        user, seed = _pair(nkeys.PREFIX_BYTE_USER)
        token = _token(self.account, _name(user), {'type': 'user'} | UNLIMITED, time.time() + seconds)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.credentials.write_text(
            f'-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n'
            f'-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n'
        )

    def _command(self) -> list[str]:
        operator = _token(self.operator, _name(self.operator), {'type': 'operator'})
        system = _token(self.operator, _name(self.system), {'type': 'account'})
        account = _token(self.operator, _name(self.account), {'type': 'account', 'limits': ACCOUNT_LIMITS})
        configuration = (
            f'listen: "{LOOPBACK}:{self.port}"\njetstream {{ store_dir: "{self.folder}" }}\noperator: {operator}\n'
            f'system_account: {_name(self.system)}\nresolver: MEMORY\n'
            f'resolver_preload: {{ {_name(self.system)}: {system}, {_name(self.account)}: {account} }}\n'
        )
        return [self._binary(), '-c', str(self._write('nats.conf', configuration))]
