"""A fork must not disturb its parent."""

import errno
import logging
import logging.handlers
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from webhooks.templating.process import fork

# Seconds, never reached.
PATIENCE = 60
SAID = 'from another process'

log = logging.getLogger('webhooks.drain')


@contextmanager
def forked(work: Callable[[socket.socket], object]) -> Iterator[socket.socket]:
    """The fork waits until it is let go."""

    def live(channel: socket.socket) -> None:
        work(channel)
        channel.sendall(b'+')
        channel.recv(1)

    channel, handle = fork(live)
    channel.settimeout(PATIENCE)
    with channel:
        yield channel
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)


@contextmanager
def logging_to(address: object, kind: socket.SocketKind) -> Iterator[None]:
    handler = logging.handlers.SysLogHandler(address, socktype=kind)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def write() -> None:
    log.warning(SAID)


def test_it_logs_to_syslog():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(('127.0.0.1', 0))
        server.settimeout(PATIENCE)
        with logging_to(server.getsockname(), socket.SOCK_DGRAM):
            with forked(lambda _channel: write()) as channel:
                assert channel.recv(1) == b'+'
                server.setblocking(False)
                assert SAID.encode() in server.recv(1000)
            server.setblocking(True)
            write()
            assert SAID.encode() in server.recv(1000)


def test_it_logs_to_syslog_over_a_connection():
    with socket.create_server(('127.0.0.1', 0)) as server, logging_to(server.getsockname(), socket.SOCK_STREAM):
        connection, _address = server.accept()
        connection.settimeout(PATIENCE)
        with connection:
            with forked(lambda _channel: write()) as channel:
                assert channel.recv(1) == b'+'
                connection.setblocking(False)
                assert SAID.encode() in connection.recv(1000)
            connection.setblocking(True)
            write()
            assert SAID.encode() in connection.recv(1000)


def test_it_logs_where_a_library_holds_the_socket(tmp_path):
    """libsystemd's socket is no Python object, and is opened once."""
    path = str(tmp_path / 'journal')
    server, unseen = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with server, unseen:
        server.bind(path)
        server.setblocking(False)
        unseen.connect(path)
        with forked(lambda _channel: unseen.sendall(SAID.encode())) as channel:
            assert channel.recv(1) == b'+'
            assert server.recv(1000) == SAID.encode()


def test_no_connection_stays_open_in_it():
    """PostgreSQL and Redis notice at once that the parent has closed, or is dead."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _address = server.accept()
        theirs.settimeout(PATIENCE)
        with theirs, forked(lambda _channel: None) as channel:
            assert channel.recv(1) == b'+'
            ours.sendall(b'open')
            assert theirs.recv(10) == b'open'
            ours.close()
            assert theirs.recv(10) == b''


def test_an_encrypted_connection_of_a_log_handler_is_left_to_the_parent():
    """Two processes would break such a connection for both."""

    class Handler(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.sock = context.wrap_socket(ours, do_handshake_on_connect=False, server_hostname='localhost')

    context = ssl.create_default_context()
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    handler = Handler()
    with theirs, forked(lambda _channel: None) as channel:
        assert channel.recv(1) == b'+'
        handler.sock.close()
        assert theirs.recv(10) == b''


def test_a_signal_at_its_start_is_its_own_and_not_taken_for_one_to_its_parent(monkeypatch):
    getppid = os.getppid
    monkeypatch.setattr(os, 'getppid', lambda: time.sleep(0.5) or getppid())
    struck = []
    before = signal.signal(signal.SIGTERM, lambda *_of_what: struck.append(True))
    try:
        channel, handle = fork(lambda channel: channel.recv(1))
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        channel.settimeout(PATIENCE)
        with channel:
            assert channel.recv(1) == b''  # it ends
        result = os.waitid(os.P_PIDFD, handle, os.WEXITED)
        os.close(handle)
        assert (result.si_code, result.si_status) == (os.CLD_KILLED, signal.SIGTERM)
        # The parent hears it as before.
        signal.raise_signal(signal.SIGTERM)
        assert struck == [True]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_during_the_fork_leaves_no_process_and_no_descriptor_behind(monkeypatch):
    class Stopped(Exception):
        pass

    def stop(*_of_what: object) -> None:
        raise Stopped

    forked = os.fork

    def interrupted() -> int:
        if pid := forked():
            os.kill(os.getpid(), signal.SIGTERM)
        return pid

    monkeypatch.setattr(os, 'fork', interrupted)
    old = signal.signal(signal.SIGTERM, stop)
    before = children(), descriptors()
    try:
        with pytest.raises(Stopped):
            fork(lambda channel: channel.recv(1))
    finally:
        signal.signal(signal.SIGTERM, old)
    assert (children(), descriptors()) == before


def missing(_pid: int, _flags: int = 0) -> int:
    """Fail as on a kernel before Linux 5.3."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def forbidden(_pid: int, _flags: int = 0) -> int:
    """Fail as with a seccomp filter."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def children() -> set[str]:
    return {pid for task in Path('/proc/self/task').iterdir() for pid in (task / 'children').read_text().split()}


def descriptors() -> int:
    return len(os.listdir('/proc/self/fd'))


@pytest.fixture(params=['missing', 'forbidden', 'unknown to Python'])
def without_handles(request, monkeypatch) -> None:
    if request.param == 'unknown to Python':
        monkeypatch.delattr(os, 'pidfd_open')
    else:
        monkeypatch.setattr(os, 'pidfd_open', missing if request.param == 'missing' else forbidden)


class TestWithoutHandles:
    def test_nothing_is_left_of_a_process_that_nobody_could_end(self, without_handles):
        before = children(), descriptors()
        for _ in range(4):
            with pytest.raises(OSError):
                fork(lambda channel: channel.recv(1))
        assert (children(), descriptors()) == before
