"""How far a backfill, or a walk over config contexts, is, as one reader may see it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from django.apps import apps
from django.contrib.contenttypes.models import ContentType

from .. import config_contexts, object_types
from ..choices import BackfillStateChoices
from ..models import Backfill, ContextWalk, ListMember, ListWalk, Webhook
from ..visibility import Reader, may_view_all


@dataclass(frozen=True)
class Progress:
    """A backfill as its reader may see it. `reader` None sees everything.

    Figures reveal facts about objects. So a reader who may not view all objects of its types gets '' for `query` and
    `error`, and None for `sent` and `total`.
    """

    backfill: Backfill
    reader: Reader | None = None

    @cached_property
    def is_restricted(self) -> bool:
        """Whether this reader may not view all objects of its types."""
        return self.reader is not None and not may_view_objects(self.reader, self._types())

    @property
    def query(self) -> str:
        """Return the URL query that chooses the objects. '' for all objects, or if it is hidden."""
        return '' if self.is_restricted else self.backfill.query

    @property
    def error(self) -> str:
        """Return why the backfill failed. '' if it did not, or if that is hidden."""
        return '' if self.is_restricted else self.backfill.error

    @cached_property
    def sent(self) -> int | None:
        """Return the number of objects that are done: sent, failed, replaced or excluded.

        None if it is hidden. Takes two queries.
        """
        if self.is_restricted:
            return None
        return max(self.backfill.recorded - self.backfill.count_open(), 0)

    @property
    def total(self) -> int | None:
        """Return how many objects it sends: as counted when it began, exact once it is completed. None: hidden."""
        if self.is_restricted:
            return None
        backfill = self.backfill
        is_whole = backfill.state == BackfillStateChoices.COMPLETED
        return backfill.recorded if is_whole else max(backfill.total, backfill.recorded)

    @property
    def color(self) -> str:
        """Return the colour of NetBox's badge for its state."""
        return BackfillStateChoices.colors[self.backfill.state]

    @property
    def names(self) -> str:
        """Return its object types for people, such as 'Device, Site', by name, without types that no longer exist."""
        return ', '.join(sorted(map(object_types.name_of, self._types())))

    @property
    def labels(self) -> list[str]:
        """Return its object types for programs, such as 'dcim.site', in the order of sending."""
        return [object_types.label_of(object_type) for object_type in self._types()]

    def _types(self) -> list[ContentType]:
        found = ContentType.objects.in_bulk(self.backfill.object_types)
        return [found[pk] for pk in self.backfill.object_types if pk in found]


def may_view_objects(reader: Reader, types: Iterable[ContentType]) -> bool:
    """Whether the reader may view all objects of these types. For a type without a model, only a superuser may."""
    return all(may_view_all(reader, one.model_class()) for one in types)


def of(webhook: Webhook, reader: Reader | None = None) -> Progress | None:
    """Return the progress of the webhook's last backfill, as the reader may see it. None: there was no backfill."""
    backfill = Backfill.objects.filter(pk=webhook.pk).first()
    return backfill and Progress(backfill, reader)


@dataclass(frozen=True)
class Walking:
    """How many devices and virtual machines the current walk has looked at, and how many there are.

    Both are None if the reader may not view all of them.
    """

    looked: int | None
    total: int | None


def walking(webhook: Webhook, reader: Reader | None = None) -> Walking | None:
    """Return how far the walk is, if one is under way. None if not, or if it does not concern the webhook."""
    walk = ContextWalk.objects.order_by('pk').first() if webhook.include_config_contexts else None
    if walk is None:
        return None
    models = [apps.get_model(label) for label in config_contexts.OWNERS]
    if reader is not None and not all(may_view_all(reader, model) for model in models):
        return Walking(None, None)
    return Walking(walk.looked, sum(model._default_manager.count() for model in models))


@dataclass(frozen=True)
class ListState:
    """A list of a webhook. `count` is the number of objects that its receiver has.

    If the reader may not view all objects of the type, `count` is None, and `error` ''.
    """

    name: str
    walk: ListWalk
    count: int | None
    error: str


def lists_of(webhook: Webhook, reader: Reader) -> list[ListState]:
    """Return the webhook's lists, as the reader may see them. Takes a query for each."""
    found = ListWalk.objects.filter(webhook_id=webhook.pk).select_related('object_type').order_by('object_type_id')
    return [_list_state(walk, reader) for walk in found]


def _list_state(walk: ListWalk, reader: Reader) -> ListState:
    name = object_types.name_of(walk.object_type)
    if not may_view_objects(reader, [walk.object_type]):
        return ListState(name, walk, None, '')
    members = ListMember.objects.filter(webhook_id=walk.webhook_id, object_type=walk.object_type_id)
    return ListState(name, walk, members.count(), walk.error)
