import os
import signal
from pathlib import Path

import psycopg

from devstack.ports import accepts
from devstack.postgres import DatabaseAddress, PostgresServer
from devstack.process import Processes, wait_until
from devstack.redis import RedisAddress


class CrashingPostgres:
    """The test run's server. After a restart it is a child of the tests."""

    def __init__(self, folder: Path, processes: Processes, address: DatabaseAddress) -> None:
        self._server = PostgresServer(folder, processes, port=address.port, password=address.password)
        self._pid_file = folder / 'data' / 'postmaster.pid'

    def crash(self) -> None:
        """Without a final write, the next start recovers from the log."""
        os.kill(int(self._pid_file.read_text().split()[0]), signal.SIGQUIT)
        assert wait_until(lambda: not accepts(self._server.port), timeout=60)

    def start(self) -> None:
        assert wait_until(lambda: not self._pid_file.exists(), timeout=60)
        self._server.start()

    def crash_by_its_own(self) -> None:
        """A killed process makes PostgreSQL end the rest and recover."""
        with self._server.address.connect() as connection:
            pid = connection.execute('SELECT pg_backend_pid()').fetchone()[0]
            os.kill(pid, signal.SIGKILL)
        # Until then it takes connections, and ends them a moment later.
        assert wait_until(lambda: not Path(f'/proc/{pid}').exists(), timeout=60)
        assert wait_until(self._answers, timeout=60)

    def _answers(self) -> bool:
        try:
            self._server.address.connect().close()
        except psycopg.OperationalError:
            return False
        return True


def kill_redis(address: RedisAddress) -> None:
    """SIGKILL loses its data."""
    with address.client() as client:
        pid = client.info('server')['process_id']
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not accepts(address.port), timeout=60)
