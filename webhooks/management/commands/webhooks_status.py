"""manage.py webhooks_status: print the backlog, with exit codes for monitoring."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from netbox.constants import ADVISORY_LOCK_KEYS

from ... import conf
from ...engine import sql
from ...presentation.moments import moment
from ...services import causes, database_health
from ...services.backlog import Backlog, measure
from ...services.causes import Cause, Causes
from ...services.database_health import DatabaseHealth
from ...services.not_sending import NotSending

# Exit codes, as Nagios and its successors read them.
OK = 0
WARNING = 1
CRITICAL = 2
# Count workers that have waited for a lock for five seconds. A worker takes this lock of NetBox's for a moment when it
# starts, so something blocks them.
COUNT_BLOCKED = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND (classid, objid, objsubid) = (0, %s, 1) AND NOT granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND waitstart < clock_timestamp() - interval '5 seconds'
"""


class Command(BaseCommand):
    """Prints the figures of the backlog and the causes of failures, for people or as JSON, and exits with 0, 1 or 2."""

    help = (
        'Show what webhooks have still to send (the backlog). Exit codes for monitoring. 0: all is well. '
        '1: there are failed deliveries, suspended webhooks, workers that cannot start, or something that keeps the '
        'database from cleaning up. '
        '2: there is no worker, no Redis or no PostgreSQL, or the backlog is too old.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--json', action='store_true', help='print the figures as one JSON object')
        parser.add_argument(
            '--max-age',
            type=int,
            default=900,
            metavar='SECONDS',
            help=('the backlog is too old from this age on; default: 900'),
        )

    def handle(self, *args, **options) -> None:
        try:
            found, blocked = measure(), _blocked()
            failures, database = causes.find(), database_health.measure()
        except Error as error:
            # A traceback would exit with 1, a warning.
            raise CommandError(f'PostgreSQL does not answer: {error}', returncode=CRITICAL) from None
        age = (timezone.now() - found.oldest).total_seconds() if found.oldest else 0
        problems = [
            *_problems(found, blocked, age, options['max_age']),
            *((WARNING, text) for text in database.problems),
        ]
        code = max((severity for severity, _text in problems), default=OK)
        report = {
            'enabled': conf.get().enabled,
            **asdict(found),
            'suspended': len(found.suspended),
            'paused': len(found.paused),
            'suspended_webhooks': [_named(webhook) for webhook in found.suspended],
            'paused_webhooks': [_named(webhook) for webhook in found.paused],
            'blocked_workers': blocked,
            'oldest': found.oldest.isoformat() if found.oldest else None,
            'oldest_age': round(age, 1),
            'exit_code': code,
            'problems': [text for _severity, text in problems],
            'failures': [_described(cause) for cause in failures.shown],
            'database': asdict(database),
        }
        if options['json']:
            self.stdout.write(json.dumps(report, cls=DjangoJSONEncoder))
        else:
            details = [*_details(found, failures), *_tables(database), *map(_problem, problems)]
            self.stdout.write('\n'.join([_table(report), *details]))
        if code:
            raise SystemExit(code)


def _blocked() -> int:
    """Return how many workers cannot start, because they wait to schedule NetBox's jobs.

    See docs/installation.md, PgBouncer.
    """
    return sql.fetch_value(COUNT_BLOCKED, [ADVISORY_LOCK_KEYS['job-schedules']])


def _problems(found: Backlog, blocked: int, age: float, max_age: int) -> Iterator[tuple[int, str]]:
    """Yield (exit code, reason) of all that is wrong."""
    if conf.get().enabled:
        if not found.redis:
            yield CRITICAL, 'Redis cannot be reached'
        elif not found.workers:
            yield CRITICAL, 'no worker is running'
        if age > max_age:
            yield CRITICAL, f'the oldest change has been waiting for {age:.0f} seconds, more than {max_age}'
    if found.failed:
        yield WARNING, f'failed deliveries: {found.failed}'
    if found.suspended:
        yield WARNING, f'suspended webhooks: {len(found.suspended)}'
    if blocked:
        yield WARNING, f'workers that cannot start: {blocked}'


def _problem(problem: tuple[int, str]) -> str:
    severity, text = problem
    return f'{"CRITICAL" if severity == CRITICAL else "WARNING"}: {text}'


def _named(webhook: NotSending) -> dict[str, str | None]:
    return {
        'webhook': webhook.webhook,
        'since': webhook.since.isoformat() if webhook.since else None,
        'by': webhook.by or None,
    }


def _table(report: dict) -> str:
    words = {
        'enabled': 'Enabled',
        'undispatched': 'Events not processed yet',
        'pending': 'Deliveries pending',
        'sending': 'Deliveries being sent',
        'failed': 'Deliveries failed',
        'suspect_events': 'Suspect events (worker stopped, slow)',
        'suspect_deliveries': 'Suspect deliveries (a worker stopped)',
        'oldest': 'Oldest change waiting since',
        'suspended': 'Webhooks suspended',
        'paused': 'Webhooks paused',
        'gone': 'Webhooks disabled by their receivers',
        'workers': 'Workers running',
        'blocked_workers': 'Workers that cannot start',
        'redis': 'Redis reachable',
    }
    return '\n'.join(f'{label:<40}{_word(report[key])}' for key, label in words.items())


def _described(cause: Cause) -> dict[str, object]:
    """Return a cause without the receiver's answer: monitoring would keep it, and show it to people who may not view
    the object.
    """
    return {
        'webhook': cause.webhook.name,
        'error': cause.error,
        'count': cause.count,
        'first': cause.first.isoformat(),
        'last': cause.last.isoformat(),
    }


def _details(found: Backlog, failures: Causes) -> Iterator[str]:
    yield from (f'  suspended: {webhook}' for webhook in found.suspended)
    yield from (f'  paused: {webhook}' for webhook in found.paused)
    for cause in failures.shown:
        yield f'  {cause.webhook}: {cause.error} · {cause.figures} · {cause.period}'
    if failures.note:
        yield f'  {failures.note}'


def _tables(database: DatabaseHealth) -> Iterator[str]:
    yield f'{"Table":<28}{"size":>12}{"indexes":>12}{"rows":>14}{"dead rows":>14}  last vacuum'
    for table in database.tables:
        sizes = (filesizeformat(size).replace('\xa0', ' ') for size in (table.table_bytes, table.index_bytes))
        figures = '{:>12}{:>12}'.format(*sizes) + f'{table.live_rows:>14,}{table.dead_rows:>14,}'
        yield f'{table.name:<28}{figures}  {moment(table.last_vacuum) if table.last_vacuum else "-"}'
    yield f'{"Growth of the log in a day":<40}{filesizeformat(database.bytes_per_day)}'
    yield f'{"Log at its full age, at this rate":<40}{filesizeformat(database.bytes_expected)}'


def _word(value: object) -> object:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return '-' if value is None else value
