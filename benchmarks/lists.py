"""A page of the log, while the log is long, beside a page of NetBox's devices with as many rows, of as many devices.

NetBox runs in this process, as its tests run it. Each turn asks for the page and for NetBox's own, one after the other.
"""

import time
from collections.abc import Iterator

from dcim.models import Device
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import Client

from benchmarks.report import Row
from benchmarks.sides import OURS, Bed

ROWS = 50
WEBHOOKS = 10
PAGES, API, ADMIN = '/plugins/webhooks/', '/api/plugins/webhooks/', '/admin/webhooks/'

# Each device is a copy of one.
DEVICES = """
    INSERT INTO dcim_device SELECT (jsonb_populate_record(device, jsonb_build_object(
        'id', nextval('dcim_device_id_seq'), 'name', 'copy ' || n))).*
    FROM dcim_device device, generate_series(1, %(count)s) n WHERE device.id = %(device)s"""

# One delivery an event, a month's, of which nine in a hundred failed and one waits.
EVENTS = """
    INSERT INTO webhooks_event (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username, data,
        error, skipped, test, dispatched_at, transaction_id, transaction_time)
    SELECT gen_random_uuid(), n, 'updated', %(type)s, device.id, device.name, at, 'bench', %(data)s, '', 0, false, at,
        n, at
    FROM (SELECT id, name, row_number() OVER (ORDER BY id) AS n FROM dcim_device) device,
        LATERAL (SELECT now() - interval '30 days' * (1 - n / %(count)s::float) AS at) moment
    WHERE n <= %(count)s ORDER BY n"""
DELIVERIES = """
    INSERT INTO webhooks_delivery (uuid, webhook_id, event_id, object_type_id, object_id, sequence, event_count, status,
        error, response_status, created, due_at, expires_at, finished_at, attempt_count, listed)
    SELECT gen_random_uuid(), (%(webhooks)s::bigint[])[1 + sequence %% %(ways)s], id, object_type_id, object_id,
        sequence, 1, status, CASE status WHEN 'delivered' THEN '' ELSE 'HTTP 500' END,
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
TABLES = ('dcim_device', 'webhooks_event', 'webhooks_delivery', 'webhooks_attempt')


def measure(bed: Bed) -> Iterator[Row]:
    count = 1000 if bed.quick else 100_000
    with bed.subscribed(OURS, Device, WEBHOOKS):
        _fill(bed, count)
        client = Client(SERVER_NAME='localhost')
        client.force_login(bed.user)
        for what, ours, netbox in _pages(count):
            yield Row(f'{what}, of {count:,}; as many devices', 'ms', *_times(client, bed.turns, ours, netbox))


def _pages(count: int) -> Iterator[tuple[str, str, str]]:
    """Yield (what, address, address of NetBox's devices)."""
    devices = f'/dcim/devices/?per_page={ROWS}'
    listed = f'{PAGES}deliveries/?per_page={ROWS}'
    device = Device.objects.order_by('pk').values_list('pk', flat=True)[count // 2]
    yield 'list of deliveries', listed, devices
    yield 'list of failed deliveries', f'{listed}&status=failed', f'{devices}&status=active'
    yield 'list of deliveries of one webhook', f'{listed}&webhook_id={_webhooks()[0]}', f'{devices}&site=bench'
    yield 'last page of deliveries', f'{listed}&page={count // ROWS}', f'{devices}&page={count // ROWS}'
    yield 'list of events', f'{PAGES}events/?per_page={ROWS}', devices
    yield "tab on an object's page", f'/dcim/devices/{device}/webhooks/', f'/dcim/devices/{device}/interfaces/'
    yield "Django's admin", f'{ADMIN}delivery/', devices
    yield 'REST API', f'{API}deliveries/?limit={ROWS}', f'/api/dcim/devices/?limit={ROWS}'
    deep = f'limit={ROWS}&offset={count * 9 // 10}'
    yield 'REST API, deep', f'{API}deliveries/?{deep}', f'/api/dcim/devices/?{deep}'


def _times(client: Client, turns: int, *addresses: str) -> list[list[float]]:
    """Return the milliseconds of each address, turn by turn; the first turn is not counted."""
    measured = [[_time(client, address) for address in addresses] for _ in range(turns + 1)][1:]
    return [list(times) for times in zip(*measured, strict=True)]


def _time(client: Client, address: str) -> float:
    start = time.perf_counter()
    answer = client.get(address)
    taken = (time.perf_counter() - start) * 1000
    if answer.status_code != 200:
        raise RuntimeError(f'{address}: {answer.status_code}')
    return taken


def _webhooks() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute('SELECT id FROM webhooks_webhook ORDER BY id')
        return [pk for (pk,) in cursor.fetchall()]


def _fill(bed: Bed, count: int) -> None:
    """Write that many devices, and as many events, deliveries and attempts of them."""
    bed.save(bed.new_devices(1))
    bed.reset()
    values = {
        'count': count,
        'device': Device.objects.first().pk,
        'type': ContentType.objects.get_for_model(Device).pk,
        'data': '{"id": 1, "name": "device", "description": "' + 'x' * 2000 + '"}',
        'webhooks': _webhooks(),
        'ways': WEBHOOKS,
    }
    with connection.cursor() as cursor:
        for statement in (DEVICES, EVENTS, DELIVERIES, ATTEMPTS):
            cursor.execute(statement, values)
        for table in TABLES:
            cursor.execute(f'ANALYZE {table}')
