"""manage.py webhooks_schema: print the schema of payloads, and compare payloads before and after an upgrade."""

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...as_code.schema import document_schema
from ...choices import FormatChoices
from ...exceptions import DefinitionError
from ...models import Webhook
from ...payload import asyncapi, json_schema, schema_guard
from ...services.keys import check_expand
from .. import options as find

# The exit code of --compare if a webhook names a key that went.
CONCERNED = 2


class Command(BaseCommand):
    """Prints the JSON Schema of a model's payload, an AsyncAPI document, or the changes of an upgrade."""

    help = (
        "Print the JSON Schema of a model's payload, or an AsyncAPI document of all webhooks. Before and after an "
        'upgrade: save the keys of all payloads, and say what became of them.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('model', metavar='APP.MODEL', nargs='?', help='the model, such as dcim.site')
        parser.add_argument('--asyncapi', action='store_true', help='an AsyncAPI 3 document of all webhooks that send')
        parser.add_argument('--definitions', action='store_true', help='the schema of documents for webhooks_apply')
        parser.add_argument('--save', metavar='FILE', help='before an upgrade: write the keys of all payloads')
        parser.add_argument(
            '--compare',
            metavar='FILE',
            help='compare with this file, after the upgrade: exit code 2 if a webhook names a key that went',
        )
        parser.add_argument(
            '--format',
            choices=FormatChoices.values(),
            default=FormatChoices.DEFAULT,
            help='the payload format of the webhook',
        )
        parser.add_argument('--change-set', action='store_true', help='the schema of change sets')
        parser.add_argument(
            '--expand',
            metavar='KEY',
            action='append',
            default=[],
            help=('a key that the webhook expands, such as device.site; may be repeated'),
        )

    def handle(self, *args, **options) -> None:
        asked = [name for name in ('model', 'asyncapi', 'definitions', 'save', 'compare') if options[name]]
        if len(asked) != 1:
            raise CommandError('name a model, or write one of --asyncapi, --definitions, --save and --compare')
        if options['asyncapi']:
            self._print(asyncapi.document(Webhook.objects.order_by('pk')))
        elif options['definitions']:
            self._print(document_schema())
        elif options['save']:
            _save(options['save'])
        elif options['compare']:
            self._compare(_read(options['compare']))
        else:
            self._print_model(options)

    def _print_model(self, options: dict[str, Any]) -> None:
        model, keys = find.model(options['model']), options['expand']
        try:
            check_expand(keys, [model])
            schema = json_schema.payload(model, options['format'], change_set=options['change_set'], expand=keys)
        except (json_schema.NoSchema, DefinitionError) as error:
            raise CommandError(str(error)) from None
        self._print(schema)

    def _compare(self, before: dict[str, Any]) -> None:
        """Print which keys came, went or changed their type. Exit with 2 if webhooks name keys that went."""
        now = schema_guard.take()
        self.stdout.write(f'NetBox {before["netbox"]} → {now["netbox"]}')
        differences = schema_guard.compare(before['object_types'], now['object_types'])
        for label, found in differences.items():
            came, went = (f'  + {key}' for key in found.came), (f'  - {key}' for key in found.went)
            changed = (f'  ~ {key}: {old} → {new}' for key, (old, new) in found.changed.items())
            self.stdout.write('\n'.join(['', label, *came, *went, *changed]))
        if not differences:
            self.stdout.write('No payload has other keys.')
        if concerned := list(schema_guard.concerned(differences)):
            lines = [f'  {named}' for named in concerned]
            self.stdout.write('\n'.join(['', 'These webhooks name a key that went:', *lines]))
            sys.exit(CONCERNED)

    def _print(self, shown: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(shown, indent=2, ensure_ascii=False))


def _save(path: str) -> None:
    try:
        Path(path).write_text(json.dumps(schema_guard.take(), indent=1) + '\n')
    except OSError as error:
        raise CommandError(f'cannot write {path}: {error.strerror}') from None


def _read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text())
        return {'netbox': found['netbox'], 'object_types': {**found['object_types']}}
    except OSError as error:
        raise CommandError(f'cannot read {path}: {error.strerror}') from None
    except (ValueError, KeyError, TypeError):
        raise CommandError(f'{path} was not written by --save') from None
