from datetime import UTC, datetime, timedelta

import pytest

from webhooks.constants import DEFAULT_MAX_ATTEMPTS
from webhooks.engine.deliver.backoff import BACKOFF_SECONDS, delay, retry_after

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
MIDDLE, LEAST, MOST = 0.5, 0.0, 1 - 2**-53


class TestDelay:
    @pytest.mark.parametrize(
        ('failures', 'wait'),
        [
            (1, timedelta(seconds=5)),
            (2, timedelta(seconds=30)),
            (3, timedelta(minutes=2)),
            (4, timedelta(minutes=10)),
            (5, timedelta(hours=1)),
            (6, timedelta(hours=3)),
            (7, timedelta(hours=6)),
            # The schedule has fewer entries than attempts.
            (8, timedelta(hours=6)),
            (99, timedelta(hours=6)),
        ],
    )
    def test_delays_follow_the_schedule(self, failures: int, wait: timedelta):
        assert delay(failures, MIDDLE) == wait

    def test_there_is_one_for_each_attempt_but_the_first(self):
        assert len(BACKOFF_SECONDS) == DEFAULT_MAX_ATTEMPTS - 1 == 7

    @pytest.mark.parametrize(('chance', 'factor'), [(LEAST, 0.8), (0.25, 0.9), (MIDDLE, 1), (0.75, 1.1), (MOST, 1.2)])
    def test_delays_are_spread_over_a_fifth_to_both_sides(self, chance: float, factor: float):
        for failures, wait in enumerate(BACKOFF_SECONDS, 1):
            assert delay(failures, chance).total_seconds() == pytest.approx(wait * factor)


class TestRetryAfter:
    @pytest.mark.parametrize(
        ('header', 'seconds'),
        [
            ('0', 0),
            ('120', 120),
            (' 120 ', 120),
            ('86400', 86400),
            # at most a day
            ('86401', 86400),
            ('9' * 400, 86400),
            # an HTTP date, in the three forms of RFC 9110
            ('Wed, 25 Nov 2026 12:01:00 GMT', 60),
            ('Wednesday, 25-Nov-26 12:01:00 GMT', 60),
            ('Wed Nov 25 12:01:00 2026', 60),
            # a past date
            ('Wed, 25 Nov 2026 11:00:00 GMT', 0),
            ('Fri, 25 Nov 2027 12:00:00 GMT', 86400),
        ],
    )
    def test_seconds_and_dates_are_understood(self, header: str, seconds: int):
        assert retry_after(header, NOW) == timedelta(seconds=seconds)

    @pytest.mark.parametrize(
        'header',
        [
            None,
            '',
            ' ',
            'soon',
            '-5',
            '1.5',
            '1e3',
            '٣',
            '²',
            '10 seconds',
            'Wed, 99 Nov 2026',
            'Wed, 25 Nov 99999 12:00:00 GMT',
            'Mon, 99999999999999999999 Jan 2026 00:00:00 GMT',
            'Wed, 25 Nov 2026 12:00:00 +9999999999999999',
        ],
    )
    def test_anything_else_is_ignored(self, header: str | None):
        assert retry_after(header, NOW) is None
