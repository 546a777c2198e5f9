"""The end of a worker: it begins nothing more, and finishes open requests."""

import signal
from types import FrameType

_requested = False


def is_requested() -> bool:
    """Whether this process was asked to stop."""
    return _requested


def request() -> None:
    """Ask this process to stop."""
    global _requested  # noqa: PLW0603  (it belongs to the process)
    _requested = True


def listen() -> None:
    """Make SIGTERM a request, not a sudden end."""
    signal.signal(signal.SIGTERM, _hear)


def _hear(signum: int, frame: FrameType | None) -> None:
    request()
