from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import conf
from ...engine.tidy import retention


class Command(BaseCommand):
    help = (
        'Delete the oldest closed events and their deliveries beyond retention_size, then those that are older than '
        'retention_days. Pending ones stay.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--days', type=int, help='instead of the setting retention_days')

    def handle(self, *args, **options) -> None:
        if options['days'] is not None and not 0 <= options['days'] <= conf.MAX_DAYS:
            raise CommandError(f'--days: must be from 0 to {conf.MAX_DAYS}')
        self.stdout.write(f'{retention.prune_all(options["days"])} events pruned')
