"""A worker's memory has bounds, however many or large its events."""

from collections import defaultdict
from typing import Any

import pytest
from dcim.models import Site
from django.db import transaction
from support.builders import NOWHERE, recorded, site, subscribe
from support.engine import deliveries, dispatch_all, hold, in_hand, most_at_once, work, working
from support.others_code import at_each
from tenancy.models import Tenant

from devstack.receiver import Answer, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import sql
from webhooks.engine.deliver import choice, lane, queue
from webhooks.engine.deliver.lane import BEGINNING, ReadRequest
from webhooks.engine.dispatch import claim, render
from webhooks.engine.registry import DISPATCH
from webhooks.models import Delivery, Event, Webhook
from webhooks.models.querysets import LONG_COLUMNS

pytestmark = pytest.mark.usefixtures('committed')

LARGE, SMALL = '/large', '/small'
# Seconds.
SLOW = 0.1
# It compresses badly, so a stored snapshot has some kilobytes.
LONG = ''.join(chr(0x4E00 + 7919 * number % 20000) for number in range(4000))


def sites(count: int, **fields: Any) -> None:
    with transaction.atomic():
        for _ in range(count):
            site(**fields)


class TestRendering:
    def slices(self) -> list[int]:
        """Dispatch all, and return how many objects are rendered before the next deliveries are made."""
        rendered = defaultdict(set)
        with at_each(Site, lambda place: rendered[Delivery.objects.count()].add(place.pk)):
            dispatch_all()
        return [len(pks) for pks in rendered.values()]

    def test_a_claim_reads_no_long_columns(self):
        subscribe(NOWHERE, Site)
        sites(2)
        with sql.transaction():
            events = claim.Reading().take(hold(role=DISPATCH))
        assert [event.get_deferred_fields() for event in events] == [set(LONG_COLUMNS)] * 2

    def test_large_snapshots_are_read_a_few_at_a_time(self, monkeypatch):
        subscribe(NOWHERE, Site, include_snapshots=True)
        sites(6, comments=LONG)
        assert self.slices() == [6]
        assert all(event.payload_data['comments'] == LONG for event in recorded())
        monkeypatch.setattr(render, 'SNAPSHOT_BYTES_PER_SLICE', 3 * len(LONG.encode()))
        sites(6, comments=LONG)
        found = self.slices()
        assert max(found) < 4
        assert sum(found) == 6
        assert all(event.payload_data['comments'] == LONG for event in recorded())

    def test_snapshots_of_before_count_for_the_size_of_a_slice(self, monkeypatch):
        subscribe(NOWHERE, Site, include_snapshots=True)
        sites(4, comments=LONG)
        dispatch_all()
        monkeypatch.setattr(render, 'SNAPSHOT_BYTES_PER_SLICE', 3 * len(LONG.encode()))
        with transaction.atomic():
            for place in Site.objects.all():
                place.comments = ''
                place.save()
        assert max(self.slices()) < 4

    def test_a_rendered_slice_is_written_before_the_next_is_rendered(self, monkeypatch):
        subscribe(NOWHERE, Site)
        monkeypatch.setattr(render, 'SNAPSHOT_BYTES_PER_SLICE', 1)
        sites(4, comments=LONG)
        assert self.slices() == [1, 1, 1, 1]


class TestSending:
    def sizes(self, webhook: Webhook) -> dict[int, int]:
        """Return payload sizes by object id."""
        with sql.transaction() as now:
            due = queue.read([ReadRequest(webhook.pk, False, 10, 0, BEGINNING, 0)], [], now)
        return {one.object_id: one.size for one in due}

    @pytest.fixture
    def backlog(self, receiver: Receiver) -> None:
        receiver.answers(LARGE, Answer(delay=SLOW))
        for _ in range(2):
            subscribe(receiver.url(LARGE), Site, concurrency=6)
        sites(6, comments=LONG)
        dispatch_all()

    def test_the_owner_knows_how_large_a_payload_is(self):
        webhook = subscribe(NOWHERE, Site)
        sites(1)
        sites(1, comments=LONG)
        dispatch_all()
        assert self.sizes(webhook) == {
            event.object_id: len(event.data.encode()) + queue.ENVELOPE_BYTES for event in recorded()
        }

    def test_snapshots_that_go_along_count(self):
        sizes = []
        for include_snapshots in (False, True):
            Event.objects.all().delete()
            webhook = subscribe(NOWHERE, Site, include_snapshots=include_snapshots)
            sites(1, comments=LONG)
            dispatch_all()
            sizes += self.sizes(webhook).values()
            webhook.delete()
        assert sizes[1] > 2 * sizes[0]

    def test_related_objects_that_go_along_count(self):
        brief, expanded = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site, expand=['tenant'])
        sites(1, tenant=Tenant.objects.create(name='Tenant', slug='tenant', comments=LONG))
        dispatch_all()
        (small,), (large,) = self.sizes(brief).values(), self.sizes(expanded).values()
        assert large - small == len(recorded(Site)[0].expanded.encode()) > len(LONG)

    @pytest.mark.parametrize(('large', 'most'), [(1, 1), (lane.LARGE_BYTES, None)])
    def test_large_ones_go_one_after_the_other_where_there_is_room_for_one(
        self, backlog, receiver, monkeypatch, large, most
    ):
        monkeypatch.setattr(lane, 'LARGE_BYTES', large)
        monkeypatch.setattr(choice, 'LARGE_BYTES', large)
        monkeypatch.setattr(choice, 'MAX_LARGE_BYTES', 1)
        assert work() == '12 delivered'
        found = most_at_once(receiver, SLOW)
        assert found == 1 if most else found > 1

    def test_all_go_in_one_job_where_there_is_room_for_some(self, backlog, receiver, monkeypatch):
        monkeypatch.setattr(lane, 'LARGE_BYTES', 1)
        monkeypatch.setattr(choice, 'LARGE_BYTES', 1)
        monkeypatch.setattr(choice, 'MAX_LARGE_BYTES', 4 * len(LONG.encode()))
        assert work() == '12 delivered'
        assert 1 < most_at_once(receiver, SLOW) < 5

    def test_small_ones_pass_large_ones_that_hang(self, receiver, monkeypatch):
        monkeypatch.setattr(lane, 'LARGE_BYTES', len(LONG))
        monkeypatch.setattr(choice, 'LARGE_BYTES', len(LONG))
        monkeypatch.setattr(choice, 'MAX_LARGE_BYTES', 1)
        receiver.answers(LARGE, Answer(delay=150))
        for _ in range(2):
            subscribe(receiver.url(LARGE), Site, timeout=200)
        subscribe(receiver.url(SMALL), Tenant)
        sites(1, comments=LONG)
        with working():
            receiver.wait_for(1, lambda request: request.path == LARGE, timeout=60)
            Tenant.objects.create(name='Tenant', slug='tenant')
            receiver.wait_for(1, lambda request: request.path == SMALL, timeout=60)
            assert [one.webhook.payload_url for one in in_hand()].count(receiver.url(LARGE)) == 1
            receiver.answers(LARGE, 200)
            receiver.closing.set()
            receiver.wait_for(2, lambda request: request.path == LARGE, timeout=60)
        assert len(deliveries(StatusChoices.DELIVERED)) == 3
