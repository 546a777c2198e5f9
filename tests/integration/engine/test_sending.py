import ssl
from base64 import b64decode
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import quote

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from extras.models import JournalEntry
from support.builders import CREATED, DELETED, UPDATED, site, subscribe
from support.engine import (
    arrivals,
    deliveries,
    dispatch_all,
    expire,
    health,
    hold,
    in_hand,
    in_thread,
    most_at_once,
    pass_alive,
    pass_retry_waits,
    work,
    working,
)
from support.loopback import OK, serving
from support.writers import before_statement
from tenancy.models import Tenant

from devstack.process import wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import rescue
from webhooks.engine.process import inline
from webhooks.engine.registry import SEND
from webhooks.models import Attempt, Delivery, Health, Webhook, Worker
from webhooks.outbox import redis_queue, wakeup
from webhooks.presentation.states import state_of
from webhooks.security.masking import MASK
from webhooks.services import redelivery, switching, trial

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
# Seconds: a process takes long for its first change.
PATIENCE = 60


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def sites(count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            site()


class TestDelivered:
    def test_the_endpoint_gets_each_change_once(self, webhook, receiver):
        place = site()
        place.save()
        pk = place.pk
        place.delete()
        assert work() == '3 delivered'
        assert [request.json()['event'] for request in receiver.requests] == [CREATED, UPDATED, DELETED]
        assert {object_id for object_id, _sequence in arrivals(receiver)} == {pk}
        assert work() == 'nothing to send'
        assert len(receiver.requests) == 3

    def test_the_log_has_request_and_answer(self, webhook, receiver):
        receiver.answers(HOOK, Answer(202, b'thank you', {'X-Seen': 'yes'}))
        site()
        work()
        (delivered,) = deliveries()
        assert (delivered.status, delivered.response_status, delivered.error) == (DELIVERED, 202, '')
        assert (delivered.attempt_count, delivered.due_at) == (1, None)
        assert delivered.finished_at >= delivered.created
        (attempt,) = delivered.attempts.all()
        assert (attempt.number, attempt.method, attempt.url) == (1, 'POST', receiver.url(HOOK))
        assert (attempt.response_status, attempt.response_body, attempt.error) == (202, 'thank you', '')
        assert attempt.response_headers['X-Seen'] == 'yes'
        assert attempt.request_headers['webhook-id'] == str(delivered.uuid)
        assert attempt.duration > 0

    def test_the_log_has_no_signature(self, receiver):
        """A reader of the log could repeat the request, or guess a typed secret offline."""
        subscribe(receiver.url(HOOK), Site, secret='swordfish')
        site()
        work()
        (request,) = receiver.requests
        logged = deliveries()[0].attempts.get().request_headers
        for name in ('webhook-signature', 'X-Hook-Signature'):
            assert request.header(name)
            assert logged[name] == MASK

    def test_health_counts_what_was_delivered(self, webhook):
        sites(3)
        work()
        found = health(webhook)
        assert (found.delivered, found.failed, found.last_status, sum(found.latency)) == (3, 0, 200, 3)
        assert found.last_success_at

    def test_each_webhook_gets_it_under_an_id_of_its_own(self, receiver):
        for path in ('/a', '/b'):
            subscribe(receiver.url(path), Site)
        site()
        assert work() == '2 delivered'
        assert {request.path for request in receiver.requests} == {'/a', '/b'}
        assert len({request.header('webhook-id') for request in receiver.requests}) == 2
        assert len({request.json()['id'] for request in receiver.requests}) == 1

    def test_method_and_content_type_are_the_webhooks(self, receiver):
        subscribe(receiver.url(HOOK), Site, http_method='PUT', http_content_type='application/vnd.test+json')
        site()
        work()
        (request,) = receiver.requests
        assert (request.method, request.header('Content-Type')) == ('PUT', 'application/vnd.test+json')

    @pytest.mark.parametrize('login', ['user:pass word', 'üser:p@ss', 'token:'])
    def test_a_login_in_the_url_is_sent_and_not_shown(self, receiver, login):
        user, password = map(quote, login.split(':'))
        subscribe(receiver.url(HOOK).replace('//', f'//{user}:{password}@'), Site)
        site()
        work()
        (request,) = receiver.wait_for(1)
        assert b64decode(request.header('Authorization').removeprefix('Basic ')).decode() == login
        assert deliveries()[0].attempts.get().request_headers['Authorization'] == MASK

    def test_a_header_of_the_webhooks_own_goes_before_it(self, receiver):
        url = receiver.url(HOOK).replace('//', '//user:password@')
        subscribe(url, Site, additional_headers='authorization: Bearer mine')
        site()
        work()
        (request,) = receiver.wait_for(1)
        assert [value for name, value in request.headers if name.lower() == 'authorization'] == ['Bearer mine']

    @pytest.mark.parametrize(
        ('own', 'sent'),
        [
            ('content-type: text/plain\nuser-agent: me', {'content-type': 'text/plain', 'user-agent': 'me'}),
            ('X-A: first\nx-a: last', {'x-a': 'last', 'content-type': 'application/json'}),
            ('X-A: {{ event }}\nx-A: {{ data.name }}', {'x-a': 'Bern'}),
        ],
    )
    def test_each_header_is_sent_once_and_the_webhooks_own_wins(self, receiver, own, sent):
        """Endpoints ignore case: of two values they take either, or refuse both."""
        subscribe(receiver.url(HOOK), Site, additional_headers=own)
        site(name='Bern')
        work()
        (request,) = receiver.wait_for(1)
        got = {name.lower(): value for name, value in request.headers}
        assert len(got) == len(request.headers)
        assert got | sent == got
        shown = [name.lower() for name in deliveries()[0].attempts.get().request_headers]
        assert len(shown) == len(set(shown))
        assert {*sent, 'webhook-id'} <= {*shown}

    def test_connections_are_kept(self, receiver):
        subscribe(receiver.url(HOOK), Site, concurrency=1)
        sites(20)
        work()
        assert len({request.connection for request in receiver.requests}) == 1

    def test_more_changes_than_are_dispatched_at_once_are_delivered(self, webhook, receiver):
        count = 250
        sites(count)
        assert work() == f'{count} delivered'
        assert len({request.json()['id'] for request in receiver.requests}) == count


class TestFailed:
    def test_a_redirect_names_where_it_would_lead(self, receiver):
        subscribe(receiver.url(HOOK), Site, max_attempts=1)
        receiver.answers(HOOK, Answer(302, headers={'Location': receiver.url('/elsewhere')}))
        site()
        assert work() == '1 failed'
        (failed,) = deliveries()
        assert (failed.status, failed.response_status) == (FAILED, 302)
        assert f'redirect to {receiver.url("")} is not followed' in failed.error
        assert [request.path for request in receiver.requests] == [HOOK]

    def test_an_endpoint_that_is_gone_is_not_asked_again(self, webhook, receiver):
        receiver.answers(HOOK, 410)
        sites(1)
        work()
        webhook.refresh_from_db()
        assert not webhook.enabled
        (entry,) = JournalEntry.objects.all()
        assert entry.assigned_object == webhook
        assert '410' in entry.comments
        pass_retry_waits()
        site()
        assert work() == 'nothing to send'
        assert len(receiver.requests) == 1

    def test_after_somebody_enabled_it_again_whoever_disables_it_is_not_its_receiver(self, receiver):
        subscribe(receiver.url(HOOK), Site, max_attempts=1)
        receiver.answers(HOOK, 410)
        site()
        work()
        assert state_of(Webhook.objects.get()).label == 'Disabled by its receiver'
        webhook = Webhook.objects.get()
        for webhook.enabled in (True, False):
            webhook.save()
            work()
        assert state_of(Webhook.objects.get()).label == 'Disabled'

    def test_it_stays_disabled_by_its_receiver_while_it_is_edited(self, webhook, receiver):
        receiver.answers(HOOK, 410)
        sites(1)
        work()
        switching.switch(Webhook.objects.get(), paused=True)
        work()
        assert state_of(Webhook.objects.get()).label == 'Disabled by its receiver'

    def test_a_definition_that_cannot_be_used_sends_nothing_and_says_which_line(self, receiver):
        subscribe(receiver.url(HOOK), Site, body_template='{\n{{ data.name.missing.key }}\n}')
        site()
        work()
        (failed,) = deliveries()
        assert failed.status == FAILED
        assert 'body_template' in failed.error
        assert 'line 2' in failed.error
        assert not receiver.requests

    def test_a_delivery_that_cannot_be_built_holds_up_no_other(self, webhook, receiver):
        broken = subscribe(receiver.url('/broken'), Site, body_template='{{ data.name.missing.key }}')
        sites(5)
        assert work() == '5 delivered, 5 failed'
        assert {one.status for one in deliveries(webhook=broken)} == {FAILED}

    @pytest.mark.parametrize('charset', ['nonsense', 'hex', 'utf-16'])
    def test_an_answer_that_cannot_be_read_stops_nobody(self, webhook, receiver, charset):
        receiver.answers(HOOK, Answer(200, b'odd', {'Content-Type': f'text/plain; charset={charset}'}))
        sites(3)
        assert work() == '3 delivered'

    def test_a_key_with_a_passphrase_fails_the_request_and_nobody_is_asked_for_it(self, tmp_path):
        """In a file with its certificate too: OpenSSL would ask at the terminal, for ever."""
        authority, path = trustme.CA(), tmp_path / 'client.pem'
        identity = authority.issue_cert('netbox@example.com')
        key = load_pem_private_key(identity.private_key_pem.bytes(), None)
        encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b'sesame'))
        path.write_bytes(encrypted + b''.join(blob.bytes() for blob in identity.cert_chain_pems))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert('127.0.0.1').configure_cert(context)
        with serving(OK, context=context) as server:
            webhook = subscribe(server.url(), Site, ssl_verification=False)
            Webhook.objects.filter(pk=webhook.pk).update(client_cert_path=str(path))
            site()
            work()
        assert Delivery.objects.get().error == 'SSLError: Client private key is encrypted, password is required'

    def test_the_current_definition_is_used_for_each_attempt(self, webhook, receiver):
        receiver.answers(HOOK, 500)
        site()
        work()
        webhook.payload_url = receiver.url('/moved')
        webhook.save()
        pass_retry_waits()
        assert work() == '1 delivered'
        first, second = receiver.requests
        assert (first.path, second.path) == (HOOK, '/moved')
        assert first.header('webhook-id') == second.header('webhook-id')
        assert first.body == second.body


class TestInHand:
    @pytest.fixture
    def pending(self, webhook) -> Delivery:
        site()
        dispatch_all()
        (pending,) = deliveries(PENDING)
        return pending

    def test_a_delivery_in_hand_of_a_worker_is_sent_by_nobody_else(self, pending, receiver):
        hold(pending)
        assert work() == 'nothing to send'
        assert not receiver.requests

    def test_a_delivery_in_hand_of_a_dead_worker_is_sent_once_its_request_must_have_ended(self, pending, receiver):
        """The interrupted request is an extra attempt beyond the limit."""
        hold(pending)
        before = timezone.now()
        pass_alive()
        assert work() == 'nothing to send'
        pending.refresh_from_db()
        assert pending.due_at >= before + timedelta(seconds=pending.webhook.effective_timeout - 15)
        pass_retry_waits()
        work()
        assert len(receiver.requests) == 1
        pending.refresh_from_db()
        assert (pending.status, pending.attempt_count, pending.attempt_limit) == (DELIVERED, 2, 9)
        assert [one.response_status for one in pending.attempts.order_by('pk')] == [None, 200]

    def test_one_that_was_declared_dead_records_nothing(self, webhook, receiver):
        receiver.answers(HOOK, Answer(delay=150), 200)
        site()
        with working():
            receiver.wait_for(1, timeout=PATIENCE)
            assert rescue.rescue(Worker.objects.get(role=SEND).name)
            receiver.closing.set()
        work()
        (delivered,) = deliveries(DELIVERED)
        assert [one.response_status for one in delivered.attempts.order_by('pk')] == [None, 200]
        assert len(receiver.requests) == 2

    def test_a_late_answer_does_not_open_what_is_closed(self, webhook, receiver):
        receiver.answers(HOOK, Answer(500, delay=150))
        site()
        with working():
            receiver.wait_for(1, timeout=PATIENCE)
            Delivery.objects.update(state=SUPERSEDED, due_at=None)
            receiver.closing.set()
        assert [one.attempt_count for one in deliveries(SUPERSEDED)] == [0]


class TestConcurrency:
    @pytest.mark.parametrize('concurrency', [1, 3])
    def test_no_more_are_under_way_than_the_webhook_says(self, receiver, concurrency):
        subscribe(receiver.url(HOOK), Site, concurrency=concurrency)
        receiver.answers(HOOK, Answer(delay=0.05))
        sites(20)
        assert work() == '20 delivered'
        assert most_at_once(receiver, 0.05) <= concurrency

    def test_concurrency_counts_across_workers(self, receiver):
        subscribe(receiver.url(HOOK), Site, concurrency=3)
        receiver.answers(HOOK, Answer(delay=0.05))
        sites(30)
        for thread in [in_thread(work) for _ in range(3)]:
            thread.join(60)
        assert len(deliveries(DELIVERED)) == 30
        assert most_at_once(receiver, 0.05) <= 3

    def test_concurrency_counts_for_each_webhook_separately(self, receiver):
        for _ in range(3):
            subscribe(receiver.url(HOOK), Site, concurrency=1)
        receiver.answers(HOOK, Answer(manner=Manner.HANG))
        site()
        with working():
            receiver.wait_for(3)
            receiver.close()

    def test_requests_really_overlap(self, receiver):
        """The last four requests hang, so all four are under way at once."""
        subscribe(receiver.url(HOOK), Site, concurrency=4)
        receiver.answers(HOOK, 200, 200, 200, Answer(manner=Manner.HANG))
        sites(7)
        with working():
            receiver.wait_for(7)
            receiver.close()

    def test_an_endpoint_is_asked_for_one_thing_first(self, receiver):
        """If the endpoint hangs, it holds only one thread."""
        subscribe(receiver.url(HOOK), Site, concurrency=16)
        receiver.answers(HOOK, Answer(delay=1), 200)
        sites(5)
        assert work() == '5 delivered'
        first, second, *_ = receiver.requests
        assert second.arrived - first.arrived >= 1


def test_a_job_that_did_nothing_counts_nothing(webhook):
    """RQ's job shows by it whether it was in vain."""
    assert inline.run() == {}
    site()
    assert inline.run() == {DELIVERED: 1}


class TestHeldBack:
    @pytest.mark.parametrize('hold', [{'paused': True}, {'enabled': False}])
    def test_nothing_is_sent_until_it_ends(self, webhook, receiver, hold):
        site()
        dispatch_all()
        self.change(webhook, **hold)
        assert work() == 'nothing to send'
        self.change(webhook, paused=False, enabled=True)
        assert work() == '1 delivered'

    def test_while_it_is_paused_changes_are_recorded(self, webhook, receiver):
        self.change(webhook, paused=True)
        site()
        work()
        self.change(webhook, paused=False)
        assert work() == '1 delivered'

    def test_while_it_is_disabled_changes_are_not_recorded(self, webhook, receiver):
        self.change(webhook, enabled=False)
        site()
        self.change(webhook, enabled=True)
        assert work() == 'nothing to send'
        site()
        assert work() == '1 delivered'

    def test_a_delivery_of_a_paused_webhook_expires(self, webhook):
        self.change(webhook, paused=True)
        site()
        dispatch_all()
        expire()
        work()
        (expired,) = deliveries()
        assert (expired.status, expired.due_at) == (FAILED, None)
        assert expired.finished_at
        assert 'expired' in expired.error
        assert (health(webhook).failed, health(webhook).delivered) == (1, 0)

    def test_an_expired_delivery_is_not_sent(self, webhook, receiver):
        site()
        dispatch_all()
        expire()
        work()
        assert not receiver.requests
        site()
        work()
        assert len(receiver.wait_for(1)) == 1

    @staticmethod
    def change(webhook: Webhook, **fields: object) -> None:
        for name, value in fields.items():
            setattr(webhook, name, value)
        webhook.save()


class TestNewest:
    def test_a_change_passes_the_backlog_of_its_own_webhook(self, webhook, receiver):
        count = 400
        sites(count)
        dispatch_all()
        newest = site()
        dispatch_all()
        work()
        told = [pk for pk, _sequence in arrivals(receiver)]
        assert len(told) == count + 1
        assert told.index(newest.pk) < 300


class TestDeletedWebhook:
    def test_its_log_goes_with_it(self, webhook, receiver):
        sites(3)
        work()
        assert Attempt.objects.count() == 3
        webhook.delete()
        assert not Delivery.objects.exists()
        work()
        assert not Attempt.objects.exists()
        assert not Delivery._base_manager.exists()
        assert not Health._base_manager.exists()

    def test_a_webhook_may_be_deleted_while_its_requests_are_under_way(self, receiver):
        """The remaining deliveries are recorded once."""
        slow = subscribe(receiver.url('/slow'), Site)
        other = subscribe(receiver.url('/other'), Tenant)
        receiver.answers('/slow', Answer(manner=Manner.HANG))
        sites(2)
        with working():
            receiver.wait_for(1, timeout=PATIENCE)
            slow.delete()
            Tenant.objects.create(name='Tenant', slug='tenant')
            assert wait_until(lambda: len(deliveries(DELIVERED, webhook=other)) == 1, timeout=PATIENCE)
            receiver.close()

    def test_a_webhook_may_be_deleted_just_before_its_endpoint_says_that_it_is_gone(self, webhook, receiver):
        other = subscribe(receiver.url('/other'), Site)
        receiver.answers(HOOK, Answer(410, delay=150))
        site()
        with working():
            receiver.wait_for(2, timeout=PATIENCE)
            webhook.delete()
            receiver.closing.set()
        assert health(other).delivered == 1
        assert not Worker.objects.exists()


class TestFairness:
    def test_a_slow_endpoint_holds_up_nobody(self, receiver):
        slow = subscribe(receiver.url('/slow'), Site, timeout=60)
        subscribe(receiver.url('/fast'), Tenant)
        receiver.answers('/slow', Answer(manner=Manner.HANG))
        sites(30)
        with working():
            receiver.wait_for(1, timeout=PATIENCE)
            for number in range(5):
                Tenant.objects.create(name=f'Tenant {number}', slug=f'tenant-{number}')
                receiver.wait_for(number + 1, lambda request: request.path == '/fast')
            assert wait_until(lambda: [one.webhook for one in in_hand()] == [slow], timeout=PATIENCE)
            slow.delete()
            receiver.close()

    def test_more_webhooks_than_threads_all_get_their_turn(self, receiver):
        for number in range(150):
            subscribe(receiver.url(f'/{number}'), Site)
        site()
        assert work() == '150 delivered'

    def test_a_job_ends_and_its_work_goes_on_in_another(self, webhook, receiver):
        """NetBox's other jobs run in between."""
        sites(30)
        redis_queue.get().empty()
        wakeup.accept()
        inline.run(seconds=0)
        assert redis_queue.get().count == 1
        assert len(deliveries(DELIVERED)) < 30
        work()
        assert len(deliveries(DELIVERED)) == 30

    def test_two_jobs_at_once_send_everything_once(self, webhook, receiver):
        sites(60)
        threads = [in_thread(work) for _ in range(2)]
        for thread in threads:
            thread.join(60)
        assert wait_until(lambda: not deliveries(PENDING, SENDING), timeout=PATIENCE)
        assert len(receiver.requests) == len({request.json()['id'] for request in receiver.requests}) == 60


class TestRedelivery:
    @pytest.fixture
    def failed(self, receiver: Receiver) -> Iterator[Delivery]:
        receiver.answers(HOOK, 500, 200)
        subscribe(receiver.url(HOOK), Site, max_attempts=1)
        site()
        work()
        (failed,) = deliveries(FAILED)
        return failed

    def test_a_failed_delivery_is_redelivered_under_the_same_id(self, failed, receiver):
        assert redelivery.redeliver(Delivery.objects.all()) == 1
        assert work() == '1 delivered'
        first, second = receiver.requests
        assert first.header('webhook-id') == second.header('webhook-id') == str(failed.uuid)
        (delivered,) = deliveries()
        assert (delivered.status, delivered.attempt_count) == (DELIVERED, 2)

    def test_it_has_one_attempt_more(self, failed, receiver):
        receiver.answers(HOOK, 500)
        redelivery.redeliver(Delivery.objects.all())
        assert work() == '1 failed'
        (failed,) = deliveries()
        assert (failed.status, failed.attempt_count) == (FAILED, 2)

    def test_its_time_to_live_starts_anew(self, failed, receiver):
        expire()
        Delivery.objects.update(expires_at=timezone.now() - timedelta(days=1))
        redelivery.redeliver(Delivery.objects.all())
        assert work() == '1 delivered'

    def test_a_delivered_one_is_redelivered_under_a_new_id(self, webhook, receiver):
        site()
        work()
        assert redelivery.redeliver(Delivery.objects.all()) == 1
        assert work() == '1 delivered'
        first, second = receiver.requests
        assert first.header('webhook-id') != second.header('webhook-id')
        assert first.body == second.body
        assert len(deliveries(DELIVERED)) == 2

    def test_an_open_delivery_is_not_redelivered(self, webhook, receiver):
        site()
        dispatch_all()
        assert redelivery.redeliver(Delivery.objects.all()) == 0
        assert work() == '1 delivered'

    def test_a_worker_is_woken(self, failed):
        redis_queue.get().empty()
        wakeup.accept()
        redelivery.redeliver(Delivery.objects.all())
        assert redis_queue.get().count == 1

    def test_a_time_range_is_replayed(self, webhook, receiver):
        for _ in range(4):
            site()
        work()
        events = [one.event for one in deliveries()]
        count = redelivery.redeliver(redelivery.select(webhook, since=events[1].timestamp, until=events[3].timestamp))
        assert count == 2
        receiver.clear()
        work()
        assert {sequence for _pk, sequence in arrivals(receiver)} == {events[1].sequence, events[2].sequence}

    def test_only_deliveries_of_the_status_are_replayed(self, failed, receiver):
        site()
        work()
        assert [len(deliveries(status)) for status in (DELIVERED, FAILED)] == [1, 1]
        assert redelivery.redeliver(redelivery.select(failed.webhook, status=FAILED)) == 1
        receiver.clear()
        work()
        assert [request.header('webhook-id') for request in receiver.requests] == [str(failed.uuid)]


class TestTestDelivery:
    def test_it_shows_the_newest_object(self, webhook, receiver):
        site()
        newest = site()
        sent = trial.send_test(webhook)
        assert (sent.status, sent.event.test) == (DELIVERED, True)
        assert receiver.requests[-1].json()['data']['id'] == newest.pk

    def test_it_is_tried_once(self, webhook, receiver):
        receiver.answers(HOOK, 503)
        site()
        assert trial.send_test(webhook).status == FAILED
        assert len(receiver.requests) == 1

    def test_an_object_that_is_deleted_meanwhile_is_not_tested_with(self, webhook, receiver):
        site()
        with before_statement('to_jsonb', lambda: Site.objects.get().delete()):
            trial.send_test(webhook)
        assert receiver.wait_for(1)[0].json()['event'] == 'test'
