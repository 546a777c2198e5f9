"""manage.py webhooks_remove: remove all data of the plugin, before the package is uninstalled."""

import sys
from collections.abc import Iterator

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis import RedisError

from ... import conf
from ...outbox import scope
from ...services import removal

# Printed at the end: work that the command cannot do.
BY_HAND = """
All data of webhooks is removed. Do the rest by hand:
  - configuration.py: remove 'webhooks' from PLUGINS and PLUGINS_CONFIG, the widget from DEFAULT_DASHBOARD, and the
    settings WEBHOOKS_... and REDIS_HOST, REDIS_PORT and so on; keep NetBox's own REDIS
  - local_requirements.txt: remove the line of netbox-webhooks, then run: pip uninstall netbox-webhooks
  - if there is a worker for webhooks alone (rqworker webhooks), remove it
  - restart NetBox and its workers"""


class Command(BaseCommand):
    """Lists the data, asks, removes it from PostgreSQL and Redis, and lists the work to do by hand.

    Fails while the plugin is switched on, or if Redis does not answer.
    """

    help = (
        'Remove all data of webhooks from the database and from Redis. Run it before you uninstall the package. '
        'It lists what would be removed, and asks before it removes anything.'
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--yes', '--no-input', action='store_true', help='do not ask before the removal')

    def handle(self, *args, **options) -> None:
        _check()
        try:
            self.stdout.write('\n'.join(_report()))
            off = removal.switched_off()
            if not options['yes'] and not self._confirm():
                self.stdout.write('Nothing was removed.')
                return
            removal.carry_out()
        except RedisError as error:
            raise CommandError(f'Redis cannot be reached, so nothing was removed: {error}') from error
        self.stdout.write(BY_HAND)
        for folder in removal.static_folders():
            self.stdout.write(f'  - delete the static files in {folder}')
        if off:
            self.stdout.write(
                f'  - these event rules of NetBox were imported and stay disabled; enable those '
                f'you need: {", ".join(off)}'
            )

    def _confirm(self) -> bool:
        if not sys.stdin.isatty():
            self.stdout.write('To remove all this, run: manage.py webhooks_remove --yes')
            return False
        self.stdout.write('This cannot be undone. First export what you want to keep, such as the change log.')
        return input("Type 'yes' to continue, or 'no' to cancel: ") == 'yes'


def _check() -> None:
    if conf.get().enabled:
        raise CommandError(
            'The setting "enabled" (or WEBHOOKS_ENABLED) is True, so the data is still in use. Set it to False, '
            'restart NetBox and its workers, and run this command again'
        )
    if not scope.is_migrated():
        raise CommandError(
            'The tables of webhooks do not exist. If you removed them with "migrate webhooks zero", other data is '
            'left: '
            'run "manage.py migrate webhooks", and then this command again'
        )


def _report() -> Iterator[str]:
    yield 'The following is removed.'
    yield ''
    yield 'From the database:'
    found, names = removal.plan()
    for label, count in sorted(found.items()):
        yield f'  {count:>9,} {apps.get_model(label)._meta.verbose_name_plural} ({label})'
        yield from (f'            - {name}' for name in sorted(names.get(label, ())))
    yield '  - the tables of webhooks'
    if conf.get().admin:
        yield "  - the tables of Django's admin"
    yield '  - the widget of webhooks, from all dashboards'
    yield '  - the event types of webhooks, from all event rules'
    yield ''
    yield 'From Redis:'
    yield f'  {len(removal.jobs()):>9,} jobs'
