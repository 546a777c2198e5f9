"""Endpoints of the table of actions (services/actions.py)."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from ..services import actions
from ..services.actions import Action, Where
from .permissions import post_needs


def acts(one: Action) -> Callable[[Callable], Callable]:
    """Return a decorator that makes a method the endpoint of an action: POST, its address, its permission."""
    permissions = [post_needs(one.permission)]
    return action(detail=True, methods=['post'], url_path=one.address, permission_classes=permissions)


def get_permitted(request: Request, one: Action, pk: str) -> Any:
    """Return the object that the user may view, and may do this with. Raises Http404.

    In a POST, NetBox limits `queryset` to objects that the user may add. So the viewset's own is of no use here.
    """
    return get_object_or_404(one.permitted(request.user), pk=pk)


def with_actions[T: type[GenericViewSet]](viewset: T) -> T:
    """Decorate a viewset: add an endpoint for each action on its model that it has not written out.

    The endpoint calls the service, and answers with the object as it is then.
    """
    for one in actions.of(viewset.queryset.model, Where.REST):
        if not one.has_form and not hasattr(viewset, one.name):
            setattr(viewset, one.name, _endpoint(one, viewset))
    return viewset


def _endpoint(one: Action, viewset: type[GenericViewSet]) -> Callable:
    def act(self: GenericViewSet, request: Request, pk: str) -> Response:
        found = get_permitted(request, one, pk)
        one.service(found, request.user)
        return Response(self.get_serializer(get_object_or_404(one.permitted(request.user), pk=pk)).data)

    act.__name__, act.__doc__ = one.name, f'{one.label}.'
    return extend_schema(request=None, responses=viewset.serializer_class)(acts(one)(act))
