import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from dcim.models import Region, Site
from django.contrib.contenttypes.models import ContentType
from django.db import OperationalError, transaction
from django.db.models import F, Model, QuerySet
from django.utils import timezone
from extras.models import Notification, NotificationGroup, Tag
from support import log
from support.builders import DELETED, forget_events, named, site, subscribe
from support.engine import (
    arrivals,
    deliveries,
    die,
    disorder,
    dispatch_all,
    health,
    hold,
    in_thread,
    is_anybody_blocked,
    open_transaction,
    pass_retry_waits,
    work,
)
from support.settings import change_settings
from support.tables import copy_row, rows_read
from support.writers import Writer
from tenancy.models import Tenant
from users.models import User

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks import list_filters
from webhooks.choices import BackfillStateChoices, StatusChoices
from webhooks.delivery_states import DeliveryState
from webhooks.engine import each, notifications, sql
from webhooks.engine.registry import DISPATCH
from webhooks.engine.tidy import loop as tidy
from webhooks.engine.walks import backfills
from webhooks.engine.walks import loop as walks
from webhooks.exceptions import DefinitionError
from webhooks.models import Backfill, Delivery, Event, Health, Webhook
from webhooks.models.sequence import draw
from webhooks.presentation import progress
from webhooks.services import backfill, redelivery, send_waiting

pytestmark = pytest.mark.usefixtures('committed')

HOOK, OTHER = '/hook', '/other'
RUNNING, PAUSED, COMPLETED, CANCELED, FAILED = BackfillStateChoices.values()
PENDING, DELIVERED, SUPERSEDED = StatusChoices.PENDING, StatusChoices.DELIVERED, StatusChoices.SUPERSEDED


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """No slice starts while three objects wait."""
    monkeypatch.setattr(walks, 'OBJECTS_PER_SLICE', 3)
    monkeypatch.setattr(backfills, 'MAX_OPEN_OBJECTS', 3)


def dispatch_all_while(ask: Callable[[], object]) -> None:
    """Somebody asks while the dispatcher makes deliveries."""
    asking = Writer(lambda: sql.execute('LOCK webhooks_delivery IN SHARE MODE')).has_written()
    dispatcher = in_thread(dispatch_all)
    assert wait_until(is_anybody_blocked, timeout=30)
    asking.also(ask)
    asking.finish()
    dispatcher.join(30)


def sites(count: int) -> list[int]:
    """Return the primary keys of new sites."""
    with transaction.atomic():
        made = [site().pk for _ in range(count)]
    forget_events()
    return made


def in_hand() -> None:
    hold(*Event.objects.filter(dispatched_at=None), role=DISPATCH)


def start(webhook: Webhook, *models: type[Model], query: str = '') -> Backfill:
    chosen = ContentType.objects.filter(
        pk__in=[object_type.pk for object_type in ContentType.objects.get_for_models(*models).values()]
    )
    return backfill.start(webhook, backfill.choose(webhook, chosen if models else None, query))


def state(webhook: Webhook) -> str:
    return Backfill.objects.get(pk=webhook.pk).state


def walker() -> walks.Walks:
    return walks.Walks([backfills.BackfillWalk])


def cut(times: int = 1) -> None:
    for _ in range(times):
        assert walker().next_slice()
        dispatch_all()


def ids(receiver: Receiver, path: str | None = None) -> list[int]:
    return [pk for pk, _sequence in arrivals(receiver, path)]


def statuses(**filters: object) -> list[tuple[int, str]]:
    return [(one.object_id, one.status) for one in deliveries(**filters)]


def sleeping(seconds: float) -> Callable[[QuerySet], QuerySet]:
    each = f'(SELECT pg_sleep({seconds}) WHERE dcim_site.id IS NOT NULL) IS NOT NULL'
    return lambda objects: objects.extra(where=[each])


def fails(objects: QuerySet) -> QuerySet:
    raise OperationalError('no route to the database of a plugin')


class TestWhatIsSent:
    def test_each_object_is_sent_once_to_this_webhook_alone(self, webhook, receiver):
        made = sites(5)
        subscribe(receiver.url(OTHER), Site)
        start(webhook)
        work()
        bodies = [request.json() for request in receiver.requests]
        assert sorted(ids(receiver, HOOK)) == made
        assert {(body['event'], body['backfill'], body['username']) for body in bodies} == {('updated', True, None)}
        assert not ids(receiver, OTHER)
        Site.objects.get(pk=made[0]).save()
        work()
        assert ids(receiver, OTHER) == [made[0]]
        assert 'backfill' not in receiver.requests[-1].json()

    def test_it_is_sent_whatever_kinds_of_change_are(self, receiver):
        made = sites(1)
        webhook = subscribe(receiver.url(HOOK), Site, kinds=(DELETED,))
        start(webhook)
        work()
        assert ids(receiver) == made

    def test_models_come_one_after_the_other(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, Tenant)
        place, tenant = site(), Tenant.objects.create(**named('tenant'))
        forget_events()
        backfilled = start(webhook)
        work()
        assert backfilled.total == 2
        told = [(request.json()['model'], request.json()['data']['id']) for request in receiver.requests]
        assert sorted(told) == [('Site', place.pk), ('Tenant', tenant.pk)]

    def test_one_model_can_be_chosen(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, Tenant)
        site(), Tenant.objects.create(**named('tenant'))
        forget_events()
        start(webhook, Tenant)
        work()
        assert [request.json()['model'] for request in receiver.requests] == ['Tenant']

    def test_a_filter_narrows_it_as_that_of_the_list(self, webhook, receiver):
        region = Region.objects.create(**named('region'))
        inside, tagged = site(region=region), site(region=region)
        tagged.tags.add(Tag.objects.create(**named('one')), Tag.objects.create(**named('two')))
        site()
        forget_events()
        assert start(webhook, query=f'?region={region.slug}&status=active').total == 2
        work()
        assert sorted(ids(receiver)) == [inside.pk, tagged.pk]

    def test_an_object_that_fits_a_filter_twice_is_sent_once(self, webhook, receiver):
        tags = [Tag.objects.create(**named('tag')) for _ in range(2)]
        tagged = site()
        tagged.tags.add(*tags)
        forget_events()
        query = '&'.join(f'tag_id={tag.pk}' for tag in tags)
        assert start(webhook, query=query).total == 1
        work()
        assert ids(receiver) == [tagged.pk]

    def test_conditions_narrow_it_too(self, webhook, receiver):
        webhook.conditions = {'and': [{'attr': 'description', 'value': 'yes'}]}
        webhook.save()
        site(), site(description='yes')
        forget_events()
        start(webhook)
        work()
        assert [request.json()['data']['description'] for request in receiver.requests] == ['yes']
        assert state(webhook) == COMPLETED

    def test_nothing_was_different_before(self, webhook, receiver):
        webhook.include_snapshots = True
        webhook.save()
        site(description='here')
        forget_events()
        start(webhook)
        work()
        (request,) = receiver.requests
        snapshots = request.json()['snapshots']
        assert snapshots['prechange'] == snapshots['postchange']
        assert snapshots['postchange']['description'] == 'here'
        assert request.json()['differences'] == {'added': {}, 'removed': {}, 'changed': {}}

    def test_a_backfill_ends_after_its_failed_deliveries_were_retried(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        sites(1)
        start(webhook)
        work()
        assert state(webhook) == RUNNING
        pass_retry_waits()
        work()
        assert state(webhook) == COMPLETED
        assert deliveries()[0].attempt_count == 2


class TestOrder:
    def test_a_user_who_changes_an_object_does_not_wait_and_holds_up_only_its_backfill(self, webhook, receiver):
        made = sites(2)
        start(webhook)
        other = subscribe(receiver.url(OTHER), Tenant)
        Tenant.objects.create(**named('tenant'))
        forget_events()
        start(other)
        writer = Writer(lambda: Site.objects.filter(pk=made[0]).update(description='late')).has_written()
        work()
        assert (state(webhook), state(other)) == (RUNNING, COMPLETED)
        assert not is_anybody_blocked()
        assert not ids(receiver, HOOK)
        writer.finish()
        work()
        assert sorted(ids(receiver, HOOK)) == made
        told = {request.json()['data']['id']: request.json()['data'] for request in receiver.requests}
        assert told[made[0]]['description'] == 'late'
        assert state(webhook) == COMPLETED

    def test_an_object_that_is_deleted_while_a_backfill_waits_for_it_is_not_sent(self, webhook, receiver):
        (made,) = sites(1)
        start(webhook)
        writer = Writer(lambda: Site.objects.get(pk=made).delete()).has_written()
        work()
        assert state(webhook) == RUNNING
        writer.finish()
        work()
        assert state(webhook) == COMPLETED
        assert [request.json()['event'] for request in receiver.requests] == ['deleted']

    def test_an_object_that_no_longer_fits_the_filter_once_its_row_is_free_is_not_sent(self, webhook, receiver):
        made = sites(2)
        start(webhook, query='status=active')
        retired = Site.objects.filter(pk=made[0])
        writer = Writer(lambda: (Site.objects.update(name=F('slug')), retired.update(status='retired'))).has_written()
        work()
        assert state(webhook) == RUNNING
        writer.finish()
        work()
        assert ids(receiver) == made[1:]
        assert state(webhook) == COMPLETED

    def test_a_change_that_is_rolled_back_is_not_shown(self, webhook, receiver):
        (made,) = sites(1)
        start(webhook)

        def fail() -> None:
            raise ValueError

        writer = Writer(lambda: Site.objects.filter(pk=made).update(description='never')).has_written()
        work()
        assert not receiver.requests
        with pytest.raises(AssertionError):
            writer.also(fail)
        work()
        assert [request.json()['data']['description'] for request in receiver.requests] == ['']

    def test_a_later_change_has_the_higher_sequence(self, webhook, receiver):
        (made,) = sites(1)
        start(webhook)
        walker().next_slice()
        Site.objects.get(pk=made).save()
        first, second = Event.objects.order_by('pk')
        assert (first.backfill, second.backfill) == (True, False)
        assert first.sequence < second.sequence

    def test_a_change_replaces_what_waits_of_a_backfill(self, webhook, receiver):
        first, second = sites(2)
        start(webhook)
        cut()
        Site.objects.filter(pk=first).get().save()
        work()
        assert sorted(arrivals(receiver)) == sorted((one.object_id, one.sequence) for one in deliveries(DELIVERED))
        assert statuses(backfill=True) == [(first, SUPERSEDED), (second, DELIVERED)]
        assert len(receiver.requests) == 2
        assert state(webhook) == COMPLETED

    def test_a_tried_delivery_of_a_backfill_goes_before_a_later_change(self, webhook, receiver):
        receiver.answers(HOOK, 500, 200)
        (made,) = sites(1)
        start(webhook)
        work()
        Site.objects.get(pk=made).save()
        pass_retry_waits()
        work()
        assert len(receiver.requests) == 3
        assert not disorder(arrivals(receiver))
        assert {one.status for one in deliveries()} == {DELIVERED}

    @pytest.mark.parametrize('fields', [{'transaction_id': 0}, {'error': 'not rendered'}], ids=['rule', 'error'])
    def test_a_change_that_does_not_show_the_object_does_not_replace_its_backfill(self, webhook, receiver, fields):
        first, second = sites(2)
        start(webhook)
        cut()
        later = log.event(Site.objects.get(pk=first), sequence=draw(), **fields)
        an_hour = timezone.now() + timedelta(hours=1)
        log.delivery(later, webhook, error='', status=PENDING, due_at=an_hour)
        Site.objects.get(pk=second).save()
        work()
        assert sorted(statuses(backfill=True)) == [(first, DELIVERED), (second, SUPERSEDED)]
        assert sorted(ids(receiver)) == [first, second]

    @pytest.mark.parametrize('change_set', [False, True])
    def test_a_paused_backfill_holds_no_change(self, receiver, change_set):
        made = sites(2)
        webhook = subscribe(receiver.url(HOOK), Site, change_set=change_set)
        start(webhook)
        cut()
        backfill.pause(webhook)
        Site.objects.get(pk=made[0]).save()
        work()
        assert len(receiver.requests) == 1

    def test_a_change_replaces_what_waits_for_a_webhook_without_order(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, ordered=False)
        made, other = sites(2)
        start(webhook)
        cut()
        backfill.pause(webhook)
        Site.objects.get(pk=made).save()
        work()
        backfill.resume(webhook)
        work()
        assert ids(receiver) == [made, other]
        assert health(webhook).superseded == 1

    @pytest.mark.parametrize('ask', [backfill.pause, backfill.cancel])
    def test_with_latest_only_what_replaces_a_change_is_no_longer_of_the_backfill(self, receiver, ask):
        made = sites(2)
        webhook = subscribe(receiver.url(HOOK), Site, latest_only=True)
        Site.objects.get(pk=made[0]).save()
        dispatch_all()
        start(webhook)
        cut()
        send_waiting.send(webhook, latest_only=True)
        ask(webhook)
        work()
        assert made[0] in ids(receiver)
        assert SUPERSEDED in {one.status for one in deliveries()}

    @pytest.mark.parametrize('count', [1, 2])
    def test_with_latest_only_a_creation_is_not_taken_back_with_the_backfill(self, receiver, count):
        webhook = subscribe(receiver.url(HOOK), Site, latest_only=True)
        with transaction.atomic():
            made = [site().pk for _ in range(count)]
        dispatch_all()
        start(webhook)
        cut()
        send_waiting.send(webhook, latest_only=True)
        backfill.cancel(webhook)
        work()
        assert {request.json()['event'] for request in receiver.requests} == {'created'}
        assert sorted(ids(receiver)) == made

    @pytest.mark.parametrize('trouble', ['refused', 'lapsed', 'redelivered'])
    def test_a_paused_backfill_holds_no_change_behind_what_was_tried(self, webhook, receiver, trouble):
        (made,) = sites(1)
        start(webhook)
        cut()
        if trouble == 'lapsed':
            die(*deliveries())
        elif trouble == 'redelivered':
            Delivery.objects.update(state=StatusChoices.FAILED, attempt_count=1)
        else:
            receiver.answers(HOOK, 503, 200)
            work()
            receiver.clear()
        backfill.pause(webhook)
        redelivery.redeliver(Delivery.objects.all())
        pass_retry_waits()
        Site.objects.get(pk=made).save()
        work()
        assert statuses() == [(made, DELIVERED), (made, DELIVERED)]
        assert ids(receiver) == [made, made]
        assert not disorder(arrivals(receiver))

    def test_a_paused_backfill_holds_no_change_behind_what_was_given_back(self, webhook, receiver):
        (made,) = sites(1)
        start(webhook)
        cut()
        registration = hold(*deliveries())
        Site.objects.get(pk=made).save()
        dispatch_all()
        backfill.pause(webhook)
        registration.end()
        work()
        assert [request.json().get('backfill') for request in receiver.requests] == [None]
        assert statuses() == [(made, SUPERSEDED), (made, DELIVERED)]


class TestSlices:
    def test_it_goes_on_where_it_was(self, webhook, receiver, small_slices):
        made = sites(10)
        start(webhook)
        work()
        assert sorted(ids(receiver)) == made
        assert Backfill.objects.get().recorded == 10

    def test_no_more_waits_than_a_few_slices(self, webhook, receiver, small_slices):
        receiver.answers(HOOK, 500)
        sites(20)
        start(webhook)
        work()
        assert 3 <= Event.objects.count() <= 6

    def test_a_slice_that_two_workers_have_read_is_recorded_once(self, webhook, small_slices):
        """Two workers have read the same place."""
        sites(4)
        start(webhook)
        both = [*backfills.BackfillWalk.ready(), *backfills.BackfillWalk.ready()]
        assert [walks._step(one, 3) for one in both] == [True, False]
        assert Event.objects.count() == 3

    def test_a_slice_is_in_the_hands_of_one_dispatcher(self, webhook):
        sites(1)
        start(webhook)
        with open_transaction(lambda: sql.fetch(walks.TRY_LOCK_WALK, ['webhooks_backfill', webhook.pk])):
            assert not walker().next_slice()
        assert walker().next_slice()

    def test_a_webhook_that_was_backfilled_anew_meanwhile_is_left_alone(self, webhook):
        sites(1)
        start(webhook)
        (former,) = backfills.BackfillWalk.ready()
        backfill.cancel(webhook)
        start(webhook)
        walks._step(former, 3)
        assert not Event.objects.exists()
        assert walker().next_slice()
        assert Event.objects.count() == 1

    def test_while_somebody_holds_it_the_dispatcher_does_not_wait(self, webhook):
        start(webhook)
        with open_transaction(lambda: backfill.pause(webhook)):
            assert not walker().next_slice()
            assert state(webhook) == RUNNING
        assert state(webhook) == PAUSED

    def test_a_suspended_webhook_has_a_slice_to_be_probed_with(self, webhook, receiver, small_slices):
        """Deliveries from before the suspension may have expired."""
        made = sites(5)
        start(webhook)
        suspension = Health.objects.filter(webhook_id=webhook.pk)
        suspension.update(suspended_since=timezone.now(), probe_at=timezone.now() + timedelta(hours=1))
        cut()
        assert not walker().next_slice()
        work()
        assert not receiver.requests
        suspension.update(probe_at=timezone.now())
        work()
        assert sorted(ids(receiver)) == made
        assert state(webhook) == COMPLETED

    def test_a_filter_that_no_longer_exists_ends_it_with_the_reason(self, webhook, receiver):
        sites(1)
        start(webhook)
        Backfill.objects.update(query='cf_gone=1')
        work()
        ended = Backfill.objects.get()
        assert (ended.state, ended.finished_at is None) == (FAILED, False)
        assert 'cf_gone' in ended.error


class TestFilters:
    def test_where_the_rows_take_too_long_it_ends_with_the_reason(self, webhook, filtered, monkeypatch):
        sites(1)
        start(webhook, query='status=active')
        monkeypatch.setattr(list_filters, 'FILTER_MS', 300)
        filtered(sleeping(60))
        assert walker().next_slice()
        assert state(webhook) == FAILED
        assert 'PostgreSQL takes too long' in Backfill.objects.get().error

    def test_it_looks_at_so_many_rows_at_once(self, webhook, receiver, monkeypatch):
        monkeypatch.setattr(walks, 'OBJECTS_PER_SLICE', 2)
        made = sites(5)
        Site.objects.filter(pk__in=[made[2], made[4]]).update(status='retired')
        start(webhook, query='status=retired')
        assert walker().next_slice()
        assert Backfill.objects.get().last_id == made[1]
        work()
        assert sorted(ids(receiver)) == [made[2], made[4]]
        assert state(webhook) == COMPLETED

    def test_more_than_a_slice_of_the_rows_leaves_none_out(self, webhook, receiver, monkeypatch):
        monkeypatch.setattr(walks, 'OBJECTS_PER_SLICE', 2)
        made = sites(5)
        start(webhook, query='status=active')
        work()
        assert sorted(ids(receiver)) == made

    @pytest.mark.parametrize(('slow', 'goes_on'), [(0.0, False), (60.0, True)])
    def test_after_a_slow_one_others_have_time(self, webhook, monkeypatch, slow, goes_on):
        monkeypatch.setattr(walks, 'OBJECTS_PER_SLICE', 3)
        monkeypatch.setattr(each, 'SLOW_SLICE_SECONDS', slow)
        sites(6)
        start(webhook)
        walks_on = walker()
        assert walks_on.next_slice()
        assert walks_on.next_slice() == goes_on

    def test_where_postgresql_does_not_answer_it_is_tried_again(self, webhook, receiver, monkeypatch):
        """A timeout does not say that the filter is wrong."""
        sites(1)
        start(webhook)
        with monkeypatch.context() as stalled:
            stalled.setattr(list_filters, 'FILTER_SECONDS', 0.5)
            stalled.setattr(list_filters, 'BOUND_FILTER', 'SELECT pg_sleep(30), %s')
            assert not walker().next_slice()
        assert state(webhook) == RUNNING
        # PostgreSQL takes a moment to end the transaction.
        assert wait_until(lambda: work() and receiver.requests, timeout=60)
        assert len(receiver.requests) == 1

    def test_one_that_hangs_ends_its_own_backfill(self, webhook, receiver, filtered, monkeypatch):
        sites(1)
        start(webhook, query='status=active')
        other = subscribe(receiver.url(OTHER), Site)
        start(other)
        filtered(lambda _: threading.Event().wait())
        with monkeypatch.context() as hasty:
            hasty.setattr(list_filters, 'FILTER_SECONDS', 0.2)
            assert walker().next_slice()
        work()
        assert (state(webhook), state(other)) == (FAILED, COMPLETED)
        assert 'it takes more than' in Backfill.objects.get(pk=webhook.pk).error

    def test_one_whose_own_database_is_down_waits_for_it(self, webhook, receiver, filtered):
        sites(1)
        start(webhook, query='status=active')
        other = subscribe(receiver.url(OTHER), Site)
        start(other)
        filtered(fails)
        work()
        assert (state(webhook), state(other)) == (RUNNING, COMPLETED)
        filtered(lambda objects: objects)
        work()
        assert state(webhook) == COMPLETED

    def test_where_our_own_connection_is_gone_it_is_tried_again(self, webhook, receiver, filtered):
        made = sites(1)
        start(webhook, query='status=active')
        causes = ['pg_terminate_backend(pg_backend_pid())']
        filtered(lambda objects: (causes and sql.fetch(f'SELECT {causes.pop()}'), objects)[1])
        assert not walker().next_slice()
        assert state(webhook) == RUNNING
        work()
        assert ids(receiver) == made

    def test_where_the_table_is_locked_it_is_tried_again(self, webhook, receiver):
        made = sites(1)
        start(webhook, query='status=active')
        with open_transaction(lambda: sql.execute('LOCK TABLE dcim_site')):
            assert not walker().next_slice()
        assert state(webhook) == RUNNING
        work()
        assert ids(receiver) == made

    def test_filters_are_known_in_a_process_that_has_served_no_page(self):
        look = """if True:
            import django
            django.setup()
            from dcim.models import Site
            from webhooks import list_filters
            print(list_filters.objects(Site, 'status=active').query)"""
        found = subprocess.run([sys.executable, '-c', look], capture_output=True, text=True, check=False)
        assert '"dcim_site"."status" = active' in found.stdout, found.stderr


class TestShare:
    def test_changes_go_before_a_backfill(self, receiver):
        webhook = subscribe(receiver.url(HOOK), Site, concurrency=1)
        made = sites(4)
        start(webhook)
        cut()
        tenants = subscribe(receiver.url(HOOK), Tenant, concurrency=1)
        changed = [Tenant.objects.create(**named('tenant')).pk for _ in range(3)]
        Webhook.objects.filter(pk=webhook.pk).update(paused=True)
        dispatch_all()
        Delivery.objects.filter(webhook=tenants).update(webhook=webhook)
        Webhook.objects.filter(pk=webhook.pk).update(paused=False)
        work()
        assert sorted(ids(receiver)[:3]) == changed
        assert sorted(ids(receiver)[3:]) == made

    def test_beside_changes_of_others_it_is_slow(self, receiver):
        count = 250
        sites(count)
        webhook = subscribe(receiver.url(HOOK), Site)
        start(webhook)
        cut(2)
        subscribe(receiver.url(OTHER), Tenant)
        with transaction.atomic():
            for _ in range(count):
                Tenant.objects.create(**named('tenant'))
        dispatch_all()
        work()
        live = [request.arrived for request in receiver.matching(lambda request: request.path == OTHER)]
        beside = receiver.matching(lambda request: request.path == HOOK and request.arrived < max(live))
        assert len(beside) < count / 2
        assert len(receiver.requests) == 2 * count

    def test_a_backfill_waits_for_its_own_deliveries_and_holds_no_other_backfill(self, webhook, receiver, small_slices):
        sites(6)
        start(webhook)
        assert walker().next_slice()
        in_hand()
        assert not walker().next_slice()
        start(subscribe(receiver.url(OTHER), Site))
        assert walker().next_slice()

    def test_it_has_all_there_is_where_nobody_waits(self, webhook, receiver):
        made = sites(30)
        start(webhook)
        work()
        assert sorted(ids(receiver)) == made

    def test_a_webhook_that_waits_for_its_rate_limit_takes_nothing_from_a_backfill(self, webhook, receiver):
        subscribe(receiver.url(OTHER), Tenant, rate_limit=1)
        for _ in range(12):
            Tenant.objects.create(**named('tenant'))
        dispatch_all()
        made = [site().pk for _ in range(30)]
        Event.objects.filter(dispatched_at=None).delete()
        start(webhook)
        work()
        assert sorted(ids(receiver, HOOK)) == made
        assert receiver.requests[-1].path == OTHER


class TestWhatPeopleDo:
    def test_a_disabled_webhook_is_refused(self, webhook, receiver):
        made = sites(1)
        Webhook.objects.update(enabled=False)
        with pytest.raises(DefinitionError, match='disabled'):
            start(webhook)
        Webhook.objects.update(enabled=True)
        start(webhook)
        work()
        assert ids(receiver) == made

    def test_where_the_plugin_is_off_it_is_refused(self, webhook, monkeypatch):
        """No worker would send it."""
        sites(1)
        change_settings(monkeypatch, enabled=False)
        with pytest.raises(DefinitionError, match='Changes are not sent'):
            start(webhook)

    def test_a_second_one_is_refused_until_the_first_has_ended(self, webhook):
        sites(1)
        start(webhook)
        with pytest.raises(DefinitionError, match='already running'):
            start(webhook)
        work()
        assert start(webhook).state == RUNNING

    def test_pausing_holds_it_and_resuming_goes_on(self, webhook, receiver, small_slices):
        made = sites(7)
        start(webhook)
        cut()
        backfill.pause(webhook)
        work()
        assert not receiver.requests
        backfill.resume(webhook)
        work()
        assert sorted(ids(receiver)) == made

    @pytest.mark.parametrize(('is_paused', 'sent'), [(False, 0), (True, 2)], ids=['pause', 'resume'])
    def test_pausing_or_resuming_while_deliveries_are_made_is_obeyed(self, webhook, receiver, is_paused, sent):
        sites(2)
        start(webhook)
        walker().next_slice()
        if is_paused:
            backfill.pause(webhook)
        dispatch_all_while(lambda: (backfill.resume if is_paused else backfill.pause)(webhook))
        work()
        assert len(receiver.requests) == sent

    def test_no_earlier_change_lets_go_what_a_pause_holds(self, webhook, receiver):
        site()
        dispatch_all()
        start(webhook)
        cut()
        backfill.pause(webhook)
        work()
        assert [request.json().get('backfill') for request in receiver.requests] == [None]

    def test_deliveries_that_a_worker_gives_back_during_a_pause_are_held(self, webhook, receiver):
        sites(2)
        start(webhook)
        cut()
        registration = hold(*deliveries())
        backfill.pause(webhook)
        registration.end()
        work()
        assert not receiver.requests

    def test_canceling_takes_back_what_was_not_tried(self, webhook, receiver, small_slices):
        sites(7)
        start(webhook)
        cut()
        walker().next_slice()
        backfill.cancel(webhook)
        work()
        assert not receiver.requests
        assert not Delivery.objects.exists()
        assert progress.of(webhook).sent == 0
        start(webhook)
        work()
        assert len(receiver.requests) == 7

    def test_a_delivery_in_hand_at_the_cancel_counts_until_its_worker_gives_it_back(self, webhook, receiver):
        first = sites(2)[0]
        start(webhook)
        cut()
        registration = hold(*deliveries(object_id=first))
        assert backfill.cancel(webhook).recorded == 1
        assert statuses() == [(first, PENDING)]
        assert not tidy.step()
        # Nobody had begun it.
        registration.end()
        assert tidy.step()
        assert not deliveries()

    def test_canceling_takes_back_what_nobody_has_dispatched(self, webhook, receiver):
        made = sites(3)
        start(webhook)
        walker().next_slice()
        backfill.cancel(webhook)
        start(webhook)
        work()
        assert sorted(ids(receiver)) == made

    def test_a_backfill_that_is_canceled_while_its_deliveries_are_made_sends_nothing(self, webhook, receiver):
        """The dispatcher looked before the cancel; its deliveries are removed before any claim."""
        sites(3)
        start(webhook)
        walker().next_slice()
        dispatch_all_while(lambda: backfill.cancel(webhook))
        assert len(deliveries(PENDING)) == 3
        work()
        assert not receiver.requests
        assert not Delivery.objects.exists()
        assert progress.of(webhook).sent == 0

    def test_events_in_hand_at_the_cancel_are_not_sent_with_the_next_backfill(self, webhook, receiver):
        made = sites(3)
        start(webhook)
        walker().next_slice()
        in_hand()
        backfill.cancel(webhook)
        start(webhook)
        work()
        assert sorted(ids(receiver)) == made

    def test_deliveries_of_a_failed_backfill_do_not_count_for_the_next(self, webhook):
        sites(3)
        start(webhook)
        cut()
        Backfill.objects.update(query='cf_gone=1')
        assert walker().next_slice()
        assert state(webhook) == FAILED
        start(webhook)
        assert len(deliveries(PENDING)) == 3
        assert backfill.cancel(webhook).recorded == 0
        assert not deliveries()

    def test_what_a_canceled_one_has_left_is_found_without_reading_the_log(self, webhook):
        (made,) = sites(1)
        start(webhook)
        cut()
        backfill.cancel(webhook)
        Site.objects.get(pk=made).save()
        dispatch_all()
        Delivery.objects.update(state=StatusChoices.DELIVERED, due_at=None)
        copy_row(Delivery, times=5000)
        sql.execute('VACUUM ANALYZE webhooks_delivery')
        before = rows_read(Delivery)
        assert not tidy.take_back()
        start(webhook)
        assert rows_read(Delivery) - before < 5000

    def test_a_change_behind_what_is_canceled_goes(self, webhook, receiver):
        (made,) = sites(1)
        start(webhook)
        cut()
        backfill.pause(webhook)
        Delivery.objects.update(state=DeliveryState.HELD, due_at=None)
        Site.objects.get(pk=made).save()
        dispatch_all()
        Delivery.objects.filter(backfill=False).update(state=DeliveryState.HELD, due_at=None)
        backfill.cancel(webhook)
        work()
        assert ids(receiver) == [made]

    @pytest.mark.parametrize('ask', [backfill.pause, backfill.cancel])
    def test_redelivered_objects_are_no_part_of_a_later_backfill(self, webhook, receiver, ask):
        made = sites(2)
        start(webhook)
        work()
        start(webhook)
        assert redelivery.redeliver(redelivery.select(webhook)) == 2
        ask(webhook)
        work()
        assert sorted(ids(receiver)) == sorted(made * 2)

    @pytest.mark.parametrize(
        ('ask', 'reason'),
        [(backfill.pause, 'to pause'), (backfill.resume, 'to resume'), (backfill.cancel, 'to cancel')],
    )
    def test_a_webhook_without_a_backfill_has_none_to_pause_resume_or_cancel(self, webhook, ask, reason):
        with pytest.raises(DefinitionError, match=reason):
            ask(webhook)

    def test_an_object_type_that_is_taken_off_the_webhook_is_not_sent(self, receiver):
        (made,) = sites(1)
        webhook = subscribe(receiver.url(HOOK), Site, Tenant)
        tenant = Tenant.objects.create(**named('tenant'))
        forget_events()
        start(webhook)
        webhook.object_types.remove(ContentType.objects.get_for_model(tenant))
        work()
        assert [(request.json()['model'], request.json()['data']['id']) for request in receiver.requests] == [
            ('Site', made)
        ]
        assert state(webhook) == COMPLETED

    def test_a_paused_or_disabled_webhook_holds_it(self, webhook, receiver):
        made = sites(1)
        start(webhook)
        for field, value in (('paused', True), ('enabled', False)):
            Webhook.objects.update(**{field: value})
            work()
            assert not receiver.requests
            Webhook.objects.update(**{field: not value})
        work()
        assert ids(receiver) == made

    def test_deleting_the_webhook_ends_it(self, webhook, receiver):
        sites(2)
        start(webhook)
        walker().next_slice()
        assert Event.objects.count() == 2
        webhook.delete()
        assert not Backfill.objects.exists()
        work()
        assert not Backfill._base_manager.exists()
        assert not receiver.requests
        assert not Event.objects.exists()

    @pytest.mark.parametrize(
        ('query', 'reason'),
        [('colour=red', 'no filter colour'), ('region_id=none', 'region_id'), ('status=active&nothing', 'nothing')],
    )
    def test_a_filter_that_the_list_does_not_have_is_refused(self, webhook, query, reason):
        with pytest.raises(DefinitionError, match=reason) as refusal:
            start(webhook, query=query)
        assert refusal.value.field == 'filter'

    def test_a_model_that_the_webhook_does_not_ask_for_is_refused(self, webhook):
        with pytest.raises(DefinitionError, match='Tenant') as refusal:
            start(webhook, Tenant)
        assert refusal.value.field == 'object_types'


class TestTelling:
    @pytest.fixture
    def ann(self, webhook: Webhook) -> User:
        ann = User.objects.create_user('ann')
        group = NotificationGroup.objects.create(name='On call')
        group.users.add(ann)
        webhook.notification_groups.add(group)
        return ann

    def test_people_are_notified_when_a_backfill_ends(self, webhook, receiver, ann):
        sites(1)
        start(webhook)
        assert not Notification.objects.exists()
        work()
        notification = Notification.objects.get(user=ann)
        assert (notification.object, notification.event) == (webhook, notifications.BACKFILLED)

    def test_people_hear_of_a_backfill_that_cannot_go_on(self, webhook, ann):
        sites(1)
        start(webhook)
        Backfill.objects.update(query='cf_gone=1')
        work()
        assert Notification.objects.get(user=ann).event == notifications.BACKFILL_FAILED
