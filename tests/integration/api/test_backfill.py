import pytest
from dcim.models import Site
from support.builders import NOWHERE, site, subscribe
from support.engine import work
from tenancy.models import Tenant

from webhooks.models import Backfill, Webhook
from webhooks.services import backfill

WEBHOOKS = '/api/plugins/webhooks/webhooks/'


@pytest.fixture
def webhook(saves) -> Webhook:
    return subscribe(NOWHERE, Site, Tenant)


def address(webhook: Webhook, *more: str) -> str:
    return '/'.join([f'{WEBHOOKS}{webhook.pk}/backfill', *more, ''])


def test_a_backfill_is_started_and_shows_its_progress(committed, api_client, receiver):
    webhook = subscribe(receiver.url('/hook'), Site, Tenant)
    site(name='Bern'), site(name='Basel')
    assert api_client.get(address(webhook)).status_code == 404
    wanted = {'object_types': ['dcim.site'], 'filter': 'name=Bern'}
    answer = api_client.post(address(webhook), wanted, format='json')
    assert answer.status_code == 201, answer.content
    begun = answer.json()
    assert begun['started_at']
    assert {name: begun[name] for name in ('state', 'object_types', 'filter', 'total', 'sent', 'username')} == {
        'state': 'running',
        'object_types': ['dcim.site'],
        'filter': 'name=Bern',
        'total': 1,
        'sent': 0,
        'username': 'admin',
    }
    work()
    ended = api_client.get(address(webhook)).json()
    assert (ended['state'], ended['sent'], ended['error']) == ('completed', 1, '')
    assert ended['finished_at']
    told = api_client.get('/api/plugins/webhooks/events/?backfill=true').json()['results']
    assert [(one['object_repr'], one['backfill']) for one in told] == [('Bern', True)]
    assert len(api_client.get('/api/plugins/webhooks/deliveries/?backfill=true').json()['results']) == 1


def test_a_dry_run_counts_and_starts_nothing(api_client, webhook):
    site(), site()
    answer = api_client.post(address(webhook), {'dry_run': True}, format='json')
    assert (answer.status_code, answer.json()) == (200, {'total': 2})
    assert not Backfill.objects.exists()


def test_it_is_paused_resumed_and_canceled(api_client, webhook):
    assert api_client.post(address(webhook)).status_code == 201
    for move, state in (('pause', 'paused'), ('resume', 'running'), ('cancel', 'canceled')):
        answer = api_client.post(address(webhook, move))
        assert (answer.status_code, answer.json()['state']) == (200, state)
    assert api_client.get(address(webhook)).json()['state'] == 'canceled'


def test_a_move_that_the_state_of_a_backfill_does_not_allow_is_a_conflict(api_client, webhook):
    for move in ('pause', 'resume', 'cancel'):
        answer = api_client.post(address(webhook, move))
        assert (answer.status_code, 'No backfill is' in answer.json()['detail']) == (409, True)
    api_client.post(address(webhook))
    answer = api_client.post(address(webhook))
    assert (answer.status_code, 'already running' in answer.json()['detail']) == (409, True)


@pytest.mark.parametrize(
    ('data', 'field'),
    [
        ({'object_types': ['dcim.rack']}, 'object_types'),
        ({'object_types': ['dcim.nothing']}, 'object_types'),
        ({'object_types': []}, 'object_types'),
        ({'object_types': 7}, 'object_types'),
        ({'filter': 'colour=red'}, 'filter'),
        ({'filter': 'id=none'}, 'filter'),
        ({'filter': 'name__regex=['}, 'filter'),
        ({'filter': 'name=%00'}, 'filter'),
        ({'filter': 'a\0b'}, 'filter'),
        ({'filter': 'x' * 2001}, 'filter'),
        ({'filter': ['id=1']}, 'filter'),
        ({'dry_run': 'maybe'}, 'dry_run'),
    ],
)
def test_a_backfill_of_wrong_types_or_with_a_wrong_filter_is_refused_by_field(api_client, webhook, data, field):
    answer = api_client.post(address(webhook), data, format='json')
    assert answer.status_code == 400, answer.content
    assert list(answer.json()) == [field]
    assert not Backfill.objects.exists()


def test_a_disabled_webhook_is_refused(api_client, webhook):
    Webhook.objects.update(enabled=False)
    answer = api_client.post(address(webhook))
    assert answer.status_code == 400
    assert 'disabled' in answer.json()['enabled'][0]


def test_a_filter_may_be_the_whole_query_of_a_list(api_client, webhook):
    site(name='Bern'), site(name='Basel')
    asked = {'object_types': ['dcim.site'], 'filter': '?q=bern&sort=-name&per_page=50&page=2', 'dry_run': True}
    answer = api_client.post(address(webhook), asked, format='json')
    assert (answer.status_code, answer.json()) == (200, {'total': 1})


@pytest.mark.parametrize('move', [(), ('pause',), ('resume',), ('cancel',)])
def test_each_needs_the_permission(clerk_api, grant, webhook, move):
    backfill.start(webhook, backfill.choose(webhook))
    grant(Webhook, 'view', 'add', 'change', 'delete')
    assert clerk_api.post(address(webhook, *move)).status_code == 403
    assert clerk_api.get(address(webhook)).status_code == 200
    grant(Webhook, 'backfill', pk=0)
    assert clerk_api.post(address(webhook, *move)).status_code == 404
    grant(Webhook, 'backfill', pk=webhook.pk)
    assert clerk_api.post(address(webhook, *move)).status_code in (200, 409)


def test_a_filter_needs_the_permission_to_view_all_of_the_model(clerk_api, grant):
    """Otherwise the numbers would reveal the objects."""
    webhook = subscribe(NOWHERE, Site)
    site(name='Bern')
    grant(Webhook, 'view', 'backfill')
    asked = {'filter': 'name=Bern', 'dry_run': True}
    answer = clerk_api.post(address(webhook), asked, format='json')
    assert (answer.status_code, list(answer.json())) == (400, ['filter'])
    assert clerk_api.post(address(webhook), {'dry_run': True}, format='json').json() == {'total': None}
    grant(Site, 'view', name='Basel')
    answer = clerk_api.post(address(webhook), asked, format='json')
    assert (answer.status_code, list(answer.json())) == (400, ['filter'])
    grant(Site, 'view')
    assert clerk_api.post(address(webhook), asked, format='json').json() == {'total': 1}
