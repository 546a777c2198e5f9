from collections.abc import Iterator
from contextlib import closing

import pytest
from dcim.models import Site
from django.core import checks
from django.db import DatabaseError, connection, transaction
from support.builders import CREATED, DELETED, NOWHERE, UPDATED, changes, recorded, site, subscribe
from support.engine import dispatch_all, work
from support.others_code import proxy_router
from support.tables import refusing
from tenancy.models import Tenant

from devstack.receiver import Receiver
from webhooks.models import Delivery, Webhook
from webhooks.transport.exchange import MAX_ERROR_CHARS

SAVES = """
from dcim.models import Site
from django.core.management import call_command
from django.db import transaction
place = Site.objects.create(name='Bern', slug='bern')
with transaction.atomic():
    place.save()
    place.asns.clear()
print('saved', Site.objects.count())
place.delete()
print('left', Site.objects.count())
call_command('check', databases=['default'], tags=['webhooks'])
"""

DROP_TABLES = r"""
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE tablename LIKE 'webhooks\_%' LOOP
        EXECUTE 'DROP TABLE ' || name || ' CASCADE';
    END LOOP;
END $$"""

# As if they were dropped, and made again.
MOVE_TABLES = r"""
CREATE SCHEMA IF NOT EXISTS hidden;
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{0}' AND tablename LIKE 'webhooks\_%' LOOP
        EXECUTE 'ALTER TABLE {0}.' || name || ' SET SCHEMA {1}';
    END LOOP;
END $$;
ALTER SEQUENCE {0}.webhooks_event_sequence SET SCHEMA {1}"""

REMOVED = f"""
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from webhooks.engine.process.dispatcher import DispatcherRole
from webhooks.engine.registry import DISPATCH, Registration
from webhooks.models import Event, Webhook
from webhooks.outbox import scope
webhook = Webhook.objects.create(name='Hook', payload_url='http://127.0.0.1:9/', type_create=True, type_update=True)
webhook.object_types.set([ContentType.objects.get_for_model(Site)])
place = Site.objects.create(name='Bern', slug='bern')
print('recorded', Event.objects.count())
connection.cursor().execute({MOVE_TABLES.format('public', 'hidden')!r})
for name in ('Genf', 'Basel'):
    scope._tables_exist = True  # as in another process, which has not looked yet
    with transaction.atomic():
        place.name = name
        place.save()
        place.asns.clear()
        with transaction.atomic():
            place.save()
scope._tables_exist = True
Site(name='Chur', slug='chur').save()
print('saved', *Site.objects.order_by('name').values_list('name', flat=True))
scope._tables_exist = True
for _ in range(3):
    DispatcherRole(Registration('test', DISPATCH), lambda: None, lambda: None).look()
place.delete()
print('left', Site.objects.count())
connection.cursor().execute({MOVE_TABLES.format('hidden', 'public')!r})
Site(name='Thun', slug='thun').save()
print('recorded', Event.objects.count())
"""

HANDLERS = """
from dcim.models import Site
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
for signal in (pre_save, post_save, pre_delete, post_delete):
    receivers, _asynchronous = signal._live_receivers(Site)
    print('handlers', sum('webhooks' in receiver.__module__ for receiver in receivers))
for through in (Site.asns.through, Site.tags.through):
    receivers, _asynchronous = m2m_changed._live_receivers(through)
    functions = [getattr(receiver, 'func', receiver) for receiver in receivers]
    print('handlers', sum('webhooks' in function.__module__ for function in functions))
"""


WRONG_CALL = """
from webhooks.signals import bulk_operation
bulk_operation.send(sender=Site, instances=[Site(pk=1)], event='nonsense')
"""


def counted(output: str) -> list[int]:
    return [int(line.split()[1]) for line in output.splitlines() if line.startswith('handlers')]


class TestDisabled:
    def test_no_handler_is_connected_and_nothing_is_heard_by_default(self, committed, make_netbox):
        """Handlers are connected at start. So even a wrong call of `bulk_operation` passes."""
        subscribe(NOWHERE, Site)
        answer = make_netbox('del WEBHOOKS_ENABLED').run('shell', '-c', HANDLERS + WRONG_CALL)
        assert not answer.returncode, answer.stderr
        assert counted(answer.stdout) == [0] * 6
        assert changes() == []

    def test_each_handler_is_connected_once_enabled(self, capsys):
        """Deletions have two before: the first receiver of all, and another after NetBox's. After: what they leave."""
        exec(HANDLERS, {})
        assert counted(capsys.readouterr().out) == [1, 1, 2, 2, 1, 1]


class TestNotMigrated:
    def test_saves_work_and_a_check_warns(self, make_netbox, committed):
        databases = {'databases': ['default'], 'tags': ['webhooks']}
        assert 'webhooks.W002' not in [found.id for found in checks.run_checks(**databases)]
        netbox = make_netbox(fresh=True)
        netbox.database.execute(DROP_TABLES)
        answer = netbox.run('shell', '-c', SAVES)
        assert answer.stdout.splitlines()[-2:] == ['saved 1', 'left 0'], answer.stderr
        assert 'webhooks.W002' in answer.stderr


class TestRemoved:
    def test_tables_that_vanish_under_a_running_process_disturb_no_save(self, netbox, make_netbox):
        """The log says so once a minute. Recording resumes when the tables are back."""
        here = f'connection.settings_dict["NAME"] = {make_netbox(fresh=True).database.name!r}'
        said = netbox.warm.run('shell', '--no-imports', '-c', f'from django.db import connection\n{here}\n{REMOVED}')
        lines = [line for line in said.splitlines() if line.startswith(('recorded', 'saved', 'left'))]
        assert lines == ['recorded 1', 'saved Basel Chur', 'left 1', 'recorded 2'], said
        assert said.count('tables=gone') == 1
        assert said.count('transaction=broken off') == 1

    @pytest.mark.usefixtures('committed')
    def test_they_cannot_vanish_between_the_look_and_the_event(self):
        """Dropping the tables waits for the transaction."""
        subscribe(NOWHERE, Site, Tenant)
        other = connection.copy()
        with transaction.atomic(), closing(other), other.cursor() as cursor:
            Site.objects.create(name='Bern', slug='bern')
            cursor.execute("SET lock_timeout = '100ms'")
            with pytest.raises(DatabaseError, match='lock timeout'):
                cursor.execute('DROP TABLE webhooks_subscription')
            Tenant.objects.create(name='Tenant', slug='tenant')
        assert len(recorded()) == 2


@pytest.mark.usefixtures('committed')
class TestNotWritten:
    """Swallowing the error would lose events."""

    @pytest.fixture(autouse=True)
    def broken(self, committed: None) -> Iterator[None]:
        """A full disk makes PostgreSQL refuse events."""
        subscribe(NOWHERE, Site)
        self.existing = site(name='Genf')
        with refusing('INSERT ON webhooks_event'):
            yield

    @pytest.mark.parametrize(
        'change',
        [
            lambda place: Site.objects.create(name='Bern', slug='bern'),
            lambda place: place.save(),
            lambda place: place.delete(),
            lambda place: place.asns.clear(),
        ],
        ids=['create', 'update', 'delete', 'link'],
    )
    def test_a_change_whose_event_cannot_be_written_fails(self, change):
        before = list(Site.objects.values())
        with pytest.raises(DatabaseError, match='it is refused'), transaction.atomic():
            change(self.existing)
        assert list(Site.objects.values()) == before

    def test_a_request_whose_event_cannot_be_written_fails(self, api_client):
        api_client.raise_request_exception = False
        answer = api_client.post('/api/dcim/sites/', {'name': 'Bern', 'slug': 'bern'}, format='json')
        assert answer.status_code == 500
        assert list(Site.objects.values_list('name', flat=True)) == ['Genf']


@pytest.mark.usefixtures('committed')
class TestNotRendered:
    @pytest.fixture(autouse=True)
    def webhook(self, committed: None, receiver: Receiver) -> None:
        subscribe(receiver.url(), Site)

    def spoil(self, place: Site) -> None:
        """NetBox's field cannot read an unknown time zone."""
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE webhooks_event SET snapshot = jsonb_set(snapshot, '{row,time_zone}', %s) WHERE object_id = %s",
                ['"Nowhere/At_all"', place.pk],
            )

    def test_the_delivery_of_an_event_that_cannot_be_rendered_fails(self):
        self.spoil(site())
        assert work() == '1 failed'
        (event,) = recorded()
        assert event.error.startswith('the payload cannot be built: ')
        assert event.data == ''
        (delivery,) = Delivery.objects.all()
        assert (delivery.status, delivery.error) == ('failed', event.error)

    def test_a_reason_that_cannot_be_stored_is_made_so(self, settings):
        def fail(_webhook: Webhook) -> None:
            raise RuntimeError('a \x00, ' + 'and so on' * 1000)

        settings.PROXY_ROUTERS = [proxy_router(fail)]
        site()
        work()
        reason = Delivery.objects.get().error
        assert reason.startswith('not sent: RuntimeError: a \ufffd, and so on')
        assert len(reason) == MAX_ERROR_CHARS

    def test_an_event_that_cannot_be_rendered_holds_up_no_other(self):
        good, broken, better = site(), site(), site()
        self.spoil(broken)
        work()
        statuses = dict(Delivery.objects.values_list('object_id', 'status'))
        assert statuses == {good.pk: 'delivered', broken.pk: 'failed', better.pk: 'delivered'}

    def test_a_snapshot_of_columns_that_are_gone_is_rendered(self):
        """An upgrade of NetBox may drop columns."""
        place = site()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE webhooks_event SET snapshot = jsonb_set(snapshot, '{row,gone}', '1')")
            cursor.execute("UPDATE webhooks_event SET snapshot = snapshot #- '{row,comments}'")
        dispatch_all()
        (event,) = recorded()
        assert (event.error, event.payload_data['name'], event.payload_data['comments']) == ('', place.name, '')


@pytest.mark.usefixtures('committed')
class TestOddObjects:
    @pytest.mark.parametrize(
        'text', ['quote " and \\ backslash', 'ünïcode \u2028 🧀', "'; DROP TABLE", '%s %(x)s {0}', '\t\n']
    )
    def test_odd_texts_are_recorded(self, text: str):
        subscribe(NOWHERE, Site)
        place = site(comments=text, custom_field_data={text: text})
        place.save()
        pk = place.pk
        place.delete()
        assert changes() == [(CREATED, pk), (UPDATED, pk), (DELETED, pk)]
        for event in recorded():
            assert event.snapshot['row']['comments'] == text
            assert event.snapshot['row']['custom_field_data'] == {text: text}


@pytest.mark.parametrize('query', ['a=%00', '%00=a'], ids=['value', 'key'])
def test_a_url_with_characters_that_postgresql_refuses_stops_no_save(committed, api_client, query):
    place = site()
    subscribe(NOWHERE, Site)
    answer = api_client.patch(f'/api/dcim/sites/{place.pk}/?{query}', {'description': 'dry'}, format='json')
    assert answer.status_code == 200
    (event,) = recorded()
    assert '\ufffd' in str(event.request['GET'])
