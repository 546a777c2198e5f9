"""Code of others that ours runs into: a plugin's signal handler, an operator's proxy router."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models import Model
from django.db.models.signals import post_init

from webhooks.models import Webhook


@contextmanager
def at_each(model: type[Model], act: Callable[[Any], object]) -> Iterator[None]:
    """A plugin acts on each instance of the model, as soon as it is made of a row or a snapshot."""

    def handle(instance: Model, **_kwargs: object) -> None:
        act(instance)

    post_init.connect(handle, sender=model, weak=False)
    try:
        yield
    finally:
        post_init.disconnect(handle, sender=model)


@contextmanager
def at_first(model: type[Model], act: Callable[[], object]) -> Iterator[None]:
    """Act once. What it does may make such instances."""
    left = [act]

    def act_once(_instance: Model) -> None:
        if left:
            left.pop()()

    with at_each(model, act_once):
        yield


def proxy_router(act: Callable[[Webhook], object]) -> type:
    """For NetBox's PROXY_ROUTERS, which are asked when a request is built."""

    class Router:
        def route(self, context: dict[str, Any], **_kwargs: object) -> None:
            act(context['client'])

    return Router
