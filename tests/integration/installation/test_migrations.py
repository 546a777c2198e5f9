"""The migrations are as the models say."""

import pytest
from django.core.management import call_command
from django.db.migrations import AddField, AddIndex
from django.db.migrations.loader import MigrationLoader
from psycopg.errors import UndefinedTable

from webhooks.models import Webhook


def check_migrations() -> None:
    """End the program with 1 where a migration is missing."""
    call_command('makemigrations', 'webhooks', '--check', '--dry-run', verbosity=0)


def test_no_migration_is_missing_and_a_missing_one_is_noticed(db, monkeypatch):
    check_migrations()

    monkeypatch.setattr(Webhook._meta.get_field('name'), 'max_length', 7)
    with pytest.raises(SystemExit, match='1'):
        check_migrations()


LOG = ('event', 'delivery', 'attempt', 'batchitem')


def test_no_index_of_the_log_is_built_while_saves_wait():
    """A save writes an event: it waits for whoever adds a column to those, until that transaction ends."""
    loader = MigrationLoader(None)
    built = {}
    for (app, name), migration in loader.disk_migrations.items():
        if app != 'webhooks' or name == '0001_initial':
            continue
        adding = [one for one in migration.operations if isinstance(one, AddIndex) and one.model_name in LOG]
        columns = [one for one in migration.operations if isinstance(one, AddField) and one.model_name == 'event']
        assert not (adding and columns), name
        built |= {one.index.name: migration.atomic for one in adding if one.model_name == 'event'}
    assert built == {'webhooks_event_chain': False, 'webhooks_event_backfill': False}


# The path of a webhook that asked for updates when the last change was made, and no longer when it is dispatched.
LEAVING = '/leaving'

FURNISH = """
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from webhooks.engine import dispatch
from webhooks.models import Webhook
import uuid
webhook = Webhook.objects.create(name='Hook', payload_url={url!r}, type_create=True, type_update=True)
webhook.object_types.set([ContentType.objects.get_for_model(Site)])
place = Site.objects.create(name='Bern', slug='bern')
for _ in range(3):
    place.save()
print('dispatched', dispatch.dispatch(uuid.uuid4()))
leaving = Webhook.objects.create(name='Leaving', payload_url={leaving!r}, type_update=True)
leaving.object_types.set([ContentType.objects.get_for_model(Site)])
place.save()
leaving.type_create, leaving.type_update = True, False
leaving.save()
"""

# As 1.0.0 had it: each delivery waits for the one before it, and the first has lost its worker.
IN_LINE = """
    UPDATE webhooks_delivery SET due_at = NULL WHERE id <> (SELECT min(id) FROM webhooks_delivery);
    UPDATE webhooks_delivery SET status = 'sending', due_at = NULL, lease = gen_random_uuid(), lease_until = now()
    WHERE id = (SELECT min(id) FROM webhooks_delivery);
    INSERT INTO webhooks_wait (delivery_id, blocker_id)
    SELECT id, lag FROM (SELECT id, lag(id) OVER (ORDER BY id) FROM webhooks_delivery) d WHERE lag IS NOT NULL;
    DELETE FROM webhooks_health;
"""

# What a build leaves that was broken off: an index of that name which serves nobody.
LEFT_OVER = 'CREATE INDEX webhooks_event_chain ON webhooks_event (id)'
CHAIN = "SELECT indexdef FROM pg_indexes WHERE indexname = 'webhooks_event_chain'"

# A web process of 1.0.0 that has not been restarted.
RECORD = """
    INSERT INTO webhooks_event (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, data, error,
        skipped, transaction_id, transaction_time, snapshot)
    SELECT gen_random_uuid(), nextval('webhooks_event_sequence'), 'updated', object_type_id, object_id, '', now(), '',
        '', 0, pg_current_xact_id()::text::bigint, now(), snapshot
    FROM webhooks_event WHERE dispatched_at IS NULL LIMIT 1"""

WORK = """
from webhooks.engine import rescue, runner
from webhooks.models import Delivery
rescue.rescue()
Delivery.objects.exclude(error='').update(due_at='2000-01-01T00:00Z')
print('tally', runner.run())
print('open', Delivery.objects.exclude(status='delivered').count())
"""


def test_what_waits_in_a_log_of_1_0_0_is_delivered_in_order_after_the_upgrade(make_netbox, receiver):
    netbox = make_netbox('WEBHOOKS_ENABLED = True', fresh=True)
    answer = netbox.run('shell', '-c', FURNISH.format(url=receiver.url(), leaving=receiver.url(LEAVING)))
    assert 'dispatched 4' in answer.stdout, answer.stderr
    assert netbox.run('migrate', 'webhooks', '0002').returncode == 0
    netbox.database.execute(IN_LINE)
    netbox.database.execute(LEFT_OVER)

    assert netbox.run('migrate', 'webhooks').returncode == 0

    with netbox.database.connect() as connection:
        ((chain,),) = connection.execute(CHAIN).fetchall()
    assert '(object_type_id, object_id, sequence)' in chain

    netbox.database.execute(RECORD)
    with pytest.raises(UndefinedTable):
        netbox.database.execute('SELECT count(*) FROM webhooks_wait')  # as each worker of 1.0.0 does
    answer = netbox.run('shell', '-c', WORK)
    assert answer.stdout.splitlines()[-2:] == ['tally 7 delivered', 'open 0'], answer.stderr
    got = [request.json()['sequence'] for request in receiver.matching(lambda request: request.path != LEAVING)]
    assert got == sorted(got)
    assert len(got) == 6
    (left,) = receiver.matching(lambda request: request.path == LEAVING)
    assert left.json()['sequence'] == got[-2]
