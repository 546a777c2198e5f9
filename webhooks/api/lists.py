"""The endpoints of lists: GET …/webhooks/<id>/members/ and POST …/webhooks/<id>/compare/"""

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from netbox.api.fields import ContentTypeField
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from .. import object_types, visibility
from ..models import ListMember, Webhook
from ..services import actions, lists
from ..storable import is_key
from .endpoints import acts


class WebhookMemberSerializer(serializers.ModelSerializer):
    """An object that a receiver has in a list."""

    object_type = ContentTypeField(read_only=True)
    sequence = serializers.IntegerField(
        read_only=True, help_text=_('That of the last event sent about it. 0: it was assumed to be known.')
    )
    digest = serializers.CharField(
        read_only=True, help_text=_('SHA-256 of the data of that event. Blank: it was assumed to be known.')
    )

    class Meta:
        model = ListMember
        fields = ('object_type', 'object_id', 'sequence', 'digest')


class WebhookCompareSerializer(serializers.Serializer):
    """Whether to compare only."""

    dry_run = serializers.BooleanField(default=False, help_text=_('Only say what differs. Nothing is sent.'))


class WebhookComparedListSerializer(serializers.Serializer):
    """The differences between a list and its receiver's copy."""

    object_type = serializers.CharField()
    query = serializers.CharField()
    listed = serializers.IntegerField(help_text=_('Number of objects in the list.'))
    missing = serializers.IntegerField(help_text=_('Number of those that were not sent.'))
    stale = serializers.IntegerField(help_text=_('Number of those that have changed since they were sent.'))
    extra = serializers.IntegerField(help_text=_('Number of objects that were sent, but are not in the list.'))
    names_of_missing = serializers.ListField(child=serializers.CharField(), help_text=_('The first of these.'))
    names_of_stale = serializers.ListField(child=serializers.CharField(), help_text=_('The first of these.'))
    names_of_extra = serializers.ListField(child=serializers.CharField(), help_text=_('The first of these.'))


class WebhookComparedSerializer(serializers.Serializer):
    """The differences of each list. Empty without a dry run: workers compare in the background."""

    lists = WebhookComparedListSerializer(many=True)


class ListsMixin:
    """Adds the endpoints `members/` and `compare/` to the viewset of webhooks."""

    @extend_schema(
        parameters=[OpenApiParameter('object_type', str), OpenApiParameter('object_id', int)],
        responses=WebhookMemberSerializer(many=True),
        filters=False,
    )
    @action(detail=True, methods=['get'])
    def members(self, request: Request, pk: str) -> Response:
        """List the objects that the receiver should have, by the webhook's lists."""
        webhook = get_object_or_404(Webhook.objects.restrict(request.user, 'view'), pk=pk)
        found = ListMember.objects.filter(visibility.query(request.user), webhook_id=webhook.pk, **_wanted(request))
        page = self.paginate_queryset(found.select_related('object_type'))
        return self.get_paginated_response(WebhookMemberSerializer(page, many=True).data)

    @acts(actions.COMPARE, takes=WebhookCompareSerializer, returns=WebhookComparedSerializer)
    def compare(self, request: Request, webhook: Webhook, wanted: Mapping[str, Any]) -> Response:
        """Compare the webhook's lists with the objects that were sent, and send or only report the differences."""
        if not wanted['dry_run']:
            lists.compare(webhook)
            return Response({'lists': []})
        return Response({'lists': [one._asdict() for one in lists.differences(webhook, request.user)]})


def _wanted(request: Request) -> dict[str, object]:
    wanted: dict[str, object] = {}
    if label := request.query_params.get('object_type'):
        if label not in object_types.by_label():
            raise ValidationError({'object_type': _('There is no such object type.')})
        wanted['object_type'] = object_types.by_label()[label]
    if ids := request.query_params.getlist('object_id'):
        if not all(map(is_key, ids)):
            raise ValidationError({'object_id': _('Enter a number.')})
        wanted['object_id__in'] = ids
    return wanted
