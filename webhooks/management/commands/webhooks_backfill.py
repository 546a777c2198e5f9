import time

from django.contrib.contenttypes.models import ContentType
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.progress import Progress

from ... import object_types
from ...choices import BackfillStateChoices
from ...exceptions import Busy, DefinitionError
from ...models import Webhook
from ...presentation import progress
from ...services import backfill
from ...storable import storable

# Seconds.
INTERVAL = 0.5
OPTIONS = {'object_types': '--model', 'filter': '--filter'}


class Command(BaseCommand):
    help = 'Send a webhook everything as it is now. On a terminal it shows the progress; the workers do the work.'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('name', metavar='NAME', help='of the webhook')
        parser.add_argument(
            '--model', action='append', metavar='APP.MODEL', help='only objects of this model; may be repeated'
        )
        parser.add_argument(
            '--filter',
            default='',
            metavar='QUERY',
            help="only these objects, as in the URL of the model's list: 'site=berlin&status=active'",
        )
        parser.add_argument('--dry-run', action='store_true', help='only say how many there are; send none')

    def handle(self, *args, **options) -> None:
        webhook = _webhook(options['name'])
        try:
            choice = backfill.choose(webhook, _types(options['model']), options['filter'])
            if not options['dry_run']:
                backfill.start(webhook, choice)
        except DefinitionError as error:
            raise CommandError(f'{OPTIONS.get(error.field, webhook)}: {error}') from None
        except Busy as busy:
            raise CommandError(f'{webhook}: {busy}') from None
        objects = 'object' if choice.total == 1 else 'objects'
        self.stdout.write(f'{choice.total} {objects} {"would" if options["dry_run"] else "will"} be sent')
        if not options['dry_run'] and self.stdout.isatty():
            self._follow(webhook)

    def _follow(self, webhook: Webhook) -> None:
        """Show the progress to its end. Ctrl-C stops only the display."""
        with Progress() as bar:
            task = bar.add_task('Sending')
            while found := progress.of(webhook):
                bar.update(task, completed=found.sent, total=found.total)
                if not found.backfill.is_open:
                    break
                time.sleep(INTERVAL)
        if found is None:
            raise CommandError(f'{webhook} was deleted')
        if found.backfill.state != BackfillStateChoices.COMPLETED:
            raise CommandError(f'{found.backfill.get_state_display()} {found.backfill.error}'.strip())


def _webhook(name: str) -> Webhook:
    try:
        return Webhook.objects.get(name=storable(name))
    except Webhook.DoesNotExist:
        raise CommandError(f'there is no webhook {name!r}') from None


def _types(labels: list[str] | None) -> list[ContentType] | None:
    if labels is None:
        return None
    known = object_types.by_label()
    try:
        return [known[label.lower()] for label in labels]
    except KeyError as error:
        raise CommandError(f'--model: {error} is none of the object types that webhooks may send') from None
