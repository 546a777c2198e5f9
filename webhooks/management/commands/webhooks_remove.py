"""manage.py webhooks_remove: remove NetBox's own rows about the plugin, before its tables are dropped."""

import sys
from collections import Counter
from collections.abc import Iterator

from core.models import Job, ObjectChange
from django.contrib.contenttypes.models import ContentType
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.db.models import Q, QuerySet
from extras.models import Bookmark, CustomField, Dashboard, EventRule, Notification, Subscription

from ... import conf
from ...event_types import EVENT_TYPE_NAMES
from ...jobs import WebhooksRetentionJob

REMOVED = """This removes from NetBox what is about webhooks, and cannot be undone:
  - the change log, bookmarks, notifications and subscriptions of webhooks, deliveries and credentials
  - custom fields that point to webhooks, with their values
  - widgets on all dashboards
  - the event types of webhooks from event rules; rules without another one are deleted
  - the daily job that prunes the log
First export what you want to keep."""


class Command(BaseCommand):
    """Asks, then removes rows of NetBox that would break its pages, or keep the content types from being removed.

    Fails while the plugin is switched on. docs/installation.md has the rest of the steps.
    """

    help = 'Remove what NetBox keeps about webhooks. Run it before "migrate webhooks zero". It asks first.'

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument('--yes', '--no-input', action='store_true', help='do not ask')

    def handle(self, *args, **options) -> None:
        if conf.get().enabled:
            raise CommandError(
                'The setting "enabled" (or WEBHOOKS_ENABLED) is True, so the data is still in use. Set it to False, '
                'restart NetBox and its workers, and run this command again'
            )
        if not options['yes'] and not self._confirm():
            raise CommandError('Nothing was removed')
        with transaction.atomic():
            removed = _remove()
        for label, count in sorted(removed.items()):
            self.stdout.write(f'{count:>9,} {label}')

    def _confirm(self) -> bool:
        if not sys.stdin.isatty():
            raise CommandError('There is no terminal to ask on. Nothing was removed. To remove it, add --yes')
        self.stdout.write(REMOVED)
        return input("Type 'yes' to continue, or 'no' to cancel: ") == 'yes'


def _remove() -> Counter[str]:
    """Remove all of it, in the open transaction, and return {label of the model: number of rows}."""
    removed: Counter[str] = Counter()
    for rows in _protecting(list(ContentType.objects.filter(app_label='webhooks'))):
        removed.update(rows.delete()[1])
    for job in Job.objects.filter(name=WebhooksRetentionJob.name):
        removed.update(job.delete() or {job._meta.label: 1})
    for rule in EventRule.objects.filter(event_types__overlap=list(EVENT_TYPE_NAMES)):
        removed.update(_without_ours(rule))
    for dashboard in Dashboard.objects.all():
        _remove_widgets(dashboard)
    return removed


def _protecting(types: list[ContentType]) -> Iterator[QuerySet]:
    """Yield the rows of NetBox's that keep our content types from being removed."""
    yield ObjectChange.objects.filter(Q(changed_object_type__in=types) | Q(related_object_type__in=types))
    for model in (Bookmark, Notification, Subscription):
        yield model.objects.filter(object_type__in=types)
    yield CustomField.objects.filter(related_object_type__in=types)


def _without_ours(rule: EventRule) -> dict[str, int]:
    rule.event_types = [kind for kind in rule.event_types if kind not in EVENT_TYPE_NAMES]
    if not rule.event_types:
        return rule.delete()[1]
    rule.save()
    return {}


def _remove_widgets(dashboard: Dashboard) -> None:
    """Remove our widgets. If one stayed, NetBox would show the default dashboard in place of the user's own."""
    for pk, widget in list(dashboard.config.items()):
        config = widget.get('config') or {}
        if _is_ours(widget['class']) or _is_ours(config.get('model') or ''):
            dashboard.delete_widget(pk)
        elif 'models' in config:
            config['models'] = [label for label in config['models'] if not _is_ours(label)]
    dashboard.save()


def _is_ours(dotted: str) -> bool:
    return dotted.startswith('webhooks.')
