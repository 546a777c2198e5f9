"""Keeps the earlier states of components that NetBox moves along with a module: bulk_update() sends no pre_save."""

from collections.abc import Collection
from functools import partial
from typing import Any

from dcim.models import Module
from django.db.models import Model
from django.db.models.signals import pre_save

from ..default_database import rows
from . import prechange, scope, snapshots

# Only a save of these fields moves components.
PLACE_FIELDS = frozenset({'device', 'device_id', 'module_bay', 'module_bay_id'})
# NetBox sets it on a new module that is to adopt the components of its device.
ADOPTS_ATTRIBUTE = '_adopt_components'


def connect(targets: Collection[type[Model]]) -> None:
    """Connect `keep` to saves of modules, if modules or their components are among the models to record."""
    group = [model for model in targets if model is Module or _is_component(model)]
    if group:
        pre_save.connect(partial(keep, group), Module, weak=False, dispatch_uid='webhooks.modules')


def keep(
    group: list[type[Model]],
    instance: Module,
    using: str,
    raw: bool = False,
    update_fields: Collection[str] | None = None,
    **kwargs: Any,
) -> None:
    """Keep the states of components, and of modules below, that the save of this module will change.

    `group`: the models to record. Nothing is kept if no webhook needs states before a change.
    """
    if raw or (update_fields is not None and PLACE_FIELDS.isdisjoint(update_fields)):
        return
    asked = [model for model in group if scope.wants(model, using) and scope.needs_before(model)]
    if not asked:
        return
    former = rows(Module).filter(pk=instance.pk).values_list('device_id', 'module_bay_id').first()
    if former is None:
        if getattr(instance, ADOPTS_ATTRIBUTE, False):
            _keep(asked, device=instance.device_id, module=None)
    elif former != (instance.device_id, instance.module_bay_id):
        modules = _with_those_below(instance.pk)
        _keep(asked, module__in=modules)
        if Module in asked:
            prechange.keep(Module, snapshots.take_before(Module, modules - {instance.pk}))


def _keep(models: list[type[Model]], **of_components: Any) -> None:
    for model in models:
        if model is not Module:
            pks = list(rows(model).filter(**of_components).values_list('pk', flat=True))
            prechange.keep(model, snapshots.take_before(model, pks) if pks else {})


def _with_those_below(pk: int) -> set[int]:
    found = new = {pk}
    while new:
        new = set(rows(Module).filter(module_bay__module__in=new).values_list('pk', flat=True)) - found
        found = found | new
    return found


def _is_component(model: type[Model]) -> bool:
    fields = {field.name: field for field in model._meta.concrete_fields}
    return 'device' in fields and 'module' in fields and fields['module'].related_model is Module
