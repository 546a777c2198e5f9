"""Takes the objects that a deletion removes, before other receivers run: NetBox's own empty related rows."""

from typing import Any

from django.db.models.signals import pre_delete


def connect() -> None:
    """Connect `before_all` to the deletion of any model. The app's configuration calls it before models are loaded."""
    pre_delete.connect(before_all, dispatch_uid='webhooks.first')


def before_all(instance: Any, using: str, origin: Any = None, **kwargs: Any) -> None:
    """Let `deletions` take an object before it is deleted: at the first object of a deletion, it takes all."""
    from . import deletions

    deletions.begin(instance, origin, using)
