"""A private Redis server: loopback only, nothing kept. NetBox gets two, so that one can stop alone.

Other processes need only `address` to stop it through Redis itself.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.failure import StartFailed
from devstack.ports import LOOPBACK, accepts, free_port
from devstack.process import Child, Processes, wait_until


@dataclass(frozen=True)
class RedisAddress:
    host: str
    port: int
    db: int = 0

    def client(self) -> redis.Redis:
        """redis-py's own retries take 4 s to notice a dead server."""
        return redis.Redis(self.host, self.port, self.db, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0))


@dataclass
class RedisServer:
    name: str
    folder: Path
    processes: Processes
    port: int = field(default_factory=free_port)
    child: Child | None = None

    @property
    def address(self) -> RedisAddress:
        return RedisAddress(LOOPBACK, self.port)

    def start(self) -> None:
        folder = self.folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        self.child = self.processes.start(self.name, self._command(folder), folder=folder)
        self.child.wait_until_ready(self.answers, timeout=20)

    def _command(self, folder: Path) -> list[str]:
        binary = shutil.which('redis-server')
        if not binary:
            raise StartFailed('redis-server was not found: please install Redis')
        options = {'port': self.port, 'bind': LOOPBACK, 'save': '', 'appendonly': 'no', 'dir': folder}
        return [binary, *(text for name, value in options.items() for text in (f'--{name}', str(value)))]

    def answers(self) -> bool:
        try:
            with self.address.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """Tests also stop the server that the test run started."""
        with suppress(redis.RedisError), self.address.client() as client:
            client.shutdown(nosave=True, now=True, force=True)
        if not wait_until(lambda: not accepts(self.port), timeout=10):
            raise RuntimeError(f'Redis on port {self.port} did not stop')
        if self.child:
            self.processes.stop(self.child)
            self.child = None
