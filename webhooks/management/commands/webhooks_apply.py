"""manage.py webhooks_apply: create, change and delete webhooks and credentials as documents say."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...as_code.apply import apply, plan
from ...as_code.document import Document, DocumentError, read

# The exit code of --plan if there is something to do.
PLANNED = 2


class Command(BaseCommand):
    """Applies documents, all or nothing, and prints the changes."""

    help = (
        'Create and change webhooks and credentials as the documents say, all or nothing. Exit code: 0 if nothing was '
        'to be done or all is done, 2 if --plan finds something to do, 1 after an error.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('files', metavar='FILE', nargs='+', help='a document, YAML or JSON')
        parser.add_argument('--plan', action='store_true', help='only say what would be done')
        parser.add_argument(
            '--prune',
            action='store_true',
            help='also delete what earlier documents of the same source made, and these do not name',
        )
        parser.add_argument('--json', action='store_true', help='print JSON')

    def handle(self, *args, **options) -> None:
        documents = [_read(file) for file in options['files']]
        try:
            changes = (plan if options['plan'] else apply)(documents, prune=options['prune'])
        except DocumentError as error:
            raise CommandError(str(error)) from None
        if options['json']:
            self.stdout.write(json.dumps([asdict(change) for change in changes], indent=2, default=str))
        else:
            self.stdout.write('\n'.join(line for change in changes for line in change.lines()) or 'Nothing to do.')
        if options['plan'] and changes:
            sys.exit(PLANNED)


def _read(file: str) -> Document:
    try:
        return read(Path(file).read_text('utf-8'), file)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f'cannot read {file}: {error}') from None
    except DocumentError as error:
        raise CommandError(str(error)) from None
