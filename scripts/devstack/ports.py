import fcntl
import functools
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

LOOPBACK = '127.0.0.1'

# Below the kernel's outgoing ports: a connection could take the port before the server starts.
_RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def reserve(port: int) -> bool:
    """Hold a port that a user chose until this process ends. False: something listens on it, or will.

    It may have come from free_port() of the process that started this one. So the lock is another byte's.
    """
    return _hold(_CHOSEN + port) and is_free(port)


def free_port() -> int:
    """Return a port that nothing listens on, and hold it until this process ends.

    A server may start much later, or stop and start again: no other call, here or in another run, gets the same port.
    """
    while not (_hold(port := random.choice(_RANGE)) and is_free(port)):
        pass
    return port


_held: set[int] = set()
_CHOSEN = 65_536


def _hold(byte: int) -> bool:
    """Lock a byte of a file that all runs share. The kernel unlocks it when the process ends."""
    if byte in _held:
        return False
    try:
        fcntl.lockf(_shared_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except BlockingIOError:
        return False
    _held.add(byte)
    return True


@functools.cache
def _shared_file() -> IO[bytes]:
    """Stays open: closing it would release each lock."""
    return (Path(tempfile.gettempdir()) / f'netbox-webhooks-ports-{os.getuid()}').open('ab')


def accepts(port: int, host: str = LOOPBACK) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
