"""Removes all data of the plugin from PostgreSQL and Redis, for the command webhooks_remove.

It also removes NetBox's objects that name only our models, such as permissions.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.models import Job as NetBoxJob
from core.models import ObjectChange
from django.apps import apps
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Model, Q, QuerySet
from django_rq import get_queue
from extras.models import (
    Bookmark,
    CustomField,
    CustomLink,
    Dashboard,
    EventRule,
    ExportTemplate,
    Notification,
    SavedFilter,
    Subscription,
)
from redis.exceptions import NoPermissionError
from rq import Queue
from rq.job import Job
from rq.registry import BaseRegistry, CanceledJobRegistry
from rq.results import Result
from users.models import ObjectPermission

from .. import conf
from ..event_types import EVENT_TYPES
from ..jobs import WebhooksRetentionJob
from ..models.sequence import SEQUENCE
from ..outbox import redis_queue, wakeup
from . import builtin_import, failed_jobs

# NetBox's models whose objects name object types. An object that names only ours is removed.
NAMING = (CustomField, CustomLink, EventRule, ExportTemplate, ObjectPermission, SavedFilter)
# The key in Redis that version 1.0.0 used in place of failed_jobs.LISTED_KEY.
OLD_LISTED_KEY = 'webhooks:listed'
# Remove the content type that NetBox creates for the removed migrations. Otherwise Django queries dropped tables.
FORGET_MIGRATIONS = """
    DELETE FROM core_objecttype o USING django_content_type t
    WHERE t.id = o.contenttype_ptr_id AND t.app_label = 'migrations' AND t.model = 'migration';
    DELETE FROM django_content_type WHERE app_label = 'migrations' AND model = 'migration'"""
EVENT_TYPE_NAMES = {kind.name for kind in EVENT_TYPES}


def plan() -> tuple[Counter[str], dict[str, list[str]]]:
    """Return {label: rows}, and {label: names of NetBox's objects among them}, without removing anything.

    It does remove them, in a transaction that is rolled back.
    """
    with transaction.atomic():
        found = Counter({model._meta.label: model._base_manager.count() for model in _models()})
        before = _names()
        found += _remove_rows()
        after = _names()
        transaction.set_rollback(True)
    return found, {label: [names[pk] for pk in names.keys() - after[label].keys()] for label, names in before.items()}


def _names() -> dict[str, dict[int, str]]:
    return {model._meta.label: dict(model.objects.values_list('pk', 'name')) for model in NAMING}


def switched_off() -> list[str]:
    """Return the names of the event rules that an import switched off.

    A rule that was off became a disabled webhook.
    """
    plans = builtin_import.plan()
    return [one.rule.name for one in plans if one.existing and one.existing.enabled and not one.rule.enabled]


def carry_out() -> None:
    """Remove jobs, then rows, then tables. It may be repeated. Raises RedisError before any removal from PostgreSQL."""
    remove_jobs()
    with transaction.atomic():
        _remove_rows()
    _drop_tables()


def static_folders() -> list[Path]:
    """Return the folders below STATIC_ROOT that have our static files. An operator has to delete them."""
    return [folder for app in _apps() if (folder := Path(settings.STATIC_ROOT, app)).is_dir()]


def _models() -> list[type[Model]]:
    return [model for app in _apps() for model in apps.get_app_config(app).get_models()]


def _apps() -> tuple[str, ...]:
    """Return our apps' labels. With the setting `admin`, Django's admin is ours: no other app can have its label."""
    return ('webhooks', 'admin') if conf.get().admin else ('webhooks',)


#
# PostgreSQL
#


def _drop_tables() -> None:
    """Drop our tables and forget our migrations.

    Undoing migrations would take minutes, and its signal would make NetBox create our content types again.
    """
    with connection.schema_editor() as editor:
        tables = connection.introspection.table_names()
        for model in _models():
            if model._meta.db_table in tables:
                editor.delete_model(model)
        editor.execute(f'DROP SEQUENCE IF EXISTS {SEQUENCE}')
        MigrationRecorder(connection).migration_qs.filter(app__in=_apps()).delete()
        editor.execute(FORGET_MIGRATIONS)


def _remove_rows() -> Counter[str]:
    types = list(ContentType.objects.filter(app_label__in=_apps()).values_list('pk', flat=True))
    removed: Counter[str] = Counter()
    for rows in _first(types):
        removed.update(rows.delete()[1])
    _clear_dashboards()
    removed.update(_clear_event_rules())
    removed.update(ContentType.objects.filter(pk__in=types).delete()[1])
    ContentType.objects.clear_cache()
    return removed


def _first(types: list[int]) -> Iterator[QuerySet]:
    """Yield the rows to remove before the content types: they would block that, or outlive it."""
    yield NetBoxJob.objects.filter(name=WebhooksRetentionJob.name)
    yield ObjectChange.objects.filter(Q(changed_object_type__in=types) | Q(related_object_type__in=types))
    for model in (Bookmark, Notification, Subscription):
        yield model.objects.filter(object_type__in=types)
    yield CustomField.objects.filter(related_object_type__in=types)
    for model in NAMING:
        ours = model.objects.filter(object_types__in=types).values('pk')
        others = model.objects.filter(object_types__in=ContentType.objects.exclude(pk__in=types)).values('pk')
        yield model.objects.filter(pk__in=ours).exclude(pk__in=others)


def _clear_dashboards() -> None:
    """Remove our widgets from all dashboards. If one stayed, NetBox would show the default dashboard in its place."""
    for dashboard in Dashboard.objects.all():
        if _clear(dashboard):
            dashboard.save()


def _clear(dashboard: Dashboard) -> bool:
    changed = False
    for pk, widget in list(dashboard.config.items()):
        config = widget.get('config') or {}
        kept = [label for label in config.get('models', ()) if not _is_ours(label)]
        if _is_ours(widget['class']) or _is_ours(config.get('model') or ''):
            dashboard.delete_widget(pk)
        elif kept != list(config.get('models', ())):
            config['models'] = kept
        else:
            continue
        changed = True
    return changed


def _clear_event_rules() -> Counter[str]:
    removed: Counter[str] = Counter()
    for rule in EventRule.objects.filter(event_types__overlap=list(EVENT_TYPE_NAMES)):
        rule.event_types = [kind for kind in rule.event_types if kind not in EVENT_TYPE_NAMES]
        if rule.event_types:
            rule.save()
        else:
            removed.update(rule.delete()[1])
    return removed


def _is_ours(dotted: str) -> bool:
    return dotted.split('.', maxsplit=1)[0] in _apps()


#
# Redis
#


def jobs() -> list[Job]:
    """Return our jobs from all queues and in all states. Raises RedisError."""
    return [job for name in settings.RQ_QUEUES for job in _jobs(get_queue(name))]


def remove_jobs() -> None:
    """Remove our jobs and keys from Redis, and the whole queue if the Redis is our own. Raises RedisError."""
    for job in jobs():
        CanceledJobRegistry(job.origin, connection=job.connection).remove(job)
        Result.delete_all(job)
        job.delete()
    ours = redis_queue.get()
    ours.connection.delete(failed_jobs.LISTED_KEY)
    with suppress(NoPermissionError):
        ours.connection.delete(OLD_LISTED_KEY)
    wakeup.accept()
    if conf.get().has_own_redis:
        ours.delete()


def _jobs(rq_queue: Queue) -> Iterator[Job]:
    for ids in (rq_queue.get_job_ids(), *(registry.get_job_ids(cleanup=False) for registry in _registries(rq_queue))):
        for job in Job.fetch_many(ids, connection=rq_queue.connection):
            if job is not None and _runs_our_code(job):
                yield job


def _registries(rq_queue: Queue) -> tuple[BaseRegistry, ...]:
    return (
        rq_queue.started_job_registry,
        rq_queue.finished_job_registry,
        rq_queue.failed_job_registry,
        rq_queue.deferred_job_registry,
        rq_queue.scheduled_job_registry,
        rq_queue.canceled_job_registry,
    )


def _runs_our_code(job: Job) -> bool:
    name = redis_queue.function(job)
    owner: Any = job.instance if name else None  # NetBox's jobs are methods
    return _is_ours(getattr(owner, '__module__', name))
