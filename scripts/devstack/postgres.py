"""A private PostgreSQL server from the distribution's binaries (Python wheels lack ICU, which NetBox needs).

PostgreSQL refuses root, so for root it runs as `postgres` or `nobody`. Its socket needs no password, but only that
account enters the folder. TCP, on loopback only, needs the run's random password. It trades durability for speed.
"""

import base64
import hashlib
import hmac
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
from psycopg import sql

from devstack.failure import StartFailed
from devstack.ports import LOOPBACK, free_port
from devstack.process import Account, Child, Processes

USER = 'netbox'
OLDEST_VERSION = 15
_LONGEST_SOCKET_FOLDER = 80
_ACCESS = f'local all all trust\nhost all all {LOOPBACK}/32 scram-sha-256\n'
_SETTINGS = {
    'fsync': 'off',
    'full_page_writes': 'off',
    'max_connections': '200',
    'shared_buffers': '128MB',
    'min_wal_size': '4MB',
    'max_wal_size': '256MB',
    'listen_addresses': LOOPBACK,
    'logging_collector': 'off',
    # Compiling a statement takes longer than running it on the few rows of a test.
    'jit': 'off',
}


@dataclass(frozen=True)
class DatabaseAddress:
    host: str
    port: int
    user: str
    password: str
    name: str = 'postgres'

    def named(self, name: str) -> 'DatabaseAddress':
        return replace(self, name=name)

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=self.name,
            autocommit=True,
            connect_timeout=5,
        )

    def execute(self, statement: str, *names: str) -> None:
        with self.connect() as connection:
            connection.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))


def binaries() -> Path:
    found = [path.parent for path in Path('/usr/lib/postgresql').glob('*/bin/initdb')]
    if found:
        return max(found, key=lambda path: int(path.parent.name))
    if pg_config := shutil.which('pg_config'):
        found = [Path(subprocess.check_output([pg_config, '--bindir'], text=True).strip())]
    elif initdb := shutil.which('initdb'):
        found = [Path(initdb).resolve().parent]
    if not found or not (found[0] / 'initdb').exists():
        raise StartFailed('No PostgreSQL server was found: please install PostgreSQL')
    return found[0]


def major_version() -> int:
    output = subprocess.check_output([binaries() / 'postgres', '--version'], text=True)
    version = int(re.search(r'\d+', output.partition(')')[2])[0])
    if version < OLDEST_VERSION:
        raise StartFailed(f'NetBox needs PostgreSQL {OLDEST_VERSION} or newer; this one is {version}')
    return version


def _verifier(password: str) -> str:
    """Return what PostgreSQL stores of a random password. 4,096 rounds would cost each connection milliseconds."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac('sha256', password.encode(), salt, 1)
    client, server = (hmac.digest(salted, name, 'sha256') for name in (b'Client Key', b'Server Key'))
    salt, stored, server = (base64.b64encode(part).decode() for part in (salt, hashlib.sha256(client).digest(), server))
    return f'SCRAM-SHA-256$1:{salt}${stored}:{server}'


def server_account() -> Account | None:
    if os.geteuid():
        return None
    for name in ('postgres', 'nobody'):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise StartFailed('PostgreSQL refuses to run as root, and there is no account postgres or nobody to run it as')


@dataclass
class PostgresServer:
    folder: Path
    processes: Processes
    port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    account: Account | None = field(default_factory=server_account)
    child: Child | None = None

    @property
    def data(self) -> Path:
        return self.folder / 'data'

    @property
    def address(self) -> DatabaseAddress:
        return DatabaseAddress(LOOPBACK, self.port, USER, self.password)

    def make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if self.account:
            os.chown(self.folder, self.account.uid, self.account.gid)

    def initialize(self) -> None:
        self.make_folder()
        command = [binaries() / 'initdb', '-D', self.data, '-U', USER, '-E', 'UTF8', '--locale=C.UTF-8', '-N']
        initdb = self.processes.start(
            'initdb', [*map(str, command), '--wal-segsize=1'], folder=self.folder, account=self.account
        )
        if initdb.popen.wait():
            raise StartFailed(f'initdb failed:\n{initdb.log_tail()}')
        (self.data / 'pg_hba.conf').write_text(_ACCESS)

    def start(self) -> None:
        self._sockets = self._socket_folder()
        settings = _SETTINGS | {'unix_socket_directories': str(self._sockets)}
        options = [text for name, value in settings.items() for text in ('-c', f'{name}={value}')]
        self.child = self.processes.start(
            'postgres',
            [str(binaries() / 'postgres'), '-D', str(self.data), '-p', str(self.port), *options],
            folder=self.folder,
            account=self.account,
            stop_signal=signal.SIGINT,  # "fast": ends the connections
        )
        self.child.wait_until_ready(self._sets_password)

    def _socket_folder(self) -> Path:
        """The path of a socket must not be longer than about 100 characters."""
        if len(str(self.folder)) < _LONGEST_SOCKET_FOLDER:
            return self.folder
        folder = Path(tempfile.mkdtemp(prefix='pg-', dir='/tmp'))
        if self.account:
            os.chown(folder, self.account.uid, self.account.gid)
        return folder

    def _sets_password(self) -> bool:
        """The copied data have another run's password. The socket lets us set ours."""
        verifier = sql.Literal(_verifier(self.password))
        statement = sql.SQL('ALTER ROLE {} PASSWORD {}').format(sql.Identifier(USER), verifier)
        socket = replace(self.address, host=str(self._sockets))
        try:
            with socket.connect() as connection:
                connection.execute(statement)
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        if self.child:
            self.processes.stop(self.child)
            self.child = None
        if self._sockets != self.folder:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def crash(self) -> None:
        """Unlike in a power cut, the operating system's buffers survive."""
        self.child.popen.send_signal(signal.SIGQUIT)
        self.child.popen.wait()
        self.stop()

    def restart(self) -> None:
        self.stop()
        self.start()
