"""The open transaction's view of subscriptions. It asks for the first model alone, then for all."""

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, models, transaction

from ..models import Event, Subscription
from ..models.subscription import Asked
from . import wakeup
from .snapshots import object_type_id

logger = logging.getLogger('webhooks.outbox')


@dataclass
class Scope:
    """As its commit hook, it wakes a worker."""

    # object type id → wishes
    known: dict[int, Asked | None] = field(default_factory=dict)
    # Whether unknown types have no subscription.
    is_complete: bool = False
    recorded: bool = False
    # (model, primary key) → (savepoints, snapshot)
    held: dict[tuple[type[models.Model], Any], tuple[tuple[str | None, ...], str]] = field(default_factory=dict)

    def __call__(self) -> None:
        if self.recorded:
            wakeup.wake()

    def asked(self, model: type[models.Model]) -> Asked | None:
        """None without a subscription."""
        pk = object_type_id(model)
        if pk not in self.known and not self.is_complete:
            self.is_complete = bool(self.known)
            self.known |= {pk: None, **_subscribed(None if self.is_complete else pk)}
        return self.known.get(pk)


_tables_exist = False
# Seconds.
TABLES_GONE_WARNING_SECONDS = 60
_said_at = -math.inf


def wants(model: type[models.Model], using: str) -> bool:
    """Other databases are branches, whose merge is recorded.

    Queries must name the default database, or a router may send them to a branch.
    """
    return using == DEFAULT_DB_ALIAS and is_migrated() and is_subscribed(model)


def is_migrated() -> bool:
    """Until our tables exist, saves go on, and the check webhooks.W002 warns."""
    global _tables_exist  # noqa: PLW0603  (tables stay until they are found gone)
    if not _tables_exist:
        _tables_exist = Event._meta.db_table in connection.introspection.table_names()
    return _tables_exist


def look_again() -> None:
    global _tables_exist  # noqa: PLW0603
    _tables_exist = False


def is_subscribed(model: type[models.Model]) -> bool:
    return current().asked(model) is not None


def needs_before(model: type[models.Model]) -> bool:
    asked = current().asked(model)
    return asked is not None and asked.before


def wants_unchanged(model: type[models.Model]) -> bool:
    """Whether saves that change nothing are asked for."""
    asked = current().asked(model)
    return asked is not None and asked.unchanged


def wants_deletions(model: type[models.Model]) -> bool:
    asked = current().asked(model)
    return asked is not None and asked.deletions


def forget() -> None:
    """This transaction changed subscriptions."""
    connection.webhooks_scope = None


def current() -> Scope:
    """Django drops its hook with the events."""
    position, scope = getattr(connection, 'webhooks_scope', None) or (0, None)
    hooks = connection.run_on_commit
    if scope is not None and position < len(hooks) and hooks[position][1] is scope:
        return scope
    scope = Scope()
    if connection.in_atomic_block:
        transaction.on_commit(scope, robust=True)
        connection.webhooks_scope = (len(connection.run_on_commit) - 1, scope)
    return scope


def _subscribed(only: int | None) -> dict[int, Asked]:
    """{} if the tables were removed.

    The look-up locks the tables until the commit. A waiting removal may then deadlock: PostgreSQL ends one side.
    """
    subscriptions = Subscription.objects
    found = subscriptions.open_object_types() if only is None else subscriptions.open_object_type(only)
    if found is None:
        look_again()
        _say_gone()
    return found or {}


def _say_gone() -> None:
    global _said_at  # noqa: PLW0603
    if time.monotonic() - _said_at > TABLES_GONE_WARNING_SECONDS:
        _said_at = time.monotonic()
        logger.warning('tables=gone changes are not recorded: run migrate, or switch the plugin off')
