import threading
from collections.abc import Callable

import pytest
from dcim.models import Site
from django.db import OperationalError, connection, connections, transaction
from django.db.models import F
from extras.models import Tag
from ipam.models import ASN, RIR
from support.builders import (
    CREATED,
    DELETED,
    NOWHERE,
    UPDATED,
    changes,
    forget_events,
    named,
    recorded,
    site,
    stored,
    subscribe,
)
from support.writers import PATIENCE, Writer, in_parallel, is_blocked

from devstack.process import wait_until

pytestmark = pytest.mark.usefixtures('committed')


@pytest.fixture
def place(committed: None) -> Site:
    place = site()
    subscribe(NOWHERE, Site)
    return place


@pytest.fixture
def asns(committed: None) -> list[ASN]:
    rir = RIR.objects.create(**named('rir'))
    return [ASN.objects.create(asn=65000 + number, rir=rir) for number in range(8)]


def describe(pk: int, text: str) -> None:
    Site(pk=pk, name='Bern', slug='bern', description=text).save(update_fields=['description'])


def last(pk: int) -> dict:
    return [event for event in recorded(Site) if event.object_id == pk][-1].snapshot


class TestManyWriters:
    @pytest.mark.parametrize('in_transaction', [True, False], ids=['in transactions', 'from shells'])
    def test_many_writers_of_one_object_draw_sequences_in_the_order_of_commits(self, place, in_transaction: bool):
        """A counter in the row tells the order of commits."""

        def write() -> None:
            for _ in range(10):
                if in_transaction:
                    with transaction.atomic():
                        _count(place.pk)
                else:
                    _count(place.pk)

        in_parallel([write] * 4)
        counts = [event.snapshot['row']['latitude'] for event in recorded(Site)]
        assert len(counts) == 40
        assert counts == sorted(counts)
        assert last(place.pk) == stored(Site, place.pk)
        assert stored(Site, place.pk)['row']['latitude'] == 40

    def test_many_writers_of_its_links_draw_sequences_in_the_order_of_commits(self, place, asns):
        """Each changes another row, so only our lock keeps their order."""

        def link(number: int) -> Callable[[], None]:
            def work() -> None:
                for _ in range(3):
                    Site.objects.get(pk=place.pk).asns.add(asns[number])
                    asns[number].sites.remove(place)
                asns[number].sites.add(place)

            return work

        in_parallel(link(number) for number in range(4))
        assert last(place.pk) == stored(Site, place.pk)
        assert last(place.pk)['m2m']['asns'] == sorted(asn.pk for asn in asns[:4])

    def test_many_writers_of_many_objects_draw_sequences_in_the_order_of_commits(self, committed):
        places = [site() for _ in range(4)]
        subscribe(NOWHERE, Site)

        def write(order: list[Site]) -> Callable[[], None]:
            def work() -> None:
                for turn in range(5):
                    for one in order:
                        describe(one.pk, f'{threading.get_ident()} {turn}')

            return work

        in_parallel([write(places), write(places[::-1])])
        for one in places:
            assert last(one.pk) == stored(Site, one.pk)


def _count(pk: int) -> None:
    one = Site(pk=pk)
    one.latitude = F('latitude') + 1
    Site.objects.filter(pk=pk, latitude=None).update(latitude=0)
    one.save(update_fields=['latitude'])


class TestTwoWriters:
    def test_save_and_save(self, place):
        first = Writer(lambda: describe(place.pk, 'first')).has_written()
        second = Writer(lambda: describe(place.pk, 'second')).waits()
        first.finish()
        second.finish()
        assert [event.snapshot['row']['description'] for event in recorded(Site)] == ['first', 'second']

    def test_link_and_link(self, place, asns):
        first = Writer(lambda: place.asns.add(asns[0])).has_written()
        second = Writer(lambda: Site.objects.get(pk=place.pk).asns.add(asns[1])).waits()
        first.finish()
        second.finish()
        assert [event.snapshot['m2m']['asns'] for event in recorded(Site)] == [[asns[0].pk], [asns[0].pk, asns[1].pk]]

    def test_link_and_save(self, place, asns):
        first = Writer(lambda: place.asns.add(asns[0])).has_written()
        second = Writer(lambda: describe(place.pk, 'second')).waits()
        first.finish()
        second.finish()
        earlier, later = recorded(Site)
        assert earlier.snapshot['row']['description'] == ''
        assert (later.snapshot['row']['description'], later.snapshot['m2m']['asns']) == ('second', [asns[0].pk])

    def test_save_and_link_from_the_far_side(self, place, asns):
        first = Writer(lambda: describe(place.pk, 'first')).has_written()
        second = Writer(lambda: asns[0].sites.add(place)).waits()
        first.finish()
        second.finish()
        earlier, later = recorded(Site)
        assert earlier.snapshot['m2m']['asns'] == []
        assert (later.snapshot['row']['description'], later.snapshot['m2m']['asns']) == ('first', [asns[0].pk])

    def test_save_from_a_shell_and_save(self, place):
        """Autocommit releases the row before the event is written, so recording locks it again."""
        others: list[Writer] = []
        shell = {}

        def interrupt(execute, sql, *arguments):
            if not others and 'dcim_site' in sql and not sql.startswith('UPDATE'):
                others.append(Writer(lambda: describe(place.pk, 'second')).has_written())
            return execute(sql, *arguments)

        def save() -> None:
            with connection.cursor() as cursor:
                cursor.execute('SELECT pg_backend_pid()')
                shell['pid'] = cursor.fetchone()[0]
            with connection.execute_wrapper(interrupt):
                describe(place.pk, 'first')
            connections.close_all()

        thread = threading.Thread(target=save)
        thread.start()
        assert wait_until(lambda: others and is_blocked(shell['pid']), timeout=PATIENCE)
        others[0].finish()
        thread.join(PATIENCE)
        assert [event.snapshot['row']['description'] for event in recorded(Site)] == ['second', 'second']

    def test_save_and_tag(self, place):
        tag = Tag.objects.create(name='Tag', slug='tag')
        first = Writer(lambda: describe(place.pk, 'first')).has_written()
        second = Writer(lambda: Site.objects.get(pk=place.pk).tags.add(tag)).waits()
        first.finish()
        second.finish()
        assert last(place.pk) == stored(Site, place.pk)

    def test_save_and_delete(self, place):
        pk = place.pk
        doomed = Site.objects.get(pk=pk)
        first = Writer(lambda: describe(pk, 'first')).has_written()
        second = Writer(doomed.delete).waits()
        first.finish()
        second.finish()
        assert changes(Site) == [(UPDATED, pk), (DELETED, pk)]
        assert last(pk)['row']['description'] == 'first'

    def test_delete_and_tag(self, place):
        """No event may follow the deletion."""
        pk = place.pk
        late = Site.objects.get(pk=pk)
        first = Writer(place.delete).has_written()
        second = Writer(lambda: late.tags.add(Tag.objects.create(name='Tag', slug='tag'))).waits()
        first.finish()
        second.finish()
        assert changes(Site) == [(DELETED, pk)]

    def test_tag_and_delete(self, place):
        pk = place.pk
        doomed = Site.objects.get(pk=pk)
        tag = Tag.objects.create(name='Tag', slug='tag')
        first = Writer(lambda: place.tags.add(tag)).has_written()
        second = Writer(doomed.delete).waits()
        first.finish()
        second.finish()
        assert changes(Site) == [(UPDATED, pk), (DELETED, pk)]
        assert last(pk)['m2m']['tags'] == [tag.pk]

    def test_a_later_change_in_the_same_transaction_draws_a_later_sequence(self, committed):
        one, other = site(), site()
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            describe(one.pk, 'a')
            describe(other.pk, 'b')
            describe(one.pk, 'c')
        assert changes(Site) == [(UPDATED, other.pk), (UPDATED, one.pk)]

    def test_created_is_not_seen_before_its_commit(self, committed):
        subscribe(NOWHERE, Site)
        first = Writer(site).has_written()
        assert changes(Site) == []
        first.finish()
        assert [kind for kind, _pk in changes(Site)] == [CREATED]


def test_an_event_holds_up_nobody_else(committed):
    one, other = site(), site()
    subscribe(NOWHERE, Site)
    forget_events()
    first = Writer(lambda: describe(one.pk, 'first')).has_written()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '5s'")
        try:
            describe(other.pk, 'second')
        except OperationalError as error:
            pytest.fail(str(error))
    first.finish()
    assert sorted(changes(Site)) == sorted([(UPDATED, one.pk), (UPDATED, other.pk)])
