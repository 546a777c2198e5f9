"""Connects our deletion receiver before NetBox's own, which empties related rows: before any model is loaded."""

from typing import Any

from django.db.models.signals import pre_delete


def connect() -> None:
    pre_delete.connect(before_all, dispatch_uid='webhooks.first')


def before_all(instance: Any, using: str, origin: Any = None, **kwargs: Any) -> None:
    from . import deletions  # imports models

    deletions.begin(instance, origin, using)
