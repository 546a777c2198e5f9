"""The end of a worker: whoever hears of it begins nothing more, and finishes what is under way."""

import signal
from types import FrameType

_requested = False


def is_requested() -> bool:
    """Whether this process has been asked to stop."""
    return _requested


def request() -> None:
    """Ask this process to stop."""
    global _requested  # noqa: PLW0603  (it belongs to the process)
    _requested = True


def listen() -> None:
    """Let SIGTERM be a request. Otherwise it would end the process at once."""
    signal.signal(signal.SIGTERM, _hear)


def _hear(signum: int, frame: FrameType | None) -> None:
    request()
