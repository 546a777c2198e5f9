"""NetBox's own serializer of a model, prepared once to render many instances.

An object that several instances of a batch show nested is rendered once. Of one of which nothing but the id is known,
the id is what is shown.
"""

import json
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.urls import NoReverseMatch
from extras.api.customfields import CustomFieldsDataField
from netbox.api.fields import SerializedPKRelatedField
from netbox.api.gfk_fields import GFKSerializerField
from netbox.api.serializers import BaseModelSerializer
from netbox.api.serializers.fields import NetBoxAPIHyperlinkedIdentityField, NetBoxURLHyperlinkedIdentityField
from rest_framework.fields import Field
from rest_framework.relations import HyperlinkedIdentityField, ManyRelatedField
from rest_framework.serializers import ListSerializer, Serializer
from rest_framework.utils.encoders import JSONEncoder
from utilities.api import get_serializer_for_model

from . import gone
from .customfields import CustomFields

# The primary key in the URL of which those of all objects are made.
PLACEHOLDER = 912873645


ENCODER = JSONEncoder(allow_nan=False)


class PreparedSerializer:
    """Renders one batch after the other: `begin`, `represent` each instance, `end`."""

    def __init__(self, model: type[Model]) -> None:
        self._serializer = get_serializer_for_model(model)(context={'request': None})
        self._nested: list[RenderedOnce] = []
        self._custom_fields: CustomFields | None = None
        self._prepare(self._serializer)

    @property
    def sources(self) -> set[str]:
        """The model's attributes that are shown."""
        return {field.source for field in self._serializer.fields.values()}

    def begin(self, custom_fields: CustomFields) -> None:
        """Let the instances that follow have these custom fields."""
        self._custom_fields = custom_fields

    def represent(self, instance: Model) -> dict[str, Any]:
        """Return what the API shows of the instance, as a reader of its JSON sees it."""
        return json.loads(ENCODER.encode(self._serializer.to_representation(instance)))

    def end(self) -> None:
        self._custom_fields = None
        for rendered in self._nested:
            rendered.forget()

    def _prepare(self, serializer: Serializer) -> None:
        if getattr(type(serializer), 'get_display', None) is BaseModelSerializer.get_display:
            serializer.get_display = gone.describe
        for field in serializer.fields.values():
            if isinstance(field, HyperlinkedIdentityField):
                field.to_representation = _url_of(field, serializer.Meta.model)
            elif isinstance(field, CustomFieldsDataField):
                self._prepare_custom_fields(field, serializer.Meta.model)
            elif isinstance(field, GFKSerializerField):
                field._serializer_cache = KeptSerializers(self._prepare_nested)
            elif (nested := _nested_in(field)) is not None:
                self._prepare_nested(nested)

    def _prepare_custom_fields(self, field: CustomFieldsDataField, model: type[Model]) -> None:
        # It would keep them for good.
        field._get_custom_fields = lambda: self._custom_fields.of(model)
        field._nested_serializers = KeptSerializers(self._prepare_nested)

    def _prepare_nested(self, serializer: BaseModelSerializer) -> None:
        rendered = RenderedOnce(serializer, self._prepare)
        serializer.to_representation = rendered
        self._nested.append(rendered)


class RenderedOnce:
    """A nested serializer's `to_representation` that renders each instance once a batch."""

    def __init__(self, serializer: BaseModelSerializer, prepare: Callable[[Serializer], None]) -> None:
        self._serializer = serializer
        self._to_representation = serializer.to_representation
        self._prepare: Callable[[Serializer], None] | None = prepare
        self._rendered: dict[int, tuple[Model, Any]] = {}

    def __call__(self, instance: Model) -> Any:
        known = self._rendered.get(id(instance))
        if known is None:
            # The instance is kept, so that no other one gets its id.
            known = self._rendered[id(instance)] = (instance, self._render(instance))
        return known[1]

    def _render(self, instance: Model) -> Any:
        if self._prepare:
            self._prepare(self._serializer)
            self._prepare = None
        return self._by_id(instance) if gone.is_stub(instance) else self._to_representation(instance)

    def _by_id(self, stub: Model) -> dict[str, Any]:
        fields = self._serializer.fields
        urls = {name: fields[name].to_representation(stub) for name in ('url', 'display_url') if name in fields}
        return {**dict.fromkeys(fields), **urls, 'id': stub.pk, 'display': gone.describe(stub)}

    def forget(self) -> None:
        self._rendered.clear()


class KeptSerializers(dict):
    """Serializers that a field keeps for later: each is prepared when it is put in."""

    def __init__(self, prepare_nested: Callable[[BaseModelSerializer], None]) -> None:
        super().__init__()
        self._prepare_nested = prepare_nested

    def __setitem__(self, key: Any, serializer: Serializer | None) -> None:
        if serializer is not None:
            self._prepare_nested(serializer.child if isinstance(serializer, ListSerializer) else serializer)
        super().__setitem__(key, serializer)


def _nested_in(field: Field) -> BaseModelSerializer | None:
    if isinstance(field, ListSerializer):
        field = field.child
    if isinstance(field, ManyRelatedField):
        field = field.child_relation
    if isinstance(field, SerializedPKRelatedField):
        field = field._nested_serializer
    return field if isinstance(field, BaseModelSerializer) else None


def _url_of(field: HyperlinkedIdentityField, model: type[Model]) -> Callable[[Model], str | None]:
    """Return what makes an instance's URL: null where the model has none.

    Looking the URL up takes longer than the rest of a small object.
    """
    if type(field) in (NetBoxAPIHyperlinkedIdentityField, NetBoxURLHyperlinkedIdentityField):
        try:
            url = field.reverse(field.get_view_name(model), kwargs={field.lookup_url_kwarg: PLACEHOLDER})
            before, after = url.split(str(PLACEHOLDER))
        except (NoReverseMatch, ValueError):
            pass
        else:
            return lambda instance: f'{before}{getattr(instance, field.lookup_field)}{after}'
    return _looked_up(field.to_representation)


def _looked_up(to_representation: Callable[[Model], str | None]) -> Callable[[Model], str | None]:
    def url_of(instance: Model) -> str | None:
        try:
            return to_representation(instance)
        except ImproperlyConfigured:
            return None

    return url_of
