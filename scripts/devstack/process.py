"""Starts the servers as children and ends them by their process ids, never by a name.

Each child leads its own process group, so Ctrl-C reaches only the program, which stops its children in reverse order.
Three nets catch the rest:

- A child gets a signal when the thread that started it dies. So servers start in main threads.
- This process adopts a dead child's children, such as RQ's forked jobs, which have their own groups.
- `end_all_children` ends every child of this process.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from devstack.failure import StartFailed

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Account:
    """For servers that must not run as root."""

    uid: int
    gid: int

    def as_options(self) -> dict[str, Any]:
        return {'user': self.uid, 'group': self.gid, 'extra_groups': []}


class Started(Protocol):
    """The part of subprocess.Popen that `Child` needs."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Child:
    name: str
    popen: Started
    log: Path
    stop_signal: signal.Signals = signal.SIGTERM
    client: bool = False
    orphans: list['ProcessId'] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def ask_to_stop(self) -> None:
        if self.running:
            self.popen.send_signal(self.stop_signal)

    def stop(self, patience: float = 10) -> None:
        """Ask, then insist. Its own children end with it."""
        family = self.orphans + descendants(self.pid)
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(patience)
        self._end(family)

    def kill(self) -> None:
        """Its children live on until `stop`, as after a crash."""
        self.orphans += descendants(self.pid)
        self.popen.kill()
        self.popen.wait()

    def _end(self, family: Iterable['ProcessId']) -> None:
        if self.running:
            self.popen.kill()
            self.popen.wait()
        _kill_all(family)

    def log_tail(self, lines: int = 25) -> str:
        text = self.log.read_text(errors='replace') if self.log.exists() else ''
        return '\n'.join(text.splitlines()[-lines:])

    def wait_until_ready(self, ready: Callable[[], bool], timeout: float = 180) -> None:
        def ready_or_ended() -> bool:
            if not self.running:
                raise StartFailed(f'{self.name} ended with code {self.popen.returncode}:\n{self.log_tail()}')
            return ready()

        # Frequent looks would take CPU that the starting server needs.
        if not wait_until(ready_or_ended, timeout, interval=0.1):
            raise StartFailed(f'{self.name} was not ready within {timeout:.0f} s:\n{self.log_tail()}')


class Processes:
    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.children: list[Child] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        client: bool = False,
    ) -> Child:
        """A `client` needs other children, but none needs it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f'{name}.log'
        with log.open('ab') as output:
            popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                process_group=0,
                preexec_fn=prepare_child(stop_signal),  # noqa: PLW1509 (nothing in it takes a lock)
                **(account.as_options() if account else {}),
            )
        child = Child(name, popen, log, stop_signal, client)
        self.children.append(child)
        return child

    def stop(self, child: Child, patience: float = 10) -> None:
        child.stop(patience)
        if child in self.children:
            self.children.remove(child)

    def stop_all(self) -> None:
        families = [process for child in self.children if child.client for process in descendants(child.pid)]
        for child in self.children:
            if child.client:
                child.ask_to_stop()
        while self.children:
            self.children.pop().stop()
        _kill_all(families)


def prepare_child(death_signal: signal.Signals) -> Callable[[], None]:
    def prepare() -> None:
        # Children inherit ignored signals, and Ctrl-C's could then not stop them.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))

    return prepare


def adopt_orphans() -> None:
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


@dataclass(frozen=True)
class ProcessId:
    """Its start time tells it from a later process with the same id."""

    pid: int
    parent: int
    started: str
    state: str = ''

    @property
    def is_alive(self) -> bool:
        """An ended process may stay as a zombie."""
        present = _read_process(self.pid)
        return present is not None and present.started == self.started and present.state not in 'ZX'

    def kill(self) -> None:
        present = _read_process(self.pid)
        if present and present.started == self.started:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _kill_all(processes: Iterable[ProcessId]) -> None:
    for process in processes:
        process.kill()


def _read_process(pid: int) -> ProcessId | None:
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return None
    fields = text.rpartition(')')[2].split()
    return ProcessId(pid, int(fields[1]), fields[19], fields[0])


def _all_processes() -> list[ProcessId]:
    pids = (int(entry) for entry in os.listdir('/proc') if entry.isdigit())
    return [process for pid in pids if (process := _read_process(pid))]


def descendants(pid: int) -> list[ProcessId]:
    processes = _all_processes()
    found: list[ProcessId] = []
    parents = {pid}
    while generation := [process for process in processes if process.parent in parents]:
        found += generation
        parents = {process.pid for process in generation}
    return found


def end_all_children(patience: float = 10) -> None:
    """Their children end too, as this process adopts them."""

    def no_child_left() -> bool:
        for process in descendants(os.getpid()):
            process.kill()
        return not _reap()

    wait_until(no_child_left, patience)


def _reap() -> bool:
    """Return whether a child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.02) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True
