"""The endpoint of a feed: GET …/webhooks/<id>/feed/"""

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiResponse, extend_schema
from netbox.api.authentication import TokenAuthentication
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, PermissionDenied
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from users.models import User

from ..models import Webhook
from ..services import feed as service
from .action_serializers import WebhookFeedQuerySerializer, WebhookFeedSerializer
from .endpoints import needs, read


class Gone(APIException):
    """The answer 410: the items after the cursor are no longer in the log."""

    status_code = status.HTTP_410_GONE
    default_code = 'gone'


class FeedMixin:
    """Adds the endpoint `feed/` to the viewset of webhooks."""

    @extend_schema(
        parameters=[WebhookFeedQuerySerializer],
        responses={
            200: WebhookFeedSerializer,
            403: OpenApiResponse(
                description=_('You may not read feeds, or you may not view all objects of its types.')
            ),
            410: OpenApiResponse(description=_('The cursor is older than the log. Continue from `cursor`.')),
            503: OpenApiResponse(description=_('There is nothing new, and too many readers are waiting already.')),
        },
        filters=False,
    )
    @action(detail=True, methods=['get'], permission_classes=[needs('read_feed', 'GET')], pagination_class=None)
    def feed(self, request: Request, pk: str) -> Response:
        """Read the changes that a feed has published after a cursor."""
        webhook = _readable(request, pk)
        wanted = read(WebhookFeedQuerySerializer, request.query_params)
        after, seconds = wanted.get('after'), wanted['wait']
        try:
            if seconds:
                service.wait(webhook, request.user, after, seconds)
                _authenticate_again(request)
                self.check_permissions(request)
                webhook = _readable(request, pk)
            page = service.follow(webhook, request.user, after, wanted['limit'])
        except service.Gone as gone:
            raise Gone({'detail': str(gone), 'cursor': gone.cursor}) from None
        except service.Hidden as hidden:
            raise PermissionDenied(str(hidden)) from None
        return Response(WebhookFeedSerializer(page).data)


def _readable(request: Request, pk: str) -> Webhook:
    return get_object_or_404(Webhook.objects.restrict(request.user, 'read_feed'), pk=pk)


def _authenticate_again(request: Request) -> None:
    """Read user, token and permissions anew: somebody may have taken them away while the request waited."""
    found = TokenAuthentication().authenticate(request)
    if found:
        request.user, request.auth = found
    else:  # a session
        request.user = get_object_or_404(User, pk=request.user.pk, is_active=True)
