"""Where NetBox's internals differ, rendering keeps NetBox's slower way and says so."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.checks import CheckMessage
from django.db.models import Model
from extras.api.customfields import CustomFieldsDataField
from extras.models import ConfigContext, CustomField
from extras.models.customfields import CustomFieldManager
from netbox.api.fields import SerializedPKRelatedField
from netbox.api.serializers import fields
from support.objects import make_device, make_ip_address, make_prefix, make_site, make_vrf
from support.rest import get
from utilities.views import get_viewname

from webhooks import rendering
from webhooks.checks import rendering_is_prepared
from webhooks.outbox import snapshots
from webhooks.rendering import bulk, configcontext, parts, serializer

MAKERS = (make_device, make_ip_address, make_prefix, make_site, make_vrf)

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def as_in_a_new_process() -> Iterator[None]:
    before = dict(parts.left)
    begin_anew()
    yield
    begin_anew()
    parts.left.update(before)


def begin_anew() -> None:
    """Prepared parts are kept for the whole process."""
    bulk._renderer.cache_clear()
    parts.left.clear()


def take(instance: Model) -> dict[str, Any]:
    return json.loads(snapshots.take(type(instance), [instance.pk])[instance.pk])


def render(*instances: Model) -> list[dict[str, Any]]:
    return [one.data for one in rendering.render(type(instances[0]), [take(one) for one in instances])]


def warnings() -> list[CheckMessage]:
    """Return those of `migrate`."""
    return rendering_is_prepared(None, databases=['default'])


#
# NetBoxes with other internals, each with the part that it loses
#


def no_class(name: str) -> Callable[[Patch], str]:
    def change(monkeypatch: Patch) -> str:
        monkeypatch.setattr(serializer, name, parts.find('netbox.api.fields', f'No{name}'))
        return f'No{name}'

    return change


def no_attribute(monkeypatch: Patch) -> str:
    """`nested` has another name."""
    initialize = SerializedPKRelatedField.__init__

    def other(self: Any, *arguments: Any, **options: Any) -> None:
        initialize(self, *arguments, **options)
        self.depth = self.__dict__.pop('nested')

    def represent(self: Any, value: Any) -> Any:
        return self.serializer(nested=self.depth, context=self.context).to_representation(value)

    monkeypatch.setattr(SerializedPKRelatedField, '__init__', other)
    monkeypatch.setattr(SerializedPKRelatedField, 'to_representation', represent)
    return 'ManyRelatedField'


def no_method(monkeypatch: Patch) -> str:
    """View names come from another method."""

    def get_url(self: Any, instance: Model, *_rest: Any) -> str:
        name = get_viewname(instance, 'detail', rest_api=isinstance(self, fields.NetBoxAPIHyperlinkedIdentityField))
        if not isinstance(self, fields.NetBoxAPIHyperlinkedIdentityField):
            name = get_viewname(instance)
        return self.reverse(name, kwargs={'pk': instance.pk})

    monkeypatch.setattr(fields.BaseNetBoxHyperlinkedIdentityField, 'get_url', get_url)
    monkeypatch.delattr(fields.NetBoxAPIHyperlinkedIdentityField, 'get_view_name')
    return 'NetBoxAPIHyperlinkedIdentityField'


def other_signature(monkeypatch: Patch) -> str:
    """The cached property is a method with an argument."""
    represent, kept = CustomFieldsDataField.to_representation, CustomFieldsDataField._get_custom_fields

    def with_argument(self: Any, values: Any) -> Any:
        return kept(self)

    def represent_with_argument(self: Any, values: Any) -> Any:
        self.__dict__['_get_custom_fields'] = lambda: kept(self)
        try:
            return represent(self, values)
        finally:
            del self.__dict__['_get_custom_fields']

    monkeypatch.setattr(CustomFieldsDataField, '_get_custom_fields', with_argument)
    monkeypatch.setattr(CustomFieldsDataField, 'to_representation', represent_with_argument)
    return 'CustomFieldsDataField'


def no_function(monkeypatch: Patch) -> str:
    monkeypatch.setattr(bulk, 'get_prefetches_for_serializer', parts.find('utilities.api', 'get_no_prefetches'))
    return 'get_no_prefetches'


def other_function(monkeypatch: Patch) -> str:
    """It names a relation that cannot be prefetched."""
    monkeypatch.setattr(bulk, 'get_prefetches_for_serializer', lambda _serializer_class: ['nothing_of_the_kind'])
    return 'prefetches'


def other_rule(monkeypatch: Patch) -> str:
    """A limit of config contexts is unknown here."""
    monkeypatch.setattr(configcontext, 'LIMITS', configcontext.LIMITS[1:])
    assert len(ConfigContext._meta.many_to_many) > len(configcontext.LIMITS)
    return 'config contexts'


def fails_at_rendering(monkeypatch: Patch) -> str:
    get_for_model = CustomFieldManager.get_for_model
    monkeypatch.setattr(CustomFieldManager, 'get_for_model', lambda self, model, scope: get_for_model(self, model))
    monkeypatch.setattr(
        CustomFieldsDataField,
        '_get_custom_fields',
        lambda self: CustomField.objects.get_for_model(self.parent.Meta.model, 'all'),
    )
    return 'dcim.device'


CLASSES = ('CustomFieldsDataField', 'SerializedPKRelatedField', 'GFKSerializerField', 'BaseModelSerializer')
OTHERS = [
    *(no_class(name) for name in (*CLASSES, 'APIURLField')),
    no_attribute,
    no_method,
    other_signature,
    no_function,
    other_function,
    other_rule,
    fails_at_rendering,
]


def test_each_object_is_shown_as_the_api_shows_it_and_the_part_is_named_once(
    api_client, caplog: pytest.LogCaptureFixture
):
    instances = [make() for make in MAKERS]
    shown = [get(api_client, instance) for instance in instances]
    for change in OTHERS:
        begin_anew()
        caplog.clear()
        with caplog.at_level(logging.WARNING, 'webhooks.rendering'), Patch.context() as patch:
            part = change(patch)
            for _twice in range(2):
                assert [render(instance)[0] for instance in instances] == shown, part
        assert part in parts.left
        assert len([record for record in caplog.records if record.args and record.args[0] == part]) == 1, part


def test_with_the_netbox_that_is_installed_nothing_is_left(api_client, caplog: pytest.LogCaptureFixture):
    instances = [make() for make in MAKERS]
    assert [render(instance)[0] for instance in instances] == [get(api_client, instance) for instance in instances]
    assert parts.left == {}
    assert not [record for record in caplog.records if record.name == 'webhooks.rendering']


def test_custom_fields_are_those_of_now_though_netbox_keeps_them(api_client, monkeypatch: Patch):
    other_signature(monkeypatch)
    site = make_site()
    assert render(site) == [get(api_client, site)]
    CustomField.objects.get(name='cf_text').delete()
    shown = get(api_client, site)
    assert 'cf_integer' in shown['custom_fields']
    assert 'cf_text' not in shown['custom_fields']
    assert render(site) == [shown]


@pytest.mark.parametrize('change', [no_attribute, other_signature, no_function])
def test_the_check_names_the_part(monkeypatch: Patch, change: Callable[[Patch], str]):
    assert warnings() == []
    bulk._renderer.cache_clear()
    part = change(monkeypatch)
    assert part in ' '.join(warning.msg for warning in warnings())


def test_an_error_that_netbox_has_too_is_raised(db, monkeypatch: Patch):
    site = make_site()
    assert render(site)

    def raises(self: Any, values: Any) -> Any:
        raise TypeError('NetBox cannot')

    monkeypatch.setattr(CustomFieldsDataField, 'to_representation', raises)
    bulk._renderer.cache_clear()
    with pytest.raises(TypeError, match='NetBox cannot'):
        render(site)
    assert parts.left == {}
