import json

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Model

from ...choices import FormatChoices
from ...exceptions import DefinitionError
from ...payload import json_schema
from ...services.expandable import check_keys


class Command(BaseCommand):
    help = "Print the JSON Schema of a model's payload."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('model', metavar='APP.MODEL', help='the model, such as dcim.site')
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
        model, keys = _model(options['model']), options['expand']
        try:
            check_keys(keys, [model])
            together = {name: options[name] for name in ('batch', 'change_set')}
            schema = json_schema.payload(model, options['format'], **together, expand=keys)
        except (json_schema.NoSchema, DefinitionError) as error:
            raise CommandError(str(error)) from None
        self.stdout.write(json.dumps(schema, indent=2, ensure_ascii=False))


def _model(label: str) -> type[Model]:
    try:
        return apps.get_model(label.lower())
    except (LookupError, ValueError):
        raise CommandError(f'there is no model {label!r}; write APP.MODEL, such as dcim.site') from None
