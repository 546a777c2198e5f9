"""Failed deliveries by cause, with the links of NetBox's pages."""

from typing import NamedTuple

from ..models import Webhook
from ..presentation.links import page_url
from ..services.actions import REDELIVER
from ..services.causes import Cause, find
from ..visibility import Reader


class Row(NamedTuple):
    """A row of webhooks/inc/causes.html. `redeliver_url` is '' without the permission."""

    cause: Cause
    list_url: str
    redeliver_url: str


class Table(NamedTuple):
    """The context of webhooks/inc/causes.html."""

    rows: list[Row]
    note: str


def causes_for(reader: Reader, return_url: str, webhook: Webhook | None = None) -> Table | None:
    """Return the table of causes that the reader may view, in all webhooks or in one.

    None: nothing has failed, or the reader may not view deliveries. After a redelivery the user comes back to
    `return_url`.
    """
    if not reader.has_perm('webhooks.view_delivery'):
        return None
    may_redeliver = reader.has_perm(REDELIVER.full_permission)
    found = find(reader, webhook)
    rows = [
        Row(
            cause,
            page_url('delivery_list', **cause.filters),
            page_url('delivery_bulk_redeliver', **cause.filters, return_url=return_url) if may_redeliver else '',
        )
        for cause in found.shown
    ]
    return Table(rows, found.note) if rows else None
