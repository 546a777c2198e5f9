"""Reads feeds: the changes of webhooks without a URL, by number.

The numbers of a feed have no gap (engine/deliver/feed.py). So a missing one was deleted from the log.
"""

import logging
import re
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.core.cache import cache
from django.utils.translation import gettext as _
from redis import RedisError

from .. import conf
from ..choices import PING_KIND
from ..engine import sql
from ..engine.each import first_within
from ..exceptions import Busy, DefinitionError, WebhooksError
from ..interruptions import INTERRUPTIONS
from ..models import Delivery, Health, Webhook
from ..object_types import label_of_id
from ..payload.http_request import Builder
from ..payload_visibility import may_see_expanded
from ..security.masking import MASK
from ..templating import renderer
from ..visibility import Reader

logger = logging.getLogger('webhooks.feed')

# Limits of an answer. It ends at the first that is reached, and has at least one item.
MAX_ITEMS_PER_PAGE = 1000
MAX_PAGE_BYTES = 8 * 1024 * 1024
MAX_PAGE_SECONDS = 10.0
# How long a reader may ask to wait for a change.
MAX_WAIT_SECONDS = 60
# Between two looks of a waiting reader.
POLL_SECONDS = 0.1
# How long NetBox's cache remembers how far a feed was read, for the metric of unread changes.
LAST_READ_KEPT = timedelta(days=30)

# A number, and the beginning of its webhook-id. After a restore numbers repeat, and only the id tells two items apart.
CURSOR = re.compile(r'([0-9]{1,18})(?:\.([0-9a-f]{8}))?')

# Read the first number after the last gap, and the last number. Both null: the log is empty.
READ_UNBROKEN = """
    SELECT max(position) FILTER (WHERE before IS DISTINCT FROM position - 1), max(position)
    FROM (
        SELECT position, lag(position) OVER (ORDER BY position) AS before
        FROM webhooks_delivery WHERE webhook_id = %s AND position IS NOT NULL
    ) numbered"""

# Read the items after a number, with an estimate of their size in bytes.
READ_AFTER = """
    SELECT d.position, d.id, d.uuid, d.finished_at, octet_length(e.data) + 4 * coalesce(pg_column_size(e.snapshots), 0)
    FROM webhooks_delivery d JOIN webhooks_event e ON e.id = d.event_id
    WHERE d.webhook_id = %(webhook)s AND d.position > %(position)s
    ORDER BY d.position LIMIT %(most)s"""

# The ids of this process's threads that hold a waiting reader. Its size is limited by the setting feed_readers.
_waiting: set[int] = set()


class Gone(WebhooksError):
    """The items after a cursor are no longer in the log. `cursor` is the present end of the feed."""

    def __init__(self, last: int):
        super().__init__(
            _(
                'This cursor is older than the log, or from before NetBox was restored. Start a backfill of the '
                'webhook, and continue from the cursor of this answer.'
            )
        )
        self.cursor = str(last)


class Hidden(WebhooksError):
    """The reader may not view all objects of these types."""

    def __init__(self, labels: Iterable[str]):
        super().__init__(
            _(
                'A feed needs permission to view all objects of its types, without constraints. It is missing for: '
                '{types}. To give somebody a part of the objects, make a webhook with conditions.'
            ).format(types=', '.join(sorted(labels)))
        )


@dataclass(frozen=True)
class Item:
    """A change, as a request would have carried it. `id` is the webhook-id. `error` says why there is no body."""

    cursor: str
    id: str
    published_at: datetime
    headers: dict[str, str]
    body: str | None = None
    error: str = ''


@dataclass(frozen=True)
class Page:
    """The items after a cursor, and the `cursor` to read on after them.

    `unread` changes follow; the first was published at `unread_since`.
    """

    items: list[Item]
    cursor: str
    unread: int
    unread_since: datetime | None = None


class _Row(NamedTuple):
    position: int
    pk: int
    uuid: UUID
    published_at: datetime
    size: int

    @property
    def cursor(self) -> str:
        return f'{self.position}.{self.uuid.hex[:8]}'


def wait(webhook: Webhook, user: Reader, after: str | None, seconds: int) -> None:
    """Wait up to `seconds` for an item after the cursor, without a transaction. Meanwhile permissions may change.

    Raises Busy if too many readers wait, and all errors of `follow`.
    """
    begin = _begin(webhook, user, after)
    if _last(webhook) <= begin:
        _wait(webhook, begin, seconds)


def follow(webhook: Webhook, user: Reader, after: str | None = None, limit: int = MAX_ITEMS_PER_PAGE) -> Page:
    """Return at most `limit` items after a cursor (None: after the last gap in the log). May return fewer, for size and
    time.

    It notes in NetBox's cache how far the feed was read. Raises DefinitionError for a bad cursor or a webhook with a
    URL, Hidden, and Gone.
    """
    begin = _begin(webhook, user, after)
    return _page(webhook, user, begin, limit, after or str(begin))


def _begin(webhook: Webhook, user: Reader, after: str | None) -> int:
    """Return the number after which to read, and note for the metric that the reader has come so far."""
    if not webhook.is_feed:
        raise DefinitionError('payload_url', _('This webhook has a URL, so it is not a feed: it sends its changes.'))
    _check(user, webhook.object_types.values_list('pk', flat=True))
    begin = _start(webhook) if after is None else _position(webhook, after)
    # A full Redis takes no writes. Then the metric stays behind, but the reader gets the changes.
    with suppress(RedisError):
        cache.set(_key(webhook.pk), begin, LAST_READ_KEPT.total_seconds())
    return begin


def _check(user: Reader, type_ids: Iterable[int]) -> None:
    """Raise Hidden unless the user may view all objects of these types.

    Leaving out single items would not do: nobody would learn that an object is deleted, or has left the part that this
    reader may view.
    """
    hidden = [pk for pk in type_ids if not may_see_expanded(user, [pk])]
    if hidden:
        raise Hidden(label_of_id(pk) for pk in hidden)


def unread(feeds: Iterable[Health]) -> list[int]:
    """Return how many changes the last reader of each feed has not read, in the order of `feeds`.

    NetBox's cache remembers how far that reader came.
    """
    read = cache.get_many([_key(one.pk) for one in feeds])
    return [max(one.position - int(read.get(_key(one.pk), 0)), 0) for one in feeds]


def unread_of(webhook: Webhook) -> int:
    """Return how many changes the last reader of this feed has not read."""
    return sum(unread(Health.objects.filter(webhook=webhook)))


def _key(webhook_id: int) -> str:
    return f'webhooks.feed.{webhook_id}'


def _last(webhook: Webhook) -> int:
    """Return the number that was published last. 0: nothing was."""
    return Health.objects.filter(webhook=webhook).values_list('position', flat=True).first() or 0


def _start(webhook: Webhook) -> int:
    """Return the number before the first item after which none is missing."""
    last = _last(webhook)
    ((first, newest),) = sql.fetch(READ_UNBROKEN, [webhook.pk])
    return first - 1 if first and newest >= last else last


def _position(webhook: Webhook, after: str) -> int:
    known = CURSOR.fullmatch(after)
    if known is None:
        raise DefinitionError(
            'after', _('Enter the cursor of an answer or an item, or leave it out to read from the start of the log.')
        )
    position, begins = int(known[1]), known[2]
    there = Delivery.objects.filter(webhook=webhook, position=position).values_list('uuid', flat=True).first()
    last = _last(webhook)
    if position > last or (begins and there and there.hex[:8] != begins):
        raise Gone(last)
    return position


def _wait(webhook: Webhook, position: int, seconds: int) -> None:
    """Wait for a number above `position`, or until the webhook is deleted. Each waiting reader holds a thread of this
    process. Raises Busy.
    """
    nothing_new = Health.objects.filter(webhook=webhook, position__lte=position)
    end, thread = time.monotonic() + seconds, threading.get_ident()
    _waiting.add(thread)
    try:
        if len(_waiting) > conf.get().feed_readers:
            raise Busy(
                _(
                    'There is nothing new, and too many readers are waiting already (setting feed_readers). '
                    'Try again soon.'
                )
            )
        while nothing_new.exists() and (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL_SECONDS, left))
    finally:
        _waiting.discard(thread)


def _page(webhook: Webhook, user: Reader, begin: int, limit: int, after: str) -> Page:
    last = _last(webhook)  # before the rows: all up to it are committed
    # One row more than asked for: its time says since when something is unread.
    found = [_Row(*row) for row in sql.fetch(READ_AFTER, {'webhook': webhook.pk, 'position': begin, 'most': limit + 1})]
    rows = [row for number, row in enumerate(found, begin + 1) if row.position == number]  # up to a gap
    if not rows and last > begin:
        raise Gone(last)
    items, read = _items(webhook, user, first_within(rows[:limit], lambda row: row.size, MAX_PAGE_BYTES))
    return Page(
        items,
        cursor=rows[read - 1].cursor if read else after,
        unread=max(last - begin - read, 0),
        unread_since=rows[read].published_at if read < len(rows) else None,
    )


def _items(webhook: Webhook, user: Reader, rows: Sequence[_Row]) -> tuple[list[Item], int]:
    """Return the items, and how many rows were read."""
    deliveries = Delivery.objects.prefetch_related('event').in_bulk([row.pk for row in rows])
    _check(user, _types_in(deliveries.values()))
    builder = Builder(webhook)
    items: list[Item] = []
    size, end = 0, time.monotonic() + MAX_PAGE_SECONDS
    with renderer.shared():
        for read, row in enumerate(rows):
            if row.pk not in deliveries or size > MAX_PAGE_BYTES or time.monotonic() > end:
                return items, read
            items.append(_item(builder, deliveries[row.pk], row))
            size += len(items[-1].body or '')
    return items, len(rows)


def _types_in(deliveries: Iterable[Delivery]) -> set[int]:
    """Return the types of all objects in these items. The webhook may have had other types than now.

    A ping is about the feed's own webhook, which the reader may view.
    """
    types: set[int] = set()
    for delivery in deliveries:
        if delivery.event.test and delivery.event.kind == PING_KIND:
            continue
        types.add(delivery.object_type_id)
        if delivery.expanded:
            types.update(delivery.event.expanded_types or ())
    return types


def _item(builder: Builder, delivery: Delivery, row: _Row) -> Item:
    delivery.webhook = builder.webhook
    headers, body, error = {}, None, ''
    try:
        request = builder.build(delivery, row.published_at.timestamp())
        headers = {name: value for name, value in builder.mask(request)[1].items() if value != MASK}
        body = request.body.decode(errors='replace')
    except INTERRUPTIONS:
        raise
    except DefinitionError as refused:
        error = f'{refused.field}: {refused}'
    except Exception as raised:
        # A plugin's callback or filter may raise anything.
        logger.exception('delivery=%s cannot be built', delivery.uuid)
        error = f'{type(raised).__name__}: {raised}'
    return Item(row.cursor, str(row.uuid), row.published_at, headers, body, error)
