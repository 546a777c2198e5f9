"""An event names the webhooks that did not take it, and why."""

import pytest
from dcim.models import Region, Site
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from support.builders import CREATED, DELETED, NOWHERE, site, subscribe
from support.builtin import request_by
from support.engine import dispatch_all
from users.models import User

from webhooks.models import Delivery, Event, Webhook
from webhooks.services import conditions as explained
from webhooks.services import matching, preview_room

pytestmark = pytest.mark.usefixtures('committed')

IS_ACTIVE = {'attr': 'status.value', 'value': 'active'}
MATCHES = {'attr': 'name', 'op': 'regex', 'value': '^B'}


def refusals(user: User) -> dict[str, list[str]]:
    found = matching.refusals_of(Event.objects.get(), user)
    return {one.webhook.name: one.reasons for one in found.shown}


@pytest.mark.parametrize(
    ('conditions', 'parts'),
    [
        (IS_ACTIVE, ['status.value is planned']),
        ({**IS_ACTIVE, 'value': 'planned', 'negate': True}, ['status.value is planned']),
        ({'and': [IS_ACTIVE, {'attr': 'name', 'value': 'Bern'}]}, ['status.value is planned']),
        ({'or': [IS_ACTIVE, {'attr': 'tenant', 'value': 7}]}, ['status.value is planned', 'tenant is null']),
        ({'and': [{'or': [IS_ACTIVE]}, {'attr': 'name', 'value': 'x'}]}, ['status.value is planned', 'name is Bern']),
        ({'attr': 'name', 'op': 'regex', 'value': '^Z'}, ['name is Bern']),
        ({'attr': 'asns', 'op': 'contains', 'value': 5}, ['asns is []']),
        ({'attr': 'facility', 'value': 'x'}, ['facility is ""']),
        ({'attr': 'staus.value', 'value': 'x'}, ['staus.value does not exist']),
        ({'or': []}, ['{"or": []} is never met.']),
        ({'attr': 'changelog_message', 'value': 'x'}, ['changelog_message is ""']),
    ],
)
def test_each_part_of_the_conditions_that_is_not_met_is_named_with_its_value(netbox_user, conditions, parts):
    subscribe(NOWHERE, Site, name='CMDB', conditions=conditions)
    site(name='Bern', status='planned')
    dispatch_all()
    assert Event.objects.get().skipped == 1
    assert refusals(netbox_user) == {'CMDB': [f'Conditions: {part}' for part in parts]}


@pytest.mark.parametrize(
    ('conditions', 'parts'),
    [
        (IS_ACTIVE, [('status.value is active', True)]),
        ({**IS_ACTIVE, 'negate': True}, [('status.value is active', False)]),
        (
            {'or': [{**IS_ACTIVE, 'value': 'planned'}, {'and': [MATCHES, {'attr': 'region.slug', 'value': 'north'}]}]},
            [('status.value is active', False), ('name is Bern', True), ('region.slug is north', True)],
        ),
        ({'attr': 'status', 'op': 'changed'}, [('status changed', True)]),
        ({'attr': 'status', 'op': 'changed', 'negate': True}, [('status changed', False)]),
        ({'attr': 'status', 'op': 'unchanged'}, [('status changed', False)]),
        ({'attr': 'status.value', 'op': 'changed'}, [('status.value does not exist', False)]),
        ({'attr': 'staus', 'op': 'changed', 'negate': True}, [('staus does not exist', False)]),
        ({'and': []}, []),
    ],
)
def test_a_preview_shows_each_part_with_its_value_whether_it_is_met_or_not(admin_pages, api_client, conditions, parts):
    bern = site(name='Bern', region=Region.objects.create(name='North', slug='north'))
    webhook = subscribe(NOWHERE, Site, conditions=conditions)
    address = f'plugins/webhooks/webhooks/{webhook.pk}/preview/'
    shown = api_client.get(f'/api/{address}', {'source': f'object:dcim.site:{bern.pk}'}).json()
    assert [(one['text'], one['is_met']) for one in shown['conditions']] == parts
    page = ' '.join(admin_pages.get(f'/{address}', {'source': f'object:dcim.site:{bern.pk}'}).content.decode().split())
    for text, is_met in parts:
        assert f'Condition {"met" if is_met else "not met"}: {text}' in page


@pytest.mark.parametrize(('operator', 'told'), [('changed', 'status did not change'), ('unchanged', 'status changed')])
def test_a_refusal_names_the_field_that_did_or_did_not_change(netbox_user, operator, told):
    bern = Site.objects.create(name='Bern', slug='bern', status='planned')
    subscribe(NOWHERE, Site, name='CMDB', conditions={'attr': 'status', 'op': operator})
    bern.snapshot()
    bern.status = 'planned' if operator == 'changed' else 'active'
    bern.save()
    dispatch_all()
    assert refusals(netbox_user) == {'CMDB': [f'Conditions: {told}']}


def test_an_ignored_user_is_named(netbox_user):
    subscribe(NOWHERE, Site, name='CMDB', ignore_users=[netbox_user])
    with request_by(netbox_user):
        site()
    dispatch_all()
    assert refusals(netbox_user) == {'CMDB': ['Ignored user: admin']}


@pytest.mark.parametrize('is_compared', [False, True])
def test_the_filter_of_a_list_is_named(netbox_user, is_compared):
    filters = {'dcim.site': 'status=active'}
    subscribe(NOWHERE, Site, name='CMDB', filters=filters, only_real_changes=is_compared)
    bern = site(name='Bern', status='planned')
    dispatch_all()
    assert refusals(netbox_user) == {'CMDB': ['Filter: status=active']}
    Event.objects.all().delete()
    bern.facility = 'B1'
    bern.save()
    dispatch_all()
    unknown = ['Not checked here: whether it is a real change'] * is_compared
    assert refusals(netbox_user) == {'CMDB': ['Filter: status=active', *unknown]}


def test_only_those_are_named_that_asked_for_it_and_did_not_take_it(netbox_user):
    subscribe(NOWHERE, Site, name='takes it')
    subscribe(NOWHERE, Site, name='of deletions', kinds=(DELETED,), conditions=IS_ACTIVE)
    subscribe(NOWHERE, Region, name='of regions', conditions=IS_ACTIVE)
    subscribe(NOWHERE, Site, name='did not', kinds=(CREATED,), conditions=IS_ACTIVE)
    site(status='planned')
    dispatch_all()
    subscribe(NOWHERE, Site, name='came later', conditions=IS_ACTIVE)
    assert list(refusals(netbox_user)) == ['did not']


def test_one_that_was_saved_since_says_so(netbox_user, admin_pages):
    webhook = subscribe(NOWHERE, Site, conditions=IS_ACTIVE)
    site(status='planned')
    dispatch_all()
    (one,) = matching.refusals_of(Event.objects.get(), netbox_user).shown
    assert one.saved_at is None
    webhook.conditions = {**IS_ACTIVE, 'value': 'planned'}
    webhook.save()
    (one,) = matching.refusals_of(Event.objects.get(), netbox_user).shown
    assert (one.reasons, one.saved_at) == ([], Webhook.objects.get().last_updated)
    page = admin_pages.get(Event.objects.get().get_absolute_url()).content.decode()
    assert 'With its current settings, it would take the event.' in page
    assert 'The webhook has been saved since' in page


class TestComparedWithBefore:
    """`only_if_changed` and `only_real_changes`. Nobody can compare again, but nothing else excluded the change."""

    @pytest.fixture
    def bern(self, committed: None) -> Site:
        subscribe(NOWHERE, Site, name='takes it')
        made = site(name='Bern', status='planned')
        dispatch_all()
        return made

    def edit(self, bern: Site, **fields: str) -> Event:
        Event.objects.all().delete()
        for name, value in fields.items():
            setattr(bern, name, value)
        with transaction.atomic():
            bern.save()
        dispatch_all()
        return Event.objects.get()

    def test_the_unchanged_keys_are_named(self, bern, netbox_user, admin_pages):
        subscribe(NOWHERE, Site, name='CMDB', only_if_changed=['status', 'facility'])
        edited = self.edit(bern, description='new')
        assert refusals(netbox_user) == {'CMDB': ['Only if changed: status, facility']}
        page = admin_pages.get(edited.get_absolute_url()).content.decode()
        assert 'Only if changed: status, facility' in page
        assert 'regular expression' not in page

    def test_a_save_that_changed_nothing_is_named(self, bern, netbox_user):
        subscribe(NOWHERE, Site, name='CMDB', only_real_changes=True)
        self.edit(bern)
        assert refusals(netbox_user) == {'CMDB': ['Only real changes: nothing changed']}

    def test_conditions_that_are_not_met_are_reason_enough(self, bern, netbox_user):
        subscribe(NOWHERE, Site, name='CMDB', only_if_changed=['status'], conditions=IS_ACTIVE)
        self.edit(bern, facility='B1')
        assert refusals(netbox_user) == {'CMDB': ['Conditions: status.value is planned']}

    def test_it_is_no_reason_once_the_webhook_was_saved(self, bern, netbox_user):
        webhook = subscribe(NOWHERE, Site, name='CMDB', only_if_changed=['status'])
        self.edit(bern, facility='B1')
        webhook.only_if_changed = ['facility']
        webhook.save()
        assert refusals(netbox_user) == {'CMDB': ['Not checked here: whether one of these changed: facility']}

    def test_with_a_regular_expression_either_may_be_the_reason(self, bern, netbox_user):
        """The change log has no counters. It decides over other keys."""
        subscribe(NOWHERE, Site, name='CMDB', only_if_changed=['prefix_count'], conditions=MATCHES)
        subscribe(NOWHERE, Site, name='DNS', only_if_changed=['status'], conditions=MATCHES)
        self.edit(bern, facility='B1')
        assert refusals(netbox_user)['DNS'] == ['Only if changed: status']
        assert refusals(netbox_user)['CMDB'] == [
            'Not checked here: whether one of these changed: prefix_count',
            'Not known. A regular expression may have taken too long.',
        ]


@pytest.mark.parametrize(
    ('fields', 'told'),
    [
        ({}, 'Not known.'),
        ({'only_if_changed': ['status']}, 'Not known.'),
        ({'conditions': {**IS_ACTIVE, 'value': 'planned'}}, 'Not known.'),
        ({'conditions': MATCHES}, 'Not known. A regular expression may have taken too long.'),
    ],
)
def test_a_regular_expression_is_suspected_only_if_there_is_one(netbox_user, fields, told):
    subscribe(NOWHERE, Site, name='CMDB', **fields)
    site(name='Bern', status='planned')
    dispatch_all()
    Delivery.objects.all().delete()
    assert refusals(netbox_user) == {'CMDB': [told]}


def test_webhooks_whose_reasons_are_unknown_do_not_count_as_deleted(netbox_user, admin_pages, monkeypatch):
    subscribe(NOWHERE, Site, name='CMDB', conditions=IS_ACTIVE)
    site(status='planned')
    dispatch_all()
    monkeypatch.setattr(preview_room, 'MAX_PREVIEWS', 0)
    found = matching.refusals_of(Event.objects.get(), netbox_user)
    assert (found.shown, found.hidden) == ([], 0)
    page = admin_pages.get(Event.objects.get().get_absolute_url()).content.decode()
    assert found.problem in page
    assert 'more webhook' not in page


def test_an_event_page_says_how_many_more_webhooks_refused_it(admin_pages, monkeypatch):
    for name in ('A', 'B', 'C'):
        subscribe(NOWHERE, Site, name=name, conditions=IS_ACTIVE)
    site(status='planned')
    dispatch_all()
    monkeypatch.setattr(matching, 'MAX_WEBHOOKS_EXPLAINED', 1)
    page = admin_pages.get(Event.objects.get().get_absolute_url()).content.decode()
    assert '2 more webhooks are not listed: they were deleted or changed, or you may not view them.' in page


def test_the_page_of_an_event_shows_reasons_and_writes_nothing(admin_pages):
    subscribe(NOWHERE, Site, name='CMDB', conditions={'attr': 'name', 'op': 'regex', 'value': '^Z'})
    site(name='Bern')
    dispatch_all()
    with CaptureQueriesContext(connection) as captured:
        page = admin_pages.get(Event.objects.get().get_absolute_url()).content.decode()
    assert 'Conditions: name is Bern' in page
    written = [query['sql'] for query in captured if query['sql'].startswith(('INSERT', 'UPDATE', 'DELETE'))]
    assert written == []


def test_an_event_that_everybody_took_has_no_such_list(admin_pages):
    subscribe(NOWHERE, Site)
    site()
    dispatch_all()
    assert 'Did Not Take' not in admin_pages.get(Event.objects.get().get_absolute_url()).content.decode()


def test_it_is_for_those_who_may_view_the_object_and_the_webhook(clerk_pages, clerk_user, grant):
    for name in ('Mine', 'Other'):
        subscribe(NOWHERE, Site, name=name, conditions=IS_ACTIVE)
    bern = site(name='Bern', status='planned')
    dispatch_all()
    address = Event.objects.get().get_absolute_url()
    grant(Event, 'view')
    assert 'status.value' not in clerk_pages.get(address).content.decode()
    grant(Site, 'view', name=bern.name)
    grant(Webhook, 'view', name='Mine')
    page = clerk_pages.get(address).content.decode()
    assert page.count('Conditions: status.value is planned') == 1
    assert 'Mine' in page
    assert 'Other' not in page
    assert '1 more webhook is not listed: it was deleted' in page


class TestWarnings:
    DATA = {
        'status': {'value': 'planned'},
        'tenant': None,
        'tags': [{'slug': 'a'}],
        'snapshots': {'prechange': None, 'postchange': {'status': 'planned'}},
    }

    @pytest.mark.parametrize(
        ('conditions', 'told'),
        [
            (IS_ACTIVE, []),
            ({'attr': 'staus.value', 'value': 'x'}, ['The object has no attribute staus.value.']),
            ({'attr': 'status.valu', 'value': 'x'}, ['The object has no attribute status.valu.']),
            ({'attr': 'status.value.x', 'value': 'x'}, ['The object has no attribute status.value.x.']),
            # Other objects may have a tenant.
            ({'attr': 'tenant.slug', 'value': 'x'}, []),
            ({'attr': 'tags.slug', 'op': 'contains', 'value': 'x'}, []),
            ({'attr': 'tags.slag', 'op': 'contains', 'value': 'x'}, ['The object has no attribute tags.slag.']),
            ({'attr': 'status', 'op': 'changed'}, []),
            ({'attr': 'staus', 'op': 'changed'}, ['The object has no attribute staus.']),
            ({'attr': 'snapshots.prechange.status', 'value': 'x'}, []),
            ({'or': []}, ['{"or": []} is never met.']),
            ({'and': [{'and': []}]}, ['{"and": []} is always met.']),
        ],
    )
    def test_conditions_that_are_probably_a_mistake_get_a_warning(self, conditions, told):
        assert list(explained.warnings(conditions, self.DATA)) == told
