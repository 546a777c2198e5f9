"""Records the changes that Django's signals report.

Handlers never catch an error: without its event, a save must fail.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from django.db import DEFAULT_DB_ALIAS, models, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal

from . import components, config_contexts, object_types
from .choices import OBJECT_KINDS, KindChoices
from .default_database import in_transaction, rows
from .models import Webhook
from .outbox import (
    deletions,
    merges,
    modules,
    prechange,
    recording,
    scope,
    side_effects,
    signal_senders,
    snapshots,
)

# For bulk_create(), update() and so on. Send it in the same transaction, after a change or before a deletion:
# bulk_operation.send(sender=Site, instances=sites, event='created')
bulk_operation = Signal()

# Attributes of an instance, between the signals before and after its change.
SNAPSHOT_SLOT = '_webhooks_snapshot'
BEFORE_SLOT = '_webhooks_before'
LINKS_SLOT = '_webhooks_links'


def connect() -> None:
    """Connect the handlers of all models that may be sent, and of models whose changes may update them.

    Called once, if the plugin is on.
    """
    allowed = {model._meta.concrete_model for model in object_types.allowed_models()}
    sources = config_contexts.sources() if config_contexts.owners(allowed) else ()
    targets = frozenset({*allowed, *components.models_of(allowed), *sources})
    signal_senders.for_each(targets, _connect_changes)
    _connect_links(targets)
    side_effects.connect(targets)
    modules.connect(targets)
    merges.connect()
    post_save.connect(_forget, sender=Webhook, dispatch_uid='webhooks.forget')
    m2m_changed.connect(_forget, sender=Webhook.object_types.through, dispatch_uid='webhooks.forget')


def _connect_changes(sender: type[models.Model]) -> None:
    uid = f'webhooks.{sender._meta.label_lower}'
    pre_save.connect(hold_before, sender=sender, dispatch_uid=uid)
    post_save.connect(handle_saved, sender=sender, dispatch_uid=uid)
    pre_delete.connect(hold_deleted, sender=sender, dispatch_uid=uid)
    post_delete.connect(handle_deleted, sender=sender, dispatch_uid=uid)
    bulk_operation.connect(handle_bulk, sender=sender, dispatch_uid=uid)


def _connect_links(targets: frozenset[type[models.Model]]) -> None:
    throughs = {field.remote_field.through for model in targets for field in model._meta.many_to_many}
    for through in throughs:
        m2m_changed.connect(
            partial(handle_linked, targets=targets), sender=through, weak=False, dispatch_uid='webhooks.linked'
        )


#
# Handlers. Changes of a proxy are recorded as changes of its model.
#


def hold_before(sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any) -> None:
    """Before a save, hold the state of the object, if some webhook needs it."""
    model = sender._meta.concrete_model
    states: dict[Any, str | None] = {}
    if instance.pk is not None and scope.wants(model, using):
        states = recording.with_before(model, [instance.pk])
        # A receiver may save the object again before this save is done. The state before both counts.
        prechange.keep(model, states)
    prechange.push(instance, BEFORE_SLOT, states.get(instance.pk))


def handle_saved(sender: type[models.Model], instance: models.Model, created: bool, using: str, **kwargs: Any) -> None:
    """After a save, record it as creation or update."""
    state = prechange.pop(instance, BEFORE_SLOT)
    model = sender._meta.concrete_model
    if not scope.wants(model, using):
        return
    kind = KindChoices.CREATED if created else KindChoices.UPDATED
    if state is None and not created:
        # NetBox moves components by bulk_update(), which sends no pre_save. Their states were kept (outbox/modules.py).
        state = prechange.find(model, instance.pk)
    message = recording.message_of(instance)
    if in_transaction():
        recording.record(model, kind, {instance.pk: state}, message)
    else:
        # Django has committed the row, and its lock is gone. With a new one, events keep the order of the changes.
        recording.record_touched(model, kind, {instance.pk: state}, message)
    if state is not None:
        prechange.drop(model, [instance.pk])


def hold_deleted(
    sender: type[models.Model], instance: models.Model, using: str, origin: Any = None, **kwargs: Any
) -> None:
    """Before a deletion, hold the snapshot of the object, while its tags and links exist."""
    instance.__dict__.pop(SNAPSHOT_SLOT, None)
    model = sender._meta.concrete_model
    if not scope.wants(model, using):
        return
    if held := deletions.held(instance, origin):
        instance.__dict__[SNAPSHOT_SLOT] = held
    elif snapshots.lock_rows(model, [instance.pk]):
        # No webhook wants its deletion, so nobody sees changes that the deletion has already made in the row.
        instance.__dict__[SNAPSHOT_SLOT] = snapshots.take(model, [instance.pk])[instance.pk]


def handle_deleted(sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any) -> None:
    """After a deletion, record it with the snapshot that was held."""
    snapshot = instance.__dict__.pop(SNAPSHOT_SLOT, None)
    model = sender._meta.concrete_model
    if snapshot and scope.wants(model, using):
        recording.record_deleted(model, {instance.pk: snapshot}, recording.message_of(instance))


def handle_linked(
    sender: type[models.Model],
    instance: models.Model,
    action: str,
    reverse: bool,
    model: type[models.Model],
    pk_set: set | None,
    using: str,
    targets: frozenset[type[models.Model]],
    **kwargs: Any,
) -> None:
    """Before and after a change of many-to-many links, hold earlier states, then record the objects that own the field.

    The links may be changed from either end: `reverse` says from which.
    """
    changed = (model if reverse else type(instance))._meta.concrete_model
    if changed not in targets or not scope.wants(changed, using):
        return
    slot = f'{LINKS_SLOT}_{sender._meta.label_lower}'
    if action.startswith('post_'):
        states = prechange.pop(instance, slot, {})
        recording.record_touched(changed, KindChoices.UPDATED, states)
        prechange.drop(changed, states)
        return
    # clear() does not say which keys it removes. So they are read from the table.
    pks = _far_pks(sender, instance, changed, pk_set) if reverse else _near_pks(instance, action, pk_set)
    states = recording.with_before(changed, pks)
    prechange.keep(changed, states)
    prechange.push(instance, slot, states)


def handle_bulk(
    sender: type[models.Model],
    instances: Iterable[models.Model],
    event: str,
    using: str = DEFAULT_DB_ALIAS,
    **kwargs: Any,
) -> None:
    """Lock the rows and record a change that code reports by `bulk_operation`. Raises ValueError for unknown events."""
    if event not in OBJECT_KINDS:
        raise ValueError(f'event: {event!r} is not one of {", ".join(OBJECT_KINDS)}')
    model = sender._meta.concrete_model
    if not scope.wants(model, using):
        return
    pks = [instance.pk for instance in instances]
    if event != KindChoices.DELETED:
        recording.record_touched(model, event, dict.fromkeys(pks))
        return
    with transaction.atomic():
        if taken := deletions.take(model, pks):
            recording.record_deleted(model, taken)


def _near_pks(instance: models.Model, action: str, pk_set: set | None) -> list:
    return [instance.pk] if pk_set or action == 'pre_clear' else []


def _far_pks(
    through: type[models.Model], instance: models.Model, changed: type[models.Model], pk_set: set | None
) -> list:
    if pk_set is not None:
        return sorted(pk_set)
    field = next(f for f in changed._meta.many_to_many if f.remote_field.through is through)
    links = rows(through).filter(**{field.m2m_reverse_field_name(): instance.pk})
    return list(links.values_list(field.m2m_field_name(), flat=True))


def _forget(**kwargs: Any) -> None:
    scope.forget()
