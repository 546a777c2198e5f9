"""Somebody saves a webhook with a list, in a transaction that stays open: a script, or a long document.

Only that list waits for it.
"""

import pytest
from dcim.models import Site
from django.db import transaction
from support.builders import named, site, subscribe
from support.engine import deliveries, open_transaction, work, working
from tenancy.models import Tenant

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.engine import sql
from webhooks.models import ListMember, ListWalk, Webhook

pytestmark = pytest.mark.usefixtures('committed')

LIST, OTHER = '/list', '/other'
UNDECIDED = 'undecided'


@pytest.fixture
def listed(receiver: Receiver) -> Webhook:
    webhook = subscribe(receiver.url(LIST), Site, filters={'dcim.site': 'status=active'})
    work()
    return webhook


@pytest.fixture
def without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a row of our own waits until it is free."""
    endless = sql.BOUNDS.replace("'lock_timeout', '5000'", "'lock_timeout', '0'")
    monkeypatch.setattr(sql, 'BOUNDS', endless.replace("'statement_timeout', '10000'", "'statement_timeout', '0'"))


def paths(receiver: Receiver) -> list[str]:
    return [request.path for request in receiver.requests]


def test_where_its_filter_fails_others_get_their_changes(receiver, listed):
    subscribe(receiver.url(OTHER), Site)
    Webhook.objects.filter(pk=listed.pk).update(filters={'dcim.site': 'cf_gone=1'})
    with open_transaction(Webhook.objects.get(pk=listed.pk).save):
        site()
        with working():
            assert wait_until(lambda: paths(receiver) == [OTHER], timeout=50)
        assert [one.webhook_id for one in deliveries(UNDECIDED)] == [listed.pk]
    assert wait_until(lambda: not work() or 'cf_gone' in ListWalk.objects.get().error, timeout=60)


@pytest.mark.usefixtures('without_limits')
def test_where_it_is_removed_others_get_their_changes(receiver, listed):
    one = site()
    work()
    assert ListMember.objects.filter(object_id=one.pk).exists()
    subscribe(receiver.url(OTHER), Tenant)
    receiver.clear()
    edited = Webhook.objects.get(pk=listed.pk)
    edited.filters = {}
    with open_transaction(edited.save):
        with transaction.atomic():
            one.save()
        Tenant.objects.create(**named('tenant'))
        with working():
            assert wait_until(lambda: paths(receiver) == [OTHER], timeout=50)
    assert wait_until(lambda: work() and LIST in paths(receiver), timeout=60)


def test_other_lists_are_compared(receiver, listed):
    other = subscribe(receiver.url(OTHER), Site, filters={'dcim.site': 'status=active'})
    one = site()
    work()
    receiver.clear()
    Site.objects.filter(pk=one.pk).update(status='retired')
    ListWalk.objects.update(asked=True)
    with open_transaction(Webhook.objects.get(pk=listed.pk).save):
        work()
        assert paths(receiver) == [OTHER]
        assert not ListMember.objects.filter(webhook_id=other.pk).exists()
    work()
    assert paths(receiver) == [OTHER, LIST]
