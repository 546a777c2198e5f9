"""The end of a worker: a job that hears of it claims nothing more, finishes what is under way and gives the rest back.

RQ's worker lets the job under way go on to its end. A service manager waits some seconds, and then kills.
"""

import signal
from types import FrameType

_requested = False


def is_requested() -> bool:
    """Whether this process has been asked to stop."""
    return _requested


def listen() -> None:
    """Let SIGTERM be a request, in a process that does jobs of ours. Otherwise it would end the process at once."""
    signal.signal(signal.SIGTERM, _request)


def _request(signum: int, frame: FrameType | None) -> None:
    global _requested  # noqa: PLW0603  (it belongs to the process)
    _requested = True
