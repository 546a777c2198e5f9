"""Records changes that NetBox makes without a signal.

Left behind: when an object is deleted, pointers to it become empty. Taken along: when a location, rack or cluster
moves, NetBox changes the objects in it by update().
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dcim.models import Device, Location, PowerPanel, Rack
from django.db import DEFAULT_DB_ALIAS
from django.db.models import CASCADE, ForeignKey, ManyToManyField, Model, QuerySet
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from virtualization.models import Cluster, VirtualDisk, VirtualMachine

from ..choices import KindChoices
from ..default_database import rows
from . import prechange, recording, scope, signal_senders, snapshots

# Attributes of an instance, between the signals before and after its change.
LEFT_SLOT = '_webhooks_left'
TAKEN_SLOT = '_webhooks_taken'
# Names of `on_delete` with which Django changes a pointer without a signal.
SILENT_ON_DELETE = ('SET_NULL', 'SET_DEFAULT')

Pointer = ForeignKey | ManyToManyField


@dataclass(frozen=True, eq=False)
class Followers:
    """Rows of `model` whose `columns` NetBox may change along with a `leader`, without a signal."""

    leader: type[Model]
    model: type[Model]
    # A filter of the followers, and the attribute of the leader that it takes. `__in` takes the leader's descendants.
    key: tuple[str, str]
    # Column → the leader's attribute that NetBox copies into it; '' if NetBox computes the value.
    columns: Mapping[str, str]

    def of(self, leader: Model) -> dict[Any, list[Any]]:
        """Return {pk: values of `columns`} of the objects that a change of this leader may change."""
        column, attribute = self.key
        if column.endswith('__in'):
            wanted = leader.get_descendants(include_self=self.model is not self.leader)
        else:
            wanted = getattr(leader, attribute)
        copied = {name: getattr(leader, source) for name, source in self.columns.items() if source}
        # A cluster without a site does not move its machines.
        if wanted is None or ('site_id' in copied and copied['site_id'] is None):
            return {}
        following = rows(self.model).filter(**{column: wanted})
        return self._values(following.exclude(**copied) if copied else following)

    def now(self, pks: Collection[Any]) -> dict[Any, list[Any]]:
        """Return {pk: present values of `columns`} for these objects."""
        return self._values(rows(self.model).filter(pk__in=pks)) if pks else {}

    def _values(self, found: QuerySet) -> dict[Any, list[Any]]:
        return {pk: values for pk, *values in found.values_list('pk', *self.columns)}


# The followers get the site of their leader.
SITE_COLUMN = {'site_id': 'site_id'}
TAKEN_ALONG = (
    Followers(Location, Location, ('pk__in', 'pk'), SITE_COLUMN),
    Followers(Location, Rack, ('location__in', 'pk'), SITE_COLUMN),
    Followers(Location, Device, ('location__in', 'pk'), SITE_COLUMN),
    Followers(Location, PowerPanel, ('location__in', 'pk'), SITE_COLUMN),
    Followers(Rack, Device, ('rack', 'pk'), SITE_COLUMN | {'location_id': 'location_id'}),
    Followers(Cluster, VirtualMachine, ('cluster', 'pk'), {'site_id': '_site_id'}),
    Followers(VirtualDisk, VirtualMachine, ('pk', 'virtual_machine_id'), {'disk': ''}),
)


def connect(targets: Collection[type[Model]]) -> None:
    """Connect the handlers of both kinds for the models to record. They run after NetBox's own."""
    _connect_left_behind(targets)
    by_leader = defaultdict(list)
    for followers in TAKEN_ALONG:
        if followers.model in targets:
            by_leader[followers.leader].append(followers)
    for leader, group in by_leader.items():
        for first, then in ((pre_save, post_save), (pre_delete, post_delete)):
            first.connect(partial(hold_taken, group), leader, weak=False, dispatch_uid='webhooks.followers')
            then.connect(record_taken, leader, dispatch_uid='webhooks.followers')


def _connect_left_behind(targets: Collection[type[Model]]) -> None:
    pointers = defaultdict(list)
    for model in targets:
        for field in _pointers(model):
            pointers[field.related_model._meta.concrete_model].append((model, field))
    signal_senders.for_each(pointers, partial(_connect_left, pointers))


def _connect_left(pointers: Mapping[type[Model], list[tuple[type[Model], Pointer]]], sender: type[Model]) -> None:
    group = pointers[sender._meta.concrete_model]
    pre_delete.connect(partial(hold_left, group), sender, weak=False, dispatch_uid='webhooks.left_behind')
    post_delete.connect(record_left, sender, dispatch_uid='webhooks.left_behind')


def _pointers(model: type[Model]) -> Iterator[Pointer]:
    """Yield the fields that a deletion of their target empties silently. Fields with _ are not shown in the API."""
    yield from model._meta.many_to_many
    for field in model._meta.concrete_fields:
        silent = isinstance(field, ForeignKey) and field.remote_field.on_delete.__name__ in SILENT_ON_DELETE
        if silent and not field.name.startswith('_'):
            yield field


#
# Left behind
#


def hold_left(pointers: list[tuple[type[Model], Pointer]], instance: Model, using: str, **kwargs: Any) -> None:
    """Before `instance` is deleted, hold the states of the objects that point to it, for `record_left`."""
    held = defaultdict(set)
    for model, field in pointers:
        if scope.wants(model, using):
            held[model].update(_pointing(model, field, instance))
    left = {model: recording.with_before(model, sorted(pks)) for model, pks in held.items() if pks}
    # NetBox itself saves some of them, such as the ends of a cable, when they are empty already.
    for model, states in left.items():
        prechange.keep(model, states)
    instance.__dict__[LEFT_SLOT] = left


def _pointing(model: type[Model], field: Pointer, instance: Model) -> QuerySet:
    if isinstance(field, ForeignKey):
        return rows(model).filter(**{field.attname: instance.pk}).values_list('pk', flat=True)
    return _links(model, field, instance).values_list(field.m2m_column_name(), flat=True)


def _links(model: type[Model], field: ManyToManyField, instance: Model) -> QuerySet:
    links = rows(field.remote_field.through).filter(**{field.m2m_reverse_name(): instance.pk})
    return links.filter(content_type=snapshots.object_type_id(model)) if snapshots.is_generic(field) else links


def record_left(instance: Model, **kwargs: Any) -> None:
    """Record an update of each object that pointed to the deleted `instance`. Deleted ones have events of their own."""
    for model, states in instance.__dict__.pop(LEFT_SLOT, {}).items():
        _cut_links(model, instance)
        recording.record_touched(model, KindChoices.UPDATED, states)
        prechange.drop(model, states)


def _cut_links(model: type[Model], instance: Model) -> None:
    """Delete the many-to-many rows to `instance`. Django does it too late if the deleted models point to each other."""
    for field in model._meta.many_to_many:
        if field.related_model._meta.concrete_model is instance._meta.concrete_model:
            links = _links(model, field, instance)
            if links.model._meta.get_field(field.m2m_reverse_field_name()).remote_field.on_delete is CASCADE:
                links._raw_delete(DEFAULT_DB_ALIAS)


#
# Taken along
#


def hold_taken(group: list[Followers], instance: Model, using: str, **kwargs: Any) -> None:
    """Hold the columns and states of a leader's followers before it changes, for `record_taken`."""
    taken = {}
    for followers in group:
        if scope.wants(followers.model, using):
            values = followers.of(instance)
            states = recording.with_before(followers.model, list(values))
            prechange.keep(followers.model, states)
            taken[followers] = values, states
    prechange.push(instance, TAKEN_SLOT, taken)


def record_taken(instance: Model, **kwargs: Any) -> None:
    """Record an update of each follower whose columns have changed, after their leader did."""
    for followers, (former, states) in prechange.pop(instance, TAKEN_SLOT, {}).items():
        changed = {pk: states[pk] for pk, values in followers.now(former).items() if former[pk] != values}
        recording.record_touched(followers.model, KindChoices.UPDATED, changed)
        prechange.drop(followers.model, states)
