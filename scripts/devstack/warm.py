"""Workers, web servers and commands are forks of a process that has loaded NetBox, which takes seconds of CPU.

`Warm` is for tests and the demo; `python -m devstack.warm` is the process.
"""

import contextlib
import gc
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from devstack.failure import StartFailed
from devstack.process import Child, Processes, prepare_child

# Seconds for a command.
PATIENCE = 600
GUNICORN = 'gunicorn'


@dataclass
class Forked:
    """What subprocess.Popen is for other children."""

    pid: int
    warm: 'Warm'
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                self.returncode = self.warm.ask('poll', self.pid)
            except (EOFError, OSError):
                # At the end the warm process is stopped first, and the kernel ends its forks.
                self.returncode = -signal.SIGTERM
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired('a forked command', timeout)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass
class Warm:
    """Starts its process at the first use."""

    environment: Mapping[str, str]
    folder: Path
    processes: Processes
    _connection: Connection | None = None
    _child: Child | None = None
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start a command of NetBox, or gunicorn, with these variables beside those of the process."""
        if self._connection is None:
            self._connect()
        log = self.processes.logs / f'{name}.log'
        pid = self.ask('fork', str(log), list(arguments), dict(environment or {}))
        child = Child(name, Forked(pid, self), log, client=True)
        self.processes.children.append(child)
        return child

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Return the output and errors of a command, which has to end well."""
        child = self.start(f'{arguments[0]}-{uuid.uuid4().hex}', arguments, environment)
        code = child.popen.wait(PATIENCE)
        self.processes.children.remove(child)
        said = child.log.read_text(errors='replace')
        if code:
            raise StartFailed(f'{arguments[0]} ended with {code}:\n{said}')
        return said

    def stop(self) -> None:
        if self._connection:
            self._connection.close()
            self.processes.stop(self._child)

    def ask(self, *question: object) -> int | None:
        with self._one_at_a_time:
            self._connection.send(question)
            return self._connection.recv()

    def _connect(self) -> None:
        socket = self.folder / f'warm-{os.getpid()}-{uuid.uuid4().hex[:8]}'
        command = [sys.executable, '-m', 'devstack.warm', str(socket)]
        self._child = self.processes.start(
            'warm', command, environment=self.environment, folder=self.folder, client=True
        )
        self._child.wait_until_ready(lambda: self._reaches(str(socket)))

    def _reaches(self, socket: str) -> bool:
        # The socket is there a moment before the process listens.
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            self._connection = Client(socket)
        return self._connection is not None


def serve(socket: str) -> list[str]:
    """Fork until the tests end. Return the command's arguments in each fork."""
    with Listener(socket) as listener:
        tests = listener.accept()
    with contextlib.suppress(EOFError):
        while True:
            what, subject, *more = tests.recv()
            if what == 'poll':
                tests.send(_poll(subject))
            elif pid := os.fork():
                tests.send(pid)
            else:
                tests.close()
                _begin(subject)
                arguments, environment = more
                os.environ |= environment
                return arguments
    sys.exit()


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _begin(log: str) -> None:
    """As Processes.start does."""
    os.setpgid(0, 0)
    prepare_child(signal.SIGTERM)()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


def load() -> None:
    import django
    from django.urls import get_resolver
    from django_rq.utils import reset_db_connections
    from netbox.config import clear_config

    django.setup()
    get_resolver().url_patterns  # noqa: B018
    reset_db_connections()
    clear_config()
    gc.collect()
    gc.freeze()


def main() -> None:
    from django.core.management import execute_from_command_line

    load()
    arguments = serve(sys.argv[1])
    if arguments[0] == GUNICORN:
        sys.argv = arguments
        importlib.import_module('gunicorn.app.wsgiapp').run()
    else:
        execute_from_command_line(['netbox', *arguments])


if __name__ == '__main__':
    main()
