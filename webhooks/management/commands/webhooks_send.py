"""manage.py webhooks_send: send chosen objects to a webhook, as they are now."""

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...exceptions import Busy, DefinitionError
from ...services import send_now
from .. import options as find


class Command(BaseCommand):
    """Sends objects of one model to a webhook, or only counts them. Says which ones its conditions exclude.

    Fails if the webhook does not send, or does not take these objects.
    """

    help = 'Send objects to a webhook as they are now. The workers send them, in turn with changes.'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('name', metavar='NAME', help='name of the webhook')
        parser.add_argument('model', metavar='APP.MODEL', help='model of the objects, such as dcim.site')
        parser.add_argument('ids', metavar='ID', type=int, nargs='+', help='primary key of an object')
        parser.add_argument('--dry-run', action='store_true', help='only count the objects; send nothing')

    def handle(self, *args, **options) -> None:
        webhook = find.webhook(options['name'])
        try:
            choice = send_now.choose(webhook, find.allowed_type(options['model']), dict.fromkeys(options['ids']))
            if options['dry_run']:
                self.stdout.write(f'{len(choice.pks)} of {len(set(options["ids"]))} objects would be sent')
                for one in choice.excluded:
                    self.stdout.write(f'not sent: {one}')
            else:
                self.stdout.write(send_now.announce(choice, send_now.send(choice)))
        except (Busy, DefinitionError) as error:
            raise CommandError(f'{webhook}: {error}') from None
