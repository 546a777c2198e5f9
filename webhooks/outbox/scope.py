"""Knows which models any webhook wants, and which details of them, as the open transaction sees it.

It asks for the first model alone, and for the second together with all others. So a transaction asks twice.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, models, transaction

from .. import object_types
from ..models import Event, Subscription
from ..models.subscription import Asked
from . import wakeup
from .snapshots import object_type_id

logger = logging.getLogger('webhooks.outbox')


@dataclass
class Scope:
    """The subscriptions as this transaction has seen them, and whether it has recorded an event.

    Django calls it after the commit; then it wakes one worker, if anything was recorded.
    """

    # Object type id → what all its webhooks ask for; None: no webhook wants the type.
    known: dict[int, Asked | None] = field(default_factory=dict)
    # All subscriptions were read: types that are not in `known` have none.
    is_complete: bool = False
    recorded: bool = False
    # Earlier states (outbox/prechange.py): (model, primary key) → (open savepoints, snapshot as JSON text).
    held: dict[tuple[type[models.Model], Any], tuple[tuple[str | None, ...], str]] = field(default_factory=dict)

    def __call__(self) -> None:
        """Wake a worker, if the transaction recorded an event. Django calls it after the commit."""
        if self.recorded:
            wakeup.wake()

    def asked(self, model: type[models.Model]) -> Asked | None:
        """Return what all webhooks ask for of the model, with a query if need be. None: no webhook wants it."""
        pk = object_type_id(model)
        if pk not in self.known and not self.is_complete:
            self.is_complete = bool(self.known)
            self.known |= {pk: None, **_subscribed(None if self.is_complete else pk)}
        return self.known.get(pk)


_tables_exist = False
# While our tables are gone, every change notices. The log says it once in this time.
TABLES_GONE_WARNING_SECONDS = 60
_said_at = -math.inf


def wants(model: type[models.Model], using: str) -> bool:
    """Return whether a change of `model` in the database `using` has to be recorded.

    Changes in other databases are not: these are branches, whose merge is recorded. Queries here must name the
    default database, or a router may send them to a branch.
    """
    return using == DEFAULT_DB_ALIAS and is_migrated() and is_subscribed(model)


def is_migrated() -> bool:
    """Return whether our tables exist. Until then saves go on unrecorded, and the check webhooks.W002 warns."""
    global _tables_exist  # noqa: PLW0603  (tables stay until they are found gone)
    if not _tables_exist:
        _tables_exist = Event._meta.db_table in connection.introspection.table_names()
    return _tables_exist


def look_again() -> None:
    """Forget that the tables exist, because a query missed them. The next change looks again."""
    global _tables_exist  # noqa: PLW0603
    _tables_exist = False


def is_subscribed(model: type[models.Model]) -> bool:
    """Return whether any webhook wants changes of the model.

    A component, or a source of config contexts, may not be among the models that may be sent. Then it counts only for
    other objects, even where a webhook chose it before it was taken out of the setting `allowed_models`.
    """
    asked = current().asked(model)
    return asked is not None and (asked.for_others or object_types.is_allowed(model))


def needs_before(model: type[models.Model]) -> bool:
    """Return whether any webhook needs the state of an object before its change."""
    asked = current().asked(model)
    return asked is not None and asked.before


def wants_unchanged(model: type[models.Model]) -> bool:
    """Return whether any webhook wants saves of the model that change nothing."""
    asked = current().asked(model)
    return asked is not None and asked.unchanged


def wants_deletions(model: type[models.Model]) -> bool:
    """Return whether any webhook wants the model's deletions: then objects are rendered before they are deleted."""
    asked = current().asked(model)
    return asked is not None and asked.deletions


def forget() -> None:
    """Drop the transaction's scope, because it changed subscriptions. The next change asks anew."""
    connection.webhooks_scope = None


def current() -> Scope:
    """Return the open transaction's scope; a new one for each call outside of any transaction."""
    return _kept('webhooks_scope') or _keep('webhooks_scope', Scope())


def note_branch(branch: dict[str, Any]) -> None:
    """Note the branch of netbox-branching whose merge the open transaction is: its id and name."""
    _keep('webhooks_branch', lambda: branch)


def branch() -> dict[str, Any] | None:
    """Return the branch that the open transaction merges. None: it merges none, or only tried to."""
    noted = _kept('webhooks_branch')
    return noted and noted()


def _keep[T: Callable](name: str, hook: T) -> T:
    """Keep the hook under this name until the open transaction ends. Django calls it after the commit."""
    if connection.in_atomic_block:
        transaction.on_commit(hook, robust=True)
        setattr(connection, name, (len(connection.run_on_commit) - 1, hook))
    return hook


def _kept(name: str) -> Any:
    """Return the hook that was kept under this name in the open transaction, or None.

    A rolled back savepoint takes its events and Django's commit hooks along. So it counts while it is a hook.
    """
    position, hook = getattr(connection, name, None) or (0, None)
    hooks = connection.run_on_commit
    return hook if position < len(hooks) and hooks[position][1] is hook else None


def _subscribed(only: int | None) -> dict[int, Asked]:
    """Return {object type id: what is asked for} for the type `only`, or for all types. {}: the tables were removed.

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
