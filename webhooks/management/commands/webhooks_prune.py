"""manage.py webhooks_prune: delete old events and deliveries from the log, without waiting for the daily job."""

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import ngettext

from ... import conf
from ...engine.tidy import retention


class Command(BaseCommand):
    """Deletes old events with their deliveries, and prints how many. `--days` replaces the settings."""

    help = (
        'Delete old events and deliveries from the log: first the oldest beyond retention_size, then all that are '
        'older than retention_days (retention_days_failed, if a delivery failed). Pending deliveries are kept.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--days', type=int, help='keep this many days, instead of these settings')

    def handle(self, *args, **options) -> None:
        if options['days'] is not None and not 0 <= options['days'] <= conf.MAX_DURATION_DAYS:
            raise CommandError(f'--days must be from 0 to {conf.MAX_DURATION_DAYS}')
        count = retention.prune_all(options['days'])
        self.stdout.write(ngettext('%d event deleted', '%d events deleted', count) % count)
