"""What is known of the open transaction on the way of a save: which models anybody wants changes of.

It is asked once a transaction. Before the first question of a process, our tables have to exist.
"""

import logging
import math
import time
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS, connection, models, transaction

from ..models import Event, Subscription
from ..models.subscription import Asked
from . import wakeup
from .snapshots import object_type_id

logger = logging.getLogger('webhooks.outbox')


@dataclass
class Scope:
    """What is known about the open transaction. Registered as its commit hook, it wakes a worker."""

    # {id of a subscribed object type: what is asked for beside its changes}
    subscribed: dict[int, Asked]
    recorded: bool = False

    def __call__(self) -> None:
        if self.recorded:
            wakeup.wake()


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
    """Whether any webhook wants changes of the model. Costs one small query a transaction."""
    return object_type_id(model) in current().subscribed


def needs_before(model: type[models.Model]) -> bool:
    """Whether any webhook asks what an object of the model was before a change."""
    asked = current().subscribed.get(object_type_id(model))
    return asked is not None and asked.before


def wants_deletions(model: type[models.Model]) -> bool:
    """Whether any webhook asks for deletions of the model."""
    asked = current().subscribed.get(object_type_id(model))
    return asked is not None and asked.deletions


def expanded_of_deletions(model: type[models.Model]) -> list[str]:
    """Return the keys that webhooks want expanded in deletions of the model. Asked only where some webhook has keys."""
    asked = current().subscribed.get(object_type_id(model))
    if asked is None or not asked.expanded:
        return []
    return Subscription.objects.expanded_of_deletions(object_type_id(model))


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
    scope = Scope(_subscribed())
    if connection.in_atomic_block:
        transaction.on_commit(scope, robust=True)
        connection.webhooks_scope = (len(connection.run_on_commit) - 1, scope)
    return scope


def _subscribed() -> dict[int, Asked]:
    """Return the open subscriptions, none where the tables were removed under this process: nobody can have any.

    They cannot vanish between this look and the event, as the look holds their lock. A removal that began before it,
    and already waits for it, is a deadlock to PostgreSQL: it ends one of the two, and nothing is lost. Without a
    transaction there is no such lock, and the save fails.
    """
    found = Subscription.objects.open_object_types()
    if found is None:
        look_again()
        _say_gone()
    return found or {}


def _say_gone() -> None:
    global _said_at  # noqa: PLW0603
    if time.monotonic() - _said_at > GONE_INTERVAL:
        _said_at = time.monotonic()
        logger.warning('tables=gone changes are not recorded: restart NetBox with WEBHOOKS_ENABLED = False')
