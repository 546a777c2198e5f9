"""A day in the life of some webhooks, for the demo's pages and the docs' pictures.

Everything happened, except the times. Each batch of changes is spread over SPAN, and everything before moves back.
"""

import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from devstack.api import Api
from devstack.failure import Failure
from devstack.postgres import DatabaseAddress
from devstack.process import wait_until
from devstack.receiver import Answer, Receiver

ADDRESSES, BILLING, WAREHOUSE = '/addresses', '/billing', '/warehouse'
# The port of "discard", where nothing listens.
NOBODY = 'http://127.0.0.1:9/switches'
EVERY_CHANGE = {'type_create': True, 'type_update': True, 'type_delete': True}
PATIENCE = 60.0


class Hours(NamedTuple):
    """Changes within SPAN. Without `billing` that endpoint is out of order."""

    new_addresses: int
    changed_addresses: int
    new_providers: int
    billing: bool = True


# Together a bit less than the day that charts show.
SPAN = timedelta(minutes=170)
DAY = (
    Hours(3, 0, 1),
    Hours(2, 1, 2),
    Hours(8, 3, 4),
    Hours(9, 5, 5, billing=False),
    Hours(6, 8, 4),
    Hours(9, 7, 6),
    Hours(3, 2, 2),
    Hours(2, 3, 3, billing=False),
)

NEWEST = 'SELECT coalesce(max(id), 0) FROM webhooks_event'
# Counting comes a moment after the last request.
NOTHING_UNDER_WAY = """
    SELECT NOT EXISTS (SELECT FROM webhooks_event WHERE dispatched_at IS NULL)
        AND count(*) FILTER (WHERE status NOT IN ('delivered', 'failed', 'superseded')) = 0
        AND count(*) = (SELECT coalesce(sum(delivered + failed), 0) FROM webhooks_health)
    FROM webhooks_delivery"""
IS_RETRIED = "SELECT EXISTS (SELECT FROM webhooks_delivery WHERE status = 'retrying')"
IS_HEALTHY = """
    SELECT last_error = '' FROM webhooks_health JOIN webhooks_webhook w ON w.id = webhook_id
    WHERE name = 'Address management'"""
IS_SUSPENDED = 'SELECT EXISTS (SELECT FROM webhooks_health WHERE suspended_since IS NOT NULL)'
# Nothing is under way, so nobody else writes these.
PUT_BACK = """
    WITH shift AS (
        SELECT id AS event_id, %(span)s * (1 - (rank() OVER (ORDER BY id) - 0.5) / count(*) OVER ()) AS by
        FROM webhooks_event WHERE id > %(newest_before)s
        UNION ALL SELECT id, %(span)s FROM webhooks_event WHERE id <= %(newest_before)s
    ), events AS (
        UPDATE webhooks_event SET timestamp = timestamp - by, dispatched_at = dispatched_at - by,
            transaction_time = transaction_time - by
        FROM shift WHERE id = event_id
    ), deliveries AS (
        UPDATE webhooks_delivery SET created = created - by, finished_at = finished_at - by,
            expires_at = expires_at - by
        FROM shift WHERE webhooks_delivery.event_id = shift.event_id
    )
    UPDATE webhooks_attempt SET started_at = started_at - by
    FROM webhooks_delivery JOIN shift USING (event_id) WHERE delivery_id = webhooks_delivery.id"""

# A body that is made again would have the event's new times. So the log keeps the one that the receiver got.
KEEP_BODY = """
    UPDATE webhooks_attempt SET request_body = %s, made_from = NULL
    FROM webhooks_delivery d WHERE d.id = delivery_id AND d.uuid = %s::uuid"""

COUNT_AGAIN = """
    DELETE FROM webhooks_hour;
    INSERT INTO webhooks_hour (health_id, start, delivered, failed)
    SELECT webhook_id, date_trunc('hour', finished_at),
        count(*) FILTER (WHERE status = 'delivered'), count(*) FILTER (WHERE status = 'failed')
    FROM webhooks_delivery GROUP BY 1, 2"""


@dataclass
class Showcase:
    api: Api
    receiver: Receiver
    database: DatabaseAddress
    secret: str
    addresses: list[dict[str, Any]] = field(default_factory=list)
    providers: int = 0

    def furnish(self) -> None:
        self._define('Address management', 'DNS and DHCP', ['ipam.prefix', 'ipam.ipaddress'], ADDRESSES)
        self._define('Billing', 'Retried by hand', ['circuits.provider', 'circuits.circuit'], BILLING, max_attempts=1)
        for hours in DAY:
            newest = self._ask(NEWEST)
            self._change(hours)
            self._until(NOTHING_UNDER_WAY)
            self._put_back(newest)
        self._keep_bodies()
        self.database.execute(COUNT_AGAIN)
        self._retry_later()
        self._suspend()
        self._define('Data warehouse', 'Being rebuilt', ['dcim.site'], WAREHOUSE, paused=True)

    def _define(self, name: str, description: str, object_types: list[str], path: str, **fields: Any) -> None:
        definition = {'payload_url': self.receiver.url(path), 'secret': self.secret} | EVERY_CHANGE | fields
        self.api.post(
            'plugins/webhooks/webhooks/', name=name, description=description, object_types=object_types, **definition
        )

    def _change(self, hours: Hours) -> None:
        self.receiver.answers(BILLING, Answer(201) if hours.billing else Answer(500, b'database is locked'))
        new = [_address(len(self.addresses) + number) for number in range(hours.new_addresses)]
        changed = self.addresses[: hours.changed_addresses]
        self.addresses += self.api.post_all('ipam/ip-addresses/', new)
        self.api.patch_all('ipam/ip-addresses/', [{'id': one['id'], 'status': 'reserved'} for one in changed])
        new = [_provider(self.providers + number) for number in range(hours.new_providers)]
        self.providers += len(self.api.post_all('circuits/providers/', new))

    def _retry_later(self) -> None:
        """The endpoint asks for a retry in a quarter of an hour, and takes the next change."""
        self.receiver.answers(ADDRESSES, Answer(503, b'maintenance', {'Retry-After': '900'}), Answer(201))
        self.api.patch(f'ipam/ip-addresses/{self.addresses[0]["id"]}/', status='deprecated')
        self._until(IS_RETRIED)
        self.api.patch(f'ipam/ip-addresses/{self.addresses[1]["id"]}/', status='deprecated')
        self._until(IS_HEALTHY)

    def _suspend(self) -> None:
        self._define('Switches', 'Configures VLANs', ['ipam.vlan'], '', payload_url=NOBODY)
        self.api.post_all('ipam/vlans/', [{'vid': 100 + number, 'name': f'Floor {number}'} for number in range(8)])
        self._until(IS_SUSPENDED)

    def _ask(self, query: str) -> Any:
        with self.database.connect() as connection:
            return connection.execute(query).fetchone()[0]

    def _until(self, query: str) -> None:
        if not wait_until(lambda: self._ask(query), PATIENCE, interval=0.05):
            raise Failure(f'The deliveries to look at were not made in {PATIENCE:.0f} s')

    def _put_back(self, newest_before: int) -> None:
        with self.database.connect() as connection:
            connection.execute(PUT_BACK, {'span': SPAN, 'newest_before': newest_before})

    def _keep_bodies(self) -> None:
        got = [(zlib.compress(request.body), request.header('webhook-id')) for request in self.receiver.requests]
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(KEEP_BODY, got)


def _address(number: int) -> dict[str, Any]:
    return {'address': f'192.0.2.{number + 10}/24', 'status': 'active', 'dns_name': f'host-{number}.example.com'}


def _provider(number: int) -> dict[str, Any]:
    return {'name': f'Carrier {number + 1}', 'slug': f'carrier-{number + 1}'}
