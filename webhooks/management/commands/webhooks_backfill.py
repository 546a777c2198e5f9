"""manage.py webhooks_backfill: send all objects of a webhook in their present state."""

import time

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.translation import ngettext
from rich.progress import Progress

from ...choices import BackfillStateChoices
from ...exceptions import DefinitionError
from ...models import Webhook
from ...presentation import progress
from ...services import backfill
from .. import options as find

# Between two looks at the progress.
PROGRESS_INTERVAL_SECONDS = 0.5
# {field of an error: the option that has it}
OPTIONS = {'object_types': '--model', 'filter': '--filter'}


class Command(BaseCommand):
    """Starts a backfill, or only counts its objects. On a terminal it shows the progress until the end.

    Fails if the webhook, a model or the filter is wrong, or if the backfill does not complete.
    """

    help = (
        'Send the present state of all objects through a webhook (a backfill). The workers send it. '
        'On a terminal, this command shows the progress until the end.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('name', metavar='NAME', help='name of the webhook')
        parser.add_argument(
            '--model',
            action='append',
            metavar='APP.MODEL',
            help=('only objects of this model; may be repeated; default: all object types of the webhook'),
        )
        parser.add_argument(
            '--filter',
            default='',
            metavar='QUERY',
            help="only these objects; a filter as in the URL of NetBox's lists: 'site=berlin&status=active'",
        )
        parser.add_argument('--dry-run', action='store_true', help='only count the objects; send nothing')

    def handle(self, *args, **options) -> None:
        webhook = find.webhook(options['name'])
        types = options['model'] and [find.allowed_type(label, '--model: ') for label in options['model']]
        try:
            choice = backfill.choose(webhook, types, options['filter'])
            if not options['dry_run']:
                backfill.start(webhook, choice)
        except DefinitionError as error:
            raise CommandError(f'{OPTIONS.get(error.field, webhook)}: {error}') from None
        self.stdout.write(_announcement(choice.total, options['dry_run']))
        if not options['dry_run'] and self.stdout.isatty():
            self._follow(webhook)

    def _follow(self, webhook: Webhook) -> None:
        """Show the progress until the end. Ctrl-C stops only the display. Raises CommandError if it fails."""
        with Progress() as bar:
            task = bar.add_task('Sending')
            while found := progress.of(webhook):
                bar.update(task, completed=found.sent, total=found.total)
                if not found.backfill.is_open:
                    break
                time.sleep(PROGRESS_INTERVAL_SECONDS)
        if found is None:
            raise CommandError(f'{webhook}: the webhook was deleted meanwhile')
        if found.backfill.state != BackfillStateChoices.COMPLETED:
            raise CommandError(': '.join(filter(None, (found.backfill.get_state_display(), found.backfill.error))))


def _announcement(total: int, dry_run: bool) -> str:
    if dry_run:
        return ngettext('%d object would be sent', '%d objects would be sent', total) % total
    return ngettext('%d object will be sent', '%d objects will be sent', total) % total
