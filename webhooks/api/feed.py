"""GET …/webhooks/<id>/feed/"""

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiResponse, extend_schema
from netbox.api.authentication import TokenPermissions
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import APIException
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from ..models import Webhook
from ..services import feed as service
from .action_serializers import FeedQuerySerializer, FeedSerializer


class ReadFeedPermission(TokenPermissions):
    perms_map = {**TokenPermissions.perms_map, 'GET': ['%(app_label)s.read_feed_%(model_name)s']}


class Gone(APIException):
    status_code = status.HTTP_410_GONE
    default_code = 'gone'


class FeedMixin:
    @extend_schema(
        parameters=[FeedQuerySerializer],
        responses={
            200: FeedSerializer,
            410: OpenApiResponse(description=_('The cursor is older than the log. Read on after `cursor`.')),
            503: OpenApiResponse(description=_('Nothing is new, and no more readers may wait.')),
        },
        filters=False,
    )
    @action(detail=True, methods=['get'], permission_classes=[ReadFeedPermission], pagination_class=None)
    def feed(self, request: Request, pk: str) -> Response:
        """Read the changes that a feed has published after a cursor."""
        webhook = get_object_or_404(Webhook.objects.restrict(request.user, 'read_feed'), pk=pk)
        serializer = FeedQuerySerializer(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        try:
            page = service.follow(webhook, request.user, **serializer.validated_data)
        except service.Gone as gone:
            raise Gone({'detail': str(gone), 'cursor': gone.cursor}) from None
        return Response(FeedSerializer(page).data)
