"""What is known of the open transaction on the way of a save: which models anybody wants changes of.

It is asked once a transaction, or twice: of the first model alone, which is all that most transactions change, and then
of all of them. Before the first question of a process, our tables have to exist.
"""

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
    """What is known about the open transaction. Registered as its commit hook, it wakes a worker."""

    # {id of an object type that was asked for: what webhooks ask of it, None where none is subscribed}
    known: dict[int, Asked | None] = field(default_factory=dict)
    # Whether those that are not known have no subscription.
    is_complete: bool = False
    recorded: bool = False
    # {(model, primary key): savepoints and a snapshot}, see `before`.
    held: dict[tuple[type[models.Model], Any], tuple[tuple[str | None, ...], str]] = field(default_factory=dict)

    def __call__(self) -> None:
        if self.recorded:
            wakeup.wake()

    def asked(self, model: type[models.Model]) -> Asked | None:
        """Return what webhooks ask of the model's objects beside their changes, None where nobody asks for those."""
        pk = object_type_id(model)
        if pk not in self.known and not self.is_complete:
            self.is_complete = bool(self.known)
            self.known |= {pk: None, **_subscribed(None if self.is_complete else pk)}
        return self.known.get(pk)


_tables_exist = False
# Seconds between two lines in the log that say that they are gone.
GONE_INTERVAL = 60
_said_at = -math.inf


def wants(model: type[models.Model], using: str) -> bool:
    """A database other than the default one is a branch: its changes are sent when it is merged.

    So whatever is asked on the way of a save is asked of the default database by name, `connection` or
    using(DEFAULT_DB_ALIAS). A query without a name goes where the routers send it, which in a branch is elsewhere.
    """
    return using == DEFAULT_DB_ALIAS and is_migrated() and is_subscribed(model)


def is_migrated() -> bool:
    """Whether our tables exist. Until then saves go on without us, and the check webhooks.W002 warns."""
    global _tables_exist  # noqa: PLW0603  (once they exist they stay, or else are found gone)
    if not _tables_exist:
        _tables_exist = Event._meta.db_table in connection.introspection.table_names()
    return _tables_exist


def look_again() -> None:
    """Forget that the tables exist: whoever asks next looks for them."""
    global _tables_exist  # noqa: PLW0603
    _tables_exist = False


def is_subscribed(model: type[models.Model]) -> bool:
    """Whether any webhook wants changes of the model."""
    return current().asked(model) is not None


def needs_before(model: type[models.Model]) -> bool:
    """Whether any webhook asks what an object of the model was before a change."""
    asked = current().asked(model)
    return asked is not None and asked.before


def wants_deletions(model: type[models.Model]) -> bool:
    """Whether any webhook asks for deletions of the model."""
    asked = current().asked(model)
    return asked is not None and asked.deletions


def forget() -> None:
    """Look up the subscriptions again, although the transaction goes on: it has changed them itself."""
    connection.webhooks_scope = None


def current() -> Scope:
    """Return the scope of the open transaction, a new one where there is none yet.

    It is valid while Django still holds it among the commit hooks: a commit takes them all away, and the rollback of a
    savepoint those that were registered inside it, together with the events recorded there.
    """
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
    """Return the open subscriptions, none where the tables were removed under this process: nobody can have any.

    They cannot vanish between this look and the event, as the look holds their lock. A removal that began before it,
    and already waits for it, is a deadlock to PostgreSQL: it ends one of the two, and nothing is lost. Without a
    transaction there is no such lock, and the save fails.
    """
    subscriptions = Subscription.objects
    found = subscriptions.open_object_types() if only is None else subscriptions.open_object_type(only)
    if found is None:
        look_again()
        _say_gone()
    return found or {}


def _say_gone() -> None:
    global _said_at  # noqa: PLW0603
    if time.monotonic() - _said_at > GONE_INTERVAL:
        _said_at = time.monotonic()
        logger.warning('tables=gone changes are not recorded: restart NetBox with WEBHOOKS_ENABLED = False')
