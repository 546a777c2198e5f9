"""The receiver that comes before NetBox's own: it is connected before any model is loaded, and so before theirs.

Receivers are called in the order in which they were connected. NetBox's handler of a deletion empties and saves what
points to the object, which has to be seen before.
"""

from typing import Any

from django.db.models.signals import pre_delete


def connect() -> None:
    """Called while Django makes its list of apps."""
    pre_delete.connect(before_all, dispatch_uid='webhooks.first')


def before_all(instance: Any, using: str, origin: Any = None, **kwargs: Any) -> None:
    from . import deletions  # imports models

    deletions.begin(instance, origin, using)
