"""SQL of 1.0.0, cut down to its tables and locks."""

import threading
from collections.abc import Callable

import psycopg
from psycopg.errors import UndefinedColumn

from devstack.postgres import DatabaseAddress

# A web process saves a subscribed model.
ASK = 'SELECT object_type_id, before FROM webhooks_subscription WHERE until IS NULL'
RECORD = """
    INSERT INTO webhooks_event AS e (uuid, sequence, kind, object_type_id, object_id, object_repr, timestamp, username,
        request_id, request, data, error, skipped, transaction_id, transaction_time, prechange, snapshot)
    SELECT gen_random_uuid(), nextval('webhooks_event_sequence'), 'updated', s.object_type_id, s.object_id, '', now(),
        'admin', NULL, NULL, '', '', 0, pg_current_xact_id()::text::bigint, now(), NULL, s.snapshot
    FROM snapshots s WHERE s.object_id = %s
    ON CONFLICT (transaction_id, transaction_time, object_type_id, object_id) WHERE dispatched_at IS NULL
    DO UPDATE SET sequence = EXCLUDED.sequence, snapshot = EXCLUDED.snapshot"""
# Not in 1.0.0: the rows that the test saves again and again.
SNAPSHOTS = """
    CREATE TABLE snapshots AS SELECT DISTINCT ON (object_id) object_type_id, object_id, snapshot FROM webhooks_event
    WHERE snapshot IS NOT NULL ORDER BY object_id, sequence DESC"""

# A turn of a worker.
HOLD_LINE = 'SELECT pg_advisory_xact_lock(2003133545)'
CLAIM = """
    WITH ready AS (
        SELECT w.id, w.timeout FROM webhooks_webhook w LEFT JOIN webhooks_health h ON h.webhook_id = w.id
        WHERE w.enabled AND NOT w.paused AND (h.suspended_since IS NULL OR h.probe_at <= now())
    ), picked AS (
        SELECT d.id FROM ready CROSS JOIN LATERAL (
            SELECT d.id FROM webhooks_delivery d
            WHERE d.webhook_id = ready.id AND d.status = 'pending' AND d.due_at <= now()
            ORDER BY d.due_at, d.id LIMIT 5 FOR UPDATE SKIP LOCKED
        ) d
    )
    UPDATE webhooks_delivery d SET status = 'sending', lease = gen_random_uuid(), lease_until = now()
    FROM picked WHERE d.id = picked.id RETURNING d.id"""
FAIL_FOR_NOW = """
    WITH ours AS (
        UPDATE webhooks_delivery SET status = 'pending', due_at = now(), error = 'HTTP 500', attempt_count = 1,
            lease = NULL, lease_until = NULL
        WHERE id = ANY(%s) AND status = 'sending' RETURNING id
    ), logged AS (
        INSERT INTO webhooks_attempt (delivery_id, number, started_at, duration, method, url, request_headers,
            response_status, response_headers, response_body, error)
        SELECT id, 1, now(), 0.1, 'POST', '', '{}', 500, '{}', '', 'HTTP 500' FROM ours
    )
    SELECT ours.id, EXISTS (SELECT 1 FROM webhooks_wait w WHERE w.blocker_id = ours.id) FROM ours"""
COUNT = 'UPDATE webhooks_health SET failed = failed + %s WHERE webhook_id = ANY(SELECT id FROM webhooks_webhook)'

# A redelivery reads webhooks first.
LOOK = 'SELECT id, enabled FROM webhooks_webhook'
REOPEN = "UPDATE webhooks_delivery SET attempt_limit = attempt_count + 1 WHERE status = 'failed'"


class Former(threading.Thread):
    """Repeats its work in own transactions until stopped."""

    def __init__(self, database: DatabaseAddress, work: Callable[[psycopg.Connection], int]) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self.errors: list[psycopg.Error] = []
        self._database = database
        self._work = work
        self._stopped = threading.Event()
        self.start()

    def run(self) -> None:
        with self._database.connect() as connection:
            while not self._stopped.wait(0.2):
                try:
                    with connection.transaction():
                        count = self._work(connection)
                    self.done += count
                except psycopg.Error as error:
                    self.errors.append(error)

    def stop(self) -> None:
        self._stopped.set()
        self.join(60)


def save(object_id: int, *others: int) -> Callable[[psycopg.Connection], int]:
    def work(connection: psycopg.Connection) -> int:
        connection.execute(ASK)
        for pk in (object_id, *others):
            connection.execute('SELECT 1 FROM dcim_site WHERE id = %s FOR NO KEY UPDATE', [pk])
            connection.execute(RECORD, [pk])
        return 1 + len(others)

    return work


def turn(connection: psycopg.Connection) -> int:
    """The endpoint answers 500. The upgrade drops the claims' column, which ends the turn."""
    try:
        with connection.transaction():
            connection.execute(HOLD_LINE)
            claimed = [pk for (pk,) in connection.execute(CLAIM).fetchall()]
            connection.execute(FAIL_FOR_NOW, [claimed])
            connection.execute(COUNT, [len(claimed)])
    except UndefinedColumn:
        return 0
    return len(claimed)


def redeliver(connection: psycopg.Connection) -> int:
    connection.execute(LOOK)
    connection.execute(HOLD_LINE)
    return connection.execute(REOPEN).rowcount
