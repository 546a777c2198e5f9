"""How the process that had a suspect in hand came to its end, and whether the suspect is to blame (quarantine.py)."""

import os
import signal

# Deaths after which a suspect fails.
DEATHS = 3
# The exit status of a process that PostgreSQL or Redis has broken off.
INTERRUPTED = os.EX_TEMPFAIL
# Its worker has killed it.
TOO_SLOW = 'it took too long'
# Somebody ended it, with its worker as a rule.
SHUTDOWN = (signal.SIGINT, signal.SIGTERM)


def cause(code: int, status: int) -> str | None:
    """Return what the process died of, None where what it had in hand is not to blame.

    `code` and `status` are those of os.waitid().
    """
    if code == os.CLD_EXITED:
        return None if status in (os.EX_OK, INTERRUPTED) else f'exit status {status}'
    return None if status in SHUTDOWN else f'signal {status}'


def is_last(deaths: int) -> bool:
    """Whether a suspect fails whose process has died so often."""
    return deaths >= DEATHS


def sentence(deaths: int, reason: str) -> str:
    """Return the error of what the process had in hand when it died so many times."""
    times = {1: 'once', 2: 'twice'}.get(deaths, f'{deaths} times')
    return f'its process died {times} ({reason})'
