from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from django.contrib.contenttypes.models import ContentType
from django.db.models import Model

from .. import object_types
from ..choices import BackfillStateChoices
from ..models import Backfill, Webhook
from ..visibility import Reader, may_view_all, sees_everything


@dataclass(frozen=True)
class Progress:
    """Readers who may not view all objects get no `query`, `error`, `sent` and `total`: figures reveal facts."""

    backfill: Backfill
    reader: Reader | None = None

    @cached_property
    def is_restricted(self) -> bool:
        return self.reader is not None and not may_view_objects(self.reader, self._types())

    @property
    def query(self) -> str:
        return '' if self.is_restricted else self.backfill.query

    @property
    def error(self) -> str:
        return '' if self.is_restricted else self.backfill.error

    @cached_property
    def sent(self) -> int | None:
        if self.is_restricted:
            return None
        return max(self.backfill.recorded - self.backfill.count_open(), 0)

    @property
    def total(self) -> int | None:
        """As first counted."""
        if self.is_restricted:
            return None
        backfill = self.backfill
        is_whole = backfill.state == BackfillStateChoices.COMPLETED
        return backfill.recorded if is_whole else max(backfill.total, backfill.recorded)

    @property
    def color(self) -> str:
        return BackfillStateChoices.colors[self.backfill.state]

    @property
    def names(self) -> str:
        return ', '.join(sorted(map(object_types.name_of, self._types())))

    @property
    def labels(self) -> list[str]:
        return ['.'.join(object_type.natural_key()) for object_type in self._types()]

    def _types(self) -> list[ContentType]:
        found = ContentType.objects.in_bulk(self.backfill.object_types)
        return [found[pk] for pk in self.backfill.object_types if pk in found]


def may_view_objects(reader: Reader, types: Iterable[ContentType]) -> bool:
    """Whether the reader may view all objects of these types."""
    return all(_may_view_all(reader, one.model_class()) for one in types)


def _may_view_all(reader: Reader, model: type[Model] | None) -> bool:
    return sees_everything(reader) if model is None else may_view_all(reader, model)


def of(webhook: Webhook, reader: Reader | None = None) -> Progress | None:
    backfill = Backfill.objects.filter(pk=webhook.pk).first()
    return backfill and Progress(backfill, reader)
