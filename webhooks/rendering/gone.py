"""Rebuilds deleted objects that others still point to: from NetBox's change log, else with their id only (stubs)."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from core.choices import ObjectChangeActionChoices
from core.models import ObjectChange
from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, models

from .decoding import as_peers, default

# Attributes of instances. DELETED_AT: when a rebuilt object was deleted, None for a stub. TAKEN_AT: when the snapshot
# was taken.
DELETED_AT = '_webhooks_deleted_at'
TAKEN_AT = '_webhooks_taken_at'
# TAKEN_AT of a snapshot that is rendered at once: every deletion came before it.
NOW = datetime.max.replace(tzinfo=UTC)


def rebuild(model: type[models.Model], pks: Iterable[Any]) -> dict[Any, models.Model]:
    """Return {pk: instance} of deleted objects. Reads the change log, with one query."""
    logged = _from_change_log(model, pks)
    rebuilt = as_peers(logged.get(pk) or _build(model, pk, {}, None) for pk in pks)
    return {instance.pk: instance for instance in rebuilt}


def deleted_before(target: models.Model, instance: models.Model) -> bool:
    """Return whether the target's deletion is known to precede the instance's snapshot, or else its last save."""
    if not hasattr(target, DELETED_AT):
        return False
    deleted_at = getattr(target, DELETED_AT)
    taken_at = getattr(instance, TAKEN_AT, None) or getattr(instance, 'last_updated', None)
    if taken_at is NOW:
        return True
    return deleted_at is not None and taken_at is not None and deleted_at <= taken_at


def is_stub(instance: Any) -> bool:
    """Return whether the instance is a deleted object that is known by its id only."""
    return getattr(instance, DELETED_AT, instance) is None


def describe(instance: models.Model) -> str:
    """Return str() of the instance; its model and id if it is a stub, or if str() needs a deleted object."""
    if not is_stub(instance):
        try:
            return str(instance)
        except (AttributeError, models.ObjectDoesNotExist):
            pass
    return f'{instance._meta.verbose_name} {instance.pk}'


def _from_change_log(model: type[models.Model], pks: Iterable[Any]) -> dict[Any, models.Model]:
    changes = (
        ObjectChange.objects.filter(
            action=ObjectChangeActionChoices.ACTION_DELETE,
            changed_object_type=ContentType.objects.get_for_model(model),
            changed_object_id__in=[pk for pk in pks if isinstance(pk, int)],
            prechange_data__isnull=False,
        )
        .order_by('changed_object_id', '-time')
        .distinct('changed_object_id')
    )
    return {
        pk: _build(model, pk, data, time)
        for pk, data, time in changes.values_list('changed_object_id', 'prechange_data', 'time')
    }


def _build(model: type[models.Model], pk: Any, data: dict[str, Any], time: datetime | None) -> models.Model:
    fields = model._meta.concrete_fields
    values = [pk if field.primary_key else _logged(field, data) for field in fields]
    instance = model.from_db(DEFAULT_DB_ALIAS, [field.attname for field in fields], values)
    setattr(instance, DELETED_AT, time)
    return instance


def _logged(field: models.Field, data: dict[str, Any]) -> Any:
    name = 'custom_fields' if field.name == 'custom_field_data' else field.name
    if name not in data:
        return default(field)
    return data[name] if isinstance(field, models.ForeignKey) else field.to_python(data[name])
