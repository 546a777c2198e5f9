"""What backfills may take while others wait."""

from datetime import UTC, datetime, timedelta

from webhooks.engine.share import FLOOR, MOST, SHARE, Share

START = datetime(2026, 1, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_it_is_a_tenth_of_what_others_had_claimed():
    share = Share(lambda _now: True)
    for turn in range(10):
        share.earn(10, after(turn / 100))
    assert share.room == 100 * SHARE


def test_it_is_a_few_a_second_beside_others_that_are_slow():
    share = Share(lambda _now: True)
    share.earn(0, after(0))
    share.earn(1, after(0.5))
    assert share.room == FLOOR / 2


def test_what_was_claimed_is_spent():
    share = Share(lambda _now: True)
    share.earn(100, after(0))
    share.spend(8)
    assert share.room == 2
    share.spend(100)
    assert share.room == 0


def test_no_more_is_saved_up_than_a_turn_can_do_no_harm_with():
    share = Share(lambda _now: True)
    share.earn(0, after(0))
    share.earn(0, after(3600))
    assert share.room == MOST


def test_it_is_asked_for_now_and_then_where_there_is_none():
    asked = []
    share = Share(lambda now: bool(asked.append(now)))
    assert not any(share.is_wanted(after(hundredth / 100)) for hundredth in range(20))
    assert asked == [after(0), after(0.1)]
