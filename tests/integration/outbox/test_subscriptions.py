from collections.abc import Callable
from functools import partial

import pytest
from dcim.models import Manufacturer, Rack, Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from support.builders import CREATED, DELETED, NOWHERE, UPDATED, changes, recorded, site, subscribe
from support.engine import dispatch_all
from tenancy.models import Tenant
from users.models import User

from webhooks.models import Delivery, Webhook

pytestmark = pytest.mark.usefixtures('committed')


def sent_to(webhook: Webhook) -> list[tuple[str, int]]:
    dispatch_all()
    deliveries = Delivery.objects.filter(webhook=webhook).order_by('sequence')
    return list(deliveries.values_list('event__kind', 'event__object_id'))


def edit(webhook: Webhook, **fields) -> None:
    for name, value in fields.items():
        setattr(webhook, name, value)
    webhook.full_clean()
    webhook.save()


class TestSince:
    def test_a_change_from_before_the_subscription_is_not_sent(self):
        first = subscribe(NOWHERE, Site)
        before = site()
        second = subscribe(NOWHERE, Site)
        after = site()
        assert sent_to(first) == [(CREATED, before.pk), (CREATED, after.pk)]
        assert sent_to(second) == [(CREATED, after.pk)]

    def test_a_change_while_the_webhook_is_disabled_is_not_sent(self):
        witness = subscribe(NOWHERE, Site)
        webhook = subscribe(NOWHERE, Site)
        places = [site()]
        edit(webhook, enabled=False)
        places.append(site())
        edit(webhook, enabled=True)
        places.append(site())
        assert sent_to(witness) == [(CREATED, place.pk) for place in places]
        assert sent_to(webhook) == [(CREATED, places[0].pk), (CREATED, places[2].pk)]

    @pytest.mark.parametrize(
        'leave',
        [
            lambda webhook: edit(webhook, type_create=False),
            lambda webhook: webhook.object_types.clear(),
            lambda webhook: webhook.object_types.remove(ContentType.objects.get_for_model(Site)),
            lambda webhook: webhook.object_types.set([ContentType.objects.get_for_model(Rack)]),
        ],
    )
    def test_a_change_from_before_the_end_of_a_subscription_is_still_sent(self, leave: Callable):
        webhook, witness = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site)
        before = site()
        leave(webhook)
        after = site()
        assert sent_to(webhook) == [(CREATED, before.pk)]
        assert sent_to(witness) == [(CREATED, before.pk), (CREATED, after.pk)]

    def test_while_it_is_paused_changes_are_recorded(self):
        webhook = subscribe(NOWHERE, Site, paused=True)
        place = site()
        assert sent_to(webhook) == [(CREATED, place.pk)]

    def test_an_edit_that_changes_no_subscription_loses_nothing(self):
        webhook = subscribe(NOWHERE, Site)
        places = [site()]
        edit(webhook, payload_url='http://127.0.0.1:9/another')
        places.append(site())
        assert sent_to(webhook) == [(CREATED, place.pk) for place in places]


class TestNobody:
    def test_nothing_is_recorded_without_a_webhook(self):
        site()
        assert changes() == []
        subscribe(NOWHERE, Site)
        wanted = site()
        assert changes() == [(CREATED, wanted.pk)]

    def test_nothing_is_recorded_for_a_webhook_that_is_disabled(self):
        webhook = subscribe(NOWHERE, Site, enabled=False)
        site()
        assert changes() == []
        edit(webhook, enabled=True)
        wanted = site()
        assert changes() == [(CREATED, wanted.pk)]

    def test_nothing_is_recorded_once_webhooks_are_disabled_or_deleted(self):
        disabled, deleted = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site)
        wanted = site()
        edit(disabled, enabled=False)
        deleted.delete()
        site()
        assert changes() == [(CREATED, wanted.pk)]

    def test_a_kind_that_nobody_wants_is_not_kept(self):
        webhook = subscribe(NOWHERE, Site, kinds=(DELETED,))
        created = site()
        assert sent_to(webhook) == []
        assert changes() == []
        pk = created.pk
        created.delete()
        assert sent_to(webhook) == [(DELETED, pk)]

    def test_ignored_users_send_nothing(self, api_client, netbox_user):
        loop = subscribe(NOWHERE, Site, ignore_users=[netbox_user])
        witness = subscribe(NOWHERE, Site, ignore_users=[User.objects.create(username='somebody')])
        mine = api_client.post('/api/dcim/sites/', {'name': 'Bern', 'slug': 'bern'}, format='json').json()['id']
        other = site()
        assert sent_to(loop) == [(CREATED, other.pk)]
        assert sent_to(witness) == [(CREATED, mine), (CREATED, other.pk)]


class TestSameTransaction:
    """A transaction that changes subscriptions reads them again."""

    def test_a_webhook_that_was_just_made_gets_what_follows(self):
        with transaction.atomic():
            before = site()
            webhook = subscribe(NOWHERE, Site)
            after = site()
        assert sent_to(webhook) == [(CREATED, after.pk)]
        assert before.pk != after.pk

    def test_a_webhook_that_was_just_enabled_gets_what_follows(self):
        webhook = subscribe(NOWHERE, Site, enabled=False)
        with transaction.atomic():
            site()
            edit(webhook, enabled=True)
            after = site()
        assert sent_to(webhook) == [(CREATED, after.pk)]

    def test_a_webhook_whose_object_types_were_just_set_gets_what_follows(self):
        webhook = subscribe(NOWHERE, Rack)
        with transaction.atomic():
            site()
            webhook.object_types.add(ContentType.objects.get_for_model(Site))
            after = site()
        assert sent_to(webhook) == [(CREATED, after.pk)]

    def test_a_webhook_that_was_just_disabled_gets_what_was_before(self):
        webhook = subscribe(NOWHERE, Site)
        with transaction.atomic():
            before = site()
            edit(webhook, enabled=False)
            site()
        assert [event.object_id for event in recorded()] == [before.pk]
        assert sent_to(webhook) == [(CREATED, before.pk)]

    def test_a_webhook_that_was_rolled_back_gets_nothing(self):
        with transaction.atomic():
            try:
                with transaction.atomic():
                    subscribe(NOWHERE, Site)
                    site()
                    assert len(changes()) == 1
                    raise InterruptedError
            except InterruptedError:
                pass
            site()
        assert changes() == []

    def test_a_change_before_and_after_the_subscription_is_sent(self):
        """The later change draws a new sequence."""
        place = site()
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            place.save()
            webhook = subscribe(NOWHERE, Site)
            place.save()
        assert sent_to(webhook) == [(UPDATED, place.pk)]


class TestQuestions:
    """Most transactions change one model, so the first is asked for alone."""

    def test_changes_of_whatever_model_are_recorded(self):
        subscribe(NOWHERE, Rack, Tenant)
        with transaction.atomic():
            place = site()
            rack = Rack.objects.create(site=place, name='A1')
            tenant = Tenant.objects.create(name='Tenant', slug='tenant')
        assert changes() == [(CREATED, rack.pk), (CREATED, tenant.pk)]

    @pytest.mark.parametrize(('models', 'questions'), [((), 0), ((Site,), 1), ((Site, Tenant, Manufacturer), 2)])
    def test_a_transaction_asks_twice_at_most(self, models, questions):
        asked = []
        with connection.execute_wrapper(partial(note, asked)), transaction.atomic():
            for model in models:
                for name in ('one', 'two'):
                    model.objects.create(name=name, slug=name)
        assert sum('webhooks_subscription' in statement for statement in asked) == questions


def note(asked: list[str], execute: Callable, statement: str, *args: object) -> object:
    asked.append(statement)
    return execute(statement, *args)
