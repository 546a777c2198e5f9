"""Finds an object's waiting deliveries that need not be sent, if only the latest is to be sent. Pure.

It looks at lives of the object, each from its creation to its deletion:

    created, updated …            created, with the last state
    updated, updated …            updated
    …, deleted                    deleted
    created, …, deleted           nothing, if the receiver cannot have heard of the creation; otherwise deleted
    …, deleted | created, …       both lives: neither a deletion nor a creation is lost

A later delivery closes an attempted one too, which the receiver may have seen. But an attempted one closes none: a
request that is repeated under its `webhook-id` must say the same.

A change reports an act. A restatement only shows the object's state: it comes from a backfill or *Send now*, from
another object's change, or is sent again to a receiver that has it. So a restatement closes no change, and leaves its
own marks on none. It is needless if a change comes after it, or if the last change before it shows the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ...choices import KindChoices

CREATED, DELETED = KindChoices.CREATED, KindChoices.DELETED


class Waiting(NamedTuple):
    """A waiting delivery that shows its object. `kind`: the change that it reports. `restates`: it is no change.

    `is_seen`: the receiver may have heard of the object, from this delivery or from a later one that went before it.
    `membership`: 'entered' or 'left' if the object enters or leaves a list by this change, else None.
    """

    pk: int
    kind: str
    due_at: datetime | None
    backfill: bool
    restates: bool
    is_attempted: bool
    is_seen: bool
    membership: str | None = None


class Heir(NamedTuple):
    """A delivery that stays in place of earlier ones, and its new state.

    `span`: the values that it shows in place of its event's (Event.spanning). The object as the receiver knows it is on
    the `side` of the snapshots of the delivery `first`, and is kept under this `key` of the span. None: the receiver
    knows of no object.
    """

    pk: int
    span: dict[str, Any]
    due_at: datetime | None
    backfill: bool
    first: int | None
    side: str
    key: str


class Folded(NamedTuple):
    """The ids of an object's needless deliveries, in order, and the heirs that stay in their place.

    `maybe_repeated`: the ids of a restatement and of a change before it. If both show the same, the restatement is
    needless.
    """

    closed: list[int]
    heirs: list[Heir]
    maybe_repeated: tuple[int, int] | None = None


def fold(waiting: Sequence[Waiting]) -> Folded:
    """Return which of an object's waiting deliveries are needless. They are given in order of sequence."""
    last = max((place for place, one in enumerate(waiting) if not (one.restates or one.is_attempted)), default=-1)
    changes = [one for one in waiting if not one.restates]
    restated = [one for one in waiting[last + 1 :] if one.restates]
    closed = {one.pk for one in waiting[: last + 1] if one.restates}
    heirs: list[Heir] = []
    for life in (*_lives(changes), *_lives(restated)):
        newest = max((place for place, one in enumerate(life) if not one.is_attempted), default=0)
        if _is_nothing(life):
            closed.update(one.pk for one in life)
        elif newest > 0:
            closed.update(one.pk for one in life[:newest])
            heirs.append(_heir(life, life[newest]))
    maybe_repeated = None
    if last >= 0 and restated and not restated[-1].is_attempted and waiting[last].pk not in closed:
        maybe_repeated = restated[-1].pk, waiting[last].pk
    return Folded([one.pk for one in waiting if one.pk in closed], heirs, maybe_repeated)


def _lives(waiting: Iterable[Waiting]) -> Iterator[list[Waiting]]:
    life: list[Waiting] = []
    for one in waiting:
        if life and (one.kind == CREATED or life[-1].kind == DELETED):
            yield life
            life = []
        life.append(one)
    if life:
        yield life


def _is_nothing(life: Sequence[Waiting]) -> bool:
    """Whether the object came and went, and the receiver has heard of neither."""
    return life[0].kind == CREATED and life[-1].kind == DELETED and not any(one.is_seen for one in life)


def _heir(life: Sequence[Waiting], heir: Waiting) -> Heir:
    is_new = life[0].kind == CREATED
    reports_creation = is_new and heir.kind != DELETED
    is_unknown = reports_creation and not any(one.is_seen for one in life)
    span: dict[str, Any] = {'kind': CREATED, 'prechange': None} if reports_creation else {}
    if reports_creation and not is_unknown:
        span['seen'] = True  # INHERIT puts the object in its place, if there are snapshots
    if reports_creation and life[0].membership:
        span['membership'] = life[0].membership
    attempted = [one.pk for one in life if one.is_attempted and is_new]
    return Heir(
        pk=heir.pk,
        span=span,
        due_at=min((one.due_at for one in life if one.due_at), default=None),
        backfill=all(one.backfill for one in life),
        first=None if is_unknown else attempted[-1] if attempted else life[0].pk,
        side='postchange' if is_new else 'prechange',
        key='seen' if reports_creation else 'prechange',
    )
