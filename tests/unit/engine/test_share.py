import pytest

from webhooks.engine.deliver import choice
from webhooks.engine.deliver.choice import KEPT_FREE, SAVED, Share


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The test changes the seconds in this list."""
    now = [0.0]
    monkeypatch.setattr(choice.time, 'monotonic', lambda: now[0])
    return now


def test_where_nothing_else_waits_a_backfill_has_all_threads_but_some(clock):
    assert Share().room(100, changes_wait=False) == 100 - KEPT_FREE
    assert Share().room(KEPT_FREE, changes_wait=False) == 0


def test_beside_changes_it_has_a_tenth_of_them(clock):
    one = Share()
    one.note(100, 0)
    assert one.room(100, changes_wait=True) == 10
    one.note(0, 10)
    assert one.room(100, changes_wait=True) == 0


def test_beside_slow_changes_it_has_ten_a_second(clock):
    one = Share()
    clock[0] = 1.0
    one.note(0, 0)
    assert one.room(100, changes_wait=True) == 10


def test_threads_that_slow_endpoints_hold_do_not_end_it(clock):
    one = Share()
    clock[0] = 1.0
    one.note(0, 0)
    assert one.room(0, changes_wait=True) == one.room(0, changes_wait=False) == 10


def test_no_more_than_a_little_is_saved_up(clock):
    one = Share()
    clock[0] = 1000.0
    one.note(0, 0)
    assert one.room(100, changes_wait=True) == SAVED
