"""Notes which branch of netbox-branching a transaction merges.

A merge applies a branch's changes one by one, in one transaction. For each, netbox-branching saves an AppliedChange in
the same transaction. So a merge that fails or only tries leaves nothing behind.
"""

import json
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import Model
from django.db.models.signals import post_save

from .. import branching
from . import scope

# Add the branch also to events that the transaction recorded before its first AppliedChange.
NOTE_BRANCH = """
    UPDATE webhooks_event SET branch = %s
    WHERE transaction_id = pg_current_xact_id()::text::bigint AND transaction_time = now() AND dispatched_at IS NULL"""


def connect() -> None:
    """Connect the handler, if netbox-branching is installed. Called once, if the plugin is on."""
    if branching.is_installed():
        post_save.connect(
            note_merge, sender=apps.get_model('netbox_branching', 'AppliedChange'), dispatch_uid='webhooks.merges'
        )


def note_merge(instance: Any, using: str, **kwargs: Any) -> None:
    """Note the branch for all events of this transaction. A revert names none: it takes a merge back."""
    if using != DEFAULT_DB_ALIAS or not scope.is_migrated() or scope.branch():
        return
    if branch := _merging(type(instance)._meta.get_field('branch').related_model, instance.branch_id):
        scope.note_branch(branch)
        with connection.cursor() as cursor:
            cursor.execute(NOTE_BRANCH, [json.dumps(branch)])


def _merging(model: type[Model], pk: int) -> dict[str, Any] | None:
    found = model._default_manager.using(DEFAULT_DB_ALIAS).filter(pk=pk, status='merging')
    return found.values('id', 'name').first()
