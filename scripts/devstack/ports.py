import random
import socket

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


def free_port() -> int:
    """Runs that start together hardly meet at random ports."""
    while not is_free(port := random.choice(_RANGE)):
        pass
    return port


def accepts(port: int, host: str = LOOPBACK) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
