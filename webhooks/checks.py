"""Warns operators, as system checks of Django do. They find the ids in docs/installation.md."""

from collections.abc import Callable, Iterator
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
# A warning's text, and a hint that says what to do.
Finding = tuple[str, str]

# Read the names of webhooks that send batches. It also works where the table has no such column any more.
READ_BATCHED = 'SELECT name FROM webhooks_webhook w WHERE to_jsonb(w) @> \'{"batch": true}\' ORDER BY name'


def _check(
    number: str, *, reads_database: bool = False, reads_tables: bool = False
) -> Callable[[Callable[[], Iterator[Finding]]], Callable[..., list[CheckWarning]]]:
    """Register a function that yields findings as a check of Django, whose warnings have the id webhooks.`number`.

    It looks only if the plugin is on. If it reads the database, it looks when `migrate` runs, or `check` with
    `--database default`; if it reads our tables, only where they exist.
    """

    def decorate(find: Callable[[], Iterator[Finding]]) -> Callable[..., list[CheckWarning]]:
        def check(app_configs: Any, databases: Any = None, **kwargs: Any) -> list[CheckWarning]:
            if not conf.get().enabled or (reads_database and not databases) or (reads_tables and not _is_migrated()):
                return []
            return [CheckWarning(text, hint=hint, id=f'webhooks.{number}') for text, hint in find()]

        return register(check, TAG, *(['database'] if reads_database else []))

    return decorate


def _is_migrated() -> bool:
    """Whether our tables are there. True without a database too, as nobody can know then."""
    try:
        return scope.is_migrated()
    except DatabaseError:
        return True


@_check('W001')
def worker_listens() -> Iterator[Finding]:
    """Warn if no worker serves our queue, or Redis does not answer."""
    if redis_queue.count_workers():
        return
    name = conf.get().queue
    command = 'rqworker' if name == conf.SHARED_QUEUE else f'rqworker {name}'
    yield (
        f'Webhooks are enabled, but no worker serves the queue {name!r}.',
        f'Start one: manage.py {command}. Ignore this while the first worker is starting.',
    )


@_check('W002', reads_database=True)
def tables_exist() -> Iterator[Finding]:
    """Warn if our tables do not exist."""
    if not _is_migrated():
        yield (
            'Webhooks are enabled, but their tables do not exist: changes are not recorded.',
            'Run: manage.py migrate. Ignore this during the first migrate, which creates them.',
        )


@_check('W003')
def worker_has_timer() -> Iterator[Finding]:
    """Warn if NetBox's class of workers is not ours and does not say that it serves webhooks."""
    name = settings.RQ.get('WORKER_CLASS', '')
    if name != conf.OUR_WORKER and not getattr(import_string(name), 'serves_webhooks', False):
        yield (
            f"RQ['WORKER_CLASS'] is {name!r}, which does not look for due retries: they wait for the next change.",
            f'Make this class inherit from {conf.OUR_WORKER}.',
        )


@_check('W004', reads_database=True)
def rendering_is_prepared() -> Iterator[Finding]:
    """Warn of each part of rendering that this version of NetBox makes slower.

    It takes half a second, so it looks after an upgrade.
    """
    for part, reason in rendering.left_as_netbox_has_it(object_types.allowed_models()).items():
        yield (
            f'Payloads are correct, but take longer to build: no shortcut for {part}. {reason}',
            f'Use a NetBox version from {COMPATIBILITY}, or report this message.',
        )


@_check('W006')
def brokers_are_usable() -> Iterator[Finding]:
    """Warn of each broker in the settings whose library cannot be used here."""
    for one in registry.configured():
        try:
            one.check_library()
        except registry.Unusable as error:
            yield str(error), 'Until then deliveries to this broker wait.'


@_check('W007', reads_database=True, reads_tables=True)
def webhooks_have_their_brokers() -> Iterator[Finding]:
    """Warn of enabled webhooks without a usable broker.

    `migrate` runs checks first, when the tables may lack columns: so this reads columns of 1.0.0 only.
    """
    published = Webhook.objects.filter(enabled=True).exclude(payload_url__istartswith='http')
    for name, address in published.values_list('name', 'payload_url'):
        try:
            url.check_text(reveal('payload_url', address))
        except DefinitionError as error:
            yield (
                f'The webhook {name} cannot publish: {error}',
                "Mend its URL, or PLUGINS_CONFIG['webhooks']['brokers'].",
            )


@_check('W008')
def settings_have_an_effect() -> Iterator[Finding]:
    """Warn of each setting that 1.0.0 had, and that has no effect any more."""
    for where in conf.former():
        yield f'{where} has no effect any more.', 'Read the changelog, then remove it.'


@_check('W009', reads_database=True, reads_tables=True)
def no_webhook_sends_batches() -> Iterator[Finding]:
    """Warn of each webhook of 1.0.0 that sends batches. `migrate` looks, before it changes any."""
    with connection.cursor() as cursor:
        cursor.execute(READ_BATCHED)
        names = [name for (name,) in cursor.fetchall()]
    for name in names:
        yield (
            f'The webhook {name} sends batches. They are gone: `migrate` makes it send change sets.',
            'Its receiver gets another body, and its templates have other variables. Read the changelog.',
        )


@_check('W010', reads_database=True, reads_tables=True)
def webhooks_name_known_keys() -> Iterator[Finding]:
    """Warn of each key that a webhook names, and no payload of its object types has.

    Until `migrate` has added columns, it finds none.
    """
    try:
        unknown = list(schema_guard.unknown(Webhook.objects.all()))
    except DatabaseError:
        return
    for named in unknown:
        yield (
            f'No payload has this key: {named}',
            'Correct the webhook. An upgrade of NetBox, or a deleted custom field, may have removed the key.',
        )
