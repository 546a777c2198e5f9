"""For a while, whatever is asked is asked of the default database, whoever asks: no router decides where it goes.

What is rendered while somebody deletes something is rendered by NetBox's serializers, which name no database. A router
may send them to a replica, which does not know what this transaction did; or to the schema of a branch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router
from django.db.models import Model

_is_pinned: ContextVar[bool] = ContextVar('webhooks_is_pinned', default=False)


class Here:
    """A database router that is asked first, and says nothing but inside `pinned()`."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return DEFAULT_DB_ALIAS if _is_pinned.get() else None

    db_for_write = db_for_read


HERE = Here()


@contextmanager
def pinned() -> Iterator[None]:
    """Let every query in the block go to the default database, if it names none."""
    if HERE not in router.routers:
        router.routers.insert(0, HERE)
    token = _is_pinned.set(True)
    try:
        yield
    finally:
        _is_pinned.reset(token)
