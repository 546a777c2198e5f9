from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...engine import retention


class Command(BaseCommand):
    help = 'Delete closed events and their deliveries that are older than retention_days. Pending ones stay.'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--days', type=int, help='instead of the setting retention_days')

    def handle(self, *args, **options) -> None:
        if options['days'] is not None and options['days'] < 0:
            raise CommandError('--days: must not be negative')
        pruned = retention.prune(retention.cutoff(options['days']))
        self.stdout.write(f'{pruned} events pruned')
