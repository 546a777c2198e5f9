"""A worker that has connected sets the sequence to the clock, so that a new database repeats no number."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from dcim.models import Site
from django.db import InternalError, connection
from support.builders import site, subscribe
from support.engine import arrivals, dispatching, in_thread, work
from support.writers import PATIENCE, in_parallel

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.models import sequence
from webhooks.models.sequence import SEQUENCE

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
EPOCH = datetime(2020, 1, 1, tzinfo=UTC).timestamp()


def clock() -> int:
    return int((time.time() - EPOCH) * 1_000_000)


def set_sequence(value: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute('SELECT setval(%s, %s)', [SEQUENCE, value])


def last_value() -> int:
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT last_value FROM {SEQUENCE}')
        return cursor.fetchone()[0]


def test_after_a_reinstall_a_worker_that_starts_sets_it_above_all_that_receivers_have_seen(
    rqworker: Callable, receiver: Receiver
):
    subscribe(receiver.url(HOOK), Site)
    place = site()
    work()
    before = clock()
    set_sequence(1)
    rqworker('low')
    place.save()
    assert wait_until(lambda: len(receiver.requests) == 2, timeout=PATIENCE)
    (_pk, former), (_pk, later) = arrivals(receiver)
    assert former < before <= later < clock()


def test_a_dispatcher_sets_it_again_once_it_has_a_new_connection():
    """A standby that took over may lag: numbers that receivers have seen would come again."""
    with dispatching() as role:
        role.work()
        before = clock()
        set_sequence(1)
        role.work()
        assert last_value() == 1
        connection.close()
        role.work()
        assert last_value() > before


def test_a_sequence_that_is_ahead_of_the_clock_is_left_alone():
    ahead = clock() + 3_600_000_000
    set_sequence(ahead)
    sequence.advance()
    assert sequence.draw() == ahead + 1
    set_sequence(1)
    sequence.advance()
    assert 1 < sequence.draw() < ahead


def test_workers_that_start_at_once_let_no_number_be_drawn_twice():
    set_sequence(1)
    drawn: list[list[int]] = []

    def start() -> None:
        sequence.advance()
        drawn.append([sequence.draw() for _ in range(50)])

    in_parallel([start] * 6)
    assert len({number for numbers in drawn for number in numbers}) == 300
    assert all(numbers == sorted(numbers) for numbers in drawn)


def test_a_connection_that_could_not_move_it_stops_no_other_worker():
    """PostgreSQL takes no writes during a failover, and a pooler keeps its connections."""
    set_sequence(1)
    is_read_only, goes_on = threading.Event(), threading.Event()

    def fail() -> None:
        with connection.cursor() as cursor:
            cursor.execute('SET default_transaction_read_only = on')
        with pytest.raises(InternalError, match='read-only'):
            sequence.advance()
        is_read_only.set()
        goes_on.wait(60)

    thread = in_thread(fail)
    assert is_read_only.wait(30)
    starting = in_thread(sequence.advance)
    assert wait_until(lambda: not starting.is_alive(), timeout=30)
    assert last_value() > 1
    goes_on.set()
    thread.join(30)
