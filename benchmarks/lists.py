"""A page of a long log, beside a page of NetBox's devices, and beside NetBox's change log of the same changes.

One reader may view everything. The second may view a region's sites and devices, half of all. NetBox runs in this
process, as in its tests.
"""

import time
from collections.abc import Iterator

from core.models import ObjectType
from dcim.models import Device, Region, Site
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client
from users.models import ObjectPermission, User

from benchmarks.report import Row
from benchmarks.sides import OURS, Bed
from webhooks.models import Delivery, Event, Webhook

ROWS = 50
WEBHOOKS = 10
PAGES, API, ADMIN = '/plugins/webhooks/', '/api/plugins/webhooks/', '/admin/webhooks/'

# Half of the copies are at the second site.
DEVICES = """
    INSERT INTO dcim_device SELECT (jsonb_populate_record(device, jsonb_build_object(
        'id', nextval('dcim_device_id_seq'), 'name', 'copy ' || n, 'site_id', (%(sites)s::bigint[])[1 + n %% 2]))).*
    FROM dcim_device device, generate_series(1, %(devices)s) n WHERE device.id = %(device)s"""

# A month's events with one delivery each: nine in a hundred failed, and one waits.
EVENTS = """
    INSERT INTO webhooks_event (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username, data,
        error, skipped, test, dispatched_at, transaction_id, transaction_time)
    SELECT gen_random_uuid(), n, 'updated', %(type)s, device.id, device.name, at, 'bench', %(data)s, '', 0, false, at,
        n, at
    FROM (SELECT id, name, row_number() OVER (ORDER BY id) - 1 AS place FROM dcim_device) device
        JOIN generate_series(1, %(count)s) n ON place = n %% %(devices)s,
        LATERAL (SELECT now() - interval '30 days' * (1 - n / %(count)s::float) AS at) moment
    ORDER BY n"""
DELIVERIES = """
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, status,
        error, response_status, created, due_at, expires_at, finished_at, attempt_count, listed)
    SELECT gen_random_uuid(), (%(webhooks)s::bigint[])[1 + sequence %% %(ways)s], id, object_type_id, object_id,
        sequence, status, CASE status WHEN 'delivered' THEN '' ELSE 'HTTP 500' END,
        CASE status WHEN 'delivered' THEN 200 ELSE 500 END, timestamp,
        CASE status WHEN 'pending' THEN now() + interval '1 hour' END, timestamp + interval '3 days',
        CASE status WHEN 'pending' THEN NULL ELSE timestamp + interval '1 s' END, 1, true
    FROM webhooks_event, LATERAL (SELECT CASE WHEN sequence %% 100 = 0 THEN 'pending'
        WHEN sequence %% 100 < 10 THEN 'failed' ELSE 'delivered' END AS status) state
    ORDER BY sequence"""
ATTEMPTS = """
    INSERT INTO webhooks_attempt (delivery_id, number, started_at, duration, method, url, request_headers,
        response_status, response_headers, response_body, error)
    SELECT id, 1, created, 0.05, 'POST', 'http://127.0.0.1/hook', '{"webhook-id": "x"}', response_status,
        '{"Server": "bench"}', repeat('answer ', 20), error
    FROM webhooks_delivery ORDER BY id"""
# The same changes in NetBox's change log.
CHANGES = """
    INSERT INTO core_objectchange (time, user_id, user_name, request_id, action, changed_object_type_id,
        changed_object_id, object_repr, message, prechange_data, postchange_data)
    SELECT timestamp, %(user)s, username, uuid, 'update', object_type_id, object_id, object_repr, '', data::jsonb,
        data::jsonb
    FROM webhooks_event ORDER BY sequence"""
TABLES = ('dcim_device', 'core_objectchange', 'webhooks_event', 'webhooks_delivery', 'webhooks_attempt')


def measure(bed: Bed) -> Iterator[Row]:
    devices, count = (1000, 1000) if bed.quick else (100_000, 1_000_000)
    with bed.subscribed(OURS, Device, WEBHOOKS):
        site = _site_in_a_region()
        _fill(bed, devices, count, site)
        readers = {'everything': bed.user, 'a region': _reader(site.region)}
        for seen, reader in readers.items():
            client = Client(SERVER_NAME='localhost')
            client.force_login(reader)
            for what, ours, netbox in _pages(devices, count, site, reader):
                told = f'{what}, of {count:,}; of {devices:,} devices; the reader sees {seen}'
                yield Row(told, 'ms', *_times(client, bed.turns, ours, netbox))


def _site_in_a_region() -> Site:
    region = Region.objects.create(name='North', slug='north')
    return Site.objects.create(name='In the north', slug='in-the-north', region=region)


def _reader(region: Region) -> User:
    user = User.objects.create_user('bench-reader')
    for model, constraints in (
        (Delivery, None),
        (Event, None),
        (Webhook, None),
        (Site, {'region__slug': region.slug}),
        (Device, {'site__region__slug': region.slug}),
    ):
        permission = ObjectPermission.objects.create(
            name=f'bench {model.__name__}', actions=['view'], constraints=constraints
        )
        permission.object_types.add(ObjectType.objects.get_for_model(model))
        permission.users.add(user)
    return user


def _pages(number: int, count: int, site: Site, reader: User) -> Iterator[tuple[str, str, str]]:
    """Yield (name, address, address of NetBox's devices). GraphQL queries begin with a brace."""
    seen = Device.objects.restrict(reader, 'view').count()
    devices = f'/dcim/devices/?per_page={ROWS}'
    listed, events = f'{PAGES}deliveries/?per_page={ROWS}', f'{PAGES}events/?per_page={ROWS}'
    changes = f'/core/changelog/?per_page={ROWS}'
    at_site = Device.objects.filter(site=site).order_by('pk').values_list('pk', flat=True)
    device = at_site[number // 4]
    name = f'copy {number // 2}'
    yield 'list of deliveries', listed, devices
    yield 'list of failed deliveries', f'{listed}&status=failed', f'{devices}&status=active'
    yield 'list of deliveries of one webhook', f'{listed}&webhook_id={_webhooks()[0]}', f'{devices}&site={site.slug}'
    yield 'last page of deliveries', f'{listed}&page={count // ROWS}', f'{devices}&page={seen // ROWS}'
    yield 'search in deliveries', f'{listed}&q={name}', f'{devices}&q={name}'
    yield 'list of events', events, devices
    yield 'search in events', f'{events}&q={name}', f'{devices}&q={name}'
    yield 'events in the order of their objects', f'{events}&sort=object', f'{devices}&sort=name'
    yield 'events of one object', f'{events}&object_id={device}', f'{devices}&id={device}'
    yield "tab on an object's page", f'/dcim/devices/{device}/webhooks/', f'/dcim/devices/{device}/interfaces/'
    yield 'status page', f'{PAGES}status/', devices
    yield 'REST API', f'{API}deliveries/?limit={ROWS}', f'/api/dcim/devices/?limit={ROWS}'
    ours, netbox = (f'?limit={ROWS}&offset={rows * 9 // 10}' for rows in (count, seen))
    yield 'REST API, deep', f'{API}deliveries/{ours}', f'/api/dcim/devices/{netbox}'
    if reader.is_superuser:
        yield "Django's admin", f'{ADMIN}delivery/', devices
        for what, ours in ('deliveries', listed), ('events', events):
            yield f'list of {what}, beside the change log', ours, changes
            yield f'search in {what}, beside the change log', f'{ours}&q={name}', f'{changes}&q={name}'
    part = f'pagination: {{limit: {ROWS}}}'
    shown = 'id uuid status object_id event { id object_repr username }'
    of_netbox = f'{{ device_list({part}) {{ id name status site {{ id name }} }} }}'
    yield 'GraphQL, deliveries', f'{{ webhooks_delivery_list({part}) {{ {shown} }} }}', of_netbox
    yield 'GraphQL, events', f'{{ webhooks_event_list({part}) {{ id uuid kind object_repr username }} }}', of_netbox
    found, same = (f'filters: {{{column}: {{exact: "{name}"}}}}' for column in ('object_repr', 'name'))
    yield (
        'GraphQL, events by the name of their object',
        f'{{ webhooks_event_list({found}) {{ id object_repr }} }}',
        f'{{ device_list({same}) {{ id name }} }}',
    )


def _times(client: Client, turns: int, *addresses: str) -> list[list[float]]:
    """Return milliseconds. Skip the first turn."""
    measured = [[_time(client, address) for address in addresses] for _ in range(turns + 1)][1:]
    return [list(times) for times in zip(*measured, strict=True)]


def _time(client: Client, address: str) -> float:
    start = time.perf_counter()
    if address.startswith('{'):
        answer = client.post('/graphql/', {'query': address}, content_type='application/json')
    else:
        answer = client.get(address)
    taken = (time.perf_counter() - start) * 1000
    if answer.status_code != 200 or b'"errors"' in answer.content:
        raise RuntimeError(f'{address}: {answer.status_code}')
    return taken


def _webhooks() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute('SELECT id FROM webhooks_webhook ORDER BY id')
        return [pk for (pk,) in cursor.fetchall()]


def _fill(bed: Bed, devices: int, count: int, site: Site) -> None:
    bed.save(bed.new_devices(1))
    bed.reset()
    values = {
        'devices': devices,
        'count': count,
        'device': Device.objects.first().pk,
        'sites': [bed.site.pk, site.pk],
        'type': ContentType.objects.get_for_model(Device).pk,
        'data': '{"id": 1, "name": "device", "description": "' + 'x' * 2000 + '"}',
        'user': bed.user.pk,
        'webhooks': _webhooks(),
        'ways': WEBHOOKS,
    }
    with connection.cursor() as cursor:
        for statement in (DEVICES, EVENTS, DELIVERIES, ATTEMPTS, CHANGES):
            cursor.execute(statement, values)
        for table in TABLES:
            cursor.execute(f'ANALYZE {table}')
