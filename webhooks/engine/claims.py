"""Claims: what is due is held under a lease, for this worker alone and for a time.

Only the holder of a lease records an outcome. One that is not recorded in time comes back by itself (rescue.py): a
worker that is killed loses nothing, at worst a request is sent twice.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings

from .. import conf
from ..constants import LEASE_MARGIN
from ..models import Delivery, Webhook
from . import ledger, memory, ordering, rate_limit, sql, superseding
from .job_time import ANY_TIME, Span
from .memory import Payload
from .rate_limit import TOKENS

# Lanes that a worker takes at a time, beside those that it has something to record in: the others are for the others.
LANES = 8
# Due deliveries of a webhook that are looked at in one statement, once one had to be parked; and looks in one turn.
WINDOW, LOOKS = 200, 3
# Of what a webhook may send next, this share is of the newest, so that a change passes a backlog. The rest is oldest.
NEWEST = 0.25

UNDER_WAY = "(SELECT count(*) FROM webhooks_delivery s WHERE s.webhook_id = w.id AND s.status = 'sending')"

IS_SUSPECT_DUE = """
    EXISTS (
        SELECT 1 FROM webhooks_delivery d
        WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.lapses > 0 AND d.due_at <= %(now)s
    )"""

# What others leave to a suspect that is due, or a backlog would take each slot and each token as soon as it is free.
# They leave the only one there is only where they are told to.
LEFT = f"""
    CASE WHEN NOT %(suspect)s AND h.suspended_since IS NULL
        AND (%(yields)s OR w.concurrency > 1 AND coalesce(w.rate_limit / 5.0, 2) >= 2) AND {IS_SUSPECT_DUE}
    THEN 1 ELSE 0 END"""

# Of those that may be under way for a webhook at the same time, one while it is suspended, how many are left.
SLOTS = f'CASE WHEN h.suspended_since IS NULL THEN w.concurrency ELSE 1 END - {UNDER_WAY} - {LEFT}'

# A worker that has a webhook to itself holds more, for a turn takes time: as many as were answered since its last turn.
# No more requests are under way for that (senders.py). It makes room for suspects, which another process sends.
AHEAD = f"""
    CASE WHEN w.rate_limit IS NULL AND h.suspended_since IS NULL
        AND NOT EXISTS (
            SELECT 1 FROM webhooks_delivery s
            WHERE s.webhook_id = w.id AND s.status = 'sending' AND s.lease IS DISTINCT FROM %(lease)s
        ) AND NOT {IS_SUSPECT_DUE}
    THEN coalesce(answered.number, 0) ELSE 0 END"""

# A suspended webhook is probed at its time, and when somebody has just saved it. One whose endpoint is gone is left
# alone while it cannot be disabled, for a user's transaction holds its row (gone.py).
ACTIVE = """
    w.enabled AND NOT w.paused AND NOT w.id = ANY(%(closed)s) AND (h.gone_at > w.last_updated) IS NOT TRUE AND (
        h.suspended_since IS NULL OR h.probe_at <= %(now)s
        OR w.last_updated > h.last_attempt_at AND w.last_updated <= %(now)s
    )"""

# What job_time.py says of it: %(slow)s are ids of webhooks, %(seconds)s the time that their endpoints take.
LANE = """
    webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
    LEFT JOIN unnest(%(slow)s::bigint[], %(seconds)s::float[]) AS known(id, seconds) ON known.id = w.id"""
EXPECTED = 'coalesce(known.seconds, CASE WHEN h.unreachable > 0 THEN coalesce(w.timeout, %(timeout)s) ELSE 0 END)'
ENDS_IN_TIME = f'{EXPECTED} <= %(left)s'
# Suspects go one after the other: those of healthy endpoints first, or they would wait for each one that hangs.
QUICKEST = f'CASE WHEN %(suspect)s THEN {EXPECTED} END'

# A paused backfill holds what was not tried, and so does a canceled one, of which something may be left for a moment
# (backfill.py). What was tried goes on: changes wait behind it, and nothing replaces it.
NOT_HELD = f"""
    (NOT d.backfill OR NOT ({ordering.UNTRIED}) OR NOT EXISTS (
        SELECT 1 FROM webhooks_backfill b WHERE b.webhook_id = w.id AND b.state IN ('paused', 'canceled')
    ))"""
DUE = f"""
    d.webhook_id = w.id AND d.status = 'pending' AND d.due_at <= %(now)s AND d.expires_at >= %(now)s AND {NOT_HELD}
    AND (d.lapses > 0) = %(suspect)s"""
# Of backfills alone, of others alone, or of both.
OF_CLASS = '(%(backfill)s::bool IS NULL OR d.backfill = %(backfill)s)'
# The first of them: whether there is any may be looked up in another index, from one end to the other.
HAS_WORK = f"""
    (SELECT true FROM webhooks_delivery d WHERE {DUE} AND {OF_CLASS} ORDER BY d.due_at, d.id LIMIT 1)"""

# Whoever has least under way, or had since the last turn, comes first, so that a backlog of others leaves room for one
# that was idle, and workers do not meet where another has its hands full.
CHOOSE = f"""
    SELECT w.id FROM {LANE}
    WHERE NOT w.id = ANY(%(held)s) AND {ACTIVE} AND {ENDS_IN_TIME} AND {HAS_WORK} AND {SLOTS} > 0
    ORDER BY {QUICKEST}, {UNDER_WAY}, random() LIMIT %(lanes)s
    FOR UPDATE OF h SKIP LOCKED"""

CANDIDATE = f"""
    SELECT d.id, d.webhook_id, d.event_id, d.object_type_id, d.object_id, d.sequence, d.event_count, d.overtake_at
    FROM webhooks_delivery d WHERE {DUE} AND {OF_CLASS}"""

# Beside the reasons of ordering.py: of what waits for its objects only the last is to go, and nobody has looked which.
HELD_BY = f"""
    CASE WHEN w.latest_only AND NOT d.id = ANY(%(looked_at)s) THEN 'doubt'
         WHEN w.ordered THEN {ordering.HELD_BY} END"""

PARK = """
    UPDATE webhooks_delivery d
    SET due_at = CASE seen.held_by WHEN 'retried' THEN coalesce(d.overtake_at, %(overtake_at)s) END,
        overtake_at = CASE seen.held_by WHEN 'retried' THEN coalesce(d.overtake_at, %(overtake_at)s)
                                        ELSE d.overtake_at END
    FROM seen WHERE d.id = seen.id AND seen.held_by <> 'doubt'"""

# What has to wait for an earlier one is parked, and does not stand in the way of the next claim.
CLAIM = f"""
    WITH ready AS MATERIALIZED (
        SELECT w.id, w.timeout, w.rate_limit, w.ordered, w.latest_only,
            greatest(least(
                {SLOTS} + {AHEAD},
                CASE WHEN w.rate_limit IS NOT NULL THEN floor({TOKENS}) - {LEFT} END,
                CASE WHEN w.id = ANY(%(one_each)s) THEN 1 END
            ), 0)::int AS room
        FROM {LANE}
        LEFT JOIN unnest(%(answered_of)s::bigint[], %(answered)s::int[]) AS answered(id, number) ON answered.id = w.id
        WHERE w.id = ANY(%(ids)s) AND {ACTIVE} AND {ENDS_IN_TIME}
        ORDER BY {QUICKEST}, {UNDER_WAY} + coalesce(answered.number, 0), random()
    ), shares AS MATERIALIZED (
        SELECT *, floor(room * %(newest)s + random())::int AS newest FROM ready
    ), seen AS MATERIALIZED (
        SELECT d.id, d.webhook_id, w.timeout, w.rate_limit, {HELD_BY} AS held_by
        FROM shares w CROSS JOIN LATERAL (
            ({CANDIDATE} ORDER BY d.due_at, d.id LIMIT w.room - w.newest)
            UNION
            ({CANDIDATE} ORDER BY d.due_at DESC, d.id DESC LIMIT w.newest)
        ) d
        LIMIT %(limit)s
    ), parked AS ({PARK} RETURNING d.id, d.webhook_id), claimed AS (
        UPDATE webhooks_delivery d
        SET status = 'sending', lease = %(lease)s,
            lease_until = %(now)s + make_interval(secs => coalesce(seen.timeout, %(timeout)s) + %(margin)s)
        FROM seen WHERE d.id = seen.id AND seen.held_by IS NULL
        RETURNING d.id, d.webhook_id, seen.rate_limit IS NOT NULL AS is_limited, {memory.SIZE} AS size
    )
    SELECT 'claimed', id, webhook_id, is_limited, size FROM claimed
    UNION ALL SELECT 'parked', id, webhook_id, false, 0 FROM parked
    UNION ALL SELECT 'doubted', id, webhook_id, false, 0 FROM seen WHERE held_by = 'doubt'"""

# Of webhooks where one had to be parked, more are. No batches: each object of one would be looked up.
PARK_MORE = f"""
    WITH seen AS MATERIALIZED (
        SELECT d.id, {HELD_BY} AS held_by
        FROM {LANE} CROSS JOIN LATERAL (
            {CANDIDATE} AND d.event_count = 1 ORDER BY d.due_at, d.id LIMIT %(window)s
        ) d
        WHERE w.id = ANY(%(ids)s) AND w.ordered
    )
    {PARK}"""

# Something is due that this worker could begin, now or with a rate limit's next token.
CLAIMABLE = f"""
    SELECT EXISTS (SELECT 1 FROM {LANE} WHERE {ACTIVE} AND {ENDS_IN_TIME} AND {HAS_WORK} AND {SLOTS} > 0)"""

HELD_BY_TIME = f'SELECT EXISTS (SELECT 1 FROM {LANE} WHERE {ACTIVE} AND NOT ({ENDS_IN_TIME}) AND {HAS_WORK})'

# What nothing was answered of.
NONE: Mapping[int, int] = {}

# A small question before the greater one.
IS_BACKFILL_DUE = f"""
    SELECT EXISTS (
        SELECT 1 FROM webhooks_delivery d WHERE d.backfill AND {sql.pending('d')} AND d.due_at <= %(now)s
    )"""

# Something of others is due that waits for no endpoint, or nobody dispatches it.
OTHERS_WAIT = f"""
    SELECT EXISTS (SELECT 1 FROM webhooks_event WHERE dispatched_at IS NULL AND lease IS NULL AND backfill_for IS NULL)
        OR EXISTS (
            SELECT 1 FROM {LANE}
            WHERE {ACTIVE} AND known.id IS NULL AND (w.rate_limit IS NULL OR {TOKENS} >= 1) AND {HAS_WORK}
        )"""

# Claimed, and not begun in time.
GIVE_BACK = """
    UPDATE webhooks_delivery SET status = 'pending', due_at = %(now)s, lease = NULL, lease_until = NULL
    WHERE id = ANY(%(ids)s) AND status = 'sending' AND lease = %(lease)s
    RETURNING id, backfill"""

# Claimed by a transaction whose commit was not heard of.
STRAYS = """
    SELECT id, webhook_id FROM webhooks_delivery
    WHERE status = 'sending' AND lease = %(lease)s AND NOT id = ANY(%(known)s)"""


@dataclass
class Claim:
    """What a claim has done: what is held now, whether more may be due, and how many were superseded."""

    held: list[Payload] = field(default_factory=list)
    more: bool = False
    superseded: int = 0

    @property
    def pks(self) -> list[int]:
        return [one.pk for one in self.held]


def claim(
    lease: uuid.UUID,
    held: Collection[int],
    limit: int,
    now: datetime,
    span: Span = ANY_TIME,
    one_each: Collection[int] = (),
    *,
    answered: Mapping[int, int] = NONE,
    suspect: bool = False,
    backfill: bool | None = None,
    yields: bool = False,
) -> Claim:
    """Hold at most `limit` due deliveries under the lease, of the webhooks in `one_each` one.

    Beyond the `concurrency` of a webhook at most the number in `answered`, by the webhook's id, while no other worker
    holds any of it.

    Of the lanes that the caller holds, and of others that are locked here: LANES at most that are free and have work.
    `suspect`: of those whose worker stopped while it held them (quarantine.py), and no others. `backfill`: of backfills
    alone, or of others alone; None: of both. `yields`: where a suspect is due, others leave even the only slot of its
    webhook to it.
    """
    if limit <= 0:
        return Claim()
    kind = {'suspect': suspect, 'backfill': backfill, 'yields': yields}
    chosen = set(sql.fetch_column(CHOOSE, {'held': list(held), 'lanes': LANES, **kind, **_of_time(now, span)}))
    claimed = _claim(lease, chosen | set(held), limit, now, span, one_each, answered, kind)
    claimed.more |= len(chosen) == LANES and len(claimed.held) < limit
    return claimed


def _claim(
    lease: uuid.UUID,
    lanes: Collection[int],
    limit: int,
    now: datetime,
    span: Span,
    one_each: Collection[int],
    answered: Mapping[int, int],
    kind: dict[str, bool | None],
) -> Claim:
    """Claim from lanes that are held since an earlier statement: what counts by an older snapshot counts wrong."""
    done = Claim()
    looked_at: list[int] = []
    parameters = {
        'ids': list(lanes),
        'lease': lease,
        'margin': LEASE_MARGIN,
        'one_each': list(one_each),
        'answered_of': list(answered),
        'answered': list(answered.values()),
        'newest': NEWEST,
        'window': WINDOW,
        'overtake_at': now + timedelta(seconds=conf.get().order_wait),
        **kind,
        **_of_time(now, span),
    }
    for _ in range(LOOKS):
        rows = sql.fetch(CLAIM, {**parameters, 'looked_at': looked_at, 'limit': limit - len(done.held)})
        limited = Counter(webhook_id for _what, _pk, webhook_id, is_limited, _size in rows if is_limited)
        rate_limit.spend(limited)
        done.held += [Payload(pk, webhook_id, size) for what, pk, webhook_id, _, size in rows if what == 'claimed']
        doubted = [pk for what, pk, *_ in rows if what == 'doubted']
        parked_in = {webhook_id for what, _pk, webhook_id, *_ in rows if what == 'parked'}
        if doubted:
            settled = superseding.settle(doubted, now)
            done.superseded += settled.closed
            looked_at += settled.pks
        done.more = bool(parked_in or doubted)
        if not done.more or len(done.held) >= limit:
            break
        if parked_in:
            sql.execute(PARK_MORE, {**parameters, 'looked_at': looked_at, 'ids': list(parked_in)})
            ledger.note_superseded(ordering.replace(parked_in, now), now)
    if done.held and not kind['backfill']:
        claimed_in = {one.webhook_id for one in done.held}
        ledger.note_superseded(ordering.replace_unordered(claimed_in, now), now)
    return done


def fetch(pks: Sequence[int]) -> list[Delivery]:
    """Return claimed deliveries with their events. After the turn: whoever is frozen while it reads holds no lock."""
    if not pks:
        return []
    # Not in one query: of ten webhooks each would get the event's long columns anew.
    return list(Delivery.objects.filter(pk__in=pks).prefetch_related('event').order_by('pk'))


def give_back(lease: uuid.UUID, pks: Sequence[int], now: datetime) -> None:
    """Let others claim what was claimed under the lease and not begun."""
    if not pks:
        return
    given = sql.fetch(GIVE_BACK, {'ids': list(pks), 'lease': lease, 'now': now})
    # What waits behind a backfill's replaces it now, which may be paused before it is claimed again.
    ordering.unpark([pk for pk, is_backfill in given if is_backfill], now)


def strays(lease: uuid.UUID, known: Collection[int]) -> dict[int, int]:
    """Return {id: id of its webhook} of what is held under the lease and not among the `known`."""
    return dict(sql.fetch(STRAYS, {'lease': lease, 'known': list(known)}))


def is_claimable(now: datetime, span: Span = ANY_TIME, *, suspect: bool = False) -> bool:
    """Whether something is due that can go in a moment: with a rate limit's next token, or from a lane that is busy."""
    return sql.fetch_value(CLAIMABLE, {'suspect': suspect, 'backfill': None, 'yields': False, **_of_time(now, span)})


def is_held_by_time(now: datetime, span: Span) -> bool:
    """Whether something is due that would not end in time."""
    return sql.fetch_value(HELD_BY_TIME, {'suspect': False, 'backfill': None, **_of_time(now, span)})


def is_backfill_due(now: datetime) -> bool:
    """Whether anything of a backfill is due, be it that it can go or not."""
    return sql.fetch_value(IS_BACKFILL_DUE, {'now': now})


def do_others_wait(now: datetime, span: Span = ANY_TIME) -> bool:
    """Whether others than backfills wait for workers."""
    return sql.fetch_value(OTHERS_WAIT, {'suspect': False, 'backfill': False, **_of_time(now, span)})


def lease_end(webhook: Webhook, now: datetime) -> datetime:
    """Return until when a claim holds that is made now."""
    return now + timedelta(seconds=webhook.effective_timeout + LEASE_MARGIN)


def _of_time(now: datetime, span: Span) -> dict[str, object]:
    return {
        'now': now,
        'timeout': settings.WEBHOOK_DEFAULT_TIMEOUT,
        'left': span.left,
        'slow': list(span.slow),
        'closed': list(span.closed),
        'seconds': list(span.slow.values()),
    }
