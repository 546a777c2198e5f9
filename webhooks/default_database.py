"""Makes queries go to the default database. Otherwise a router could choose a replica or a branch."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, router
from django.db.models import Model, QuerySet

_is_pinned: ContextVar[bool] = ContextVar('webhooks_is_pinned', default=False)


class PinnedRouter:
    """Chooses the default database inside `pinned()`. Elsewhere it leaves the choice to other routers."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        """Return the default database inside `pinned()`, if it has the model; else None: no choice. For writes too."""
        return DEFAULT_DB_ALIAS if _is_pinned.get() and router.allow_migrate_model(DEFAULT_DB_ALIAS, model) else None

    db_for_write = db_for_read


ROUTER = PinnedRouter()


def rows(model: type[Model]) -> QuerySet:
    """Return all rows of the model in the default database, unordered. The model's own manager may hide some."""
    return model._base_manager.using(DEFAULT_DB_ALIAS).order_by()


def in_transaction() -> bool:
    """Return whether a transaction is open: Django's, or one without autocommit."""
    return connection.in_atomic_block or not connection.get_autocommit()


@contextmanager
def pinned() -> Iterator[None]:
    """Send the ORM's queries in the block to the default database, in this context only.

    Models of plugins that have a database of their own are left there.
    """
    if ROUTER not in router.routers:
        router.routers.insert(0, ROUTER)
    token = _is_pinned.set(True)
    try:
        yield
    finally:
        _is_pinned.reset(token)
