import sys
from collections.abc import Iterator

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis import RedisError

from ... import conf
from ...outbox import scope
from ...services import removal

BY_HAND = """
Webhooks are removed. What is left to do:
  - configuration.py: take 'webhooks' out of PLUGINS and PLUGINS_CONFIG, its settings (WEBHOOKS_..., REDIS_...) off the
    top level, and its widget out of DEFAULT_DASHBOARD
  - local_requirements.txt: take out its line, then: pip uninstall netbox-webhooks
  - remove its own worker (rqworker webhooks), if there is one
  - restart NetBox and its workers"""


class Command(BaseCommand):
    help = (
        'Remove all data of webhooks from the database and from Redis, before the package is uninstalled. '
        'Shows what would be removed, and asks.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--yes', '--no-input', action='store_true', help='remove it without asking')

    def handle(self, *args, **options) -> None:
        _check()
        try:
            self.stdout.write('\n'.join(_report()))
            off = removal.switched_off()
            if not options['yes'] and not self._confirm():
                self.stdout.write('Nothing is removed.')
                return
            removal.carry_out()
        except RedisError as error:
            raise CommandError(f'Redis cannot be reached, nothing is removed: {error}') from error
        self.stdout.write(BY_HAND)
        for folder in removal.static_folders():
            self.stdout.write(f'  - remove the static files in {folder}')
        if off:
            self.stdout.write(f"  - NetBox's event rules that were taken over stay off: {', '.join(off)}")

    def _confirm(self) -> bool:
        if not sys.stdin.isatty():
            self.stdout.write('To remove it: webhooks_remove --yes')
            return False
        self.stdout.write('This cannot be undone. Export first what you want to keep, such as the change log.')
        return input("Type 'yes' to continue, or 'no' to cancel: ") == 'yes'


def _check() -> None:
    if conf.get().enabled:
        raise CommandError(
            'WEBHOOKS_ENABLED is True: set it to False, and restart NetBox and its workers, so that nobody uses what '
            'is removed'
        )
    if not scope.is_migrated():
        raise CommandError(
            'There are no tables of webhooks. If only they were removed so far (migrate webhooks zero), run: '
            'migrate webhooks, and then this command again'
        )


def _report() -> Iterator[str]:
    tables = "of webhooks and of Django's admin" if conf.get().admin else 'of webhooks'
    yield f'This is removed from the database, with the tables {tables}:'
    found, names = removal.plan()
    for label, count in sorted(found.items()):
        yield f'  {count:>9,} {apps.get_model(label)._meta.verbose_name_plural} ({label})'
        yield from (f'            - {name}' for name in sorted(names.get(label, ())))
    yield 'the widget from dashboards, our kinds of event from event rules,'
    yield f'and from Redis:\n  {len(removal.jobs()):>9,} jobs'
