import re
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from dcim.models import Site
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django_rq.settings import get_queues_map
from rq.job import Job
from support.builders import site, subscribe
from support.confirming import confirm
from support.engine import open_transaction
from support.writers import before_statement
from users.models import User

from devstack.receiver import Receiver
from webhooks import conf
from webhooks.choices import StatusChoices
from webhooks.engine import sql
from webhooks.engine.tidy import loop as tidy
from webhooks.models import Delivery, Webhook
from webhooks.outbox import redis_queue, wakeup
from webhooks.services import failed_jobs

pytestmark = pytest.mark.usefixtures('committed')


@pytest.fixture
def client(netbox_user: User) -> Client:
    client = Client()
    client.force_login(netbox_user)
    return client


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    """It gives up at once; its endpoint refuses everything."""
    receiver.answers('/hook', HTTPStatus.INTERNAL_SERVER_ERROR)
    return subscribe(receiver.url('/hook?key=swordfish'), Site, name='Receiver', max_attempts=1)


@pytest.fixture
def fail(webhook: Webhook, drain: Callable) -> Callable[..., list[Delivery]]:
    """Return the failed deliveries of new sites."""

    def run(count: int = 1) -> list[Delivery]:
        with transaction.atomic():
            sites = [site() for _ in range(count)]
        drain()
        failed = Delivery.objects.filter(status=StatusChoices.FAILED, object_id__in=[one.pk for one in sites])
        assert len(failed) == count
        return list(failed)

    return run


def page(name: str, *arguments: Any) -> str:
    return reverse(f'django_rq:{name}', args=[get_queues_map()[conf.get().queue], *arguments])


def text_of(response: HttpResponse) -> str:
    assert response.status_code == HTTPStatus.OK
    return response.content.decode()


def job_page(delivery: Delivery) -> str:
    return page('job_detail', str(delivery.uuid))


class TestFailedDeliveries:
    def test_each_is_a_failed_job_of_its_id(self, client, fail):
        failed = fail(2)
        response = client.get(page('failed_jobs'))
        assert {job.id for job in response.context['jobs']} == {str(one.uuid) for one in failed}

    def test_the_list_of_failed_jobs_names_delivery_and_reason(self, client, fail):
        [failed] = fail()
        text = text_of(client.get(page('failed_jobs')))
        for word in ('Receiver', 'POST', 'dcim.site created', failed.event.object_repr, 'HTTP 500'):
            assert word in text

    def test_the_page_of_a_failed_job_names_method_url_event_model_object_and_reason(self, client, fail, receiver):
        [failed] = fail()
        text = text_of(client.get(job_page(failed)))
        for word in (f'POST {receiver.url("/hook")}', 'dcim.site created', failed.event.object_repr, 'HTTP 500'):
            assert word in text
        assert 'swordfish' not in text

    def test_it_has_the_time_that_a_request_may_take(self, fail):
        [failed] = fail()
        assert redis_queue.get().fetch_job(str(failed.uuid)).timeout == redis_queue.job_timeout()

    def test_it_leads_to_the_delivery(self, client, fail):
        [failed] = fail()
        address = f'{reverse("admin:webhooks_delivery_changelist")}?q={failed.uuid}'
        assert address in text_of(client.get(job_page(failed)))
        assert list(client.get(address).context['cl'].result_list) == [failed]

    def test_a_failed_job_of_others_that_cannot_be_read_is_left_alone(self, client, fail):
        rq_queue = redis_queue.get()
        foreign = Job.create('gone.function', connection=rq_queue.connection, origin=rq_queue.name)
        rq_queue.failed_job_registry.add(foreign)
        rq_queue.connection.hset(foreign.key, 'data', b'no pickle')
        [failed] = fail()
        failed_jobs.publish()
        assert set(rq_queue.failed_job_registry.get_job_ids(cleanup=False)) == {foreign.id, str(failed.uuid)}

    def test_the_reason_is_a_result_of_the_job(self, client, fail):
        [failed] = fail()
        [result] = client.get(job_page(failed)).context['job'].results()
        text = text_of(client.get(page('result_detail', str(failed.uuid), result.id)))
        assert 'HTTP 500' in text


class TestRequeueing:
    def test_a_requeued_job_is_delivered(self, client, fail, drain, receiver):
        [failed] = fail()
        receiver.answers('/hook', HTTPStatus.OK)
        client.post(page('requeue_job', str(failed.uuid)))
        drain()
        first, second = receiver.wait_for(2)
        assert first.header('webhook-id') == second.header('webhook-id') == str(failed.uuid)
        failed.refresh_from_db()
        assert failed.status == StatusChoices.DELIVERED
        assert not client.get(page('failed_jobs')).context['jobs']

    def test_a_requeued_job_has_nothing_to_send_if_its_object_is_in_no_list(self, client, drain, receiver):
        webhook = subscribe(receiver.url('/list'), Site, filters={'dcim.site': 'status=active'})
        Webhook.objects.update(filters={'dcim.site': 'cf_gone=1'})
        site(status='planned')
        drain()
        Delivery.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        tidy.expire()
        failed_jobs.publish()
        webhook.save()
        [failed] = Delivery.objects.all()
        client.post(page('requeue_job', str(failed.uuid)))
        drain()
        assert not Delivery.objects.exists() and not receiver.requests
        assert not client.get(page('failed_jobs')).context['jobs']
        assert redis_queue.get().fetch_job(str(failed.uuid)).return_value() == 'nothing to send'

    def test_all_jobs_are_requeued_at_once(self, client, fail, drain, receiver):
        failed = fail(3)
        receiver.answers('/hook', HTTPStatus.OK)
        assert '3 jobs' in text_of(client.get(page('requeue_all')))
        client.post(page('requeue_all'))
        drain()
        receiver.wait_for(6)
        statuses = Delivery.objects.filter(pk__in=[one.pk for one in failed]).values_list('status', flat=True)
        assert set(statuses) == {StatusChoices.DELIVERED}
        assert not client.get(page('failed_jobs')).context['jobs']

    def test_only_the_selected_jobs_are_requeued(self, client, fail, drain, receiver):
        chosen, other = fail(2)
        receiver.answers('/hook', HTTPStatus.OK)
        confirmation = client.post(page('confirm_action'), {'action': 'requeue', '_selected_action': [chosen.uuid]})
        assert str(chosen.uuid) in text_of(confirmation)
        client.post(page('actions'), {'action': 'requeue', 'job_ids': [chosen.uuid]})
        drain()
        receiver.wait_for(3)
        assert [job.id for job in client.get(page('failed_jobs')).context['jobs']] == [str(other.uuid)]

    def test_a_delivery_that_fails_again_is_listed_again_with_its_new_reason(self, client, fail, drain, receiver):
        [failed] = fail()
        receiver.answers('/hook', HTTPStatus.BAD_GATEWAY)
        client.post(page('requeue_job', str(failed.uuid)))
        drain()
        [job] = client.get(page('failed_jobs')).context['jobs']
        assert job.id == str(failed.uuid)
        assert 'HTTP 502' in text_of(client.get(page('failed_jobs')))
        assert 'HTTP 502' in text_of(client.get(job_page(failed)))

    def test_a_requeued_job_says_that_it_delivered(self, client, fail, drain, receiver):
        [failed] = fail()
        receiver.answers('/hook', HTTPStatus.OK)
        client.post(page('requeue_job', str(failed.uuid)))
        drain()
        assert '1 delivered' in text_of(client.get(job_page(failed)))

    def test_redelivering_elsewhere_takes_it_off_the_page(self, client, fail):
        [failed] = fail()
        assert listed(client) == {str(failed.uuid)}
        list_page = reverse('admin:webhooks_delivery_changelist')
        confirm(client, client.post(list_page, {'action': 'redeliver', '_selected_action': failed.pk}))
        assert not listed(client)


class TestTheList:
    """Of our queue it is ours."""

    def test_its_columns_differ_from_row_to_row(self, client, fail):
        fail()
        text = text_of(client.get(page('failed_jobs')))
        assert 'Callable' not in text
        assert 'Enqueued' not in text

    def test_the_confirmation_names_webhook_reason_and_object(self, client, fail):
        chosen, _other = fail(2)
        asked = client.post(page('confirm_action'), {'action': 'requeue', '_selected_action': [chosen.uuid]})
        for words in ('Receiver', 'HTTP 500', chosen.event.object_repr):
            assert words in text_of(asked)

    def test_it_leads_to_the_search_of_failed_deliveries(self, client, fail):
        [failed] = fail()
        link = re.search(r'<a href="([^"]+)">Search failed deliveries', text_of(client.get(page('failed_jobs'))))[1]
        assert list(client.get(link).context['cl'].result_list) == [failed]

    def test_deleting_a_job_says_that_the_log_keeps_the_delivery(self, client, fail):
        [failed] = fail()
        asked = client.post(page('confirm_action'), {'action': 'delete', '_selected_action': [failed.uuid]})
        assert 'stay in the log' in text_of(asked)
        client.post(page('actions'), {'action': 'delete', 'job_ids': [failed.uuid]})
        assert not listed(client)
        assert Delivery.objects.filter(pk=failed.pk).exists()

    def test_nothing_chosen_leads_back_to_the_list(self, client, fail):
        fail()
        assert client.post(page('confirm_action'), {'action': 'requeue'}).status_code == HTTPStatus.FOUND

    def test_other_queues_have_their_own_page(self, client):
        index = get_queues_map()['default']
        assert 'wh-note' not in text_of(client.get(reverse('django_rq:failed_jobs', args=[index])))
        assert 'wh-note' in text_of(client.get(page('failed_jobs')))


class TestMeanwhile:
    """The next page shows changes made during its update."""

    def publish_while(self, happens: Callable[[], None]) -> None:
        """It happens once the deliveries are on the page, and before PostgreSQL knows."""
        with before_statement('SET listed = true', happens):
            failed_jobs.publish()

    def test_an_older_delivery_that_fails_is_listed_the_next_time(self, client, fail):
        older, newer = sorted(fail(2), key=lambda one: one.pk)
        Delivery.objects.update(listed=False)
        Delivery.objects.filter(pk=older.pk).update(state=StatusChoices.PENDING)
        client.post(page('delete_failed_jobs'))
        self.publish_while(lambda: Delivery.objects.filter(pk=older.pk).update(state=StatusChoices.FAILED))
        assert listed(client) == {str(newer.uuid)}
        failed_jobs.publish()
        assert listed(client) == {str(older.uuid), str(newer.uuid)}

    def test_a_delivery_that_fails_again_is_listed_with_its_new_reason(self, client, fail):
        [failed] = fail()
        Delivery.objects.update(listed=False)
        self.publish_while(lambda: Delivery.objects.update(error='another reason', finished_at=timezone.now()))
        failed_jobs.publish()
        assert 'another reason' in text_of(client.get(job_page(failed)))

    def test_a_failure_that_is_sent_again_meanwhile_leaves_the_list(self, client, fail):
        [failed] = fail()
        Delivery.objects.update(listed=False)
        self.publish_while(lambda: Delivery.objects.update(state=StatusChoices.PENDING))
        assert listed(client) == {str(failed.uuid)}
        failed_jobs.publish()
        assert not listed(client)

    def test_no_change_waits_because_somebody_holds_a_failed_delivery(self, client, fail):
        """The process that publishes also dispatches."""
        held, free = fail(2)
        Delivery.objects.update(listed=False)
        with open_transaction(lambda: Delivery.objects.select_for_update().get(pk=held.pk)), transaction.atomic():
            sql.execute("SET LOCAL lock_timeout = '100ms'")
            failed_jobs.publish()
        assert list(Delivery.objects.filter(listed=False)) == [held]
        failed_jobs.publish()
        assert listed(client) == {str(held.uuid), str(free.uuid)}

    def test_there_is_room_for_the_newest_only(self, client, fail, monkeypatch):
        monkeypatch.setattr(failed_jobs, 'STATUS_PAGE_JOBS', 2)
        fail(3)
        newest = Delivery.objects.order_by('-pk')[:2]
        assert listed(client) == {str(one.uuid) for one in newest}
        assert not Delivery.objects.filter(listed=False)


def listed(client: Client) -> set[str]:
    return {job.id for job in client.get(page('failed_jobs')).context['jobs']}


class TestClearing:
    def test_the_pages_that_ask_say_that_the_log_keeps_the_deliveries(self, client, fail):
        [failed] = fail()
        for address in (page('delete_job', str(failed.uuid)), page('delete_failed_jobs')):
            assert 'stay in the log' in text_of(client.get(address))
        asked = text_of(client.get(page('delete_job', str(failed.uuid))))
        for words in ('Receiver', 'HTTP 500', failed.event.object_repr):
            assert words in asked
        others = reverse('django_rq:delete_failed_jobs', args=[get_queues_map()['default']])
        assert 'stay in the log' not in text_of(client.get(others))

    def test_deleting_one_keeps_it_in_the_log(self, client, fail):
        [failed] = fail()
        client.post(page('delete_job', str(failed.uuid)))
        assert not client.get(page('failed_jobs')).context['jobs']
        assert Delivery.objects.get(pk=failed.pk).status == StatusChoices.FAILED

    def test_a_cleared_failure_does_not_come_back(self, client, fail, drain):
        fail(2)
        assert len(listed(client)) == 2
        client.post(page('delete_failed_jobs'))
        wakeup.wake()
        drain()
        assert not listed(client)
        [another] = fail()
        assert listed(client) == {str(another.uuid)}


class TestFinishedJobs:
    def test_the_list_of_finished_jobs_says_how_much_was_sent(self, client, webhook, receiver, drain):
        receiver.answers('/hook', HTTPStatus.OK)
        with transaction.atomic():
            site()
            site()
        drain()
        assert '2 delivered' in text_of(client.get(page('finished_jobs')))

    def test_the_page_of_a_finished_job_says_how_much_was_sent(self, client, webhook, receiver, drain):
        receiver.answers('/hook', HTTPStatus.OK)
        site()
        drain()
        [job] = [
            job for job in client.get(page('finished_jobs')).context['jobs'] if '1 delivered' in job.return_value()
        ]
        assert '1 delivered' in text_of(client.get(page('job_detail', job.id)))


class TestPages:
    def test_the_front_names_our_queue_and_leads_to_its_lists(self, client):
        text = text_of(client.get(reverse('django_rq:home')))
        for name in ('failed_jobs', 'finished_jobs', 'workers'):
            assert page(name) in text

    def test_all_pages_of_django_rq_answer(self, client, fail):
        fail()
        for name in (
            'jobs', 'queue_details', 'finished_jobs', 'failed_jobs', 'scheduled_jobs', 'started_jobs', 'deferred_jobs',
            'workers', 'requeue_all', 'delete_failed_jobs', 'clear',
        ):  # fmt: skip
            assert text_of(client.get(page(name))), name

    def test_a_waiting_job_has_its_page(self, client):
        wakeup.wake()
        [job] = client.get(page('jobs')).context['jobs']
        assert 'webhooks.worker.drain' in text_of(client.get(page('job_detail', job.id)))

    @pytest.mark.parametrize(
        'address',
        [
            'queues/99/', f'queues/{10**30}/failed/', 'queues/2/gone/', 'queues/2/gone/delete/',
            'queues/2/gone/requeue/', 'queues/2/gone/enqueue/', 'queues/2/no id/requeue/', 'workers/2/gone/',
            'workers/2/rq:worker:gone/', 'schedulers/2/',
        ],
    )  # fmt: skip
    def test_an_address_of_no_queue_or_job_is_not_found(self, client, address):
        assert client.get(reverse('django_rq:home') + address).status_code == HTTPStatus.NOT_FOUND

    def test_a_job_that_did_not_fail_is_not_requeued(self, client):
        wakeup.wake()
        [job] = client.get(page('jobs')).context['jobs']
        answer = client.post(page('requeue_job', job.id), follow=True)
        assert 'This job has not failed' in text_of(answer)
        assert answer.redirect_chain == [(page('job_detail', job.id), HTTPStatus.FOUND)]

    def test_all_are_requeued_but_what_somebody_else_has_requeued(self, client, fail):
        """It stays listed: a test cannot act between the two looks."""
        fail()
        [job] = client.get(page('failed_jobs')).context['jobs']
        job.origin = 'default'
        job.save()
        answer = client.post(page('requeue_all'), follow=True)
        assert 'This job has not failed' in text_of(answer)
        assert answer.redirect_chain == [(page('failed_jobs'), HTTPStatus.FOUND)]

    def test_without_redis_the_pages_lead_to_a_page_that_says_so(self, client, tasks_redis):
        tasks_redis.stop()
        answer = client.get(reverse('django_rq:home'), follow=True)
        assert answer.redirect_chain == [(reverse('admin:index'), HTTPStatus.FOUND)]
        assert 'Redis cannot be reached' in text_of(answer)

    def test_a_worker_has_its_page(self, client, rqworker):
        rqworker('low')
        [worker] = client.get(page('workers')).context['workers']
        assert 'low' in text_of(client.get(page('worker_details', worker.key)))
