"""Processes in which what users wrote is run: each with bounds of its own on time and memory.

Python cannot interrupt an operation in its midst, nor tell beforehand how long it takes or how much it needs. The
kernel can: a renderer has its own limit of memory, and is killed where it does not answer in time.

A renderer is a fork, so that it has the filters of NetBox and of plugins. A fork has one thread, and the locks that
others held stay locked in it. So a job forks spawners before it starts threads. A spawner has one thread for ever,
and forks a renderer whenever the job asks for one. Whoever needs a single rendering forks the renderer itself: should
it meet such a lock, it is killed in time.
"""

import ctypes
import errno
import gc
import logging
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper

from ..patience import Patience

logger = logging.getLogger('webhooks.templates')

# Bytes by which a renderer may grow.
MEMORY_LIMIT = 256 * 1024 * 1024
# Seconds for a fork.
FORK_LIMIT = 30.0
PR_SET_PDEATHSIG = 1
# Signals for which RQ or a web server has handlers.
SIGNALS = (signal.SIGALRM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

Work = Callable[[socket.socket], None]

# What a process inherited and does not use. Nothing of it is closed, for it belongs to its parent.
_inherited: list[object] = []


class ProcessEnded(Exception):
    """The process did not answer, and is gone."""


class TooSlow(Exception):
    """The process did not answer in time, and was killed."""


class Renderer:
    """A process that answers one question after the other."""

    def __init__(self, channel: socket.socket, handle: int, is_own_child: bool) -> None:
        self._channel = channel
        self._handle = handle
        self._is_own_child = is_own_child
        self.is_there = True
        self.is_new = True

    def ask(self, parts: list[bytes], patience: Patience) -> list[bytes]:
        """Return its answer. Raises TooSlow or ProcessEnded, and is gone then."""
        self.is_new = False
        try:
            send(self._channel, parts, patience)
            return receive(self._channel, patience)
        except TimeoutError:
            self.kill()
            raise TooSlow from None
        except (EOFError, OSError) as error:
            self.kill()
            raise ProcessEnded from error
        except BaseException:
            # An alarm of RQ: its answer would be taken for that to the next question.
            self.kill()
            raise

    def kill(self) -> None:
        if not self.is_there:
            return
        self.is_there = False
        self._channel.close()
        if self._is_own_child:
            _end_child(self._handle)
        else:
            _kill(self._handle)
        os.close(self._handle)


class Fork:
    """Renderers that are children of this process."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def make(self) -> Renderer:
        return Renderer(*fork(self._work, MEMORY_LIMIT), is_own_child=True)

    def close(self) -> None:
        pass


class Spawner:
    """Renderers that are children of a process with one thread, which this process forks while it has one itself."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._start()

    def make(self) -> Renderer:
        try:
            return self._ask()
        except (EOFError, OSError):
            # It was killed. There may be threads by now.
            self.close()
            self._start()
            return self._ask()

    def close(self) -> None:
        """End it, and its renderers with it."""
        self._channel.close()
        _end_child(self._handle)
        os.close(self._handle)

    def _start(self) -> None:
        self._channel, self._handle = fork(lambda channel: _spawn(channel, self._work))
        self._channel.settimeout(FORK_LIMIT)

    def _ask(self) -> Renderer:
        self._channel.sendall(b'+')
        said, descriptors, _flags, _address = socket.recv_fds(self._channel, 1, 2)
        if not said:
            raise EOFError
        channel, handle = descriptors
        return Renderer(socket.socket(fileno=channel), handle, is_own_child=False)


def _spawn(channel: socket.socket, work: Work) -> None:
    """Fork a renderer whenever the channel asks for one, until whoever asks is gone."""
    while channel.recv(1):
        _reap()
        theirs, handle = fork(work, MEMORY_LIMIT)
        socket.send_fds(channel, [b'+'], [theirs.fileno(), handle])
        theirs.close()
        os.close(handle)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_child(handle: int) -> None:
    _kill(handle)
    # Some programs wait for all of their children by themselves.
    with suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, handle, os.WEXITED)


def _kill(handle: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


#
# A process of its own
#


def fork(work: Work, memory: int | None = None) -> tuple[socket.socket, int]:
    """Fork a process that does `work` with a channel to this one, and dies with the thread that called this.

    Returns the channel, and a handle on the process. Raises OSError, and leaves nothing behind then.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = 0
    try:
        with theirs:
            # Until it has let go of its parent's handlers, it would take a signal for one to its parent, and live on.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                pid = os.fork()
                if not pid:
                    _live(work, theirs, parent, memory, mask)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return ours, _open_handle(pid)
    except BaseException:
        ours.close()
        if pid:
            _end_unwatched(pid)
        raise


def check_handles() -> None:
    """Raise OSError where there are no handles on processes: before Linux 5.4, or by a seccomp filter."""
    handle = _open_handle(os.getpid())
    try:
        os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        # A process is no child of its own. Linux 5.3, which gives handles and cannot wait for them, says otherwise.
        pass
    finally:
        os.close(handle)


def _end_unwatched(child: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _open_handle(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        raise OSError(errno.ENOSYS, 'this Python was built for kernels without pidfd_open') from None


def _live(work: Work, channel: socket.socket, parent: int, memory: int | None, mask: set[int]) -> NoReturn:
    """Do the work in the new process. Nothing that its parent would do at its end is done here."""
    try:
        _die_with(parent)
        _let_go(channel.fileno())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if memory:
            _bound_memory(memory)
        work(channel)
    except ConnectionError:
        # Whoever asked does not want to know any more.
        pass
    except BaseException:
        logger.exception('process=failed')
    finally:
        os._exit(0)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _let_go(kept: int) -> None:
    """Leave to the parent what is its own: signals and connections. What carries log lines is for both."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    # What it inherited is no garbage: to look through it would copy it.
    gc.freeze()
    for one in connections.all(initialized_only=True):
        # A filter that asks the database gets a new one.
        _inherited.append(one)
        del connections[one.alias]
    # Redis's notice by themselves that they are in another process. An end of a connection that stays open here would
    # keep the other end from hearing that the parent closed it, or died: Redis would go on to hand jobs to it.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in {*map(int, os.listdir('/proc/self/fd'))} - {0, 1, 2, kept, *_of_logging()}:
        if _is_connection(descriptor):
            os.dup2(nowhere, descriptor)


def _leave_pools() -> None:
    """Django keeps pools for a process. Their connections are the parent's: a fork makes pools of its own."""
    _inherited.append(DatabaseWrapper._connection_pools)
    DatabaseWrapper._connection_pools = {}


# In each fork, also RQ's: beside it the worker goes on to ask the database.
os.register_at_fork(after_in_child=_leave_pools)


def _of_logging() -> Iterator[int]:
    """Yield the sockets of log handlers. Over TCP, Python's SysLogHandler never opens another one."""
    for reference in logging._handlerList:
        if handler := reference():
            # Encrypted ones are left out: two processes that write to one of these break it for both.
            yield from (value.fileno() for value in vars(handler).values() if type(value) is socket.socket)


def _is_connection(descriptor: int) -> bool:
    """Sockets of datagrams are none. They carry log lines: libsystemd's to journald is none that Python knows."""
    try:
        one = socket.socket(fileno=descriptor)
    except OSError:
        # No socket, or the one that listed them.
        return False
    try:
        return one.type != socket.SOCK_DGRAM
    finally:
        one.detach()


def _bound_memory(limit: int) -> None:
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit += pages * resource.getpagesize()
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


#
# What goes through a channel: parts of any bytes
#


COUNT = struct.Struct('!I')


def send(channel: socket.socket, parts: list[bytes], patience: Patience | None = None) -> None:
    """Send all parts. Raises TimeoutError after the patience, if there is one."""
    sizes = struct.pack(f'!{len(parts) + 1}I', len(parts), *map(len, parts))
    rest = memoryview(b''.join((sizes, *parts)))
    while rest:
        rest = rest[_in_time(channel, patience, partial(channel.send, rest)) :]


def receive(channel: socket.socket, patience: Patience | None = None) -> list[bytes]:
    """Return what was sent. Raises EOFError where nobody sends any more, TimeoutError after the patience."""
    (count,) = COUNT.unpack(_read(channel, COUNT.size, patience))
    sizes = struct.unpack(f'!{count}I', _read(channel, count * COUNT.size, patience))
    return [_read(channel, size, patience) for size in sizes]


def _read(channel: socket.socket, size: int, patience: Patience | None) -> bytes:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = _in_time(channel, patience, partial(channel.recv_into, rest))
        if not count:
            raise EOFError
        rest = rest[count:]
    return bytes(data)


def _in_time(channel: socket.socket, patience: Patience | None, call: Callable[[], int]) -> int:
    def attempt(seconds: float) -> int:
        channel.settimeout(seconds)
        return call()

    return patience.wait(attempt) if patience else call()
