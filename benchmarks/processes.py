import os
import re
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from django.db import connection
from django_rq import get_queue
from rq import Worker

from devstack.process import wait_until


def wait_until_idle(number: int = 1) -> None:
    def idle() -> bool:
        workers = Worker.all(queue=get_queue('low'))
        return [worker.get_state() for worker in workers].count('idle') >= number

    if not wait_until(idle, timeout=120):
        raise TimeoutError('the workers did not become idle')


def postmaster() -> int:
    """All others descend from it."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_backend_pid()')
        return _parent(cursor.fetchone()[0])


def cpu(pids: Sequence[int]) -> float:
    """Return CPU seconds, with ended children and descendants."""
    ticks = sum(sum(map(int, _stat(pid)[11:15])) for pid in _with_descendants(pids))
    return ticks / os.sysconf('SC_CLK_TCK')


def peak(pid: int) -> float:
    """Return MB of a process or a living descendant."""
    return max(map(_peak, _with_descendants([pid])))


def _peak(pid: int) -> float:
    try:
        status = Path(f'/proc/{pid}/status').read_text()
    except FileNotFoundError:
        return 0
    found = re.search(r'VmHWM:\s+(\d+) kB', status)
    return int(found[1]) / 1024 if found else 0


def _with_descendants(pids: Sequence[int]) -> Iterator[int]:
    children: dict[int, list[int]] = {}
    for folder in Path('/proc').iterdir():
        if folder.name.isdecimal() and (pid := int(folder.name)):
            children.setdefault(_parent(pid), []).append(pid)
    todo = list(pids)
    while todo:
        pid = todo.pop()
        yield pid
        todo += children.get(pid, [])


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """Return the fields after the name, or zeros after its end."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except FileNotFoundError:
        return ['0'] * 50


def growth(function: Callable[[], object]) -> float:
    """Return MB, as a fork of this process grows."""
    connection.close()

    def grown() -> float:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        function()
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024

    return _in_a_fork(grown)


def _in_a_fork(function: Callable[[], float]) -> float:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, str(function()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as answer:
        return float(answer.read())
