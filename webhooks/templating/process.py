"""Forks processes that the kernel ends with their parent: those of a worker, and renderers with limited memory.

Talks to renderers, and kills one that does not answer in time.
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

# A renderer may grow by this much beyond its size when it was forked.
MEMORY_GROWTH_BYTES = 256 * 1024 * 1024
# A spawner that does not answer within this time is replaced.
FORK_SECONDS = 30.0
# The option of prctl(2): which signal a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
# RQ and web servers have handlers for these. A fork begins without them.
SIGNALS = (signal.SIGALRM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

Work = Callable[[socket.socket], None]

# If garbage collection got these, it would close the parent's connections.
_inherited: list[object] = []


class ProcessEnded(Exception):
    """The process ended or closed its channel before it answered."""


class TimedOut(Exception):
    """The process did not answer in time, and was killed."""


class TemplateProcess:
    """A running renderer. `channel` leads to it, `handle` is its pidfd. It must be killed in the end."""

    def __init__(self, channel: socket.socket, handle: int, is_own_child: bool) -> None:
        self._channel = channel
        self._handle = handle
        self._is_own_child = is_own_child
        self.is_there = True
        self.is_new = True

    def ask(self, parts: list[bytes], patience: Patience) -> list[bytes]:
        """Send a question, and return the answer. Kills the process and raises TimedOut or ProcessEnded without one."""
        self.is_new = False
        try:
            send(self._channel, parts, patience)
            return receive(self._channel, patience)
        except TimeoutError:
            self.kill()
            raise TimedOut from None
        except (EOFError, OSError) as error:
            self.kill()
            raise ProcessEnded from error
        except BaseException:
            # If RQ's alarm comes here, the next question would get this one's answer.
            self.kill()
            raise

    def kill(self) -> None:
        """End the process and close its channel and handle. A second call does nothing."""
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
    """Makes renderers by forking the calling process. They inherit the locks that its other threads hold."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def make(self) -> TemplateProcess:
        """Return a new renderer. Raises OSError."""
        return TemplateProcess(*fork(self._work, MEMORY_GROWTH_BYTES), is_own_child=True)

    def close(self) -> None:
        """Do nothing: there is no spawner."""


class NoFork(OSError):
    """No renderer can be started, because this machine lacks something, such as memory. The spawner is well."""


# A fork copies locks that other threads hold. So spawners are forked before threads start.
class Spawner:
    """Makes renderers through another process, which has a single thread. It is forked when this is made."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._start()

    def make(self) -> TemplateProcess:
        """Return a new renderer. Raises NoFork, and EOFError or OSError if a new spawner fails too."""
        try:
            return self._ask()
        except NoFork:
            raise
        except (EOFError, OSError):
            before = self._channel, self._handle
            # The new spawner may inherit locks of threads. If it cannot be forked, the next call tries again.
            self._start()
            _close(*before)
            return self._ask()

    def close(self) -> None:
        """End the spawner. Its renderers die with it."""
        _close(self._channel, self._handle)

    def _start(self) -> None:
        self._channel, self._handle = fork(lambda channel: _spawn(channel, self._work))
        self._channel.settimeout(FORK_SECONDS)

    def _ask(self) -> TemplateProcess:
        self._channel.sendall(b'+')
        said, descriptors, _flags, _address = socket.recv_fds(self._channel, 1, 2)
        if not said:
            raise EOFError
        if len(descriptors) < 2:
            for one in descriptors:
                os.close(one)
            number = said[0] or errno.EMFILE  # this process can open no more
            raise NoFork(number, os.strerror(number))
        channel, handle = descriptors
        return TemplateProcess(socket.socket(fileno=channel), handle, is_own_child=False)


def _close(channel: socket.socket, handle: int) -> None:
    channel.close()
    _end_child(handle)
    os.close(handle)


def ignore_stops() -> None:
    """Let this process go on after a signal to stop: a service manager, or a terminal, sends it to a whole group.

    For spawners and renderers. The worker that uses them ends its work first, and they end with it.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _spawn(channel: socket.socket, work: Work) -> None:
    """Answer with a new renderer, or with the number of the error."""
    ignore_stops()
    while channel.recv(1):
        try:
            _reap()
            theirs, handle = fork(work, MEMORY_GROWTH_BYTES)
        except OSError as error:
            channel.sendall(bytes([error.errno or errno.EAGAIN]))
            continue
        socket.send_fds(channel, [bytes([0])], [theirs.fileno(), handle])
        theirs.close()
        os.close(handle)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_child(handle: int) -> None:
    _kill(handle)
    # Some programs reap all children.
    with suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, handle, os.WEXITED)


def _kill(handle: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


#
# A process of its own
#


def fork(work: Work, memory: int | None = None) -> tuple[socket.socket, int]:
    """Run `work` in a fork that dies with this thread. Returns channel and pidfd. `memory`: bytes it may grow by."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = 0
    try:
        with theirs:
            # With its parent's handlers, the child would survive a signal.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                pid = os.fork()
                if not pid:
                    ours.close()
                    _live(work, theirs, parent, memory, mask)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return ours, _open_handle(pid)
    except BaseException:
        ours.close()
        if pid:
            _end_unwatched(pid)
        raise


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
    status = os.EX_SOFTWARE
    try:
        _die_with(parent)
        _let_go(channel.fileno())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if memory:
            _bound_memory(memory)
        work(channel)
        status = os.EX_OK
    except ConnectionError:
        pass
    except BaseException:
        logger.exception('process=failed')
    finally:
        os._exit(status)


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _let_go(kept: int) -> None:
    """Give up handlers and connections of the parent, but keep the sockets of log handlers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    # Collecting inherited objects would copy their memory.
    gc.freeze()
    for one in connections.all(initialized_only=True):
        _inherited.append(one)
        del connections[one.alias]
    # With this copy open, Redis would not notice the parent's end. One descriptor at a time: it may be the last.
    descriptors = {*map(int, os.listdir('/proc/self/fd'))} - {0, 1, 2, kept, *_of_logging()}
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        if _is_connection(descriptor):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _leave_pools() -> None:
    """Begin with no connection pools, in RQ's forks too: Django's belong to the parent."""
    _inherited.append(DatabaseWrapper._connection_pools)
    DatabaseWrapper._connection_pools = {}


os.register_at_fork(after_in_child=_leave_pools)


def _of_logging() -> Iterator[int]:
    """Yield the sockets of log handlers. Over TCP, Python's SysLogHandler never opens a new one."""
    for reference in logging._handlerList:
        if handler := reference():
            # Two processes that write to one TLS socket break it.
            yield from (value.fileno() for value in vars(handler).values() if type(value) is socket.socket)


def _is_connection(descriptor: int) -> bool:
    """Return whether it is a socket of a connection. Datagram sockets carry log lines."""
    try:
        one = socket.socket(fileno=descriptor)
    except OSError:
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
# Messages: lists of byte strings
#


# A message begins with the number of its parts and the size of each.
COUNT = struct.Struct('!I')


def send(channel: socket.socket, parts: list[bytes], patience: Patience | None = None) -> None:
    """Send a message: a list of byte strings. Raises TimeoutError when the patience is over."""
    sizes = struct.pack(f'!{len(parts) + 1}I', len(parts), *map(len, parts))
    rest = memoryview(b''.join((sizes, *parts)))
    while rest:
        rest = rest[_in_time(channel, patience, partial(channel.send, rest)) :]


def receive(channel: socket.socket, patience: Patience | None = None) -> list[bytes]:
    """Return the next message. Raises EOFError if the sender is gone, TimeoutError when the patience is over."""
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
