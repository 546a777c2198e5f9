"""Chosen objects are sent as they are now: by REST, by pages, by a command."""

from collections.abc import Callable
from io import StringIO

import pytest
from dcim.models import Region, Site
from django.contrib.messages import get_messages
from django.core.management import CommandError, call_command
from django.db import connection
from rest_framework.test import APIClient
from support.builders import NOWHERE, forget_events, site, subscribe
from support.engine import arrivals, deliveries, dispatch_all, open_transaction, work
from support.settings import change_settings
from tenancy.models import Tenant

from devstack.receiver import Receiver
from webhooks.choices import BackfillStateChoices, StatusChoices
from webhooks.engine.walks.backfills import BackfillWalk
from webhooks.engine.walks.loop import Walks
from webhooks.models import Backfill, Delivery, Event, ListMember, Webhook
from webhooks.services import backfill, send_now

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
WEBHOOKS = '/api/plugins/webhooks/webhooks/'
PAGE = '/plugins/webhooks/send/dcim.site/'
IS_ACTIVE = {'attr': 'status.value', 'value': 'active'}
IS_B = {'attr': 'name', 'op': 'regex', 'value': '^B'}


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, name='CMDB')


def places(*names: str, **fields: object) -> list[Site]:
    """Return new sites whose creations are forgotten."""
    made = [site(name=name, **fields) for name in names]
    forget_events()
    return made


def ask(api: APIClient, webhook: Webhook, *objects: Site, **more: object) -> tuple[int, dict]:
    wanted = {'object_type': 'dcim.site', 'ids': [one.pk for one in objects], **more}
    answer = api.post(f'{WEBHOOKS}{webhook.pk}/send-now/', wanted, format='json')
    return answer.status_code, answer.json()


def send(webhook: Webhook, *objects: Site) -> None:
    choice = send_now.choose(webhook, webhook.object_types.get(), [one.pk for one in objects])
    assert send_now.send(choice) == len(objects)


def said(answer: object) -> str:
    return ' '.join(str(message) for message in get_messages(answer.wsgi_request))


class TestWhatIsSent:
    def test_it_is_an_update_that_is_marked_as_a_backfill_and_names_who_sent_it(self, api_client, webhook, receiver):
        bern, _basel = places('Bern', 'Basel')
        Site.objects.filter(pk=bern.pk).update(facility='B1')
        assert ask(api_client, webhook, bern) == (201, {'count': 1, 'excluded': []})
        work()
        (sent,) = receiver.wait_for(1)
        body = sent.json()
        assert (body['event'], body['backfill'], body['username']) == ('updated', True, 'admin')
        assert (body['data']['name'], body['data']['facility']) == ('Bern', 'B1')
        event = Event.objects.get()
        assert (event.username, event.backfill, event.request_id) == ('admin', True, None)

    def test_no_other_webhook_gets_it(self, api_client, webhook, receiver):
        subscribe(receiver.url('/other'), Site)
        (bern,) = places('Bern')
        ask(api_client, webhook, bern)
        work()
        assert {one.webhook_id for one in deliveries()} == {webhook.pk}

    def test_it_goes_though_its_webhook_wants_no_updates_only_real_changes_or_ignores_the_user(
        self, api_client, netbox_user, receiver
    ):
        webhook = subscribe(
            receiver.url(HOOK),
            Site,
            kinds=('created',),
            only_real_changes=True,
            only_if_changed=['name'],
            ignore_users=[netbox_user],
        )
        (bern,) = places('Bern')
        assert ask(api_client, webhook, bern)[0] == 201
        work()
        assert [sent.json()['data']['name'] for sent in receiver.wait_for(1)] == ['Bern']

    def test_it_goes_singly_beside_change_sets(self, api_client, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, change_set=True)
        ask(api_client, webhook, *places('Bern', 'Basel'))
        work()
        sets = [sent.json() for sent in receiver.wait_for(2)]
        assert [[one['data']['name'] for one in each['changes']] for each in sets] == [['Bern'], ['Basel']]
        assert {each['transaction']['id'] for each in sets} == {None}

    def test_earlier_changes_of_the_object_go_first(self, api_client, webhook, receiver):
        (bern,) = places('Bern')
        bern.facility = 'B1'
        bern.save()
        ask(api_client, webhook, bern)
        bern.facility = 'B2'
        bern.save()
        work()
        bodies = [sent.json() for sent in receiver.wait_for(3)]
        assert [body['data']['facility'] for body in bodies] == ['B1', 'B1', 'B2']
        assert ['backfill' in body for body in bodies] == [False, True, False]


class TestBesideABackfill:
    @pytest.fixture
    def waiting(self, webhook: Webhook) -> list[Site]:
        """The untried deliveries of a backfill, and a site that is sent now."""
        found = places('Bern', 'Basel')
        backfill.start(webhook, backfill.choose(webhook, query='name=Basel'))
        Webhook.objects.update(enabled=False)
        work()
        Webhook.objects.update(enabled=True)
        webhook.refresh_from_db()
        return found

    def test_it_goes_in_turn_with_changes(self, webhook, receiver, waiting):
        send(webhook, waiting[0])
        dispatch_all()
        assert {one.event.object_repr: one.backfill for one in deliveries()}['Bern'] is False

    @pytest.mark.parametrize('move', [backfill.pause, backfill.cancel])
    def test_pausing_or_canceling_a_backfill_holds_nothing_that_is_sent_now(self, webhook, receiver, waiting, move):
        send(webhook, waiting[0])
        move(webhook)
        work()
        assert [sent.json()['data']['name'] for sent in receiver.wait_for(1)] == ['Bern']
        assert Backfill.objects.get().state != BackfillStateChoices.COMPLETED

    def test_it_replaces_the_backfills_untried_delivery_of_the_object(self, webhook, receiver):
        (bern,) = places('Bern')
        backfill.start(webhook, backfill.choose(webhook))
        assert Walks([BackfillWalk]).next_slice()
        dispatch_all()
        send(webhook, bern)
        work()
        assert len(receiver.wait_for(1)) == 1
        assert [one.status for one in deliveries()] == [StatusChoices.SUPERSEDED, StatusChoices.DELIVERED]


class TestRefusals:
    """Each names its reason. Nothing is recorded."""

    def refused(self, api: APIClient, webhook: Webhook, *objects: Site, **more: object) -> dict:
        code, answer = ask(api, webhook, *objects, **more)
        assert code == 400, answer
        assert not Event.objects.exists()
        return answer

    def test_a_type_that_the_webhook_does_not_take(self, api_client):
        webhook = subscribe(NOWHERE, Tenant)
        answer = self.refused(api_client, webhook, *places('Bern'))
        assert answer == {'object_type': ['These are not among the object types of the webhook: Site']}

    @pytest.mark.parametrize(('field', 'value', 'word'), [('enabled', False, 'disabled'), ('paused', True, 'paused')])
    def test_a_webhook_that_does_not_send(self, api_client, webhook, field, value, word):
        Webhook.objects.update(**{field: value})
        answer = self.refused(api_client, webhook, *places('Bern'))
        assert word in answer[field][0]

    def test_a_netbox_where_nothing_is_sent(self, api_client, webhook, monkeypatch):
        found = places('Bern')
        change_settings(monkeypatch, enabled=False)
        answer = self.refused(api_client, webhook, *found)
        assert 'WEBHOOKS_ENABLED' in answer['enabled'][0]

    @pytest.mark.parametrize(
        ('conditions', 'reason'),
        [(IS_ACTIVE, 'status.value is planned'), ({**IS_B, 'value': '^Z'}, 'name is Bern')],
    )
    def test_objects_that_the_conditions_exclude(self, api_client, receiver, conditions, reason):
        webhook = subscribe(receiver.url(HOOK), Site, conditions=conditions)
        answer = self.refused(api_client, webhook, *places('Bern', status='planned'))
        assert answer == {'ids': [f'The webhook excludes: Bern (Conditions: {reason})']}

    def test_objects_outside_the_list_that_its_receiver_has_not(self, api_client, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, filters={'dcim.site': 'status=active'})
        (bern,), (basel, chur) = places('Bern', status='planned'), places('Basel', 'Chur')
        answer = self.refused(api_client, webhook, bern)
        assert answer == {'ids': ['The webhook excludes: Bern (Filter: status=active)']}
        work()
        assert ListMember.objects.filter(webhook_id=webhook.pk, object_id=chur.pk).exists()
        Site.objects.filter(pk=chur.pk).update(status='planned')
        status, answer = ask(api_client, webhook, bern, basel, chur)
        assert (status, answer['count'], [one['id'] for one in answer['excluded']]) == (201, 2, [bern.pk])

    def test_objects_that_do_not_exist(self, api_client, webhook):
        (bern,) = places('Bern')
        answer = self.refused(api_client, webhook, bern, ids=[bern.pk, bern.pk + 1])
        assert answer == {'ids': [f'These objects do not exist, or you may not view them: {bern.pk + 1}']}

    @pytest.mark.parametrize(
        ('wanted', 'field'),
        [
            ({'ids': []}, 'ids'),
            ({'ids': 'all'}, 'ids'),
            ({'ids': [-1]}, 'ids'),
            ({'ids': [2**70]}, 'ids'),
            ({'ids': [1] * (send_now.MAX_OBJECTS + 1)}, 'ids'),
            ({'object_type': 'dcim.nothing'}, 'object_type'),
            ({'dry_run': 'maybe'}, 'dry_run'),
        ],
    )
    def test_a_wrong_request_to_send_now_names_its_field(self, api_client, webhook, wanted, field):
        assert list(self.refused(api_client, webhook, *places('Bern'), **wanted)) == [field]

    def test_an_object_that_somebody_is_changing(self, api_client, webhook):
        (bern,) = places('Bern')
        with open_transaction(lambda: Site.objects.select_for_update().get(pk=bern.pk)):
            code, answer = ask(api_client, webhook, bern)
        assert (code, 'Try again' in answer['detail']) == (503, True)
        assert ask(api_client, webhook, bern)[0] == 201


class TestSome:
    def test_excluded_ones_among_others_are_named_and_left_out(self, api_client, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, conditions=IS_ACTIVE)
        (basel,) = places('Basel', status='planned')
        (bern,) = places('Bern')
        excluded = [{'id': basel.pk, 'display': 'Basel', 'reasons': ['Conditions: status.value is planned']}]
        assert ask(api_client, webhook, bern, basel, dry_run=True) == (200, {'count': 1, 'excluded': excluded})
        assert not Event.objects.exists()
        assert ask(api_client, webhook, bern, basel) == (201, {'count': 1, 'excluded': excluded})
        work()
        assert [pk for pk, _sequence in arrivals(receiver)] == [bern.pk]

    def test_conditions_see_expanded_objects_and_hide_them_from_users_who_may_not_view_them(
        self, clerk_api, grant, receiver
    ):
        conditions = {'attr': 'region.description', 'value': 'x'}
        webhook = subscribe(receiver.url(HOOK), Site, expand=['region'], conditions=conditions)
        secret = Region.objects.create(name='North', slug='north', description='secret')
        (bern,) = places('Bern', region=secret)
        grant(Webhook, 'view', 'backfill')
        grant(Site, 'view')
        code, answer = ask(clerk_api, webhook, bern)
        assert (code, 'secret' in str(answer), 'Bern' in str(answer)) == (400, False, True)
        grant(Region, 'view')
        assert 'region.description is secret' in str(ask(clerk_api, webhook, bern)[1])
        Region.objects.update(description='x')
        assert ask(clerk_api, webhook, bern)[0] == 201


class TestPermissions:
    def test_rest_needs_backfill_and_view_of_the_webhook_and_the_objects(self, clerk_api, grant, webhook):
        bern, basel = places('Bern', 'Basel')
        grant(Webhook, 'view', 'add', 'change', 'delete')
        assert ask(clerk_api, webhook, bern)[0] == 403
        grant(Webhook, 'backfill', pk=0)
        assert ask(clerk_api, webhook, bern)[0] == 404
        grant(Webhook, 'backfill', pk=webhook.pk)
        code, answer = ask(clerk_api, webhook, bern)
        assert (code, list(answer)) == (400, ['ids'])
        grant(Site, 'view', name='Bern')
        hidden = ask(clerk_api, webhook, basel)
        missing = ask(clerk_api, webhook, ids=[basel.pk + 1])
        assert hidden[0] == missing[0] == 400
        assert hidden[1]['ids'][0].replace(str(basel.pk), '?') == missing[1]['ids'][0].replace(str(basel.pk + 1), '?')
        assert ask(clerk_api, webhook, bern, basel)[0] == 400
        assert ask(clerk_api, webhook, bern)[0] == 201
        assert [event.username for event in Event.objects.all()] == ['clerk']

    def test_a_page_shows_only_what_the_user_may_use(self, clerk_pages, grant, webhook):
        bern, basel = places('Bern', 'Basel')
        grant(Site, 'view', name='Bern')
        grant(Webhook, 'view')
        assert clerk_pages.get(PAGE, {'pk': bern.pk}).status_code == 403
        grant(Webhook, 'backfill', name='CMDB')
        subscribe(NOWHERE, Site, name='Other')
        assert clerk_pages.get(PAGE, {'pk': basel.pk}).status_code == 404
        page = clerk_pages.get(PAGE, {'pk': [bern.pk, basel.pk]})
        assert 'Basel' not in page.content.decode()
        assert [one.name for one in page.context['form'].fields['webhook'].queryset] == ['CMDB']
        clerk_pages.post(PAGE, {'pk': [bern.pk, basel.pk], 'webhook': webhook.pk})
        assert [event.object_id for event in Event.objects.all()] == [bern.pk]
        other = Webhook.objects.get(name='Other')
        assert clerk_pages.post(PAGE, {'pk': bern.pk, 'webhook': other.pk}).status_code == 200
        assert Event.objects.count() == 1


class TestPages:
    def test_the_tab_leads_to_a_page_that_names_object_and_webhook_and_sends(self, admin_pages, webhook):
        (bern,) = places('Bern')
        tab = f'/dcim/sites/{bern.pk}/webhooks/'
        address = f'{PAGE}?pk={bern.pk}'
        # Nothing was sent yet, and the tab is there all the same.
        assert tab in admin_pages.get(bern.get_absolute_url()).content.decode()
        assert address in admin_pages.get(tab).content.decode()
        page = admin_pages.get(PAGE, {'pk': bern.pk, 'return_url': tab})
        text = page.content.decode()
        assert 'Send now: Bern' in text
        assert 'CMDB' in text
        assert not Event.objects.exists()
        kept = dict(page.context['kept'])
        answer = admin_pages.post(address, {**kept, 'webhook': webhook.pk})
        assert answer.url == tab
        assert said(answer) == '1 object is being sent to CMDB.'
        assert Event.objects.get().username == 'admin'

    def test_a_user_who_may_not_send_finds_no_button_and_no_empty_tab(self, clerk_pages, grant, webhook):
        (bern,) = places('Bern')
        grant(Site, 'view')
        grant(Delivery, 'view')
        tab = f'/dcim/sites/{bern.pk}/webhooks/'
        assert tab not in clerk_pages.get(bern.get_absolute_url()).content.decode()
        assert PAGE not in clerk_pages.get(tab).content.decode()
        assert PAGE not in clerk_pages.get('/dcim/sites/').content.decode()
        grant(Webhook, 'backfill')
        assert PAGE in clerk_pages.get(tab).content.decode()
        assert PAGE in clerk_pages.get('/dcim/sites/').content.decode()

    def test_a_list_sends_the_selected_or_what_its_filter_finds(self, admin_pages, webhook):
        bern, basel, _zug = places('Bern', 'Basel', 'Zug')
        page = admin_pages.post(PAGE, {'pk': [bern.pk, basel.pk]})
        assert page.context['object'] == 'Bern and Basel'
        found = admin_pages.post(f'{PAGE}?name__isw=B&sort=name&per_page=25', {})
        assert sorted(pk for name, pk in found.context['kept'] if name == 'pk') == sorted([bern.pk, basel.pk])
        answer = admin_pages.post(
            PAGE, {'pk': [bern.pk, basel.pk], 'webhook': webhook.pk, 'return_url': '/dcim/sites/'}
        )
        assert answer.url == '/dcim/sites/'
        assert said(answer) == '2 objects are being sent to CMDB.'
        assert sorted(Event.objects.values_list('object_id', flat=True)) == sorted([bern.pk, basel.pk])

    def test_a_list_with_a_wrong_filter_sends_nothing(self, admin_pages, webhook):
        places('Bern')
        answer = admin_pages.post(f'{PAGE}?region_id=none', {})
        assert 'filter is not valid' in said(answer)

    def test_a_message_says_that_a_list_is_empty_or_its_objects_are_gone(self, admin_pages, webhook):
        (bern,) = places('Bern')
        assert 'no object to send' in said(admin_pages.post(f'{PAGE}?name__isw=Z', {}))
        bern.delete()
        answer = admin_pages.post(PAGE, {'pk': [bern.pk], 'webhook': webhook.pk, 'return_url': '/dcim/sites/'})
        assert (answer.status_code, answer.url) == (302, '/dcim/sites/')
        assert 'no object to send' in said(answer)

    def test_many_are_named_by_their_number_and_too_many_are_refused(self, admin_pages, webhook, monkeypatch):
        found = places(*(f'Site {number}' for number in range(send_now.MAX_OBJECTS_NAMED + 1)))
        assert admin_pages.post(PAGE, {}).context['object'] == '11 sites'
        monkeypatch.setattr(send_now, 'MAX_OBJECTS', 10)
        assert 'No more than 10 objects' in said(admin_pages.post(PAGE, {}))
        answer = admin_pages.post(PAGE, {'pk': [one.pk for one in found], 'webhook': webhook.pk})
        assert 'No more than 10 objects' in said(answer) + answer.content.decode()

    def test_the_form_says_why_nothing_is_sent(self, admin_pages, webhook):
        (bern,) = places('Bern')
        Webhook.objects.update(paused=True)
        answer = admin_pages.post(PAGE, {'pk': bern.pk, 'webhook': webhook.pk})
        assert 'The webhook is paused. Resume it first.' in answer.content.decode()
        assert not Event.objects.exists()

    @pytest.mark.parametrize('address', ['/plugins/webhooks/send/dcim.nothing/?pk=1', PAGE, f'{PAGE}?pk=x&pk=0'])
    def test_the_page_to_send_now_is_not_found_for_unknown_types_or_objects(self, admin_pages, webhook, address):
        assert admin_pages.get(address).status_code == 404


class TestCommand:
    def run(self, *arguments: object) -> str:
        output = StringIO()
        call_command('webhooks_send', *map(str, arguments), stdout=output)
        return output.getvalue()

    def test_the_command_sends_the_objects(self, webhook, receiver):
        bern, basel = places('Bern', 'Basel')
        assert self.run('CMDB', 'dcim.site', bern.pk, basel.pk) == '2 objects are being sent to CMDB.\n'
        work()
        assert [sent.json()['username'] for sent in receiver.wait_for(2)] == [None, None]
        assert not any(one.backfill for one in deliveries())

    def test_a_dry_run_only_counts_objects(self, webhook):
        Webhook.objects.update(conditions=IS_ACTIVE)
        (basel,) = places('Basel', status='planned')
        (bern,) = places('Bern')
        told = self.run('CMDB', 'dcim.Site', bern.pk, basel.pk, '--dry-run')
        assert told == ('1 of 2 objects would be sent\nnot sent: Basel (Conditions: status.value is planned)\n')
        assert not Event.objects.exists()

    @pytest.mark.parametrize(
        ('arguments', 'told'),
        [
            (('None', 'dcim.site', 1), 'there is no webhook'),
            (('CMDB', 'dcim.nothing', 1), 'allowed_models'),
            (('CMDB', 'tenancy.tenant', 1), 'object types of the webhook'),
            (('CMDB', 'dcim.site', 99999999), '99999999'),
        ],
    )
    def test_it_says_what_is_wrong(self, webhook, arguments, told):
        with pytest.raises(CommandError, match=told):
            self.run(*arguments)


def test_conditions_of_many_objects_take_as_many_queries_as_of_one(webhook, django_assert_max_num_queries):
    Webhook.objects.update(conditions=IS_ACTIVE)
    webhook.refresh_from_db()
    found = [one.pk for one in places(*(f'Site {number}' for number in range(20)))]
    object_type = webhook.object_types.get()
    assert connection.in_atomic_block is False

    def count(pks: list[int]) -> Callable[[], object]:
        return lambda: send_now.choose(webhook, object_type, pks)

    count(found[:1])()
    with django_assert_max_num_queries(40) as one:
        count(found[:1])()
    with django_assert_max_num_queries(len(one) + 2):
        count(found)()
