"""manage.py webhooks_export: print the document of the webhooks and credentials that are there."""

from django.core.management.base import BaseCommand, CommandParser

from ...as_code.document import DEFAULT_SOURCE
from ...as_code.export import export
from ...models import Credential, Webhook


class Command(BaseCommand):
    """Prints all webhooks and credentials as a document for webhooks_apply, without secrets."""

    help = 'Print all webhooks and credentials as a document for webhooks_apply. It holds no secret.'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--source', default=DEFAULT_SOURCE, help='the name of the document, for --prune')

    def handle(self, *args, **options) -> None:
        credentials = Credential.objects.prefetch_related('tags').order_by('name')
        webhooks = Webhook.objects.select_related('credential').prefetch_related('object_types').order_by('name')
        self.stdout.write(export(credentials, webhooks, options['source']), ending='')
