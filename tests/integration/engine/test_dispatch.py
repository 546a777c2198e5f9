"""From events to deliveries: what a batch costs, and what happens in its middle."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from dcim.models import Site
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from support.builders import NOWHERE, site, subscribe
from support.engine import health, in_thread
from users.models import User

from webhooks import rendering
from webhooks.engine import conditions, dispatch, event_rendering, matching
from webhooks.models import Delivery, Event, Hour, Webhook

pytestmark = pytest.mark.usefixtures('committed')


def queries_for(count: int) -> int:
    with transaction.atomic():
        for _ in range(count):
            site()
    with CaptureQueriesContext(connection) as queries:
        assert dispatch.batch() is dispatch.Progress.DONE
    return len(queries)


def test_a_large_batch_takes_no_more_queries_than_a_small_one():
    subscribe(NOWHERE, Site)
    queries_for(2)
    assert queries_for(3) == queries_for(30)
    assert Delivery.objects.count() == 35


def test_those_who_do_not_take_it_are_counted_once_a_batch():
    for _ in range(2):
        subscribe(NOWHERE, Site, conditions={'attr': 'name', 'value': 'none has it'})
    subscribe(NOWHERE, Site, ignore_users=[User.objects.create_user('robot')])
    with transaction.atomic():
        for _ in range(5):
            site()
    with CaptureQueriesContext(connection) as queries:
        dispatch.batch()
    assert set(Event.objects.values_list('skipped', flat=True)) == {2}
    assert len([query for query in queries.captured_queries if 'SET skipped' in query['sql']]) == 1


class TestDeletedWebhook:
    """A webhook is deleted while its events are dispatched: the others get theirs."""

    @pytest.fixture
    def goes(self) -> Webhook:
        return subscribe(NOWHERE, Site)

    @pytest.fixture
    def meanwhile(self, goes: Webhook, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], None]:
        def at(module: Any, name: str) -> None:
            """Let it be deleted by somebody else just before this function is called."""
            function = getattr(module, name)

            def after_deletion(*args: Any) -> Any:
                in_thread(lambda: Webhook.objects.filter(pk=goes.pk).delete()).join(30)
                return function(*args)

            monkeypatch.setattr(module, name, after_deletion)

        return at

    @pytest.mark.parametrize(('module', 'name'), [(matching, '_candidates'), (event_rendering, 'render')])
    def test_the_other_webhooks_get_their_deliveries(self, goes, meanwhile, module, name):
        stays = subscribe(NOWHERE, Site)
        site()
        meanwhile(module, name)
        assert dispatch.batch() is dispatch.Progress.DONE
        assert not Webhook.objects.filter(pk=goes.pk).exists()
        assert [one.webhook for one in Delivery.objects.all()] == [stays]


class TestNotStored:
    """What PostgreSQL does not take is the fault of one event, and holds up no other."""

    @pytest.fixture
    def places(self) -> list[Site]:
        subscribe(NOWHERE, Site, include_snapshots=True)
        with transaction.atomic():
            return [site() for _ in range(3)]

    def spoil(self, monkeypatch: pytest.MonkeyPatch, name: str, spoilt: Callable[[Any], Any], at: int) -> None:
        """Let the function of rendering return something else for the object with this id."""
        function = getattr(rendering, name)

        def spoiling(model: type, snapshots: list) -> list:
            pairs = zip(function(model, snapshots), snapshots, strict=True)
            return [spoilt(one) if snapshot and snapshot['row']['id'] == at else one for one, snapshot in pairs]

        monkeypatch.setattr(rendering, name, spoiling)

    @pytest.mark.parametrize(
        ('name', 'spoilt'),
        [
            ('change_log', lambda shown: {**shown, 'latitude': math.nan}),
            ('change_log', lambda shown: {**shown, 'name': '\x00'}),
            ('render', lambda shown: dataclasses.replace(shown, display='\ud800')),
        ],
    )
    def test_an_event_that_cannot_be_stored_fails_and_the_others_go_on(self, places, monkeypatch, name, spoilt):
        self.spoil(monkeypatch, name, spoilt, places[1].pk)
        dispatch.batch()
        statuses = dict(Delivery.objects.values_list('object_id', 'status'))
        assert statuses == {place.pk: 'failed' if place == places[1] else 'pending' for place in places}

    def test_a_reason_is_made_storable(self, places, monkeypatch):
        def fail(*args: Any) -> None:
            raise RuntimeError('a \x00 and a \ud800')

        monkeypatch.setattr(rendering, 'render', fail)
        dispatch.batch()
        assert all(event.error.endswith('a \ufffd and a \ufffd') for event in Event.objects.all())


def test_what_cannot_be_rendered_counts_as_failed(monkeypatch):
    def fail(*args: Any) -> None:
        raise RuntimeError('no')

    webhook, other = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site)
    monkeypatch.setattr(rendering, 'render', fail)
    with transaction.atomic():
        for _ in range(2):
            site()
    dispatch.batch()
    assert [health(one).failed for one in (webhook, other)] == [2, 2]
    assert [hour.failed for hour in Hour.objects.all()] == [2, 2]


def test_a_lost_connection_is_no_unmet_condition(monkeypatch):
    def fail(*args: Any) -> None:
        raise OperationalError('the connection was lost')

    subscribe(NOWHERE, Site, conditions={'attr': 'name', 'value': 'Bern'})
    site()
    monkeypatch.setattr(conditions, 'are_met', fail)
    with pytest.raises(OperationalError):
        dispatch.batch()
    assert Event.objects.get().dispatched_at is None
