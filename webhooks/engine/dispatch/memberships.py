"""Judges whether the object of an event enters, changes in, or leaves a list that its webhook subscribes to.

It looks at the current rows, and at the objects that the receiver has. If an event is judged before a later one
of its object is dispatched, it may already see the state after both. Then the later event reports only the rest.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from ... import list_filters
from ...choices import KindChoices
from ...models import Event, Webhook
from ...object_types import label_of_id, model_of_id
from ...payload.selection import narrow
from .. import sql

CREATED, UPDATED, DELETED = KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED
ENTERED, LEFT = 'entered', 'left'

# Let only one dispatcher judge the events of a webhook, until the open transaction ends. False: another one does.
TRY_LOCK_MEMBERS = "SELECT pg_try_advisory_xact_lock('webhooks_listmember'::regclass::oid::integer, %s::integer)"

# Read which of these objects the receiver has in the list.
READ_MEMBERS = """
    SELECT object_id FROM webhooks_listmember WHERE webhook_id = %s AND object_type_id = %s AND object_id = ANY(%s)"""

# Note that these objects are sent as members of the list.
STORE_MEMBERS = """
    INSERT INTO webhooks_listmember (webhook_id, object_type_id, object_id, sequence, digest, state)
    SELECT %s, v.* FROM unnest(%s::int[], %s::bigint[], %s::bigint[], %s::text[], %s::uuid[]) v
    ON CONFLICT (webhook_id, object_type_id, object_id)
    DO UPDATE SET sequence = EXCLUDED.sequence, digest = EXCLUDED.digest, state = EXCLUDED.state"""

# Forget members: these objects are sent as having left the list.
FORGET_MEMBERS = """
    DELETE FROM webhooks_listmember m USING unnest(%s::int[], %s::bigint[]) AS v(object_type_id, object_id)
    WHERE m.webhook_id = %s AND m.object_type_id = v.object_type_id AND m.object_id = v.object_id"""


class Judged(NamedTuple):
    """A delivery, and the change that it reports (`kind`; None: none). `span`: Delivery.span, if the event differs."""

    pk: int
    event: Event
    kind: str | None
    span: dict[str, str] | None


def is_listed(webhook: Webhook, type_id: int) -> bool:
    """Return whether the webhook has a filter for objects of this type."""
    return bool(webhook.filters) and label_of_id(type_id) in webhook.filters


def judge(webhook: Webhook, type_id: int, deliveries: Sequence[tuple[int, Event]]) -> list[Judged]:
    """Return the change that each undecided delivery of a listed type reports. They are given in order. Writes nothing.

    Raises DefinitionError if the filter fails or is too slow, and Locked if a table is locked.
    """
    objects = {event.object_id for _pk, event in deliveries}
    there = {event.object_id for _pk, event in deliveries if event.kind != DELETED}
    query = webhook.filters[label_of_id(type_id)]
    # If a device is deleted with its interfaces, a filter that names it fails from then on. But it is not needed.
    inside = set(list_filters.among(model_of_id(type_id), query, there)) if there else set()
    members = set(sql.fetch_column(READ_MEMBERS, [webhook.pk, type_id, list(objects)]))
    return list(_judge(deliveries, inside, members))


def _judge(deliveries: Sequence[tuple[int, Event]], inside: set[int], members: set[int]) -> Iterator[Judged]:
    for pk, event in deliveries:
        key = event.object_id
        is_in, was_in = event.kind != DELETED and key in inside, key in members
        if is_in:
            kind = UPDATED if was_in else CREATED
            members.add(key)
        else:
            kind = DELETED if was_in else None
            members.discard(key)
        membership = {CREATED: ENTERED, DELETED: LEFT}.get(kind)
        span = {'kind': kind, **({'membership': membership} if membership else {})} if kind else None
        yield Judged(pk, event, kind, span if kind != event.kind else None)


def store(webhook: Webhook, judged: Sequence[Judged]) -> None:
    """Note which objects the receiver has after these, in the open transaction. The last one of an object counts."""
    last = {(one.event.object_type_id, one.event.object_id): one for one in judged if one.kind}
    # In the same order everywhere: otherwise two transactions could deadlock.
    noted = sorted(last.items(), key=itemgetter(0))
    stay = [
        (*key, one.event.sequence, digest_of(webhook, one.event), one.event.row_state)
        for key, one in noted
        if one.kind != DELETED
    ]
    if stay:
        sql.execute(STORE_MEMBERS, [webhook.pk, *map(list, zip(*stay, strict=True))])
    if gone := [key for key, one in noted if one.kind == DELETED]:
        sql.execute(FORGET_MEMBERS, [*map(list, zip(*gone, strict=True)), webhook.pk])


def digest_of(webhook: Webhook, event: Event) -> str:
    """Return the digest of the data that the webhook sends, as docs/payload.md describes it. '' if there are none."""
    (sent,) = narrow(webhook, [event], webhook.expand)
    return digest(sent.payload_data) if event.data else ''


def digest(data: Mapping[str, Any] | None) -> str:
    """Return the SHA-256 of data as JSON with sorted keys, without blanks and in UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
