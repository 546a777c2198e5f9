from datetime import UTC, datetime, timedelta

import pytest

from webhooks.engine.deliver import choice
from webhooks.engine.deliver.choice import MAX_LARGE_BYTES, MAX_LARGE_BYTES_PER_LANE, choose
from webhooks.engine.deliver.lane import (
    DELIVERIES_PER_LANE,
    IDLE_SECONDS,
    INACTIVE,
    LARGE_BYTES,
    Bucket,
    Due,
    Lane,
    Mark,
    ReadRequest,
    State,
)

MORNING = datetime(2026, 1, 1, 8, tzinfo=UTC)
ACTIVE = State(MORNING, is_active=True, is_suspended=False)


def due(pk: int, webhook_id: int = 1, **fields: object) -> Due:
    values = {
        'due_at': MORNING + timedelta(seconds=pk), 'object_type_id': 1, 'object_id': pk, 'backfill': False,
        'lead': None, 'size': 100, 'is_failed': False,
    }  # fmt: skip
    return Due(pk=pk, webhook_id=webhook_id, **values | fields)


def lane(webhook_id: int = 1, waiting: int = 5, **fields: object) -> Lane:
    made = Lane(webhook_id, used_at=0.0, **{'concurrency': 16, 'state': ACTIVE} | fields)
    first = webhook_id * 1000
    made.waiting = {pk: due(pk, webhook_id) for pk in range(first, first + waiting)}
    return made


def chosen(lanes: list[Lane], free: int = 128, now: float = 0.0) -> list[list[int]]:
    """Return the ids of the deliveries that go next, by request. They are in hand then."""
    going = choose(lanes, free, now)
    for one in going:
        next(lane for lane in lanes if lane.webhook_id == one.webhook_id).begin(one, now)
    return [one.pks for one in going]


class TestSlowStart:
    def test_a_lane_begins_with_one_request(self):
        assert chosen([lane()]) == [[1000]]

    def test_each_answer_allows_one_more_up_to_the_concurrency(self):
        one = lane(waiting=100)
        for _ in range(40):
            one.note_answer(reached=True)
        assert one.window == 16

    def test_a_timeout_halves_what_may_be_under_way_and_leaves_one(self):
        one = lane(window=16)
        one.note_answer(reached=False)
        assert one.window == 8
        for _ in range(5):
            one.note_answer(reached=False)
        assert one.window == 1


class TestChoice:
    def test_the_lane_with_the_fewest_requests_goes_first(self):
        busy, idle = lane(1, window=4), lane(2, window=4)
        chosen([busy], free=2)
        assert chosen([busy, idle], free=3) == [[2000], [2001], [1002]]

    def test_a_lane_without_any_request_gets_one_where_no_thread_is_free(self):
        busy, idle = lane(1, window=4), lane(2, window=4)
        chosen([busy], free=1)
        assert chosen([busy, idle], free=0) == [[2000]]

    def test_choosing_changes_nothing_in_memory(self):
        """If the turn is broken off, what it chose is dropped."""
        one = lane(window=4)
        first = choose([one], 128, 0.0)
        assert (len(first), one.in_hand, len(one.waiting)) == (4, {}, 5)
        assert choose([one], 128, 0.0) == first

    def test_changes_go_before_a_backfill(self):
        one = lane(waiting=0, window=1)
        one.waiting = {1: due(1, backfill=True), 2: due(2)}
        assert chosen([one]) == [[2]]

    def test_a_suspended_lane_sends_one_at_a_time(self):
        one = lane(window=16, state=ACTIVE._replace(is_suspended=True))
        assert len(chosen([one])) == 1
        assert chosen([one]) == []

    def test_nothing_goes_of_a_lane_that_rests(self):
        assert chosen([lane(rests_until=10.0)]) == []
        assert chosen([lane(rests_until=10.0)], now=10.0) == [[1000]]

    def test_twice_as_many_deliveries_wait_for_a_thread_as_were_answered(self):
        one = lane(waiting=100, window=4, answered=2)
        assert len(chosen([one])) == 8


class TestBackfills:
    def backfill(self, webhook_id: int, **fields: object) -> Lane:
        one = lane(webhook_id, waiting=0, window=200, **fields)
        first = webhook_id * 1000
        one.waiting = {pk: due(pk, webhook_id, backfill=True) for pk in range(first, first + 100)}
        return one

    def test_where_no_change_waits_it_has_all_threads(self):
        assert len(chosen([self.backfill(1)], free=40)) == 40

    def test_beside_changes_each_webhook_has_one_request(self):
        lanes = [self.backfill(1), self.backfill(2), lane(3, waiting=1)]
        assert chosen(lanes) == [[1000], [2000], [3000]]

    def test_a_change_that_waits_for_its_rate_limit_takes_nothing_from_it(self):
        limited = lane(2, window=16, rate_limit=1)
        assert chosen([limited]) == [[2000]]
        assert len(chosen([self.backfill(1), limited], free=40)) == 40

    def test_threads_that_slow_endpoints_hold_do_not_end_it(self):
        assert chosen([self.backfill(1)], free=0) == [[1000]]


class TestLargePayloads:
    def test_all_of_a_webhook_have_half_of_the_room(self):
        """Its endpoint may hang: room is left for other webhooks."""
        one, other = lane(1, waiting=0, window=16), lane(2, waiting=0, window=16)
        one.waiting = {pk: due(pk, size=MAX_LARGE_BYTES_PER_LANE // 2) for pk in (1, 2, 3)}
        other.waiting = {pk: due(pk, 2, size=MAX_LARGE_BYTES_PER_LANE // 2) for pk in (4, 5, 6)}
        assert sorted(map(sorted, chosen([one, other]))) == [[1], [2], [4], [5]]

    def test_one_that_is_larger_than_the_room_goes_alone(self):
        one, other = lane(1, waiting=0), lane(2, waiting=0)
        one.waiting, other.waiting = (
            {1: due(1, size=2 * MAX_LARGE_BYTES)},
            {2: due(2, 2, size=LARGE_BYTES + 1), 3: due(3, 2)},
        )
        assert chosen([one, other]) == [[1]]
        one.end(1)
        assert chosen([one, other]) == [[2]]

    def test_none_goes_before_one_that_finds_no_room(self):
        """Otherwise the largest would wait for ever."""
        busy, first, second = (lane(number, waiting=0) for number in (1, 2, 3))
        busy.waiting = {1: due(1, size=MAX_LARGE_BYTES_PER_LANE)}
        chosen([busy])
        second.began_at = 1.0
        first.waiting, second.waiting = (
            {2: due(2, 2, size=MAX_LARGE_BYTES)},
            {3: due(3, 3, size=LARGE_BYTES + 1), 4: due(4, 3)},
        )
        assert chosen([busy, first, second]) == []

    def test_small_ones_go_all_the_same(self):
        busy, other = lane(1, waiting=0), lane(2)
        busy.waiting = {1: due(1, size=2 * MAX_LARGE_BYTES)}
        assert chosen([busy, other]) == [[1], [2000]]


class TestNotBegun:
    def test_a_request_that_was_not_begun_goes_first_next_time(self):
        one = lane(waiting=3)
        one.begin(one.waiting[1000], 0.0)
        one.put_back(1000)
        assert (list(one.waiting), one.in_hand) == ([1000, 1001, 1002], {})


class TestChangeSets:
    def test_one_goes_when_it_is_formed(self):
        one = lane(waiting=0, window=16)
        one.waiting = {1: due(1, change_set=7), 2: due(2), 3: due(3, change_set=8, lead=3, others=[4, 5])}
        assert [each.pk for each in one.unformed] == [1]
        assert chosen([one]) == [[2], [3, 4, 5]]
        assert one.known == [2, 3, 4, 5, 1]

    def test_a_part_that_was_not_begun_goes_next_time(self):
        one = lane(waiting=0)
        part = due(3, change_set=8, lead=3, others=[4, 5])
        one.waiting = {3: part}
        one.begin(part, 0.0)
        one.put_back(part.pk)
        assert (one.waiting, one.in_hand) == ({3: part}, {})

    def test_a_large_part_counts_once(self):
        one = lane(waiting=0)
        part = due(3, change_set=8, lead=3, others=[4, 5], size=LARGE_BYTES + 1)
        one.waiting = {3: part}
        one.begin(part, 0.0)
        assert one.large == LARGE_BYTES + 1


class TestRequestsOfMany:
    @pytest.fixture
    def parts(self, monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
        """Each has three deliveries in a request."""
        monkeypatch.setattr(choice, 'GROUPED_DELIVERIES_PER_TURN', 6)
        lanes = [lane(number, waiting=0) for number in (1, 2, 3)]
        for number, one in enumerate(lanes, 1):
            one.waiting = {number: due(number, number, change_set=7, lead=number, others=[10 * number, 11 * number])}
        return lanes

    def test_change_sets_that_are_too_much_for_a_turn_are_chosen_in_the_next(self, parts):
        assert chosen(parts) == [[1, 10, 11], [2, 20, 22]]
        assert chosen(parts) == [[3, 30, 33]]

    def test_they_keep_no_plain_one_back(self, parts):
        assert chosen([*parts, lane(4, waiting=1)]) == [[1, 10, 11], [2, 20, 22], [4000]]

    def test_one_of_more_than_fit_goes(self, parts, monkeypatch):
        monkeypatch.setattr(choice, 'GROUPED_DELIVERIES_PER_TURN', 1)
        assert chosen(parts) == [[1, 10, 11]]


class TestRateLimit:
    def test_a_second_sees_the_rate_and_what_the_bucket_holds(self):
        bucket = Bucket()
        begun = 0
        for tick in range(101):
            count = int(bucket.fill(10, tick / 100))
            bucket.tokens -= count
            begun += count
        assert 10 <= begun <= 2 + 10

    def test_a_bucket_holds_one_request_at_least(self):
        assert Bucket().fill(1, 0.0) == 1


class TestReading:
    def test_it_reads_on_behind_what_it_has_read_where_there_is_more(self):
        mark = Mark()
        mark.move([due(1), due(2), due(3)], room=2)
        assert mark.since(everything=False) == (due(2).due_at, 2)

    def test_it_overlaps_where_it_had_read_all_since_commits_may_come_late(self):
        mark = Mark()
        mark.move([due(1), due(2)], room=10)
        assert mark.since(everything=False) == (due(2).due_at - timedelta(seconds=2), 0)

    def test_a_full_look_begins_at_the_beginning(self):
        mark = Mark()
        mark.move([due(1)], room=10)
        assert mark.since(everything=True) < (MORNING, 0)

    def test_a_lane_that_knows_enough_reads_nothing(self):
        full = lane(waiting=DELIVERIES_PER_LANE)
        assert [request.backfill for request in full.read_requests(everything=True)] == [True]

    def test_nothing_is_read_for_an_inactive_webhook_and_what_waited_is_forgotten(self):
        one = lane()
        one.note_state(INACTIVE)
        assert not one.waiting
        assert list(one.read_requests(everything=True)) == []

    def test_a_lane_does_not_take_in_deliveries_that_are_held(self):
        one = lane(waiting=0)
        one.learn(ReadRequest(1, False, 10, 0, MORNING, 0), [due(1), due(2)], 0.0, {2})
        assert list(one.waiting) == [1]

    def test_a_lane_is_idle_when_nothing_was_due_for_a_while(self):
        one = lane(waiting=0)
        assert not one.is_idle(IDLE_SECONDS)
        assert one.is_idle(IDLE_SECONDS + 0.1)
        assert not lane(waiting=1).is_idle(IDLE_SECONDS + 0.1)
