"""Endpoints of the table of actions (services/actions.py): each has a method, for its answer and its description."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from drf_spectacular.utils import extend_schema
from netbox.api.authentication import TokenPermissions
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer

from ..services.actions import Action


def needs(permission: str, method: str = 'POST') -> type[TokenPermissions]:
    """Return a permission class whose POST needs NetBox's permission of this name for the model, not 'add'.

    Or another method does, such as GET in place of 'view'.
    """
    needed = {**TokenPermissions.perms_map, method: [f'%(app_label)s.{permission}_%(model_name)s']}
    return type(f'{permission.title()}Permission', (TokenPermissions,), {'perms_map': needed})


def acts(one: Action, takes: type[BaseSerializer] | None = None, returns: Any = None) -> Callable[[Callable], Callable]:
    """Return a decorator that makes a method the endpoint of an action: POST, its address, permission and schema.

    The method is called as `for_permitted` says. `returns` goes to drf-spectacular as `responses`.
    """
    permissions = [needs(one.permission)]
    route = action(detail=True, methods=['post'], url_path=one.address, permission_classes=permissions)
    schema = extend_schema(request=takes, responses=returns)
    return lambda method: schema(route(for_permitted(one, takes)(method)))


def for_permitted(one: Action, takes: type[BaseSerializer] | None = None) -> Callable[[Callable], Callable]:
    """Return a decorator for a method that takes an action.

    The method gets the request, the object that the user may view and may do this with, and the valid values of the
    request, if `takes` reads them. Answers 404 if there is no such object. In a POST, NetBox limits `queryset` to
    objects that the user may add. So the viewset's own is of no use here.
    """

    def decorate(method: Callable) -> Callable:
        @wraps(method)
        def endpoint(viewset: Any, request: Request, pk: str) -> Response:
            found = get_object_or_404(one.permitted(request.user), pk=pk)
            return method(viewset, request, found, *([] if takes is None else [read(takes, request.data)]))

        return endpoint

    return decorate


def read(serializer_class: type[BaseSerializer], data: Any) -> dict[str, Any]:
    """Return the valid values of the data. Raises ValidationError."""
    serializer = serializer_class(data=data)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data
