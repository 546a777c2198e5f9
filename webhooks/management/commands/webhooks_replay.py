"""manage.py webhooks_replay: redeliver deliveries of the past."""

import sys
from datetime import datetime
from functools import partial

from django.contrib.contenttypes.models import ContentType
from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from rich.progress import track

from ...choices import StatusChoices
from ...services import redelivery
from ...storable import is_storable_time
from .. import options as find


def moment(text: str) -> datetime:
    """Return the time that an operator has entered, by default in NetBox's time zone. Raises ValueError."""
    parsed = parse_datetime(text)
    if parsed is None or not is_storable_time(parsed):
        raise ValueError(text)
    return parsed if timezone.is_aware(parsed) else timezone.make_aware(parsed)


class Command(BaseCommand):
    """Redelivers the closed deliveries that the options choose, or only counts them, and prints how many.

    On a terminal it shows the numbers first, and asks. Scripts and cron jobs are not asked.
    """

    help = (
        'Redeliver past deliveries: those that failed, were delivered or were replaced. '
        'Pending deliveries are sent anyway. On a terminal, this command shows how many they are, and asks.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--webhook', metavar='NAME', help='only deliveries of this webhook')
        parser.add_argument('--model', metavar='APP.MODEL', help='only deliveries about this model, such as dcim.site')
        parser.add_argument(
            '--status',
            choices=[StatusChoices.FAILED, StatusChoices.DELIVERED, StatusChoices.SUPERSEDED],
            help='only deliveries with this status; default: all except superseded (replaced by a later change)',
        )
        parser.add_argument(
            '--since', type=moment, metavar='TIME', help=('only events from this time on, such as 2026-01-31T12:00:00')
        )
        parser.add_argument('--until', type=moment, metavar='TIME', help='only events before this time')
        parser.add_argument('--dry-run', action='store_true', help='only count the deliveries; send nothing')
        parser.add_argument('--yes', '--no-input', action='store_true', help='do not ask before the redelivery')

    def handle(self, *args, **options) -> None:
        name, label = options['webhook'], options['model']
        model = None if label is None else find.model(label, '--model: ')
        chosen = redelivery.select(
            webhook=None if name is None else find.webhook(name, '--webhook: '),
            since=options['since'],
            until=options['until'],
            status=options['status'],
            object_type=model and ContentType.objects.get_for_model(model).pk,
        )
        if options['dry_run']:
            self.stdout.write('\n'.join(redelivery.measure(chosen).sentences))
            return
        counted_at = None
        if sys.stdin.isatty() and not options['yes']:
            figures = redelivery.measure(chosen)
            self.stdout.write('\n'.join(figures.sentences))
            if not figures.count or input("Type 'yes' to continue, or 'no' to cancel: ") != 'yes':
                self.stdout.write('Nothing was redelivered.')
                return
            counted_at = figures.counted_at
        bar = partial(track, description='Redelivering', disable=not self.stdout.isatty())
        self.stdout.write(redelivery.announce(redelivery.redeliver(chosen, watch=bar, counted_at=counted_at)))
