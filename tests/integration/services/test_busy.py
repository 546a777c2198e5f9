from datetime import timedelta

import pytest
from dcim.models import Site
from django.db import connection
from django.utils import timezone
from support.admin_browser import messages_of
from support.builders import site, subscribe
from support.engine import open_transaction
from support.log import delivery, event

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.engine.deliver import order
from webhooks.models import Delivery, Webhook
from webhooks.services import trial

pytestmark = pytest.mark.usefixtures('committed')

API = '/api/plugins/webhooks'


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url('/hook'), Site)


@pytest.fixture
def failed(webhook: Webhook) -> Delivery:
    return delivery(event(site()), webhook)


@pytest.mark.parametrize('action', ['replay', 'redeliver'])
def test_a_user_who_redelivers_waits_for_no_worker(api_client, webhook, failed, action):
    since = (timezone.now() - timedelta(days=1)).isoformat()
    address = f'webhooks/{webhook.pk}/replay/' if action == 'replay' else f'deliveries/{failed.pk}/redeliver/'
    with open_transaction(lambda: order.lock_lanes([webhook.pk])):
        answer = api_client.post(f'{API}/{address}', {'since': since}, format='json')
    assert answer.status_code in (200, 201), answer.content
    failed.refresh_from_db()
    assert failed.status == StatusChoices.PENDING


class TestTrial:
    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trial, 'LOCK_TIMEOUT_MS', 100)

    def test_the_api_says_so(self, api_client, webhook):
        site()
        with open_transaction(count_tests):
            answer = api_client.post(f'{API}/webhooks/{webhook.pk}/test/')
        assert (answer.status_code, answer['Retry-After']) == (503, '5')
        assert 'Too many tests are running' in answer.json()['detail']
        assert api_client.post(f'{API}/webhooks/{webhook.pk}/test/').status_code == 201

    def test_a_page_says_so(self, admin_pages, webhook):
        site()
        with open_transaction(count_tests):
            [told] = messages_of(admin_pages.post(f'{webhook.get_absolute_url()}test/', follow=True))
        assert 'Too many tests are running' in told


def count_tests() -> None:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_advisory_xact_lock(%s)', [trial.TEST_LOCK])
