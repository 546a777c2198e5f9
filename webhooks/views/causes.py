"""Failed deliveries by cause, with the links of NetBox's pages."""

from django.urls import reverse
from django.utils.http import urlencode

from ..models import Webhook
from ..services.actions import REDELIVER
from ..services.causes import Cause, Row, Table, find, table
from ..visibility import Reader


def causes_for(reader: Reader, return_url: str, webhook: Webhook | None = None) -> Table | None:
    """Return the table of causes that the reader may view, in all webhooks or in one.

    None: nothing has failed, or the reader may not view deliveries. A row has no link to redeliver without the
    permission. After a redelivery the user comes back to `return_url`.
    """
    if not reader.has_perm('webhooks.view_delivery'):
        return None
    may_redeliver = reader.has_perm(REDELIVER.full_permission)

    def row(cause: Cause) -> Row:
        filters = urlencode(cause.filters)
        back = urlencode({'return_url': return_url})
        return Row(
            cause,
            cause.webhook.get_absolute_url(),
            f'{reverse("plugins:webhooks:delivery_list")}?{filters}',
            f'{reverse("plugins:webhooks:delivery_bulk_redeliver")}?{filters}&{back}' if may_redeliver else '',
        )

    return table(find(reader, webhook), row)
