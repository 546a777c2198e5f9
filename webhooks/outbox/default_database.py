"""A router could choose a replica or a branch."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import DEFAULT_DB_ALIAS, router
from django.db.models import Model, QuerySet

_is_pinned: ContextVar[bool] = ContextVar('webhooks_is_pinned', default=False)


class PinnedRouter:
    """Decides only inside `pinned()`."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return DEFAULT_DB_ALIAS if _is_pinned.get() else None

    db_for_write = db_for_read


ROUTER = PinnedRouter()


def rows(model: type[Model]) -> QuerySet:
    return model._base_manager.using(DEFAULT_DB_ALIAS).order_by()


@contextmanager
def pinned() -> Iterator[None]:
    if ROUTER not in router.routers:
        router.routers.insert(0, ROUTER)
    token = _is_pinned.set(True)
    try:
        yield
    finally:
        _is_pinned.reset(token)
