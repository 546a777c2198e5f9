"""A feed is read: what was published after a cursor, as a request would have carried it.

The owner of a lane numbers what it publishes, without a gap. So a gap is what retention has deleted.
"""

import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count, takewhile
from typing import NamedTuple

from django.core.cache import cache
from django.utils.translation import gettext as _

from .. import conf
from ..engine import memory, sql
from ..exceptions import Busy, DefinitionError, WebhooksError
from ..interruptions import INTERRUPTIONS
from ..models import Delivery, Webhook
from ..payload.http_request import Builder, mask_signatures
from ..permissions import visible_deliveries
from ..security.masking import MASK
from ..templating import renderer
from ..visibility import Reader

logger = logging.getLogger('webhooks.feed')

# The bounds of an answer: items, bytes of their bodies (the first always fits), and seconds to build bodies.
MOST, BYTES, SECONDS = 1000, 8 * 1024 * 1024, 10.0
# Bytes of payloads that are read together, about.
PORTION = 2 * 1024 * 1024
# Seconds: the longest wait, and between two looks.
LONGEST, POLL = 60, 0.25
# Seconds after which the place of a reader that was killed is free.
SPARE = 10

# A position, and the first characters of the webhook-id there: after a restore another change may have the position.
CURSOR = re.compile(r'([0-9]{1,18})(?:\.([0-9a-f]{8}))?')

LAST = 'SELECT position FROM webhooks_health WHERE webhook_id = %(webhook)s'

AFTER = """
    SELECT d.position, d.id, octet_length(e.data) + 4 * coalesce(pg_column_size(e.snapshots), 0)
    FROM webhooks_delivery d JOIN webhooks_event e ON e.id = d.event_id
    WHERE d.webhook_id = %(webhook)s AND d.position > %(position)s
    ORDER BY d.position LIMIT %(most)s"""

AT = 'SELECT uuid, finished_at FROM webhooks_delivery WHERE webhook_id = %(webhook)s AND position = %(position)s'

# The position after which nothing is missing.
WHOLE_AFTER = """
    SELECT coalesce(max(position - 1), 0) FROM (
        SELECT position, lag(position, 1, 0::bigint) OVER (ORDER BY position) AS before FROM (
            SELECT position FROM webhooks_delivery WHERE webhook_id = %(webhook)s AND position IS NOT NULL
            UNION ALL SELECT position + 1 FROM webhooks_health WHERE webhook_id = %(webhook)s
        ) published
    ) neighbours
    WHERE position > before + 1"""


class Gone(WebhooksError):
    """What came after the cursor is not in the log any more. `cursor`: what came after that one still is."""

    def __init__(self, cursor: str):
        super().__init__(
            _(
                'Changes after this cursor have been deleted from the log. Start a backfill of the webhook, and read '
                'on after the cursor of this answer.'
            )
        )
        self.cursor = cursor


@dataclass(frozen=True)
class Item:
    """`id` is the webhook-id. `error` says why there is no body."""

    cursor: str
    id: str
    published_at: datetime
    headers: dict[str, str]
    body: str | None = None
    error: str = ''


@dataclass(frozen=True)
class Page:
    """`unread`: how many come after it, and since when the oldest of them is there."""

    items: list[Item]
    cursor: str
    unread: int
    unread_since: datetime | None = None


class _Row(NamedTuple):
    position: int
    pk: int
    size: int


def follow(webhook: Webhook, user: Reader, after: str | None = None, limit: int = MOST, wait: int = 0) -> Page:
    """Return the items after the cursor that the user may view. None: from the beginning.

    Where there is nothing, it waits so many seconds for something, without a transaction. Raises DefinitionError where
    there is no such cursor, or no feed; Gone where something is missing after it; Busy where too many readers wait.
    """
    if not webhook.is_feed:
        raise DefinitionError('payload_url', _('This webhook has a URL: it sends its changes, and has no feed.'))
    page = _read(webhook, user, after, limit)
    if not wait or page.items or page.unread:
        return page
    _wait(webhook, page, wait)
    return _read(webhook, user, page.cursor, limit)


def _read(webhook: Webhook, user: Reader, after: str | None, limit: int) -> Page:
    last = _last(webhook)
    begin = _whole_after(webhook) if after is None else _position(webhook, after, last)
    found = [_Row(*row) for row in sql.fetch(AFTER, {'webhook': webhook.pk, 'position': begin, 'most': limit})]
    numbers = count(begin + 1)
    rows = list(takewhile(lambda row: row.position == next(numbers), found))
    if not rows and (found or last > begin):
        raise Gone(str(_whole_after(webhook)))
    items, reached = _first_within_bounds(_items(webhook, user, rows))
    return _page(webhook, items, begin + reached, last)


def _wait(webhook: Webhook, page: Page, seconds: int) -> None:
    position = int(page.cursor.partition('.')[0])
    end = time.monotonic() + seconds
    with _place(seconds):
        while _last(webhook) <= position and (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL, left))


def _last(webhook: Webhook) -> int:
    """Return the number of the last delivery that was published, 0 if none was."""
    return next(iter(sql.fetch_column(LAST, {'webhook': webhook.pk})), 0)


#
# Cursors
#


def _position(webhook: Webhook, after: str, last: int) -> int:
    known = CURSOR.fullmatch(after)
    if known is None or int(known[1]) > last:
        raise DefinitionError('after', _('There is no such cursor in this feed. Leave it out to read from the start.'))
    position, begins = int(known[1]), known[2]
    there = sql.fetch(AT, {'webhook': webhook.pk, 'position': position})
    if begins and there and there[0][0].hex[:8] != begins:
        raise DefinitionError('after', _('This cursor is of another feed, or of one before NetBox was restored.'))
    return position


def _whole_after(webhook: Webhook) -> int:
    return sql.fetch_value(WHOLE_AFTER, {'webhook': webhook.pk})


def _page(webhook: Webhook, items: list[Item], position: int, last: int) -> Page:
    here, following = (sql.fetch(AT, {'webhook': webhook.pk, 'position': one}) for one in (position, position + 1))
    cursor = f'{position}.{here[0][0].hex[:8]}' if here else str(position)
    return Page(items, cursor, max(last - position, 0), following[0][1] if following else None)


#
# Items
#


def _first_within_bounds(made: Iterator[Item | None]) -> tuple[list[Item], int]:
    """Return the items of one answer, and of how many rows they are."""
    items: list[Item] = []
    size = reached = 0
    end = time.monotonic() + SECONDS
    with renderer.shared():
        for item in made:
            size += len(item.body.encode()) if item and item.body else 0
            if items and size > BYTES:
                break
            reached += 1
            items += [item] if item else []
            if time.monotonic() > end:
                break
    return items, reached


def _items(webhook: Webhook, user: Reader, rows: Sequence[_Row]) -> Iterator[Item | None]:
    """Yield an item for each row, None for what the user may not view. Ends before what was deleted just now."""
    builder = Builder(webhook)
    while rows:
        portion = memory.first_within(rows, lambda row: row.size, PORTION)
        rows = rows[len(portion) :]
        found = Delivery.objects.filter(pk__in=[row.pk for row in portion]).prefetch_related('event')
        deliveries = {one.pk: one for one in found}
        visible = visible_deliveries(user, deliveries.values())
        for row in portion:
            if row.pk not in deliveries:
                return
            yield _item(builder, deliveries[row.pk]) if row.pk in visible else None


def _item(builder: Builder, delivery: Delivery) -> Item:
    delivery.webhook = builder.webhook
    item = partial(Item, f'{delivery.position}.{delivery.uuid.hex[:8]}', str(delivery.uuid), delivery.finished_at)
    try:
        request = builder.build(delivery, delivery.finished_at.timestamp())
        headers = mask_signatures(builder.mask(request)[1])
    except INTERRUPTIONS:
        raise
    except DefinitionError as error:
        return item({}, error=f'{error.field}: {error}')
    except Exception as error:
        # A plugin's callback or filter may raise anything.
        logger.exception('delivery=%s cannot be built', delivery.uuid)
        return item({}, error=f'{type(error).__name__}: {error}')
    shown = {name: value for name, value in headers.items() if value != MASK}
    return item(shown, request.body.decode(errors='replace'))


#
# Readers that wait
#


@contextmanager
def _place(seconds: int) -> Iterator[None]:
    """Each holds a thread of NetBox. Their places are in NetBox's cache, which all its processes share."""
    for number in range(conf.get().feed_readers):
        key = f'webhooks.feed.{number}'
        if cache.add(key, True, seconds + SPARE):
            try:
                yield
            finally:
                cache.delete(key)
            return
    raise Busy(_('As many readers wait as may (feed_readers): ask again in some seconds.'))
