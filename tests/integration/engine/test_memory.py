"""However many events there are and however large their payloads, what a worker holds at a time is bounded."""

import threading
import uuid
from collections.abc import Callable, Collection
from typing import Any

import pytest
from dcim.models import Site
from django.db import transaction
from support.builders import NOWHERE, recorded, site, subscribe
from support.engine import deliveries, dispatch_all, work, working
from tenancy.models import Tenant

from devstack.receiver import Answer, Receiver
from webhooks import rendering
from webhooks.choices import StatusChoices
from webhooks.engine import claims, dispatch, event_claims, event_rendering, lanes, memory
from webhooks.models import Delivery, Event
from webhooks.models.querysets import LONG_COLUMNS
from webhooks.transport.client import Client
from webhooks.transport.exchange import Outcome, Request

pytestmark = pytest.mark.usefixtures('committed')

LARGE, SMALL = '/large', '/small'
# A snapshot with it is some kilobytes, as PostgreSQL stores it: it compresses badly.
LONG = ''.join(chr(0x4E00 + 7919 * number % 20000) for number in range(4000))


def sites(count: int, **fields: Any) -> None:
    with transaction.atomic():
        for _ in range(count):
            site(**fields)


class Watched:
    """How many calls of a function are under way at a time, at most."""

    def __init__(self, function: Callable) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __call__(self, *args: Any) -> Any:
        self._count(1)
        try:
            return self._function(*args)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._now += change
            self.most = max(self.most, self._now)


class TestRendering:
    @pytest.fixture
    def slices(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many events were rendered together, each time."""
        found, render = [], rendering.render

        def rendered(model: type, snapshots: Collection, *deletions: Any) -> list:
            found.append(len(snapshots))
            return render(model, snapshots, *deletions)

        monkeypatch.setattr(rendering, 'render', rendered)
        monkeypatch.setattr(event_rendering, 'SLICE_TIME', 3600)  # a slow machine renders fewer together
        return found

    def test_a_claim_reads_no_long_columns(self):
        subscribe(NOWHERE, Site)
        sites(2)
        with lanes.turn():
            events, _dealt = event_claims.claim(None, 10)
        assert [event.get_deferred_fields() for event in events] == [set(LONG_COLUMNS)] * 2

    def test_large_snapshots_are_read_a_few_at_a_time(self, slices, monkeypatch):
        subscribe(NOWHERE, Site, include_snapshots=True)
        sites(6, comments=LONG)
        dispatch_all()
        assert slices == [6]
        assert all(event.payload_data['comments'] == LONG for event in recorded())
        slices.clear()
        monkeypatch.setattr(memory, 'SLICE', 3 * len(LONG.encode()))
        sites(6, comments=LONG)
        dispatch_all()
        assert max(slices) < 4
        assert sum(slices) == 6
        assert all(event.payload_data['comments'] == LONG for event in recorded())

    def test_what_was_before_counts_as_well(self, slices, monkeypatch):
        subscribe(NOWHERE, Site, include_snapshots=True)
        sites(4, comments=LONG)
        dispatch_all()
        slices.clear()
        monkeypatch.setattr(memory, 'SLICE', 3 * len(LONG.encode()))
        with transaction.atomic():
            for place in Site.objects.all():
                place.comments = ''
                place.save()
        dispatch_all()
        assert max(slices) < 4

    def test_what_is_rendered_is_written_before_there_is_more_of_it(self, slices, monkeypatch):
        subscribe(NOWHERE, Site)
        monkeypatch.setattr(memory, 'SLICE', 1)
        monkeypatch.setattr(dispatch, 'BUDGET', 3600.0)
        sites(4, comments=LONG)
        monkeypatch.setattr(memory, 'RENDERED', 2 * len(LONG))
        dispatch.dispatch(uuid.uuid4())
        assert len(slices) == len(Delivery.objects.all()) == 2
        monkeypatch.setattr(memory, 'RENDERED', 100 * len(LONG))
        dispatch.dispatch(uuid.uuid4())
        assert Delivery.objects.count() == 4


class TestSending:
    @pytest.fixture
    def under_way(self, monkeypatch: pytest.MonkeyPatch) -> Watched:
        watched = Watched(Client.send)

        def send(client: Client, request: Request) -> Outcome:
            return watched(client, request)

        monkeypatch.setattr(Client, 'send', send)
        return watched

    @pytest.fixture
    def backlog(self, receiver: Receiver) -> None:
        """Six large payloads for one webhook and six for another."""
        receiver.answers(LARGE, Answer(delay=0.1))
        for _ in range(2):
            subscribe(receiver.url(LARGE), Site, concurrency=6)
        sites(6, comments=LONG)
        dispatch_all()

    def test_the_claim_tells_how_large_a_payload_is(self):
        subscribe(NOWHERE, Site, concurrency=6)
        sites(1)
        sites(1, comments=LONG)
        dispatch_all()
        sizes = {event.object_id: len(event.data.encode()) for event in recorded()}
        with lanes.turn() as now:
            held = claims.claim(None, (), 6, now).held
        objects = dict(Delivery.objects.values_list('pk', 'object_id'))
        assert {objects[one.pk]: one.size for one in held} == sizes

    def test_that_of_a_batch_has_all_of_its_events(self):
        subscribe(NOWHERE, Site, batch=True)
        sites(3, comments=LONG)
        dispatch_all()
        with lanes.turn() as now:
            (held,) = claims.claim(None, (), 6, now).held
        assert held.size > 3 * len(LONG.encode())

    def test_snapshots_that_go_along_count(self):
        sizes = []
        for include_snapshots in (False, True):
            Event.objects.all().delete()
            webhook = subscribe(NOWHERE, Site, include_snapshots=include_snapshots)
            sites(1, comments=LONG)
            dispatch_all()
            with lanes.turn() as now:
                sizes += [one.size for one in claims.claim(None, (), 6, now).held]
            webhook.delete()
        assert sizes[1] > 2 * sizes[0]

    @pytest.mark.parametrize(('large', 'most'), [(1, 1), (memory.LARGE, None)])
    def test_large_ones_go_one_after_the_other_where_there_is_room_for_one(
        self, backlog, under_way, monkeypatch, large, most
    ):
        monkeypatch.setattr(memory, 'LARGE', large)
        monkeypatch.setattr(memory, 'ROOM', 1)
        assert work() == '12 delivered'
        assert under_way.most == 1 if most else under_way.most > 1

    def test_all_go_in_one_job_where_there_is_room_for_some(self, backlog, under_way, monkeypatch):
        monkeypatch.setattr(memory, 'LARGE', 1)
        monkeypatch.setattr(memory, 'ROOM', 4 * len(LONG.encode()))
        assert work() == '12 delivered'
        assert 1 < under_way.most < 5

    def test_small_ones_pass_large_ones_that_hang(self, receiver, monkeypatch):
        """One hangs, and another one waits for its room."""
        monkeypatch.setattr(memory, 'LARGE', len(LONG))
        monkeypatch.setattr(memory, 'ROOM', 1)
        receiver.answers(LARGE, Answer(delay=150))
        for _ in range(2):
            subscribe(receiver.url(LARGE), Site, timeout=200)
        subscribe(receiver.url(SMALL), Tenant)
        sites(1, comments=LONG)
        with working():
            receiver.wait_for(1, lambda request: request.path == LARGE, timeout=60)
            Tenant.objects.create(name='Tenant', slug='tenant')
            receiver.wait_for(1, lambda request: request.path == SMALL, timeout=60)
            assert [one.status for one in deliveries(webhook__payload_url=receiver.url(LARGE))].count('sending') == 1
            receiver.answers(LARGE, 200)
            receiver.closing.set()
            receiver.wait_for(2, lambda request: request.path == LARGE, timeout=60)
        assert len(deliveries(StatusChoices.DELIVERED)) == 3
