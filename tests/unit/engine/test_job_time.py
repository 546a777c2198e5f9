"""How long a job goes on, and what may still be begun in it. Times are seconds since its beginning."""

import math

import pytest

from webhooks.constants import JOB_TIME
from webhooks.engine.job_time import FIRST, QUICK, RUN_OUT, Pace

WEBHOOK, OTHER = 1, 2
ORDINARY = JOB_TIME - RUN_OUT
LONG = 2 * JOB_TIME
REQUEST = 'request'


@pytest.fixture
def pace() -> Pace:
    """One whose first claims are over."""
    pace = Pace(0)
    pace.span(0)
    return pace


def test_a_job_is_over_when_its_last_part_begins(pace):
    assert not pace.is_over(ORDINARY - 1)
    assert pace.is_over(ORDINARY)


def test_at_first_anything_may_be_begun(pace):
    assert pace.span(0).left == math.inf


def test_what_came_before_the_first_claim_does_not_count():
    assert Pace(0).span(5).left == math.inf


def test_later_only_what_ends_in_time_may_be_begun(pace):
    assert pace.span(FIRST + 4).left == ORDINARY - FIRST - 4


class TestStraggler:
    def test_while_a_straggler_is_under_way_the_others_go_on(self, pace):
        pace.begin(REQUEST, LONG, 0)
        assert not pace.is_over(JOB_TIME)
        assert pace.span(JOB_TIME).left == LONG - QUICK - JOB_TIME
        assert pace.is_over(LONG - QUICK)

    def test_once_the_straggler_has_ended_the_others_stop(self, pace):
        pace.begin(REQUEST, LONG, 0)
        pace.end(REQUEST, WEBHOOK, 1)
        assert pace.is_over(ORDINARY)

    def test_the_last_of_several_stragglers_counts(self, pace):
        for number in range(1, 4):
            pace.begin(number, number * JOB_TIME, 0)
        pace.end(3, WEBHOOK, 1)
        assert pace.span(JOB_TIME).left == 2 * JOB_TIME - QUICK - JOB_TIME

    def test_a_request_that_was_begun_a_moment_ago_is_no_straggler(self, pace):
        """It will be answered as the others are."""
        pace.begin(REQUEST, LONG, ORDINARY - QUICK)
        assert pace.is_over(ORDINARY)

    def test_what_is_begun_meanwhile_makes_nothing_longer(self, pace):
        """Else one would follow the other for ever."""
        pace.begin(REQUEST, LONG, 0)
        pace.begin(OTHER, LONG, ORDINARY + 1)
        assert pace.is_over(LONG - QUICK)


class TestEndpoints:
    def test_at_first_no_endpoint_is_known_to_be_slow(self, pace):
        assert pace.span(FIRST).slow == {}

    def test_the_last_answer_of_an_endpoint_counts(self, pace):
        for duration, slow in [(QUICK + 1, {WEBHOOK: QUICK + 1}), (QUICK + 2, {WEBHOOK: QUICK + 2}), (QUICK, {})]:
            pace.end(REQUEST, WEBHOOK, duration)
            assert pace.span(FIRST).slow == slow

    def test_endpoints_are_known_separately(self, pace):
        pace.end(REQUEST, WEBHOOK, QUICK + 1)
        pace.end(REQUEST, OTHER, 0)
        assert pace.span(FIRST).slow == {WEBHOOK: QUICK + 1}
