"""How far a backfill has come, for pages, the REST API and the command."""

from dataclasses import dataclass

from django.contrib.contenttypes.models import ContentType

from .. import object_types
from ..choices import BackfillStateChoices
from ..models import Backfill, Webhook


@dataclass(frozen=True)
class Progress:
    """How far a backfill has come. `sent` are delivered, failed, replaced by a change, or left out by conditions."""

    backfill: Backfill
    sent: int

    @property
    def total(self) -> int:
        """As counted at the start; objects may have come since, or have gone."""
        backfill = self.backfill
        is_whole = backfill.state == BackfillStateChoices.COMPLETED
        return backfill.recorded if is_whole else max(backfill.total, backfill.recorded)

    @property
    def color(self) -> str:
        """By NetBox's names."""
        return BackfillStateChoices.colors[self.backfill.state]

    @property
    def names(self) -> str:
        """What the object types are called."""
        return ', '.join(sorted(map(object_types.name_of, self._types())))

    @property
    def labels(self) -> list[str]:
        """The object types, as 'dcim.site'."""
        return ['.'.join(object_type.natural_key()) for object_type in self._types()]

    def _types(self) -> list[ContentType]:
        found = ContentType.objects.in_bulk(self.backfill.object_types)
        return [found[pk] for pk in self.backfill.object_types if pk in found]


def of(webhook: Webhook) -> Progress | None:
    """Return how far the webhook's last backfill has come, None where there was none."""
    backfill = Backfill.objects.filter(pk=webhook.pk).first()
    return backfill and Progress(backfill, max(backfill.recorded - backfill.count_open(), 0))
