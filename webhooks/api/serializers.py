"""Webhooks, credentials, events and deliveries as JSON.

NetBox finds serializers here by their models' names.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from core.api.serializers import DataSourceSerializer
from django.db.models import Model
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from extras.api.serializers import NotificationGroupSerializer
from extras.models import NotificationGroup
from netbox.api.fields import ContentTypeField, SerializedPKRelatedField
from netbox.api.serializers import BaseModelSerializer, NetBoxModelSerializer
from rest_framework import serializers
from users.api.serializers import UserSerializer
from users.models import User

from ..choices import StatusChoices
from ..exceptions import DefinitionError
from ..models import Attempt, Credential, Definition, Delivery, Event, Health, Webhook, querysets
from ..payload import kept
from ..presentation import credential_fields
from ..presentation.fields import NAMES, help_of, shown_in
from ..presets import all_presets
from ..security import fingerprints
from ..services.keys import find_wrong
from ..services.sent_bodies import read_bodies
from ..services.why_not_sent import next_attempt_at, wait_of
from ..storable import is_storable
from ..validation.body import refuse_batch
from ..validation.credential import normalized
from ..validation.lists import normalized_filters
from ..validation.moved import merged_headers
from ..validation.secret import merge_secret
from ..validation.url import merge_url
from .serializer_fields import AllowedTypeField, MaskedField

CHANGELOG_MESSAGE = serializers.CharField(max_length=200, allow_blank=True, allow_null=True)
UNSTORABLE_TEXT = _('The value contains a character that cannot be stored, or it is nested too deeply.')


@contextmanager
def refusals() -> Iterator[None]:
    """Turn a DefinitionError in the block into an error at its field."""
    try:
        yield
    except DefinitionError as error:
        raise serializers.ValidationError({error.field: str(error)}) from None


class StorableMixin:
    """Refuses values that PostgreSQL cannot store, a change log message too, with an error at the field."""

    def to_internal_value(self, data: Any) -> Any:
        sent = data if isinstance(data, dict) else {}
        wrong = [name for name in self.fields if name in sent and not is_storable(sent[name])]
        if wrong:
            raise serializers.ValidationError({name: [UNSTORABLE_TEXT] for name in wrong})
        return super().to_internal_value(data)

    def validate(self, data: Any) -> Any:
        if not getattr(self, 'nested', False) and 'changelog_message' in data:
            _check_message(data['changelog_message'])
        return super().validate(data)


def _check_message(message: Any) -> None:
    try:
        CHANGELOG_MESSAGE.run_validation(message)
    except serializers.ValidationError as error:
        raise serializers.ValidationError({'changelog_message': error.detail}) from None


class WebhookHealthSerializer(serializers.ModelSerializer):
    """How the endpoint of a webhook does."""

    class Meta:
        model = Health
        fields = (
            'delivered', 'failed', 'superseded', 'last_status', 'last_error', 'last_attempt_at', 'last_success_at',
            'refused_since', 'suspended_since', 'probe_at',
        )  # fmt: skip


class KeysMixin:
    """Checks the fields that name keys of the payload (services/keys.py), each time they or the object types change."""

    def _check_keys(self, data: dict[str, Any]) -> None:
        request = self.context.get('request')
        if wrong := find_wrong(self.instance or Webhook(), data, request and request.user):
            raise serializers.ValidationError(wrong)


class SecretiveSerializer(StorableMixin, NetBoxModelSerializer):
    """The base of webhooks and credentials: takes related objects as GET shows them, and keeps a masked secret."""

    # The fields that have fingerprints.
    secretive: Sequence[str] = ('secret',)

    fingerprints = serializers.SerializerMethodField(
        help_text=_('A digest of each hidden value, which changes with it. Null for users who may not change it.')
    )

    @extend_schema_field(serializers.DictField(child=serializers.CharField(allow_null=True), allow_null=True))
    def get_fingerprints(self, instance: Model) -> Mapping[str, str | None] | None:
        return fingerprints.of(instance, self.secretive) if instance.pk in self._changeable else None

    @cached_property
    def _changeable(self) -> set[int]:
        """Return the ids of all shown objects that the reader may change."""
        user = getattr(self.context.get('request'), 'user', None)
        if user is None:
            return set()
        shown = self.parent.instance if self.parent else self.instance
        pks = [shown.pk] if isinstance(shown, Model) else [one.pk for one in shown or ()]
        return set(self.Meta.model.objects.restrict(user, 'change').filter(pk__in=pks).values_list('pk', flat=True))

    def to_internal_value(self, data: Any) -> Any:
        if type(data) is dict and not self.nested:  # a form has its own type
            data = {name: _as_ids(value) for name, value in data.items()}
        return super().to_internal_value(data)

    def validate_secret(self, value: str) -> Any:
        return merge_secret(value, self.instance.secret) if self.instance else value


def _as_ids(value: Any) -> Any:
    """Return the id of a shown object, or a list of ids. NetBox would search for an object with all these keys."""
    if isinstance(value, list):
        return [_as_ids(one) for one in value]
    return value['id'] if isinstance(value, dict) and value.keys() >= {'id', 'url'} else value


class CredentialSerializer(SecretiveSerializer):
    """A login or token of webhooks. The secret can only be written."""

    secret = serializers.CharField(write_only=True, required=False, allow_blank=True, trim_whitespace=False)

    class Meta:
        model = Credential
        fields = (
            'id', 'url', 'display_url', 'display', *credential_fields.shown_in('API'), 'fingerprints',
            'custom_fields', 'managed_by', 'managed_in', 'created', 'last_updated',
        )  # fmt: skip
        brief_fields = ('id', 'url', 'display', 'name', 'description')

    def validate_hosts(self, value: list[str]) -> list[str]:
        # The model's clean() does it too, but DRF creates a new object without the values that clean() has written.
        return [normalized(host) for host in value]


class ReliableWebhookSerializer(KeysMixin, SecretiveSerializer):
    """A webhook. The URL and the headers are masked, and the secret can only be written."""

    secretive = ('payload_url', 'additional_headers', 'secret')

    object_types = AllowedTypeField(many=True, required=False)
    ignore_users = SerializedPKRelatedField(
        queryset=User.objects.all(), serializer=UserSerializer, nested=True, required=False, many=True
    )
    notification_groups = SerializedPKRelatedField(
        queryset=NotificationGroup.objects.all(),
        serializer=NotificationGroupSerializer,
        nested=True,
        required=False,
        many=True,
    )
    credential = CredentialSerializer(nested=True, required=False, allow_null=True)
    # The mask may be longer than the column.
    payload_url = MaskedField(shown='masked_url', allow_blank=True)
    additional_headers = MaskedField(shown='masked_headers', required=False, allow_blank=True)
    secret = serializers.CharField(write_only=True, required=False, allow_blank=True, trim_whitespace=False)
    send_list = serializers.BooleanField(
        write_only=True,
        required=False,
        help_text=_('Send all objects of a new list as created. Default: the receiver has them already.'),
    )
    preset = serializers.ChoiceField(
        choices=[(preset.name, preset.label) for preset in all_presets().values()],
        write_only=True,
        required=False,
        help_text=_('Preset that fills the fields of a new webhook. Fields in the request take precedence.'),
    )
    public_key = serializers.CharField(read_only=True)
    health = WebhookHealthSerializer(read_only=True, allow_null=True)

    class Meta:
        model = Webhook
        fields = (
            'id', 'url', 'display_url', 'display', *shown_in('API'), 'send_list', 'preset', 'fingerprints',
            'public_key', 'health', 'custom_fields', 'managed_by', 'managed_in', 'created', 'last_updated',
        )  # fmt: skip
        brief_fields = ('id', 'url', 'display', 'name', 'description', 'payload_url')
        extra_kwargs = {'body_template': {'trim_whitespace': False}}

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = super().get_fields()
        for name in NAMES:
            if name in fields and (text := help_of(name)):
                fields[name].help_text = text
        return fields

    def to_internal_value(self, data: Any) -> Any:
        if not self.nested and isinstance(data, dict):
            with refusals():
                refuse_batch(data)
        return super().to_internal_value(data)

    def validate_payload_url(self, value: str) -> str:
        return merge_url(value, self.instance.payload_url) if self.instance else value

    def validate(self, data: Any) -> Any:
        # Here `data` is the nested webhook itself.
        if self.nested:
            return data
        if (name := data.pop('preset', None)) and self.instance:
            raise serializers.ValidationError({'preset': _('A preset can be used only for a new webhook.')})
        if name:
            data = {**all_presets()[name].fields, **data}
            if not data.get('payload_url'):  # NetBox ignores it beside ?omit=payload_url
                raise serializers.ValidationError({'payload_url': _('A preset needs the URL of the receiver.')})
        self._check_keys(data)
        if 'additional_headers' in data:
            with refusals():
                data['additional_headers'] = merged_headers(self.instance or Webhook(), data)
        if data.get('credential'):
            self._check_credential(data['credential'])
        return super().validate(data)

    def _check_credential(self, credential: Credential) -> None:
        if self.instance and self.instance.credential_id == credential.pk:
            return
        request = self.context.get('request')
        if request and not Credential.objects.restrict(request.user, 'view').filter(pk=credential.pk).exists():
            raise serializers.ValidationError(
                {'credential': _('This credential does not exist, or you may not view it.')}
            )

    def validate_conditions(self, value: Any) -> Any:
        if value is not None and not isinstance(value, dict):
            raise serializers.ValidationError(_('Conditions must be a JSON object.'))
        return value

    validate_success_conditions = validate_conditions

    def validate_filters(self, value: Any) -> Any:
        if not isinstance(value, dict) or not all(isinstance(query, str) for query in value.values()):
            raise serializers.ValidationError(_('Filters must be a JSON object of texts.'))
        return normalized_filters(value)

    def validate_body_template(self, value: str) -> str:
        # As in forms: blanks alone are no template.
        return value if value.strip() else ''


# NetBox's own webhooks have the plain name in OpenAPI, and NetBox finds ours by it here.
WebhookSerializer = ReliableWebhookSerializer


class DefinitionSerializer(StorableMixin, NetBoxModelSerializer):
    """Which file of a data source is applied. A save lets it be applied with the permissions of the request's user."""

    data_source = DataSourceSerializer(nested=True)
    applied_by = UserSerializer(nested=True, read_only=True)

    class Meta:
        model = Definition
        fields = (
            'id', 'url', 'display_url', 'display', 'name', 'data_source', 'path', 'prune', 'apply_on_sync',
            'applied_by', 'tags', 'custom_fields', 'created', 'last_updated',
        )  # fmt: skip
        brief_fields = ('id', 'url', 'display', 'name')

    def validate(self, data: Any) -> Any:
        return super().validate(data if self.nested else {**data, 'applied_by': self.context['request'].user})


class RestrictedSerializer(BaseModelSerializer):
    """Adds `restricted`: true if fields are hidden, because the reader may not view the object."""

    restricted = serializers.SerializerMethodField()

    def get_restricted(self, instance: Model) -> bool:
        return instance.pk not in self.context.get('visible', ())


@extend_schema_serializer(component_name='WebhookEvent')
class EventSerializer(RestrictedSerializer):
    """A change of an object. The payload is null if it is restricted."""

    # Event rules bring other names than the choices.
    kind = serializers.CharField(read_only=True)
    object_type = ContentTypeField(read_only=True)
    object_id = serializers.IntegerField(read_only=True, allow_null=True)
    backfill = serializers.BooleanField(read_only=True)
    data = serializers.SerializerMethodField()
    partial = serializers.SerializerMethodField()
    caused_by = serializers.SerializerMethodField()

    class Meta:
        model = Event
        fields = (
            'id', 'url', 'display_url', 'display', 'uuid', 'sequence', 'kind', 'object_type', 'object_id',
            'object_repr', 'timestamp', 'username', 'request_id', 'test', 'backfill', 'error', 'skipped',
            'dispatched_at', 'restricted', 'data', 'partial', 'caused_by',
        )  # fmt: skip
        brief_fields = (
            'id', 'url', 'display', 'uuid', 'sequence', 'kind', 'object_type', 'object_id', 'object_repr', 'test',
            'backfill',
        )  # fmt: skip

    def get_data(self, event: Event) -> dict[str, Any] | None:
        return None if self.get_restricted(event) else event.payload_data

    def get_partial(self, event: Event) -> list[str] | None:
        return None if self.get_restricted(event) else event.partial

    def get_caused_by(self, event: Event) -> list[str] | None:
        return None if self.get_restricted(event) else event.caused_by


class WebhookAttemptSerializer(serializers.ModelSerializer):
    """A request of a delivery, and its answer. Restricted fields are null."""

    # Clients such as pynetbox take `url` for the address of an object of NetBox.
    request_url = serializers.CharField(
        source='url', read_only=True, allow_null=True, help_text=_('Where it was sent, with masked secrets.')
    )
    request_headers = serializers.DictField(child=serializers.CharField(), read_only=True, allow_null=True)
    response_headers = serializers.DictField(child=serializers.CharField(), read_only=True, allow_null=True)
    response_body = serializers.CharField(read_only=True, allow_null=True)
    request_body = serializers.SerializerMethodField(
        help_text=_('What was sent, with masked credentials, up to 64 KiB. Null in lists, and if it is not known.')
    )

    class Meta:
        model = Attempt
        fields = (
            'number', 'started_at', 'duration', 'method', 'request_url', 'request_headers', 'request_body',
            'response_status', 'response_headers', 'response_body', 'error',
        )  # fmt: skip

    def get_request_body(self, attempt: Attempt) -> str | None:
        # In a list, this would read the body of each attempt.
        return None if self.context['is_list'] or attempt.is_restricted else kept.known_body_of(attempt)


@extend_schema_serializer(component_name='WebhookDelivery')
class DeliverySerializer(RestrictedSerializer):
    """An event for a webhook, with its attempts."""

    webhook = WebhookSerializer(nested=True, read_only=True)
    event = EventSerializer(nested=True, read_only=True)
    # What the request reports. It may differ from the event's.
    kind = serializers.CharField(read_only=True)
    status = serializers.ChoiceField(choices=StatusChoices, read_only=True)
    # In 1.0.0 a delivery could have several events.
    event_count = serializers.SerializerMethodField(help_text=_('Always 1.'))
    change_set = serializers.IntegerField(
        read_only=True, allow_null=True, help_text=_('The transaction whose changes are sent together.')
    )
    part = serializers.SerializerMethodField(help_text=_('Its part of the change set. Null before the parts are made.'))
    next_attempt_at = serializers.SerializerMethodField(
        help_text=_('Null if nothing is planned: it is closed, held, or behind an earlier change of its object.')
    )
    waiting = serializers.SerializerMethodField(help_text=_('Why a pending delivery is not sent yet.'))
    attempts = WebhookAttemptSerializer(many=True, read_only=True, source='sent')

    class Meta:
        model = Delivery
        fields = (
            'id', 'url', 'display_url', 'display', 'uuid', 'webhook', 'event', 'kind', 'event_count',
            'change_set', 'part', 'parts', 'backfill', 'status', 'error', 'response_status', 'attempt_count',
            'next_attempt_at', 'waiting', 'created', 'finished_at', 'expires_at', 'position', 'restricted', 'attempts',
        )  # fmt: skip
        brief_fields = ('id', 'url', 'display', 'uuid', 'status', 'response_status', 'error')

    def get_event_count(self, delivery: Delivery) -> int:
        return 1

    def to_representation(self, delivery: Delivery) -> Any:
        if self.context.get('is_list') is False:
            read_bodies([attempt for attempt in delivery.sent if not attempt.is_restricted])
        return super().to_representation(delivery)

    def get_part(self, delivery: Delivery) -> int | None:
        return delivery.part if delivery.parts else None

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_next_attempt_at(self, delivery: Delivery) -> str | None:
        return serializers.DateTimeField().to_representation(next_attempt_at(delivery))

    def get_waiting(self, delivery: Delivery) -> str:
        # In a list this would cost one query a row.
        earlier = None if self.parent else querysets.earlier_of(delivery)
        wait = wait_of(delivery, timezone.now(), earlier)
        return wait.text if wait else ''

    def get_restricted(self, delivery: Delivery) -> bool:
        return super().get_restricted(delivery) or any(attempt.is_restricted for attempt in delivery.sent)
