"""Chooses the webhooks that are served next, and their deliveries. In memory it only refills rate limits."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import islice

from .lane import LARGE_BYTES, Due, Lane

# All large payloads in hand together. A single one always fits.
MAX_LARGE_BYTES = 32 * 1024 * 1024
# One webhook's share of it: its endpoint may hang. A single payload always fits.
MAX_LARGE_BYTES_PER_LANE = 16 * 1024 * 1024
# Requests that begin in a turn. More are not built within loop.BUILD_SECONDS_PER_TURN, and would be fetched in vain.
REQUESTS_PER_TURN = 256
# Deliveries that begin in a turn in requests with several. The first such request always fits.
GROUPED_DELIVERIES_PER_TURN = 2000


def choose(lanes: Iterable[Lane], free: int, now: float) -> list[Due]:
    """Return the deliveries that go next, each with its companions. To be taken in hand by Lane.begin().

    The lane with the fewest requests in hand comes first, then the lane that has waited longest. `free`: how many
    threads are free. A lane with nothing in hand gets one in any case: so endpoints that hang stop no other. While
    changes wait in any lane, each lane sends one request of its backfill at a time. If a large payload finds no room,
    its lane waits, and no other large one passes it. Requests beyond the limits of a turn wait for the next turn.
    """
    lanes = list(lanes)
    # Bytes of large payloads that are in hand or chosen, by webhook.
    large = {lane.webhook_id: lane.large for lane in lanes}
    all_large = sum(large.values())
    send_backfill = {lane.webhook_id for lane in lanes if lane.sends_backfill}
    room = MAX_LARGE_BYTES
    together = 0
    chosen: list[Due] = []
    able = [(lane, count) for lane in lanes if lane.waiting and (count := lane.room(now))]
    changes_wait = any(lane.has_changes for lane, _count in able)
    heap = [(len(lane.in_hand), lane.began_at, lane.webhook_id, islice(lane.next(), count)) for lane, count in able]
    heapify(heap)
    while heap and len(chosen) < REQUESTS_PER_TURN:
        requests, began_at, webhook_id, waiting = heappop(heap)
        due = next(waiting, None)
        if due is None or (requests and free <= len(chosen)):
            continue
        if due.backfill and changes_wait and webhook_id in send_backfill:
            continue
        if due.others and together and together + len(due.pks) > GROUPED_DELIVERIES_PER_TURN:
            continue
        size = due.size if due.size > LARGE_BYTES else 0
        if size and large[webhook_id] and large[webhook_id] + size > MAX_LARGE_BYTES_PER_LANE:
            continue
        if size and all_large and all_large + size > room:
            room = 0
            continue
        large[webhook_id] += size
        all_large += size
        if due.backfill:
            send_backfill.add(webhook_id)
        together += len(due.pks) if due.others else 0
        chosen.append(due)
        heappush(heap, (requests + 1, began_at, webhook_id, waiting))
    return chosen
