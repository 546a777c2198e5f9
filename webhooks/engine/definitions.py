"""Definitions of webhooks, as a job uses them: looked up once a second, and not for each delivery."""

import time
from collections.abc import Iterable, Mapping

from ..models import Delivery, Webhook
from ..payload.http_request import Builder

# Seconds for which a definition is used without looking at it again.
AGE = 1.0


class Definitions:
    def __init__(self) -> None:
        self._builders: dict[int, Builder] = {}
        self._read_at = 0.0

    def of(self, deliveries: Iterable[Delivery]) -> Mapping[int, Builder]:
        """Return {id of a webhook: what makes requests by its definition}, without webhooks that were deleted since.

        Those of other deliveries may be there as well.
        """
        wanted = {delivery.webhook_id for delivery in deliveries}
        if time.monotonic() - self._read_at > AGE or wanted - self._builders.keys():
            found = Webhook.objects.select_related('health').in_bulk(wanted | self._builders.keys())
            self._builders = {pk: Builder(webhook) for pk, webhook in found.items()}
            self._read_at = time.monotonic()
        return self._builders
