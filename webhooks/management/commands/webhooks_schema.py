"""manage.py webhooks_schema: print the schema of payloads."""

import json
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Model

from ...choices import FormatChoices
from ...exceptions import DefinitionError
from ...models import Webhook
from ...payload import asyncapi, json_schema
from ...services.keys import check_expand


class Command(BaseCommand):
    """Prints the JSON Schema of a model's payload, or an AsyncAPI document of all webhooks."""

    help = "Print the JSON Schema of a model's payload, or an AsyncAPI document of all webhooks."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('model', metavar='APP.MODEL', nargs='?', help='the model, such as dcim.site')
        parser.add_argument('--asyncapi', action='store_true', help='an AsyncAPI 3 document of all webhooks that send')
        parser.add_argument(
            '--format',
            choices=FormatChoices.values(),
            default=FormatChoices.DEFAULT,
            help='the payload format of the webhook',
        )
        together = parser.add_mutually_exclusive_group()
        together.add_argument('--batch', action='store_true', help='the schema of a webhook that sends batches')
        together.add_argument('--change-set', action='store_true', help='the schema of change sets')
        parser.add_argument(
            '--expand',
            metavar='KEY',
            action='append',
            default=[],
            help=('a key that the webhook expands, such as device.site; may be repeated'),
        )

    def handle(self, *args, **options) -> None:
        if options['asyncapi'] == bool(options['model']):
            raise CommandError('name a model, or write --asyncapi')
        if options['asyncapi']:
            self._print(asyncapi.document(Webhook.objects.order_by('pk')))
            return
        model, keys = _model(options['model']), options['expand']
        try:
            check_expand(keys, [model])
            together = {name: options[name] for name in ('batch', 'change_set')}
            schema = json_schema.payload(model, options['format'], **together, expand=keys)
        except (json_schema.NoSchema, DefinitionError) as error:
            raise CommandError(str(error)) from None
        self._print(schema)

    def _print(self, shown: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False))


def _model(label: str) -> type[Model]:
    try:
        return apps.get_model(label.lower())
    except (LookupError, ValueError):
        raise CommandError(f'there is no model {label!r}; write APP.MODEL, such as dcim.site') from None
