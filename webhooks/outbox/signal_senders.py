"""Connects receivers to model classes, proxies included: Django sends a signal from the class in use."""

from collections.abc import Callable, Collection
from typing import Any

from django.apps import apps
from django.db.models import Model
from django.db.models.signals import class_prepared


def for_each(models: Collection[type[Model]], connect: Callable[[type[Model]], None]) -> None:
    """Call `connect` with each of `models` and their proxies: now, and whenever such a class is defined."""

    def look_at(sender: type[Model], **kwargs: Any) -> None:
        if sender._meta.concrete_model in models:
            connect(sender)

    for sender in apps.get_models():
        look_at(sender)
    class_prepared.connect(look_at, weak=False)
