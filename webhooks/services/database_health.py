"""Measures the plugin's tables in PostgreSQL, and finds the reason for dead rows, for monitoring and *Status*."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F, Sum
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.translation import gettext as _

from .. import conf
from ..engine import sql
from ..models import Attempt, Delivery, Event, Hour
from ..presentation.moments import moment

LOG = tuple(model._meta.db_table for model in (Event, Delivery, Attempt))
# A transaction that is open for longer, and more dead rows than these, are reported as problems.
MAX_TRANSACTION_SECONDS = 3600
MAX_DEAD_ROWS = 100_000
MAX_DEAD_SHARE = 0.2

# Read sizes in bytes. A table's size includes its long values (TOAST).
READ_TABLES = """
    SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_live_tup, n_dead_tup,
        greatest(last_vacuum, last_autovacuum)
    FROM pg_stat_user_tables WHERE relid = ANY(
        SELECT oid FROM pg_class
        WHERE relname ^@ 'webhooks_' AND relnamespace = quote_ident(current_schema())::regnamespace
    )
    ORDER BY pg_total_relation_size(relid) DESC"""

# Read the open transaction that began first, of a session or prepared. Without pg_read_all_stats, only NetBox's own
# sessions are seen.
READ_OLDEST_TRANSACTION = """
    SELECT xact_start, pid::text, concat_ws(', ', usename, nullif(application_name, ''))
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start IS NOT NULL
    UNION ALL
    SELECT prepared, '', gid FROM pg_prepared_xacts WHERE database = current_database()
    ORDER BY 1 LIMIT 1"""

# Read the replication slots without a reader, and the bytes of WAL that each keeps.
READ_IDLE_SLOTS = """
    SELECT slot_name, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
    FROM pg_replication_slots
    WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL OR restart_lsn IS NOT NULL)
    ORDER BY slot_name"""


@dataclass(frozen=True)
class Table:
    """A table of the plugin: its size and that of its indexes in bytes, and its rows, as PostgreSQL estimates them."""

    name: str
    table_bytes: int
    index_bytes: int
    live_rows: int
    dead_rows: int
    last_vacuum: datetime | None


@dataclass(frozen=True)
class DatabaseHealth:
    """The plugin's tables, the largest first. Problems are sentences that say what to do.

    `bytes_per_day`: the size of the last day's deliveries. `bytes_expected`: the size of the log once it is as old
    as retention allows, if every day is like that one. `oldest_transaction`: when it began; None if none is open.
    """

    tables: list[Table]
    bytes_per_day: int
    bytes_expected: int
    oldest_transaction: datetime | None
    problems: list[str]


def measure() -> DatabaseHealth:
    """Ask PostgreSQL for its statistics and our hourly figures. Takes four queries, and reads no other rows of ours."""
    tables = [Table(*row) for row in sql.fetch(READ_TABLES)]
    oldest = next(iter(sql.fetch(READ_OLDEST_TRANSACTION)), None)
    per_day, expected = _growth({table.name: table for table in tables})
    problems = [*_held(oldest), *map(_idle_slot, sql.fetch(READ_IDLE_SLOTS)), *_unvacuumed(tables)]
    return DatabaseHealth(tables, per_day, expected, oldest and oldest[0], problems)


def _growth(tables: dict[str, Table]) -> tuple[int, int]:
    settings = conf.get()
    sums = Hour.objects.filter(start__gt=timezone.now() - timedelta(days=1)).aggregate(
        count=Sum(F('delivered') + F('failed') + F('superseded'))
    )
    daily = sums['count'] or 0
    log = [tables[name] for name in LOG if name in tables]
    size = sum(table.table_bytes + table.index_bytes for table in log)
    deliveries = tables[Delivery._meta.db_table].live_rows if log else 0
    each = size / deliveries if deliveries else 0
    kept = daily * settings.retention_days
    return round(daily * each), round(min(kept, settings.retention_size or kept) * each)


def _held(oldest: tuple[datetime, str, str] | None) -> Iterator[str]:
    if oldest is None or timezone.now() - oldest[0] < timedelta(seconds=MAX_TRANSACTION_SECONDS):
        return
    since, pid, name = oldest
    text = (
        _(
            'A transaction ({name}) has been open since {since}. Until it ends, PostgreSQL cannot remove dead rows. '
            'End its program, or call pg_terminate_backend({pid}).'
        )
        if pid
        else _(
            'The prepared transaction {name} has been open since {since}. Until it ends, PostgreSQL cannot remove dead '
            'rows. Call COMMIT PREPARED or ROLLBACK PREPARED.'
        )
    )
    yield text.format(name=name, since=moment(since), pid=pid)


def _idle_slot(slot: tuple[str, int]) -> str:
    name, kept = slot
    return _(
        'Nobody reads the replication slot {name}. It keeps dead rows, and {size} of WAL. Start its reader, or call '
        "pg_drop_replication_slot('{name}')."
    ).format(name=name, size=filesizeformat(kept))


def _unvacuumed(tables: list[Table]) -> Iterator[str]:
    for table in tables:
        if table.dead_rows > max(MAX_DEAD_ROWS, MAX_DEAD_SHARE * table.live_rows):
            yield _(
                'The table {name} has {dead} dead rows, and {live} live ones. If nothing keeps them, check that '
                'autovacuum is on, and run VACUUM {name}.'
            ).format(name=table.name, dead=table.dead_rows, live=table.live_rows)
