"""NetBox's own pages open where they list what the plugin brings.

NetBox's URLs and forms say what is walked, so a new widget, model, action or event type is walked too.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from core.models import DataSource, ObjectType
from dcim.models import Site
from django import forms
from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.http import HttpResponse
from django.test import Client
from django.urls import NoReverseMatch, get_resolver, reverse
from extras.models import Bookmark, Dashboard, ExportTemplate, SavedFilter, Subscription, TableConfig
from netbox.registry import registry
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event
from utilities.views import get_action_url

from webhooks.event_types import EVENT_TYPES
from webhooks.models import Credential, Definition, Webhook

pytestmark = pytest.mark.usefixtures('db')

# The parts of NetBox that list what plugins bring.
SPACES = ('', 'account', 'core', 'extras', 'users', 'plugins:webhooks')
# They end the session, say an error, or take seconds without a form.
LEFT_OUT = {'logout', 'media_failure', 'schema'}
FRAGMENT = {'HX-Request': 'true'}
OPENED = 200


def names() -> list[str]:
    found = sorted({name for name in _names(get_resolver()) if name.rpartition(':')[0] in SPACES} - LEFT_OUT)
    assert {'extras:dashboardwidget_add', 'extras:eventrule_add', 'plugins:webhooks:webhook_list'} <= {*found}
    return found


def _names(resolver: Any, prefix: str = '') -> Iterator[str]:
    for pattern in resolver.url_patterns:
        if hasattr(pattern, 'url_patterns'):
            yield from _names(pattern, f'{prefix}{pattern.namespace}:' if pattern.namespace else prefix)
        elif pattern.name:
            yield prefix + pattern.name


def addresses(**kwargs: int) -> dict[str, str]:
    """Return {name: path} of what takes these arguments."""
    found = {}
    for name in names():
        try:
            found[name] = reverse(name, kwargs=kwargs)
        except NoReverseMatch:
            continue
    return found


def opened(pages: Client, address: str, asked: dict[str, Any] | None = None) -> list[HttpResponse]:
    """Open it as a page and as a fragment. An exception of the view goes through."""
    answers = [pages.get(address, asked), pages.get(address, asked, headers=FRAGMENT)]
    assert [one for one in answers if one.status_code >= 500] == []
    return [one for one in answers if one.status_code == OPENED]


def forms_of(answer: HttpResponse) -> list[forms.BaseForm]:
    contexts = answer.context if isinstance(answer.context, list) else filter(None, [answer.context])
    shown = {id(one): one for context in contexts for one in context.flatten().values()}
    return [one for one in shown.values() if isinstance(one, forms.BaseForm)]


def brought(field: forms.Field) -> list[Any]:
    """Return the values to choose: our object types; all, where one is ours."""
    if isinstance(field, forms.ModelChoiceField):
        rows = field.queryset if issubclass(field.queryset.model, ContentType) else ()
        return [row.pk for row in rows if row.app_label == 'webhooks']
    choices = [value for value, _label in _flat(getattr(field, 'choices', ()))]
    return choices if any(str(value).startswith('webhook') for value in choices) else []


def _flat(choices: Any) -> Iterator[tuple[Any, Any]]:
    for value, label in choices:
        if isinstance(label, list | tuple):
            yield from label
        else:
            yield value, label


def listed_models() -> list[type[Model]]:
    found = [model for model in apps.get_app_config('webhooks').get_models() if _address(model, 'list')]
    assert Webhook in found
    return found


def _address(model: type[Model], action: str) -> str:
    try:
        return get_action_url(model, action=action)
    except NoReverseMatch:
        return ''


def save(pages: Client, name: str, /, **values: Any) -> None:
    """Fill in NetBox's form, and send it."""
    form = pages.get(reverse(name), values).context['form']
    filled = {bound.html_name: bound.value() for bound in form if bound.value() is not None}
    answer = pages.post(reverse(name), filled | values)
    assert answer.status_code == 302, answer.context['form'].errors


@pytest.fixture
def ours() -> dict[type[Model], Model]:
    webhook = subscribe(NOWHERE, Site)
    credential = Credential.objects.create(name='Token', type='bearer', hosts=['a.example'], secret='sesame')
    source = DataSource.objects.create(name='infra', type='local', source_url='/nowhere')
    definition = Definition.objects.create(name='Ours', data_source=source, path='webhooks.yaml')
    log = delivery(event(site()), webhook)
    found = {type(one): one for one in (webhook, credential, definition, log, log.event)}
    assert found.keys() >= {*listed_models()}, 'make one of the new model, too'
    return found


def test_every_page_fragment_and_form_opens_with_each_thing_that_the_plugin_brings(admin_pages):
    answered, chosen = set(), set()
    for name, address in addresses().items():
        for answer in opened(admin_pages, address)[-1:]:
            answered.add(name)
            for form in forms_of(answer):
                for field, value in [(key, one) for key in form.fields for one in brought(form.fields[key])]:
                    prefilled = admin_pages.get(address, {field: value}, headers=FRAGMENT)
                    assert prefilled.status_code == OPENED, f'{name}?{field}={value}'
                    chosen.add((name, field, value))
    assert len(answered) > 50
    for widget in registry['widgets']:
        assert ('extras:dashboardwidget_add', 'widget_class', widget) in chosen
    for action in registry['event_rule_actions']:
        assert ('extras:eventrule_add', 'action_type', action) in chosen
    webhook = ObjectType.objects.get_for_model(Webhook).pk
    for event_type in EVENT_TYPES:
        assert ('extras:eventrule_add', 'event_types', event_type.name) in chosen
    for model in ('customfield', 'customlink', 'eventrule', 'exporttemplate', 'savedfilter', 'tag'):
        assert (f'extras:{model}_add', 'object_types', webhook) in chosen


def test_every_widget_opens_its_dialogs(admin_pages, netbox_user):
    dashboard = Dashboard(user=netbox_user)
    for widget in registry['widgets'].values():
        dashboard.add_widget(widget())
    dashboard.save()
    for key in dashboard.config:
        for name in ('extras:dashboardwidget_config', 'extras:dashboardwidget_delete'):
            assert admin_pages.get(reverse(name, args=[key]), headers=FRAGMENT).status_code == OPENED


def test_our_widget_can_be_added_renamed_and_removed(admin_pages, netbox_user):
    admin_pages.get('/')
    ours = [name for name in registry['widgets'] if name.startswith('webhooks.')]
    for name in ours:
        before = {*Dashboard.objects.get().config}
        answer = admin_pages.post(reverse('extras:dashboardwidget_add'), {'widget_class': name})
        assert answer.headers['HX-Redirect'] == '/'
        ((key, kept),) = [item for item in Dashboard.objects.get().config.items() if item[0] not in before]
        assert kept['title'] == 'Webhooks'
        assert kept['title'] in admin_pages.get('/').content.decode()
        address = reverse('extras:dashboardwidget_config', args=[key])
        assert admin_pages.post(address, {'title': 'Renamed'}).headers['HX-Redirect'] == '/'
        assert 'Renamed' in admin_pages.get('/').content.decode()
        admin_pages.post(reverse('extras:dashboardwidget_delete', args=[key]), {'confirm': True})
        assert key not in Dashboard.objects.get().config
    assert ours


def save_about(ours: dict[type[Model], Model], admin_pages: Client) -> None:
    """Save what NetBox's forms can say about our models."""
    types = [ObjectType.objects.get_for_model(model) for model in listed_models()]
    for number, kind in enumerate(types):
        if 'custom_fields' in kind.features:
            save(admin_pages, 'extras:customfield_add', name=f'field{number}', type='text', object_types=[kind.pk])
        if 'custom_links' in kind.features:
            link = {'link_text': 'Link', 'link_url': 'http://a.example/{{ object.pk }}'}
            save(admin_pages, 'extras:customlink_add', name=f'Link {number}', object_types=[kind.pk], **link)
        if 'export_templates' in kind.features:
            code = '{% for one in queryset %}{{ one }}{% endfor %}'
            kept = {'object_types': [kind.pk], 'template_code': code}
            save(admin_pages, 'extras:exporttemplate_add', name=f'Template {number}', **kept)
        if 'tags' in kind.features:
            save(admin_pages, 'extras:tag_add', name=f'Tag {number}', slug=f'tag-{number}', object_types=[kind.pk])
        if 'event_rules' in kind.features:
            rule = {'object_types': [kind.pk], 'event_types': ['object_updated', 'webhook_suspended']}
            target = {'action_type': 'webhooks.send', 'action_choice': ours[Webhook].pk}
            save(admin_pages, 'extras:eventrule_add', name=f'Rule {number}', **rule, **target)
        if 'bookmarks' in kind.features:
            target = {'object_type': kind.pk, 'object_id': ours[kind.model_class()].pk}
            save(admin_pages, 'extras:bookmark_add', **target)
            save(admin_pages, 'extras:subscription_add', **target)
            save(
                admin_pages,
                'extras:journalentry_add',
                assigned_object_type=kind.pk,
                assigned_object_id=ours[kind.model_class()].pk,
                comments='Seen',
                kind='info',
            )
        filtered = {'slug': f'filter-{number}', 'object_types': [kind.pk], 'parameters': '{"q": ["a"]}'}
        save(admin_pages, 'extras:savedfilter_add', name=f'Filter {number}', **filtered)
        table = admin_pages.get(_address(kind.model_class(), 'list')).context['table'].name
        columns = {'object_type': kind.pk, 'table': table, 'columns': ['pk', 'id'], 'ordering': 'pk'}
        save(admin_pages, 'extras:tableconfig_add', name=f'Table {number}', **columns)
    save(admin_pages, 'extras:notificationgroup_add', name='On call', users=[admin_pages.session['_auth_user_id']])
    permission = {'can_view': True, 'object_types_1': [kind.pk for kind in types]}
    save(admin_pages, 'users:objectpermission_add', name='Readers', **permission)


def test_all_that_is_saved_about_our_models_opens_and_their_lists_take_it(admin_pages, ours):
    save_about(ours, admin_pages)
    count = 0
    for name in names():
        space, _colon, view = name.rpartition(':')
        model = _model_of(space.rpartition(':')[2], view.split('_')[0])
        first = model._default_manager.first() if model else None
        if first is None:
            continue
        try:
            address = reverse(name, kwargs={'pk': first.pk})
        except NoReverseMatch:
            continue
        count += len(opened(admin_pages, address))
    assert count > 100
    assert (Bookmark.objects.count(), Subscription.objects.count()) == (3, 3)
    for model in listed_models():
        address, kind = _address(model, 'list'), ObjectType.objects.get_for_model(model)
        asked = [{'export': 'table'}, {'q': 'a'}, {'embedded': True}]
        asked += [{'filter_id': one.pk} for one in SavedFilter.objects.filter(object_types=kind)]
        asked += [{'tableconfig_id': one.pk} for one in TableConfig.objects.filter(object_type=kind)]
        asked += [{'export': one.name} for one in ExportTemplate.objects.filter(object_types=kind)]
        for one in asked:
            assert opened(admin_pages, address, one), (address, one)
        assert opened(admin_pages, reverse('search'), {'q': 'web', 'obj_types': f'{kind.app_label}.{kind.model}'})
        assert len(asked) >= 5


def _model_of(app: str, name: str) -> type[Model] | None:
    try:
        return apps.get_model(app, name)
    except LookupError:
        return None
