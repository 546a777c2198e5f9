"""The classes that Django's signals name as senders: a model, and each proxy of it, whose rows are the model's."""

from collections.abc import Callable, Collection
from typing import Any

from django.apps import apps
from django.db.models import Model
from django.db.models.signals import class_prepared


def for_each(models: Collection[type[Model]], connect: Callable[[type[Model]], None]) -> None:
    """Call `connect` with each of the models and of their proxies, those too that are defined later."""

    def look_at(sender: type[Model], **kwargs: Any) -> None:
        if sender._meta.concrete_model in models:
            connect(sender)

    for sender in apps.get_models():
        look_at(sender)
    class_prepared.connect(look_at, weak=False)
