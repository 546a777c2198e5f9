"""The endpoint `failures/`: failed deliveries by cause, and their redelivery."""

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from ..models import Delivery, Webhook
from ..models.delivery import CAUSE_CHARS
from ..services import actions, causes, redelivery
from .action_serializers import WebhookRedeliveryFiguresSerializer, figures_of
from .endpoints import needs, read
from .refusals import RefusingMixin
from .serializers import StorableMixin, WebhookSerializer


class WebhookFailureSerializer(serializers.Serializer):
    """One cause: a webhook and an error."""

    webhook = WebhookSerializer(nested=True, read_only=True)
    error = serializers.CharField(read_only=True, help_text=_('The beginning of the error, 200 characters at most.'))
    count = serializers.IntegerField(read_only=True, help_text=_('Number of failed deliveries.'))
    first = serializers.DateTimeField(read_only=True, help_text=_('When the first of them failed.'))
    last = serializers.DateTimeField(read_only=True, help_text=_('When the last of them failed.'))
    answer = serializers.CharField(read_only=True, help_text=_("The beginning of the receiver's last answer."))


@extend_schema_serializer(component_name='WebhookFailures', many=False)
class FailuresSerializer(serializers.Serializer):
    """The causes with most failures first, 50 at most."""

    count = serializers.IntegerField(read_only=True, help_text=_('Number of causes.'))
    is_bounded = serializers.BooleanField(
        read_only=True, help_text=_('Whether only the newest 20,000 failures are grouped.')
    )
    results = WebhookFailureSerializer(many=True, read_only=True)


class WebhookFailureRedeliverySerializer(StorableMixin, serializers.Serializer):
    """The deliveries that failed for one cause. Without `error`: all that failed for a webhook. Without both: all."""

    webhook = serializers.PrimaryKeyRelatedField(
        queryset=Webhook.objects.all(), required=False, help_text=_('Only deliveries of this webhook. Default: all.')
    )
    error = serializers.CharField(
        required=False, max_length=CAUSE_CHARS, help_text=_('Only deliveries with this error, as in the list.')
    )
    dry_run = serializers.BooleanField(default=False, help_text=_('Only count the deliveries. Nothing is sent.'))


# It is no viewset of NetBox's, because these are for rows of a model.
class FailureViewSet(RefusingMixin, GenericViewSet):
    # Permissions are about this model.
    queryset = Delivery.objects.all()
    serializer_class = WebhookFailureSerializer
    pagination_class = None

    @extend_schema(responses=FailuresSerializer, filters=False)
    def list(self, request: Request) -> Response:
        """Show why deliveries failed: the same webhook and error are one cause."""
        found = causes.find(request.user)
        results = WebhookFailureSerializer(found.shown, many=True, context=self.get_serializer_context()).data
        count = len(found.shown) + found.others
        return Response({'count': count, 'is_bounded': found.is_bounded, 'results': results})

    @extend_schema(request=WebhookFailureRedeliverySerializer, responses=WebhookRedeliveryFiguresSerializer)
    @action(detail=False, methods=['post'], permission_classes=[needs(actions.REDELIVER.permission)])
    def redeliver(self, request: Request) -> Response:
        """Redeliver the deliveries of one cause, or only count them."""
        wanted = read(WebhookFailureRedeliverySerializer, request.data)
        chosen = actions.REDELIVER.permitted(request.user).failures()
        if 'webhook' in wanted:
            chosen = chosen.filter(webhook=wanted['webhook'])
        if 'error' in wanted:
            chosen = chosen.with_cause(request.user).filter(cause=wanted['error'])
        if wanted['dry_run']:
            return Response(figures_of(redelivery.measure(chosen)))
        return Response({'count': redelivery.redeliver(chosen)})
