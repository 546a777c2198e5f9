"""Endpoints of the table of actions (services/actions.py): each has a method, for its answer and its description."""

from collections.abc import Callable
from typing import Any

from netbox.api.authentication import TokenPermissions
from rest_framework.decorators import action
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request

from ..services.actions import Action


def post_needs(permission: str) -> type[TokenPermissions]:
    """Return a permission class whose POST needs NetBox's permission of this name for the model, not 'add'."""
    needed = {**TokenPermissions.perms_map, 'POST': [f'%(app_label)s.{permission}_%(model_name)s']}
    return type(f'{permission.title()}Permission', (TokenPermissions,), {'perms_map': needed})


def acts(one: Action) -> Callable[[Callable], Callable]:
    """Return a decorator that makes a method the endpoint of an action: POST, its address, its permission."""
    permissions = [post_needs(one.permission)]
    return action(detail=True, methods=['post'], url_path=one.address, permission_classes=permissions)


def get_permitted(request: Request, one: Action, pk: str) -> Any:
    """Return the object that the user may view, and may do this with. Raises Http404.

    In a POST, NetBox limits `queryset` to objects that the user may add. So the viewset's own is of no use here.
    """
    return get_object_or_404(one.permitted(request.user), pk=pk)
