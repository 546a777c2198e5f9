"""Lists the models whose changes may be sent: the default ones, and the setting `allowed_models`."""

from collections.abc import Iterable

from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models import QuerySet
from netbox.api.exceptions import SerializerNotFound
from utilities.api import get_serializer_for_model
from utilities.string import title

from . import conf
from .constants import DEFAULT_MODELS


def allowed() -> QuerySet[ContentType]:
    """Return the types whose changes may be sent, ordered by app and model."""
    types = ContentType.objects.get_for_models(*allowed_models()).values()
    return ContentType.objects.filter(pk__in=[object_type.pk for object_type in types]).order_by('app_label', 'model')


def by_label() -> dict[str, ContentType]:
    """Return the allowed types as {"app.model": type}."""
    return {label_of(object_type): object_type for object_type in allowed()}


def by_app() -> list[tuple[str, list[tuple[int, str]]]]:
    """Return the allowed types as choices of a form: [(app, [(id, name)])], by name."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for object_type in allowed():
        app = str(apps.get_app_config(object_type.app_label).verbose_name)
        groups.setdefault(app, []).append((object_type.pk, name_of(object_type)))
    return [(app, sorted(choices, key=lambda choice: choice[1])) for app, choices in groups.items()]


def name_of(object_type: ContentType) -> str:
    """Return the name of a type as NetBox shows it; its lower-case class name if its plugin is gone."""
    model = object_type.model_class()
    return title(model._meta.verbose_name) if model else object_type.model


def label_of(object_type: ContentType) -> str:
    """Return the label of a type, such as 'dcim.site'."""
    return f'{object_type.app_label}.{object_type.model}'


def label_of_id(type_id: int) -> str:
    """Return the label of the type with this id, such as 'dcim.site'."""
    return label_of(ContentType.objects.get_for_id(type_id))


def id_of(label: str) -> int:
    """Return the id of the type with this label. Raises ContentType.DoesNotExist."""
    return ContentType.objects.get_by_natural_key(*label.split('.')).pk


def model_of_id(type_id: int) -> type[models.Model] | None:
    """Return the model of the type with this id, None if its plugin was removed."""
    return ContentType.objects.get_for_id(type_id).model_class()


def models_of(types: Iterable[ContentType]) -> list[type[models.Model]]:
    """Return the models of the types. Types whose plugin was removed are left out."""
    return [model for one in types if (model := one.model_class())]


def allowed_models() -> list[type[models.Model]]:
    """Return the models whose changes may be sent. Raises ImproperlyConfigured if one is missing or cannot be."""
    if conf.get().any_model:
        return every_model()
    return [_model(label) for label in conf.get().allowed_models]


def is_allowed(model: type[models.Model]) -> bool:
    """Return whether changes of the model may be sent. A change of a proxy is a change of its model."""
    if conf.get().any_model or model._meta.label_lower in conf.get().allowed_models:
        return True
    return model in [one._meta.concrete_model for one in allowed_models()]


def every_model() -> list[type[models.Model]]:
    """Return every installed model whose changes can be sent: for the setting `allowed_models: ['*']`."""
    return [model for model in apps.get_models() if _is_ours_to_watch(model)]


def _is_ours_to_watch(model: type[models.Model]) -> bool:
    if model._meta.app_label == 'webhooks' or _inherits_columns(model):
        return False
    return _has_number(model) and _is_serializable(model)


def _model(label: str) -> type[models.Model]:
    try:
        model = apps.get_model(label)
    except LookupError:
        raise ImproperlyConfigured(
            f'allowed_models: there is no model {label!r}. Check the spelling, and the plugin'
        ) from None
    if label not in DEFAULT_MODELS and not _is_serializable(model):
        raise ImproperlyConfigured(f'allowed_models: {label!r} cannot be sent, because it has no REST API serializer')
    if _inherits_columns(model):
        raise ImproperlyConfigured(
            f'allowed_models: {label!r} cannot be sent, because it uses multi-table inheritance: '
            "some of its columns are in another model's table"
        )
    if not _has_number(model):
        raise ImproperlyConfigured(f'allowed_models: {label!r} cannot be sent, because its primary key is not a number')
    return model


def _inherits_columns(model: type[models.Model]) -> bool:
    return any(link is not None for link in model._meta.parents.values())


def _has_number(model: type[models.Model]) -> bool:
    """Return whether the primary key is an integer, as an event's `object_id` must be."""
    return isinstance(model._meta.pk, models.IntegerField | models.AutoField)


def _is_serializable(model: type[models.Model]) -> bool:
    """Return whether the REST API can show objects of the model.

    Changes of a proxy are recorded as changes of its model, so both need a serializer.
    """
    try:
        get_serializer_for_model(model)
        get_serializer_for_model(model._meta.concrete_model)
    except SerializerNotFound:
        return False
    return True
