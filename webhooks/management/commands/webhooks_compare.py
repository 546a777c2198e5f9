"""manage.py webhooks_compare: compare a webhook's lists with the objects that were sent, and send the differences."""

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...exceptions import Busy, DefinitionError
from ...services import lists
from .. import options as find


class Command(BaseCommand):
    """Lets the workers compare the lists of a webhook, or only reports the differences.

    Fails if there is no such webhook, if it has no filters or is disabled, and if a filter fails.
    """

    help = 'Compare the lists of a webhook with the objects that were sent. The workers send the differences.'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('name', metavar='NAME', help='name of the webhook')
        parser.add_argument('--dry-run', action='store_true', help='only report the differences; send nothing')

    def handle(self, *args, **options) -> None:
        webhook = find.webhook(options['name'])
        try:
            if not options['dry_run']:
                lists.compare(webhook)
                self.stdout.write('the lists are being compared')
                return
            for one in lists.differences(webhook):
                self._tell(one)
        except (Busy, DefinitionError) as error:
            raise CommandError(f'{webhook}: {error}') from None

    def _tell(self, one: lists.Compared) -> None:
        self.stdout.write(
            f'{one.object_type} {one.query}: {one.listed} objects, {one.missing} missing, {one.stale} stale, '
            f'{one.extra} extra'
        )
        for title, names, count in (
            ('missing', one.names_of_missing, one.missing),
            ('stale', one.names_of_stale, one.stale),
            ('extra', one.names_of_extra, one.extra),
        ):
            if names:
                more = f', and {count - len(names)} more' if count > len(names) else ''
                self.stdout.write(f'  {title}: {", ".join(names)}{more}')
