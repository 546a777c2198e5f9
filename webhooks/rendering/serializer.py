"""Prepares NetBox's own serializer of a model once, to render many instances with it."""

import json
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.urls import NoReverseMatch, Resolver404, get_script_prefix, resolve, reverse
from netbox.api.exceptions import SerializerNotFound
from rest_framework.fields import Field
from rest_framework.relations import HyperlinkedIdentityField, ManyRelatedField
from rest_framework.serializers import ListSerializer, Serializer
from rest_framework.utils.encoders import JSONEncoder
from utilities.api import get_serializer_for_model
from utilities.views import get_viewname

from . import gone
from .customfields import CustomFields
from .parts import find, left, part, put

CustomFieldsDataField = find('extras.api.customfields', 'CustomFieldsDataField')
SerializedPKRelatedField = find('netbox.api.fields', 'SerializedPKRelatedField')
GFKSerializerField = find('netbox.api.gfk_fields', 'GFKSerializerField')
BaseModelSerializer = find('netbox.api.serializers', 'BaseModelSerializer')
APIURLField = find('netbox.api.serializers.fields', 'NetBoxAPIHyperlinkedIdentityField')
PageURLField = find('netbox.api.serializers.fields', 'NetBoxURLHyperlinkedIdentityField')

# A primary key in a model's URL. Each object's own key takes its place.
PLACEHOLDER = 912873645

# NaN is an error: it is not JSON.
ENCODER = JSONEncoder(allow_nan=False)


def view_at(path: str) -> type | None:
    """Return the class of the view at a path, such as "/api/dcim/sites/1/". None: the REST API has no view there.

    With BASE_PATH the path has it as prefix; resolve() expects it without.
    """
    prefix = get_script_prefix().rstrip('/')
    try:
        view = resolve(path.removeprefix(prefix)).func
    except Resolver404:
        return None
    return getattr(view, 'cls', None)


def api_view(model: type[Model]) -> type | None:
    """Return the class of the view that shows an object of the model in the REST API. None: it has none."""
    try:
        return view_at(reverse(get_viewname(model, 'detail', rest_api=True), args=[1]))
    except NoReverseMatch:
        return None


class NetBoxSerializer:
    """Renders instances in NetBox's own way. For each batch call `begin`, `represent` for each instance, `end`."""

    def __init__(self, model: type[Model]) -> None:
        self._model = model
        self._serializer = get_serializer_for_model(model)(context=_context())

    @property
    def fields(self) -> dict[str, Field]:
        """Return the serializer's fields by key."""
        return dict(self._serializer.fields)

    @property
    def sources(self) -> set[str]:
        """Return the names of attributes that the fields show."""
        return {field.source for field in self._serializer.fields.values()}

    def begin(self, custom_fields: CustomFields) -> None:
        """Begin a batch. NetBox reads custom fields itself."""

    def represent(self, instance: Model) -> dict[str, Any]:
        """Return the data that the API shows, as read from its JSON. Raises the errors of NetBox's serializer."""
        return json.loads(ENCODER.encode(self._serializer.to_representation(instance)))

    def end(self) -> None:
        """End the batch. Nothing is kept here."""


class PreparedSerializer(NetBoxSerializer):
    """Renders as NetBox does, but faster: looks up URLs once, and renders each related object once a batch."""

    def __init__(self, model: type[Model]) -> None:
        super().__init__(model)
        self._custom_fields: CustomFields | None = None
        self._prepare_all()

    def begin(self, custom_fields: CustomFields) -> None:
        """Begin a batch, whose custom fields were read."""
        if left:
            # Parts that stay NetBox's may keep look-ups of the batch before. So it begins with new ones.
            super().__init__(self._model)
            self._prepare_all()
        self._custom_fields = custom_fields

    def end(self) -> None:
        """End the batch, and forget its instances."""
        self._custom_fields = None
        for rendered in self._nested:
            rendered.forget()

    def _prepare_all(self) -> None:
        self._nested: list[RenderedOnce] = []
        self._by_model: dict[type[Model], Serializer] = {}
        self._prepare(self._serializer)

    def _prepare(self, serializer: Serializer) -> None:
        with part('display'):
            if getattr(type(serializer), 'get_display', None) is BaseModelSerializer.get_display:
                put(serializer, 'get_display', gone.describe)
        for field in serializer.fields.values():
            with part(type(field).__name__):
                self._prepare_field(field, serializer.Meta.model)

    def _prepare_field(self, field: Field, model: type[Model]) -> None:
        if isinstance(field, HyperlinkedIdentityField):
            _prepare_url(field, model)
        elif type(field) is CustomFieldsDataField:
            self._prepare_custom_fields(field, model)
        elif type(field) is GFKSerializerField:
            put(field, 'to_representation', self._any_object(field.to_representation))
        else:
            self._prepare_related(field)

    def _prepare_related(self, field: Field) -> None:
        if isinstance(field, ListSerializer):
            field = field.child
        if isinstance(field, ManyRelatedField):
            field = field.child_relation
        if type(field) is SerializedPKRelatedField:
            nested = field.serializer(nested=field.nested, context=_context())
            put(field, 'to_representation', self._prepared(nested).to_representation)
        elif isinstance(field, BaseModelSerializer):
            self._prepared(field)

    def _prepare_custom_fields(self, field: Field, model: type[Model]) -> None:
        """Let NetBox show all custom fields but the pointing ones, whose objects are already read."""
        shown_by_netbox = field.to_representation
        # Keep this order: the first alone is right, the second alone is not.
        put(field, 'to_representation', lambda values: shown_by_netbox(values) | self._pointed_to(model, values))
        # NetBox would keep the fields of the first batch for good.
        put(field, '_get_custom_fields', lambda: self._custom_fields.of(model))

    def _pointed_to(self, model: type[Model], values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: [self._nested_of(type(one)).to_representation(one) for one in target]
            if isinstance(target, list)
            else self._nested_of(type(target)).to_representation(target)
            for name, target in self._custom_fields.targets(model, values).items()
        }

    def _any_object(self, shown_by_netbox: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def represent(instance: Model | None) -> Any:
            try:
                nested = None if instance is None else self._nested_of(type(instance))
            except SerializerNotFound:
                nested = None
            return nested.to_representation(instance) if nested else shown_by_netbox(instance)

        return represent

    def _nested_of(self, model: type[Model]) -> Serializer:
        if model not in self._by_model:
            nested = get_serializer_for_model(model)(nested=True, context=_context())
            self._by_model[model] = self._prepared(nested)
        return self._by_model[model]

    def _prepared(self, nested: Serializer) -> Serializer:
        rendered = RenderedOnce(nested, self._prepare)
        put(nested, 'to_representation', rendered)
        self._nested.append(rendered)
        return nested


class RenderedOnce:
    """Takes the place of a nested serializer's `to_representation`: renders each instance once, until `forget`.

    `prepare` is called at the first instance: nested serializers may be many, and few are used.
    """

    def __init__(self, serializer: Serializer, prepare: Callable[[Serializer], None]) -> None:
        self._serializer = serializer
        self._to_representation = serializer.to_representation
        self._prepare: Callable[[Serializer], None] | None = prepare
        self._rendered: dict[int, tuple[Model, Any]] = {}

    def __call__(self, instance: Model) -> Any:
        """Return the nested serializer's data of the instance; a stub has its id, URLs and description only."""
        known = self._rendered.get(id(instance))
        if known is None:
            # The instance is kept too: else a new one could get its id().
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
        """Drop the rendered instances, at the end of a batch."""
        self._rendered.clear()


def _context() -> dict[str, Any]:
    # NetBox's serializers write into it. So each gets its own.
    return {'request': None}


def _prepare_url(field: HyperlinkedIdentityField, model: type[Model]) -> None:
    """Let the field make URLs without reversing each, which takes longer than a small object.

    Models without URLs show null.
    """
    put(field, 'to_representation', _looked_up(field.to_representation))
    if type(field) not in (APIURLField, PageURLField):
        return
    try:
        url = field.reverse(field.get_view_name(model), kwargs={field.lookup_url_kwarg: PLACEHOLDER})
    except NoReverseMatch:
        return
    before, after = url.split(str(PLACEHOLDER))
    put(field, 'to_representation', lambda instance: f'{before}{getattr(instance, field.lookup_field)}{after}')


def _looked_up(to_representation: Callable[[Model], str | None]) -> Callable[[Model], str | None]:
    def url_of(instance: Model) -> str | None:
        try:
            return to_representation(instance)
        except ImproperlyConfigured:
            return None

    return url_of
