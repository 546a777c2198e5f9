"""The endpoints of webhooks, credentials, definitions, events and deliveries.

A viewset with a route must not have a docstring: NetBox's OpenAPI would show it for each action, in place of its own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from core.api.serializers import JobSerializer
from django.db.models import Model, QuerySet
from django.utils.translation import gettext_lazy as _
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import OpenApiResponse, extend_schema
from netbox.api.viewsets import BaseViewSet, NetBoxModelViewSet
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.generics import get_object_or_404
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import APIRootView

from .. import filtersets
from ..models import Credential, Definition, Delivery, Event, Webhook, querysets
from ..models.querysets import LONG_COLUMNS
from ..payload_visibility import visible_attempts, visible_deliveries, visible_events
from ..presentation import progress
from ..services import actions, backfill, preview, redelivery, secret_rotation, send_now, send_waiting, trial
from ..visibility import permitted
from . import serializers
from .action_serializers import (
    PreviewSourceSerializer,
    WebhookBackfillCountSerializer,
    WebhookBackfillSerializer,
    WebhookBackfillStartSerializer,
    WebhookDeliveryCountSerializer,
    WebhookPreviewedSerializer,
    WebhookPreviewSerializer,
    WebhookRedeliveryFiguresSerializer,
    WebhookReplaySerializer,
    WebhookRotationSerializer,
    WebhookSecretSerializer,
    WebhookSendNowSerializer,
    WebhookSendWaitingSerializer,
    WebhookSentNowSerializer,
    WebhookSentWaitingSerializer,
    WebhookWaitingSerializer,
    figures_of,
)
from .endpoints import acts, for_permitted, needs, read
from .feed import FeedMixin
from .lists import ListsMixin
from .refusals import RefusingMixin
from .schemas import SchemasMixin


class WebhooksRootView(APIRootView):
    """The REST API of reliable webhooks."""

    def get_view_name(self) -> str:
        return 'Webhooks'


class StableOrderingFilter(OrderingFilter):
    """Sorts as the request asks, and last by primary key. Otherwise two pages could show the same row."""

    def get_ordering(self, request: Request, queryset: QuerySet, view: Any) -> list[str] | None:
        ordering = super().get_ordering(request, queryset, view)
        return [*ordering, '-pk'] if ordering else None


# The valid values of a request, by field.
Wanted = Mapping[str, Any]

FILTER_BACKENDS = (DjangoFilterBackend, StableOrderingFilter)


class WritableViewSet(RefusingMixin, NetBoxModelViewSet):
    """The base of viewsets whose objects can be written."""

    filter_backends = FILTER_BACKENDS

    def update(self, request: Request, *args, **kwargs) -> Response:
        if not isinstance(request.data, dict):
            raise ValidationError(_('Send one JSON object to change one object.'))
        return super().update(request, *args, **kwargs)


class SecretiveViewSet(WritableViewSet):
    """The base of viewsets whose objects have secrets."""

    # NetBox would run bulk requests as a job. That would expose their secrets in Redis and on NetBox's pages.
    background_enabled = False

    def _enqueue_bulk_job(self, request: Request, *args, **kwargs) -> Response:
        """Refuse a job: NetBox 4.7.0 ignores `background_enabled`."""
        raise ValidationError({'detail': _('Background processing is not supported for this endpoint.')})


class WebhookViewSet(FeedMixin, ListsMixin, SchemasMixin, SecretiveViewSet):
    queryset = Webhook.objects.all()
    serializer_class = serializers.WebhookSerializer
    filterset_class = filtersets.WebhookFilterSet
    # Sorting by a masked field would reveal it.
    ordering_fields = ('id', 'name', 'description', 'enabled', 'paused', 'created', 'last_updated')

    @acts(actions.TEST, returns={201: serializers.DeliverySerializer(nested=True)})
    def test(self, request: Request, webhook: Webhook) -> Response:
        """Send a test event now, even if the plugin or the webhook is off, and return its delivery."""
        delivery = trial.send_test(webhook, request.user)
        data = serializers.DeliverySerializer(delivery, nested=True, context={'request': request}).data
        return Response(data, status=status.HTTP_201_CREATED)

    @acts(actions.REPLAY, takes=WebhookReplaySerializer, returns=WebhookRedeliveryFiguresSerializer)
    def replay(self, request: Request, webhook: Webhook, wanted: Wanted) -> Response:
        """Redeliver past events, or only count them."""
        chosen = redelivery.select(webhook, wanted['since'], wanted.get('until'), wanted.get('status'))
        if wanted['dry_run']:
            return Response(figures_of(redelivery.measure(chosen)))
        return Response({'count': redelivery.redeliver(chosen)})

    @extend_schema(responses=WebhookWaitingSerializer)
    @action(detail=True, methods=['get'], permission_classes=[needs(actions.SEND_WAITING.permission)])
    def waiting(self, request: Request, pk: str) -> Response:
        """Count the changes that wait for the webhook."""
        webhook = get_object_or_404(self.queryset, pk=pk)
        return Response(WebhookWaitingSerializer(send_waiting.measure(webhook)).data)

    @extend_schema(request=WebhookSendWaitingSerializer, responses=WebhookSentWaitingSerializer)
    @waiting.mapping.post
    @for_permitted(actions.SEND_WAITING, takes=WebhookSendWaitingSerializer)
    def send_waiting(self, request: Request, webhook: Webhook, wanted: Wanted) -> Response:
        """Send the waiting changes now: all, or each object's latest."""
        superseded = send_waiting.send(webhook, latest_only=wanted['latest_only'])
        shown = {**asdict(send_waiting.measure(webhook)), 'superseded': superseded}
        return Response(WebhookSentWaitingSerializer(shown).data)

    @extend_schema(
        responses={200: WebhookBackfillSerializer, 404: OpenApiResponse(description='There was no backfill.')}
    )
    @action(detail=True, methods=['get'], permission_classes=[needs(actions.BACKFILL.permission)])
    def backfill(self, request: Request, pk: str) -> Response:
        """Show the progress of the last backfill."""
        return self._progress(get_object_or_404(self.queryset, pk=pk))

    @extend_schema(
        request=WebhookBackfillStartSerializer,
        responses={200: WebhookBackfillCountSerializer, 201: WebhookBackfillSerializer},
    )
    @backfill.mapping.post
    @for_permitted(actions.BACKFILL, takes=WebhookBackfillStartSerializer)
    def start_backfill(self, request: Request, webhook: Webhook, wanted: Wanted) -> Response:
        """Send all objects in their present state, or only count them."""
        choice = backfill.choose(webhook, wanted.get('object_types'), wanted.get('filter', ''), request.user)
        if wanted['dry_run']:
            shown = choice.total if progress.may_view_objects(request.user, choice.counts) else None
            return Response({'total': shown})
        backfill.start(webhook, choice, request.user)
        return self._progress(webhook, status.HTTP_201_CREATED)

    @acts(actions.PAUSE_BACKFILL, returns=WebhookBackfillSerializer)
    def pause_backfill(self, request: Request, webhook: Webhook) -> Response:
        """Pause the backfill."""
        backfill.pause(webhook)
        return self._progress(webhook)

    @acts(actions.RESUME_BACKFILL, returns=WebhookBackfillSerializer)
    def resume_backfill(self, request: Request, webhook: Webhook) -> Response:
        """Resume the backfill."""
        backfill.resume(webhook)
        return self._progress(webhook)

    @acts(actions.CANCEL_BACKFILL, returns=WebhookBackfillSerializer)
    def cancel_backfill(self, request: Request, webhook: Webhook) -> Response:
        """Cancel the backfill; unsent objects stay unsent."""
        backfill.cancel(webhook)
        return self._progress(webhook)

    def _progress(self, webhook: Webhook, code: int = status.HTTP_200_OK) -> Response:
        found = progress.of(webhook, self.request.user)
        if found is None:
            raise NotFound
        return Response(WebhookBackfillSerializer(found).data, status=code)

    @acts(
        actions.SEND_NOW,
        takes=WebhookSendNowSerializer,
        returns={200: WebhookSentNowSerializer, 201: WebhookSentNowSerializer},
    )
    def send_now(self, request: Request, webhook: Webhook, wanted: Wanted) -> Response:
        """Send chosen objects in their present state, or only count them."""
        choice = send_now.choose(webhook, wanted['object_type'], wanted['ids'], request.user)
        count = len(choice.pks) if wanted['dry_run'] else send_now.send(choice, request.user)
        shown = WebhookSentNowSerializer({'count': count, 'excluded': choice.excluded}).data
        return Response(shown, status=status.HTTP_200_OK if wanted['dry_run'] else status.HTTP_201_CREATED)

    @acts(actions.ROTATE_SECRET, takes=WebhookRotationSerializer, returns=WebhookSecretSerializer)
    def rotate_secret(self, request: Request, webhook: Webhook, wanted: Wanted) -> Response:
        """Sign with a new secret, and for a while with the present one too. Shown only here."""
        webhook, secret = secret_rotation.rotate(webhook.pk, wanted['prefix'], wanted['overlap'])
        shown = {'secret': secret, 'public_key': webhook.public_key, 'previous_until': webhook.previous_secret_expires}
        return Response(WebhookSecretSerializer(shown).data, headers={'Cache-Control': 'no-store'})

    @extend_schema(parameters=[PreviewSourceSerializer], responses=WebhookPreviewedSerializer)
    @action(detail=True, methods=['get'], permission_classes=[needs('change')])
    def preview(self, request: Request, pk: str) -> Response:
        """Show the request for the latest event."""
        wanted = read(PreviewSourceSerializer, request.query_params)
        return self._preview(get_object_or_404(self.queryset, pk=pk), wanted)

    @extend_schema(request=WebhookPreviewSerializer, responses=WebhookPreviewedSerializer)
    @preview.mapping.post
    def preview_changes(self, request: Request, pk: str) -> Response:
        """Show the request with unsaved changes."""
        # NetBox limits self.queryset to the webhooks that the user may add, as in each POST.
        editable = permitted(Webhook.objects.all(), request.user, 'change')
        webhook = get_object_or_404(editable, pk=pk)
        serializer = WebhookPreviewSerializer(webhook, data=request.data, partial=True)
        serializer.is_valid(raise_exception=True)
        return self._preview(webhook, serializer.validated_data)

    def _preview(self, webhook: Webhook, changes: Mapping[str, Any]) -> Response:
        fields = dict(changes)
        source = fields.pop('source', '')
        for name, value in fields.items():
            setattr(webhook, name, value)
        shown = preview.show(preview.Draft.of(webhook), self.request.user, source)
        return Response(WebhookPreviewedSerializer(shown).data)


class CredentialViewSet(SecretiveViewSet):
    queryset = Credential.objects.all()
    serializer_class = serializers.CredentialSerializer
    filterset_class = filtersets.CredentialFilterSet
    ordering_fields = ('id', 'name', 'description', 'type', 'created', 'last_updated')


class DefinitionViewSet(WritableViewSet):
    queryset = Definition.objects.all()
    serializer_class = serializers.DefinitionSerializer
    filterset_class = filtersets.DefinitionFilterSet

    @acts(actions.APPLY, returns={201: JobSerializer})
    def apply(self, request: Request, definition: Definition) -> Response:
        """Let a job apply the file, with the permissions of the request's user, and return the job."""
        job = actions.APPLY.service(definition, request.user)
        return Response(JobSerializer(job, context={'request': request}).data, status=status.HTTP_201_CREATED)


class LogViewSet(RefusingMixin, RetrieveModelMixin, ListModelMixin, BaseViewSet):
    """The base of read-only viewsets of the log. NetBox's own one would send an ETag that never changes.

    `visible` decides which payloads the reader may see, for all rows of a page at once.
    """

    filter_backends = FILTER_BACKENDS

    visible: Callable[[Any, Iterable[Model]], set[int]]

    def get_serializer(self, *args, **kwargs):
        shown = ([args[0]] if isinstance(args[0], Model) else args[0]) if args else ()
        visible = self.visible(self.request.user, shown)
        kwargs['context'] = {**self.get_serializer_context(), 'visible': visible, 'is_list': self.detail is False}
        return super().get_serializer(*args, **kwargs)


class EventViewSet(LogViewSet):
    queryset = Event.objects.defer(*(name for name in LONG_COLUMNS if name != 'data'))
    visible = staticmethod(visible_events)
    serializer_class = serializers.EventSerializer
    filterset_class = filtersets.EventFilterSet
    ordering_fields = ('id', 'sequence', 'timestamp', 'object_id', 'object_repr', 'dispatched_at')


def _visible_with_attempts(user: Any, deliveries: Collection[Delivery]) -> set[int]:
    """Return the same as visible_deliveries(), and set `sent` on each: its attempts, the oldest first."""
    found = visible_attempts(user, [one.pk for one in deliveries])
    for one in deliveries:
        one.sent = found[one.pk][::-1]
        for attempt in one.sent:
            if attempt.delivery_id == one.pk:
                attempt.delivery = one  # so that all bodies are made again from the same event
    return visible_deliveries(user, deliveries)


class DeliveryViewSet(LogViewSet):
    queryset = querysets.deliveries()
    visible = staticmethod(_visible_with_attempts)
    serializer_class = serializers.DeliverySerializer
    filterset_class = filtersets.DeliveryFilterSet
    ordering_fields = ('id', 'status', 'created', 'finished_at', 'response_status', 'attempt_count')

    @acts(actions.REDELIVER, returns=WebhookDeliveryCountSerializer)
    def redeliver(self, request: Request, delivery: Delivery) -> Response:
        """Redeliver a closed delivery; after success as a new delivery."""
        return Response({'count': redelivery.redeliver_one(delivery)})
