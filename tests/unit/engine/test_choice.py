from datetime import UTC, datetime

from webhooks.engine.deliver.choice import REQUESTS_PER_TURN, choose
from webhooks.engine.deliver.lane import Due, Lane, State

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def due(pk: int, webhook_id: int) -> Due:
    return Due(pk, webhook_id, NOW, 1, pk, False, None, 100, False)


def lane_with(pk: int, deliveries: int) -> Lane:
    lane = Lane(pk, used_at=0.0, concurrency=10, window=10, state=State(NOW, True, False))
    lane.waiting = {one.pk: one for one in (due(1000 * pk + number, pk) for number in range(deliveries))}
    return lane


def test_webhooks_that_are_left_over_come_first_in_the_next_turn():
    lanes = [lane_with(pk, 2) for pk in range(1, REQUESTS_PER_TURN + 11)]
    first = choose(lanes, 128, 1.0)
    assert len(first) == len({one.webhook_id for one in first}) == REQUESTS_PER_TURN
    by_id = {lane.webhook_id: lane for lane in lanes}
    for one in first:
        by_id[one.webhook_id].begin(one, 1.0)
        by_id[one.webhook_id].end(one.pk)
    left = by_id.keys() - {one.webhook_id for one in first}
    assert {one.webhook_id for one in choose(lanes, 128, 2.0)[: len(left)]} == left
