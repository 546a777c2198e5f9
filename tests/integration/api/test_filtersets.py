import uuid
from datetime import UTC, datetime

import pytest
from dcim.models import Rack, Site
from django.contrib.contenttypes.models import ContentType
from django.http import QueryDict
from django.test import TestCase
from django_filters import CharFilter
from extras.models import NotificationGroup
from netbox import filtersets
from support.builders import CREATED, DELETED, NOWHERE, site, subscribe
from support.log import delivery, event
from users.models import User
from utilities.testing import BaseFilterSetTestMixin, ChangeLoggedFilterSetTestMixin, create_tags

from webhooks.filtersets import CredentialFilterSet, DeliveryFilterSet, EventFilterSet, WebhookFilterSet
from webhooks.models import Delivery, Event, Health, Webhook

# NetBox's mixin looks for filter sets in its test's package.
OURS = 'webhooks.tests'

# Encrypted or masked: a filter would reveal them.
UNTOLD = ('payload_url', 'additional_headers', 'secret', 'previous_secret', 'previous_secret_expires')


class TestWebhookFilterSet(TestCase, ChangeLoggedFilterSetTestMixin):
    __module__ = OURS
    queryset = Webhook.objects.all()
    filterset = WebhookFilterSet
    filter_name_map = {'user': 'ignore_user'}
    ignore_fields = (
        *UNTOLD, 'body_template', 'conditions', 'success_conditions', 'expand', 'only_if_changed', 'health', 'backfill',
        'fields', 'omit', 'filters', 'managed_in',
    )  # fmt: skip

    @classmethod
    def setUpTestData(cls):
        cls.user = User.objects.create_user(username='robot')
        first = subscribe(NOWHERE, Site, name='First', kinds=(CREATED,), description='needle', ignore_users=[cls.user])
        subscribe(NOWHERE, Rack, name='Second', enabled=False, http_method='PUT', timeout=5)
        subscribe(NOWHERE, Site, Rack, name='Third', paused=True, payload_format='cloudevents', max_attempts=1)
        cls.group = NotificationGroup.objects.create(name='Operators')
        first.notification_groups.set([cls.group])
        first.tags.set(create_tags('Alpha'))
        Health.objects.filter(webhook__name__in=['Second', 'Third']).update(suspended_since=datetime.now(UTC))

    def check(self, query, *names):
        found = self.filterset(QueryDict(query), self.queryset).qs
        self.assertEqual(sorted(found.values_list('name', flat=True)), sorted(names))

    def test_the_search_finds_name_and_description(self):
        self.check('q=needle', 'First')
        self.check('q=first', 'First')

    def test_webhooks_are_found_by_object_type(self):
        self.check('object_type=dcim.rack', 'Second', 'Third')
        self.check(f'object_type_id={ContentType.objects.get_for_model(Site).pk}', 'First', 'Third')

    def test_webhooks_are_found_by_state(self):
        self.check('enabled=false', 'Second')
        self.check('paused=true', 'Third')
        # A disabled webhook is not suspended.
        self.check('suspended=true', 'Third')
        self.check('suspended=false', 'First', 'Second')

    def test_webhooks_are_found_by_kind_of_event(self):
        self.check('type_delete=false', 'First')

    def test_webhooks_are_found_by_what_their_request_is(self):
        self.check('http_method=PUT', 'Second')
        self.check('payload_format=cloudevents', 'Third')
        self.check('timeout=5', 'Second')
        self.check('max_attempts__lte=1', 'Third')

    def test_webhooks_are_found_by_ignored_user(self):
        self.check(f'ignore_user_id={self.user.pk}', 'First')

    def test_webhooks_are_found_by_notification_group(self):
        self.check(f'notification_group_id={self.group.pk}', 'First')
        self.check('notification_group=Operators', 'First')

    def test_webhooks_are_found_by_tag(self):
        self.check('tag=alpha', 'First')

    def test_the_search_does_not_look_into_what_is_masked(self):
        subscribe('http://a.example/needle?token=thread', Site, name='Fourth', additional_headers='X-A: needle')
        self.check('q=needle', 'First')
        self.check('q=thread')
        self.check('q=fourth', 'Fourth')


def looks_into(filterset):
    paths = [(name, one.field_name or '') for name, one in filterset.get_filters().items()]
    return {part for pair in paths for path in pair for part in path.split('__')}


@pytest.mark.parametrize('filterset', [WebhookFilterSet, DeliveryFilterSet, EventFilterSet])
def test_no_filter_looks_into_what_is_masked(filterset):
    assert 'object_type' in looks_into(filterset)
    assert not looks_into(filterset) & {*UNTOLD}


def test_a_filter_that_looks_into_what_is_masked_is_noticed_under_any_name():
    class Telling(WebhookFilterSet):
        address = CharFilter(field_name='payload_url', lookup_expr='icontains')

    assert 'payload_url' in looks_into(Telling)


class TestDeliveryFilterSet(TestCase, BaseFilterSetTestMixin):
    """The mixin's tests of the change log are left out."""

    __module__ = OURS
    queryset = Delivery.objects.all()
    filterset = DeliveryFilterSet
    ignore_fields = (
        'error', 'due_at', 'waits_until', 'expires_at', 'attempt_limit', 'lapses', 'listed', 'expanded', 'span',
        'state', 'lead', 'part', 'parts', 'change_count',
    )  # fmt: skip

    @classmethod
    def setUpTestData(cls):
        for _number in range(3):
            delivery(event(site()), subscribe(NOWHERE, Site))


class TestEventFilterSet(TestCase, BaseFilterSetTestMixin):
    __module__ = OURS
    queryset = Event.objects.all()
    filterset = EventFilterSet
    ignore_fields = (
        'snapshot', 'prechange', 'snapshots', 'data', 'request', 'skipped', 'dispatched_at', 'transaction_id',
        'transaction_time', 'visible', 'first_sequence', 'first_visible', 'partial', 'error', 'expanded',
        'expanded_types', 'caused_by', 'backfill_for', 'lapses', 'stopped', 'retry_at',
        'changelog_message', 'trace', 'branch', 'urgent', 'row_state',
    )  # fmt: skip

    @classmethod
    def setUpTestData(cls):
        for _number in range(3):
            event(site())


@pytest.fixture
def logs(db):
    """Deliveries: (failed, delivered, pending)."""
    # Created first, so that nobody hears of it.
    bern = site(name='Bern')
    rack = Rack.objects.create(name='R1', site=bern)
    cmdb, chat = subscribe(NOWHERE, Site, name='CMDB'), subscribe(NOWHERE, Site, name='Chat')
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    return (
        delivery(event(bern, timestamp=days[0], kind=CREATED, username='clerk'), cmdb, error='HTTP 500'),
        delivery(event(rack, timestamp=days[1], test=True), cmdb, status='delivered', response_status=200, error=''),
        delivery(
            event(bern, timestamp=days[2], kind=DELETED, error='no serializer', request_id=uuid.uuid4()),
            chat,
            status='pending',
            response_status=None,
            attempts=0,
            error='',
        ),
    )


# NetBox 4.7.0 takes a number where `__empty` needs true or false.
needs_boolean_lookups = pytest.mark.skipif(
    not hasattr(filtersets, 'BOOLEAN_LOOKUPS'), reason="this NetBox's own filters of numbers do not know __empty"
)


@pytest.mark.parametrize(
    ('query', 'expected'),
    [
        ('status=failed', [0]),
        ('status=failed&status=pending', [0, 2]),
        ('status__n=failed', [1, 2]),
        ('webhook=CMDB', [0, 1]),
        ('webhook_id={webhook}', [0, 1]),
        ('kind=deleted', [2]),
        ('kind=created&kind=updated', [0, 1]),
        ('object_type=dcim.site', [0, 2]),
        ('object_type=dcim.site&object_id={object}', [0, 2]),
        ('object_type_id={object_type}', [0, 2]),
        ('object_type=no.such', []),
        ('response_status=200', [1]),
        ('response_status__gte=400', [0]),
        pytest.param('response_status__empty=true', [2], marks=needs_boolean_lookups),
        ('attempt_count=0', [2]),
        ('created__gte=2026-01-02T00:00:00Z', [1, 2]),
        ('created__lt=2026-01-02T00:00:00Z', [0]),
        ('created__gte=2026-01-02&created__lt=2026-01-03', [1]),
        ('uuid={uuid}', [0]),
        ('event_id={event}', [0]),
        ('sequence={sequence}', [0]),
        ('q=bern', [0, 2]),
        ('q=chat', [2]),
        ('q=HTTP 5', [0]),
        ('q={uuid}', [0]),
        ('q= ', [0, 1, 2]),
    ],
)
def test_deliveries_are_found(logs, netbox_user, query, expected):
    found = DeliveryFilterSet(QueryDict(_fill(query, logs[0])), Delivery.objects.restrict(netbox_user))
    assert found.is_valid(), found.errors
    assert set(found.qs) == {logs[index] for index in expected}


@pytest.mark.parametrize(
    ('query', 'expected'),
    [
        ('kind=created', [0]),
        ('object_type=dcim.rack', [1]),
        ('object_id={object}&object_type=dcim.site', [0, 2]),
        ('object_repr=Bern', [0, 2]),
        ('object_repr__ic=er', [0, 2]),
        ('username=clerk', [0]),
        ('timestamp__gte=2026-01-02T00:00:00Z', [1, 2]),
        ('test=true', [1]),
        ('has_error=true', [2]),
        ('has_error=false', [0, 1]),
        ('delivery_id={delivery}', [0]),
        ('uuid={event_uuid}', [0]),
        ('q=clerk', [0]),
        ('q=R1', [1]),
        ('q={event_uuid}', [0]),
    ],
)
def test_events_are_found(logs, netbox_user, query, expected):
    found = EventFilterSet(QueryDict(_fill(query, logs[0])), Event.objects.restrict(netbox_user))
    assert found.is_valid(), found.errors
    assert set(found.qs) == {logs[index].event for index in expected}


def _fill(query, log):
    return query.format(
        webhook=log.webhook_id,
        object=log.object_id,
        object_type=log.object_type_id,
        uuid=log.uuid,
        event=log.event_id,
        event_uuid=log.event.uuid,
        sequence=log.sequence,
        delivery=log.pk,
    )


@pytest.mark.parametrize(
    ('filterset', 'query'),
    [
        (DeliveryFilterSet, 'status=lost'),
        (DeliveryFilterSet, 'uuid=x'),
        (DeliveryFilterSet, 'created__gte=soon'),
        (DeliveryFilterSet, 'webhook_id=0'),
        (DeliveryFilterSet, 'event_id=null'),
        (DeliveryFilterSet, 'kind=moved'),
        (DeliveryFilterSet, 'kind__ic=null'),
        (EventFilterSet, 'delivery_id=null'),
        (EventFilterSet, 'object_repr__regex=('),
        (WebhookFilterSet, 'name__iregex=[a'),
        (DeliveryFilterSet, 'status__regex=[a'),
    ],
)
def test_a_filter_that_makes_no_sense_is_named(db, filterset, query):
    found = filterset(QueryDict(query), filterset.Meta.model.objects.all())
    assert list(found.errors) == [query.partition('=')[0]]


@pytest.mark.parametrize('filterset', [WebhookFilterSet, CredentialFilterSet, EventFilterSet, DeliveryFilterSet])
def test_each_filter_takes_null_or_refuses_it(db, netbox_user, filterset, pytestconfig):
    """NetBox offers it as a value of each filter by a choice. `--long`: of each lookup too."""
    rows = filterset._meta.model.objects.restrict(netbox_user, 'view')
    lookups = pytestconfig.getoption('--long')
    for name in (one for one in filterset.base_filters if lookups or '__' not in one):
        asked = filterset(QueryDict(f'{name}=null'), rows)
        assert not asked.is_valid() or list(asked.qs) == [], name


def test_no_webhook_is_in_the_state_null(api_client, admin_pages):
    answer = api_client.get('/api/plugins/webhooks/webhooks/?state=null')
    assert (answer.status_code, list(answer.json())) == (400, ['state'])
    assert admin_pages.get('/plugins/webhooks/webhooks/?state=null').status_code == 200


def test_regular_expressions_are_postgresqls(logs, netbox_user):
    found = EventFilterSet(QueryDict(r'object_repr__regex=^B\w%2Bn\M'), Event.objects.restrict(netbox_user))
    assert found.qs.count() == 2


@pytest.mark.parametrize('lookup', ['', '__ic', '__isw', '__iew', '__ie', '__regex', '__iregex'])
def test_a_status_is_found_by_its_name_and_not_by_that_of_its_state(db, lookup: str):
    webhook = subscribe(NOWHERE, Site)
    retried, failed = delivery(event(site()), webhook), delivery(event(site()), webhook)
    Delivery.objects.filter(pk=retried.pk).update(state='retrying')
    for status, found in (('pending', [retried]), ('failed', [failed]), ('delivered', [])):
        assert list(DeliveryFilterSet(QueryDict(f'status{lookup}={status}'), Delivery.objects.all()).qs) == found
    assert list(DeliveryFilterSet(QueryDict('status__n=pending'), Delivery.objects.all()).qs) == [failed]


def test_a_list_of_deliveries_reads_no_events_unless_a_filter_asks_for_them(db):
    """Otherwise each page counts a join of the whole log."""
    for query, reads_events in (('', False), ('status=failed', False), ('kind=updated', True)):
        found = DeliveryFilterSet(QueryDict(query), Delivery.objects.all()).qs
        assert ('webhooks_event' in str(found.query)) is reads_events, query
