"""Computes how long to wait before the next attempt. Pure: the time and the random number are arguments."""

from datetime import datetime, timedelta

from django.utils.http import parse_http_date_safe

# Waits before attempt 2, 3, …
BACKOFF_SECONDS = (5, 30, 120, 600, 3600, 10800, 21600)
# A wait is shorter or longer by up to this share of it.
JITTER_SHARE = 0.2
# An endpoint may ask for a wait of a day at most.
MAX_RETRY_AFTER_SECONDS = 24 * 3600


def delay(failures: int, chance: float) -> timedelta:
    """Return the wait after the `failures`-th failed attempt (1, 2, …).

    Beyond the end of the schedule its last entry repeats. `chance` is uniform in [0, 1) and spreads the
    wait over ±20 %, so that deliveries which failed together do not come back together.
    """
    base = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
    return timedelta(seconds=base * (1 - JITTER_SHARE + 2 * JITTER_SHARE * chance))


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """Return the wait that a Retry-After header asks for: seconds or an HTTP date (RFC 9110, 10.2.3).

    At least nothing, at most a day; None if the header is absent or cannot be read.
    """
    header = (header or '').strip()
    if header.isascii() and header.isdigit():
        seconds = float(header)
    elif (moment := parse_http_date_safe(header)) is not None:
        seconds = moment - now.timestamp()
    else:
        return None
    return timedelta(seconds=min(max(seconds, 0), MAX_RETRY_AFTER_SECONDS))
