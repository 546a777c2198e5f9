import time
from datetime import timedelta
from typing import Any

import pytest
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from extras.models import Notification, NotificationGroup, ScriptModule
from netbox.event_rules import EventRuleAction
from netbox.registry import registry
from support.builders import site, subscribe
from support.builtin import builtin_rule, rule
from support.engine import (
    deliveries,
    dispatching,
    expire,
    health,
    in_thread,
    open_transaction,
    pass_probe_interval,
    pass_retry_waits,
    work,
)
from support.others_code import at_each
from support.writers import Writer
from users.models import Group, User

from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import notifications, sql
from webhooks.engine.deliver import order
from webhooks.engine.deliver.circuit_breaker import SUSPEND_AFTER_ATTEMPTS
from webhooks.engine.notifications import BACKFILLED, DISABLED, FAILED, RESUMED, SUSPENDED, recipients
from webhooks.engine.tidy import loop as tidy
from webhooks.models import Delivery, Health, Webhook
from webhooks.services import backfill, trial

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
SCRIPT = b"""
from extras.scripts import Script

class Telling(Script):
    def run(self, data, commit):
        return data['name']
"""


@pytest.fixture
def ann() -> User:
    return User.objects.create_user('ann')


@pytest.fixture
def on_call(ann: User) -> NotificationGroup:
    group = NotificationGroup.objects.create(name='On call')
    group.users.add(ann)
    return group


@pytest.fixture
def webhook(receiver: Receiver, on_call: NotificationGroup) -> Webhook:
    made = subscribe(receiver.url(HOOK), Site, max_attempts=1)
    made.notification_groups.add(on_call)
    return made


def told(user: User) -> list[str]:
    """Return unread notifications, the latest last."""
    unread = Notification.objects.unread().filter(user=user, object_type=ContentType.objects.get_for_model(Webhook))
    return list(unread.order_by('created').values_list('event_type', flat=True))


def read_all() -> None:
    Notification.objects.update(read=timezone.now())


def drawn_ids() -> int:
    """Count notifications ever written, replaced ones included."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('extras_notification_id_seq')")
        return cursor.fetchone()[0]


def fail(receiver: Receiver) -> None:
    receiver.answers(HOOK, 500)
    site()
    work()


def refuse(_instance: object) -> None:
    raise RuntimeError('no')


class TestFailure:
    def test_people_are_notified_of_the_first_failure_of_a_day(self, webhook, receiver, ann):
        fail(receiver)
        assert told(ann) == [FAILED.name]
        notification = Notification.objects.get()
        assert (notification.object, notification.object_repr) == (webhook, webhook.name)
        assert notification.event is FAILED

    def test_nobody_is_notified_of_the_second_failure_of_a_day(self, webhook, receiver, ann):
        fail(receiver)
        read_all()
        fail(receiver)
        assert len(deliveries(StatusChoices.FAILED)) == 2
        assert not told(ann)

    def test_people_are_notified_of_the_first_failure_of_the_next_day(self, webhook, receiver, ann):
        fail(receiver)
        read_all()
        Health.objects.update(failure_told_on=timezone.localdate() - timedelta(days=1))
        fail(receiver)
        assert told(ann) == [FAILED.name]

    def test_nobody_is_notified_of_a_failure_before_the_last_attempt(self, webhook, receiver, ann):
        Webhook.objects.update(max_attempts=2)
        fail(receiver)
        assert not told(ann)
        pass_retry_waits()
        work()
        assert told(ann) == [FAILED.name]

    def test_an_expired_delivery_counts_as_a_failure(self, webhook, receiver, ann):
        Webhook.objects.update(paused=True)
        site()
        work()
        expire()
        work()
        assert told(ann) == [FAILED.name]
        assert health(webhook).failed == 1

    def test_an_event_that_could_not_be_rendered_counts_as_a_failure(self, webhook, ann):
        site()
        with at_each(Site, refuse):
            work()
        assert told(ann) == [FAILED.name]

    def test_a_failed_notification_is_logged_and_undoes_nothing(self, webhook, receiver, caplog):
        with at_each(Notification, refuse):
            fail(receiver)
        assert len(deliveries(StatusChoices.FAILED)) == 1
        assert any('nobody was notified' in record.getMessage() for record in caplog.records)

    def test_telling_of_many_webhooks_takes_no_more_statements_than_of_one(self, webhook, on_call, ann, receiver):
        rule(subscribe(receiver.url('/told')), Webhook, kinds=(SUSPENDED.name,), action_type='webhooks.send')
        many = [subscribe(receiver.url(HOOK), Site) for _ in range(20)]
        for one in many:
            one.notification_groups.add(on_call)

        def statements(*news: notifications.Notice) -> int:
            with transaction.atomic(), CaptureQueriesContext(connection) as captured:
                notifications.notify(*news)
            return len(captured)

        alone = statements((webhook, SUSPENDED))
        assert statements(*[(one, SUSPENDED) for one in many]) == alone
        assert told(ann) == [SUSPENDED.name] * 21
        assert all(health(one).notices == [SUSPENDED.name] for one in [webhook, *many])

    def test_a_webhook_whose_notification_fails_hides_no_other(self, webhook, on_call, ann, receiver, caplog):
        bad = subscribe(receiver.url(HOOK), Site)
        bad.notification_groups.add(on_call)

        def refuse_one(notification: Notification) -> None:
            if notification.object_id == bad.pk:
                raise RuntimeError('no')

        with at_each(Notification, refuse_one), transaction.atomic():
            notifications.notify((webhook, SUSPENDED), (bad, SUSPENDED), (webhook, FAILED))
        assert told(ann) == [FAILED.name]
        assert f'webhook={bad.pk} name={bad.name!r} event={SUSPENDED.name} nobody was notified' in caplog.text

    def test_telling_leaves_the_limits_of_the_transaction(self, webhook):
        with sql.transaction():
            before = sql.fetch_value('SHOW lock_timeout')
            notifications.notify((webhook, SUSPENDED))
            assert sql.fetch_value('SHOW lock_timeout') == before

    def test_nobody_is_notified_of_a_failed_test(self, webhook, receiver, ann):
        receiver.answers(HOOK, 500)
        site()
        assert trial.send_test(webhook).status == StatusChoices.FAILED
        assert not told(ann)
        fail(receiver)
        assert told(ann) == [FAILED.name]

    def test_two_workers_notify_once(self, webhook, receiver, ann):
        before = drawn_ids()
        receiver.answers(HOOK, Answer(500, delay=0.2))
        for _ in range(8):
            site()
        threads = [in_thread(work) for _ in range(2)]
        for thread in threads:
            thread.join(60)
        assert len(deliveries(StatusChoices.FAILED)) == 8
        assert told(ann) == [FAILED.name]
        # Asking draws an id too.
        assert drawn_ids() == before + 2


class TestState:
    def test_people_are_notified_of_a_suspension_once(self, webhook, receiver, ann):
        Webhook.objects.update(max_attempts=8, concurrency=SUSPEND_AFTER_ATTEMPTS)
        receiver.close()
        for _ in range(SUSPEND_AFTER_ATTEMPTS):
            site()
        work()
        assert told(ann) == [SUSPENDED.name]
        read_all()
        pass_retry_waits()
        pass_probe_interval(webhook)
        work()
        assert health(webhook).probes == 2
        assert not told(ann)

    def test_people_are_notified_that_an_endpoint_is_gone(self, webhook, receiver, ann):
        receiver.answers(HOOK, 410)
        site()
        work()
        assert told(ann) == [DISABLED.name]

    def test_people_are_notified_of_the_last_thing_that_happened(self, webhook, receiver, ann):
        fail(receiver)
        read_all()
        receiver.answers(HOOK, 410)
        site()
        work()
        assert told(ann) == [DISABLED.name]


class TestRecipients:
    def test_each_member_of_the_groups_is_notified_once(self, webhook, on_call, ann):
        bob, carl = User.objects.create_user('bob'), User.objects.create_user('carl', is_active=False)
        operators = Group.objects.create(name='Operators')
        for user in (ann, bob, carl):
            user.groups.add(operators)
        on_call.groups.add(operators)
        webhook.notification_groups.add(NotificationGroup.objects.create(name='Others'))
        assert recipients([webhook.pk]) == {(webhook.pk, ann.pk), (webhook.pk, bob.pk)}

    def test_without_a_group_nobody_is_notified(self, webhook, receiver, on_call, ann):
        webhook.notification_groups.clear()
        fail(receiver)
        assert not Notification.objects.exists()
        webhook.notification_groups.add(on_call)
        Health.objects.update(failure_told_on=None)
        fail(receiver)
        assert told(ann) == [FAILED.name]

    def test_a_webhook_outlives_its_group(self, webhook, receiver, on_call):
        on_call.delete()
        fail(receiver)
        assert len(deliveries(StatusChoices.FAILED)) == 1

    def test_after_the_first_failure_nobody_is_looked_for(self, webhook, receiver):
        def queries_of_groups() -> list[dict]:
            with CaptureQueriesContext(connection) as captured:
                fail(receiver)
            return [query for query in captured if 'extras_notification' in query['sql']]

        assert queries_of_groups()
        assert not queries_of_groups()


class TestTrouble:
    @pytest.fixture
    def reader(self, webhook: Webhook, receiver: Receiver) -> Writer:
        """Ann reads her notification in a transaction that stays open."""
        fail(receiver)
        reader = Writer(read_all).has_written()
        Health.objects.update(failure_told_on=None)
        return reader

    def test_a_failure_is_counted_while_somebody_reads_a_notification(self, webhook, receiver, reader, caplog):
        fail(receiver)
        assert (health(webhook).failed, health(webhook).last_status) == (2, 500)
        assert 'nobody was notified: a row was locked' in caplog.text
        reader.finish()

    def test_while_somebody_holds_a_table_it_is_waited_for_three_times(self, webhook, on_call, ann, receiver, caplog):
        """The turn of the sender waits: nothing else is sent meanwhile."""
        many = [webhook, *(subscribe(receiver.url(HOOK), Site) for _ in range(20))]
        for one in many:
            one.notification_groups.add(on_call)

        def lock() -> None:
            with connection.cursor() as cursor:
                cursor.execute('LOCK TABLE users_user IN ACCESS EXCLUSIVE MODE')

        news = [(one, SUSPENDED) for one in many]
        with open_transaction(lock), transaction.atomic(), CaptureQueriesContext(connection) as captured:
            notifications.notify(*news)
        assert len([query for query in captured if 'JOIN "users_user"' in query['sql']]) == 3
        assert caplog.text.count('nobody was notified: a row was locked') == len(many)
        assert all(f'webhook={one.pk} ' in caplog.text for one in many)
        with transaction.atomic():
            notifications.notify(*news)
        assert len(told(ann)) == len(many)

    def test_people_are_notified_of_other_webhooks_while_somebody_reads_a_notification(
        self, webhook, on_call, ann, receiver, reader
    ):
        other = subscribe(receiver.url(HOOK), Site)
        other.notification_groups.add(on_call)
        with transaction.atomic():
            notifications.notify((webhook, SUSPENDED), (other, SUSPENDED))
        reader.finish()
        assert told(ann) == [SUSPENDED.name]

    def test_a_webhook_whose_endpoint_is_gone_is_disabled_while_somebody_reads_a_notification(
        self, webhook, receiver, reader, caplog
    ):
        receiver.answers(HOOK, 410)
        site()
        work()
        assert not Webhook.objects.get(pk=webhook.pk).enabled
        assert 'nobody was notified: a row was locked' in caplog.text
        reader.finish()

    def test_a_notification_that_cannot_be_written_costs_the_record_nothing(self, webhook, receiver, ann):
        """As if NetBox's table had changed, PostgreSQL refuses the row."""
        with connection.cursor() as cursor:
            cursor.execute('ALTER TABLE extras_notification ADD CONSTRAINT never CHECK (id IS NULL) NOT VALID')
        try:
            fail(receiver)
        finally:
            with connection.cursor() as cursor:
                cursor.execute('ALTER TABLE extras_notification DROP CONSTRAINT never')
        failed = Delivery.objects.get()
        assert (failed.status, failed.attempts.count()) == (StatusChoices.FAILED, 1)
        assert health(webhook).failed == 1
        assert not told(ann)


class TestEventRules:
    @pytest.fixture
    def telling(self, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url('/told'), name='Telling')

    def heard(self, receiver: Receiver) -> list[tuple[str, str]]:
        """Return (event, webhook's name) of each request."""
        work()
        bodies = [request.json() for request in receiver.matching(lambda request: request.path == '/told')]
        return [(body['event'], body['data']['name']) for body in bodies]

    def test_a_rule_fires_on_the_first_failure_of_the_day(self, webhook, telling, receiver):
        rule(telling, Webhook, kinds=(FAILED.name,), action_type='webhooks.send')
        fail(receiver)
        fail(receiver)
        assert self.heard(receiver) == [('delivery_failed', webhook.name)]
        assert health(webhook).notices == []

    def test_a_rule_fires_on_a_suspension_and_on_a_410(self, webhook, telling, receiver):
        rule(telling, Webhook, kinds=(SUSPENDED.name, DISABLED.name), action_type='webhooks.send')
        Webhook.objects.filter(pk=webhook.pk).update(max_attempts=100)
        receiver.answers(HOOK, *[503] * SUSPEND_AFTER_ATTEMPTS)
        site()
        for _ in range(SUSPEND_AFTER_ATTEMPTS):
            work()
            pass_retry_waits()
        assert health(webhook).suspended_since
        assert self.heard(receiver) == [('suspended', webhook.name)]
        receiver.answers(HOOK, 410)
        pass_probe_interval(webhook)
        work()
        work()
        assert self.heard(receiver) == [('suspended', webhook.name), ('disabled', webhook.name)]

    def test_a_rule_hears_of_a_410_although_somebody_held_the_lane(self, webhook, telling, receiver):
        rule(telling, Webhook, kinds=(DISABLED.name,), action_type='webhooks.send')
        Health.objects.filter(webhook=webhook).update(gone_at=timezone.now())
        with open_transaction(lambda: order.lock_lanes([webhook.pk])):
            tidy.step()
        work()
        assert not Webhook.objects.get(pk=webhook.pk).enabled
        assert self.heard(receiver) == [('disabled', webhook.name)]

    def test_a_rule_fires_when_sending_resumes(self, webhook, telling, receiver, ann):
        rule(telling, Webhook, kinds=(RESUMED.name,), action_type='webhooks.send')
        Health.objects.filter(webhook=webhook).update(suspended_since=timezone.now(), probe_at=timezone.now())
        site()
        work()
        assert health(webhook).suspended_since is None
        assert self.heard(receiver) == [('resumed', webhook.name)]
        assert told(ann) == [RESUMED.name]

    def test_a_rule_fires_when_a_backfill_is_completed(self, webhook, telling, receiver, ann):
        rule(telling, Webhook, kinds=(BACKFILLED.name,), action_type='webhooks.send')
        site()
        backfill.start(webhook, backfill.choose(webhook))
        work()
        assert self.heard(receiver) == [('backfilled', webhook.name)]
        assert told(ann) == [BACKFILLED.name]

    def test_a_rule_notifies_a_group(self, webhook, receiver):
        bob = User.objects.create_user('bob')
        others = NotificationGroup.objects.create(name='Others')
        others.users.add(bob)
        rule(others, Webhook, kinds=(FAILED.name,), action_type='notification')
        fail(receiver)
        assert told(bob) == [FAILED.name]
        notification = Notification.objects.get(user=bob)
        assert (notification.object, notification.event) == (webhook, FAILED)

    def test_a_rule_runs_a_script(self, webhook, receiver, settings, drain):
        in_memory = {'BACKEND': 'django.core.files.storage.InMemoryStorage'}
        settings.STORAGES = {**settings.STORAGES, 'scripts': in_memory}
        storages['scripts'].save('telling.py', ContentFile(SCRIPT))
        script = ScriptModule.objects.create(file_path='telling.py').scripts.get()
        rule(script, Webhook, kinds=(FAILED.name,), action_type='script')
        fail(receiver)
        drain()
        job = script.jobs.get()
        assert (job.status, job.data['output']) == ('completed', webhook.name)

    def test_a_rule_fires_beside_changes_without_end(self, webhook, telling, receiver):
        """As in an import: the dispatcher is never idle."""
        rule(telling, Webhook, kinds=(FAILED.name,), action_type='webhooks.send')
        with transaction.atomic():
            notifications.notify((webhook, FAILED))
        site()
        with dispatching() as its:
            assert its.step() == 1
        assert health(webhook).notices == []
        assert self.heard(receiver) == [('delivery_failed', webhook.name)]

    def test_while_redis_is_away_news_waits_and_changes_do_not(self, webhook, tasks_redis):
        builtin_rule(Webhook, kinds=(FAILED.name,))
        with transaction.atomic():
            notifications.notify((webhook, FAILED))
        site()
        tasks_redis.stop()
        with dispatching() as its:
            assert its.step() == 1
        assert health(webhook).notices == [FAILED.name]
        tasks_redis.start()
        work()
        assert health(webhook).notices == []

    def test_an_event_rule_about_a_webhook_sends_no_secrets(self, webhook, telling, receiver):
        Webhook.objects.filter(pk=webhook.pk).update(additional_headers='X-Key: sesame')
        rule(telling, Webhook, kinds=(FAILED.name,), action_type='webhooks.send')
        fail(receiver)
        work()
        (request,) = receiver.matching(lambda request: request.path == '/told')
        assert b'X-Key' in request.body
        assert b'sesame' not in request.body

    def test_it_is_in_a_feed_too(self, webhook, receiver):
        feed = subscribe('', name='Feed')
        rule(feed, Webhook, kinds=(FAILED.name,), action_type='webhooks.send')
        fail(receiver)
        work()
        (delivery,) = Delivery.objects.filter(webhook=feed)
        assert (delivery.event.kind, delivery.position) == ('delivery_failed', 1)

    def test_a_webhook_does_not_send_its_own_trouble(self, webhook, telling, receiver):
        for one in (webhook, telling):
            rule(one, Webhook, kinds=(FAILED.name,), action_type='webhooks.send')
        fail(receiver)
        assert self.heard(receiver) == [('delivery_failed', webhook.name)]
        assert {one.webhook_id for one in deliveries() if one.kind == 'delivery_failed'} == {telling.pk}

    def test_without_a_rule_nothing_is_noted(self, webhook, telling, receiver):
        rule(telling, Webhook, kinds=(SUSPENDED.name,), action_type='webhooks.send')
        fail(receiver)
        assert self.heard(receiver) == []

    def test_a_rule_that_takes_long_fires_once(self, webhook, monkeypatch):
        """A plugin's action may do its work at once."""
        monkeypatch.setattr(sql, 'BOUNDS', sql.BOUNDS.replace("'5000', true),\n", "'1000', true),\n", 1))
        fired = []

        class Slow(EventRuleAction):
            slug = label = 'slow'

            def enqueue(self, *, event_context: Any, **_kwargs: Any) -> None:
                fired.append(event_context['event_type'])
                time.sleep(2.0)

        monkeypatch.setitem(registry['event_rule_actions'], Slow.slug, Slow())
        rule(None, Webhook, kinds=(FAILED.name,), action_type=Slow.slug)
        with transaction.atomic():
            notifications.notify((webhook, FAILED))
        for _ in range(3):
            tidy.step()
        assert fired == [FAILED.name]

    def test_a_rule_that_raises_stops_nothing(self, webhook, telling, receiver, caplog):
        broken = rule(telling, Webhook, kinds=(FAILED.name,), action_type='webhooks.send')
        type(broken).objects.filter(pk=broken.pk).update(conditions={'and': 5})
        rule(telling, Webhook, kinds=(FAILED.name,), action_type='webhooks.send')
        fail(receiver)
        work()
        assert health(webhook).notices == []
        assert f'name={webhook.name!r} event={FAILED.name} rule={broken.name} failed' in caplog.text
        assert self.heard(receiver) == [('delivery_failed', webhook.name)]
