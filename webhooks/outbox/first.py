"""Connects our deletion receiver before any model is loaded: NetBox's own empties related rows."""

from typing import Any

from django.db.models.signals import pre_delete


def connect() -> None:
    pre_delete.connect(before_all, dispatch_uid='webhooks.first')


def before_all(instance: Any, using: str, origin: Any = None, **kwargs: Any) -> None:
    from . import deletions

    deletions.begin(instance, origin, using)
