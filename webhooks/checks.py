"""Warns operators, as system checks of Django do. They find the ids in docs/installation.md."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import Warning as CheckWarning
from django.core.checks import register
from django.db import DatabaseError, connection
from django.utils.module_loading import import_string

from . import conf, object_types, rendering
from .brokers import registry
from .exceptions import DefinitionError
from .models import Webhook
from .outbox import redis_queue, scope
from .payload import schema_guard
from .validation import url
from .validation.secret import reveal
from .version import COMPATIBILITY

# `manage.py check --tag webhooks` runs these checks alone.
TAG = 'webhooks'

# Read the names of webhooks that send batches. It also works where the table has no such column any more.
READ_BATCHED = 'SELECT name FROM webhooks_webhook w WHERE to_jsonb(w) @> \'{"batch": true}\' ORDER BY name'


@register(TAG)
def worker_listens(app_configs: Any, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W001) if the plugin is on, but no worker serves its queue, or Redis does not answer."""
    name = conf.get().queue
    if not conf.get().enabled or redis_queue.count_workers():
        return []
    command = 'rqworker' if name == conf.SHARED_QUEUE else f'rqworker {name}'
    return [
        CheckWarning(
            f'Webhooks are enabled, but no worker serves the queue {name!r}.',
            hint=f'Start one: manage.py {command}. Ignore this while the first worker is starting.',
            id='webhooks.W001',
        )
    ]


@register(TAG, 'database')
def tables_exist(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W002) if our tables do not exist. `check` looks only with `--database default`."""
    if not conf.get().enabled or not databases or _is_migrated():
        return []
    return [
        CheckWarning(
            'Webhooks are enabled, but their tables do not exist: changes are not recorded.',
            hint='Run: manage.py migrate. Ignore this during the first migrate, which creates them.',
            id='webhooks.W002',
        )
    ]


def _is_migrated() -> bool:
    """Whether our tables are there. True without a database too, as nobody can know then."""
    try:
        return scope.is_migrated()
    except DatabaseError:
        return True


@register(TAG)
def worker_has_timer(app_configs: Any, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W003) if NetBox's class of workers is not ours and does not say that it serves webhooks."""
    if not conf.get().enabled:
        return []
    name = settings.RQ.get('WORKER_CLASS', '')
    if name == conf.OUR_WORKER or getattr(import_string(name), 'serves_webhooks', False):
        return []
    return [
        CheckWarning(
            f"RQ['WORKER_CLASS'] is {name!r}, which does not look for due retries: they wait for the next change.",
            hint=f'Make this class inherit from {conf.OUR_WORKER}.',
            id='webhooks.W003',
        )
    ]


@register(TAG, 'database')
def rendering_is_prepared(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W004) of each part of rendering that this version of NetBox makes slower.

    It takes half a second, so it looks after an upgrade: `migrate` does, and `check` only with `--database default`.
    """
    if not conf.get().enabled or not databases:
        return []
    return [
        CheckWarning(
            f'Payloads are correct, but take longer to build: no shortcut for {part}. {reason}',
            hint=f'Use a NetBox version from {COMPATIBILITY}, or report this message.',
            id='webhooks.W004',
        )
        for part, reason in rendering.left_as_netbox_has_it(object_types.allowed_models()).items()
    ]


@register(TAG)
def settings_have_an_effect(app_configs: Any, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W008) of each setting that 1.0.0 had, and that has no effect any more."""
    return [
        CheckWarning(f'{where} has no effect any more.', hint='Read the changelog, then remove it.', id='webhooks.W008')
        for where in conf.former()
        if conf.get().enabled
    ]


@register(TAG, 'database')
def no_webhook_sends_batches(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W009) of each webhook of 1.0.0 that sends batches. `migrate` looks, before it changes any."""
    if not conf.get().enabled or not databases or not _is_migrated():
        return []
    with connection.cursor() as cursor:
        cursor.execute(READ_BATCHED)
        names = [name for (name,) in cursor.fetchall()]
    return [
        CheckWarning(
            f'The webhook {name} sends batches. They are gone: `migrate` makes it send change sets.',
            hint='Its receiver gets another body, and its templates have other variables. Read the changelog.',
            id='webhooks.W009',
        )
        for name in names
    ]


@register(TAG)
def brokers_are_usable(app_configs: Any, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W006) of each broker in the settings whose library cannot be used here."""
    return [
        CheckWarning(reason, hint='Until then deliveries to this broker wait.', id='webhooks.W006')
        for reason in _unusable_brokers()
        if conf.get().enabled
    ]


def _unusable_brokers() -> Iterator[str]:
    for one in registry.configured():
        try:
            one.check_library()
        except registry.Unusable as error:
            yield str(error)


@register(TAG, 'database')
def webhooks_have_their_brokers(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W007) of enabled webhooks without a usable broker. `check` looks only with `--database default`."""
    if not conf.get().enabled or not databases or not _is_migrated():
        return []
    return [
        CheckWarning(
            f'The webhook {name} cannot publish: {reason}',
            hint="Mend its URL, or PLUGINS_CONFIG['webhooks']['brokers'].",
            id='webhooks.W007',
        )
        for name, reason in _without_broker()
    ]


def _without_broker() -> Iterator[tuple[str, str]]:
    """Yield name and reason. `migrate` checks first, when the tables may lack columns: it reads those of 1.0.0 only."""
    published = Webhook.objects.filter(enabled=True).exclude(payload_url__istartswith='http')
    for name, address in published.values_list('name', 'payload_url'):
        try:
            url.check_text(reveal('payload_url', address))
        except DefinitionError as error:
            yield name, str(error)


@register(TAG, 'database')
def webhooks_name_known_keys(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckWarning]:
    """Warn (W010) of each key that a webhook names, and no payload of its object types has.

    `check` looks only with `--database default`. Until `migrate` has added columns, it finds none.
    """
    if not conf.get().enabled or not databases or not _is_migrated():
        return []
    try:
        found = [str(named) for named in schema_guard.unknown(Webhook.objects.all())]
    except DatabaseError:
        return []
    return [
        CheckWarning(
            f'No payload has this key: {named}',
            hint='Correct the webhook. An upgrade of NetBox, or a deleted custom field, may have removed the key.',
            id='webhooks.W010',
        )
        for named in found
    ]
