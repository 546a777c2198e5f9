"""Requests and answers of actions: redelivery, feed, waiting deliveries, backfill, rotation, preview."""

from datetime import timedelta
from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from ..choices import CLOSED_CHOICES, BackfillStateChoices
from ..constants import MAX_QUERY_CHARS
from ..models import Webhook
from ..security import signing
from ..services import feed, secret_rotation, send_now
from ..services.redelivery import Figures
from ..storable import MAX_KEY
from .serializer_fields import AllowedTypeField
from .serializers import KeysMixin, StorableMixin

SOURCE_HELP = _(
    'What to show: event:<id>, or object:<model>:<id>, such as object:dcim.site:7. Default: the latest event of the '
    "webhook's types, else their newest object."
)


class WebhookReplaySerializer(StorableMixin, serializers.Serializer):
    """The range of past events to redeliver: from `since`, and before `until`."""

    since = serializers.DateTimeField()
    until = serializers.DateTimeField(required=False, help_text=_('Default: now.'))
    status = serializers.ChoiceField(
        choices=CLOSED_CHOICES,
        required=False,
        help_text=_('Only deliveries with this status. Default: all except replaced ones (superseded).'),
    )
    dry_run = serializers.BooleanField(default=False, help_text=_('Only count the deliveries. Nothing is sent.'))

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        if 'until' in data and data['since'] >= data['until']:
            raise serializers.ValidationError({'until': _('"until" must be later than "since".')})
        return data


class WebhookFeedQuerySerializer(StorableMixin, serializers.Serializer):
    """Which part of a feed to read, and how long to wait for it."""

    after = serializers.CharField(
        required=False, help_text=_('The cursor of the last answer or item. Omit it to read from the start of the log.')
    )
    limit = serializers.IntegerField(
        min_value=1, max_value=feed.MAX_ITEMS_PER_PAGE, default=100, help_text=_('Maximum number of items.')
    )
    wait = serializers.IntegerField(
        min_value=0,
        max_value=feed.MAX_WAIT_SECONDS,
        default=0,
        help_text=_('Seconds to wait if nothing is new.'),
    )


class WebhookFeedItemSerializer(serializers.Serializer):
    """A change, as a request would have carried it."""

    cursor = serializers.CharField(read_only=True, help_text=_('Pass it as `after` to continue after this item.'))
    id = serializers.UUIDField(read_only=True, help_text=_('The webhook-id.'))
    published_at = serializers.DateTimeField(read_only=True)
    headers = serializers.DictField(child=serializers.CharField(), read_only=True)
    body = serializers.CharField(
        read_only=True, allow_null=True, help_text=_('Null if it could not be built: see `error`.')
    )
    error = serializers.CharField(read_only=True, help_text=_('Why there is no body.'))


class WebhookFeedSerializer(serializers.Serializer):
    """The changes after a cursor."""

    items = WebhookFeedItemSerializer(many=True, read_only=True)
    cursor = serializers.CharField(read_only=True, help_text=_('Pass it as `after` to continue after this answer.'))
    unread = serializers.IntegerField(read_only=True, help_text=_('How many changes come after this answer.'))
    unread_since = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text=_('When the oldest of these was published.')
    )


class WebhookDeliveryCountSerializer(serializers.Serializer):
    """The number of redelivered deliveries."""

    count = serializers.IntegerField(read_only=True, help_text=_('Number of deliveries that are redelivered.'))


class WebhookRedeliveryFiguresSerializer(WebhookDeliveryCountSerializer):
    """The number of redelivered deliveries. After a dry run: how many would be redelivered, with more about them."""

    # The schema would call read-only fields required.
    webhooks = serializers.IntegerField(required=False, help_text=_('Number of webhooks to which they go.'))
    oldest = serializers.DateTimeField(
        required=False, allow_null=True, help_text=_('Time of the oldest change among them.')
    )
    outdated = serializers.IntegerField(
        required=False,
        help_text=_('Number of those that are older than a later delivered change of their object.'),
    )
    delivered = serializers.IntegerField(
        required=False, help_text=_('Number of those that were delivered: they get a new webhook-id.')
    )


def figures_of(figures: Figures) -> dict[str, Any]:
    """Return the answer to a dry run of a redelivery, as JSON."""
    values = {name: getattr(figures, name) for name in ('count', 'oldest', 'outdated', 'delivered')}
    return dict(WebhookRedeliveryFiguresSerializer(values | {'webhooks': len(figures.by_webhook)}).data)


class WebhookWaitingSerializer(serializers.Serializer):
    """The changes that wait for a webhook."""

    changes = serializers.IntegerField(read_only=True, help_text=_('Number of waiting changes, counted up to 100,000.'))
    objects = serializers.IntegerField(read_only=True, help_text=_('Number of objects with waiting changes.'))
    since = serializers.DateTimeField(
        read_only=True,
        allow_null=True,
        help_text=_('Since when the oldest change has been waiting. Null if nothing is waiting.'),
    )


class WebhookSendWaitingSerializer(StorableMixin, serializers.Serializer):
    """Which of the waiting changes to send."""

    latest_only = serializers.BooleanField(
        default=False,
        help_text=_('Send only the latest change of each object. Earlier ones are not sent: it replaces them.'),
    )


class WebhookSentWaitingSerializer(WebhookWaitingSerializer):
    """The changes that still wait, and the number of replaced deliveries."""

    superseded = serializers.IntegerField(
        read_only=True, help_text=_('Number of deliveries that a later change replaced.')
    )


class WebhookBackfillStartSerializer(StorableMixin, serializers.Serializer):
    """The objects to send in their present state."""

    object_types = serializers.ListField(
        child=AllowedTypeField(),
        required=False,
        allow_empty=False,
        help_text=_('Object types of the webhook. Default: all of them.'),
    )
    filter = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=MAX_QUERY_CHARS,
        help_text=_("A filter as in the URL of NetBox's lists, for example: site=berlin&status=active"),
    )
    dry_run = serializers.BooleanField(default=False, help_text=_('Only count the objects. Nothing is sent.'))


class WebhookBackfillSerializer(serializers.Serializer):
    """The last backfill of a webhook, and how far it is."""

    state = serializers.ChoiceField(choices=BackfillStateChoices, read_only=True, source='backfill.state')
    error = serializers.CharField(read_only=True)
    object_types = serializers.ListField(child=serializers.CharField(), read_only=True, source='labels')
    filter = serializers.CharField(read_only=True, source='query')
    total = serializers.IntegerField(read_only=True, allow_null=True, help_text=_('Number of objects to send.'))
    sent = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text=_(
            'Number of objects that are done: delivered, failed, replaced by a change, or excluded by conditions.'
        ),
    )
    restricted = serializers.BooleanField(
        read_only=True,
        source='is_restricted',
        help_text=_('Whether the filter and the numbers are hidden, because you may not view all objects.'),
    )
    username = serializers.CharField(read_only=True, source='backfill.username')
    started_at = serializers.DateTimeField(read_only=True, source='backfill.started_at')
    finished_at = serializers.DateTimeField(read_only=True, allow_null=True, source='backfill.finished_at')


class WebhookSendNowSerializer(StorableMixin, serializers.Serializer):
    """The objects to send now, all of one type."""

    object_type = AllowedTypeField()
    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=MAX_KEY),
        allow_empty=False,
        max_length=send_now.MAX_OBJECTS,
    )
    dry_run = serializers.BooleanField(default=False, help_text=_('Only count the objects. Nothing is sent.'))


class WebhookExcludedObjectSerializer(serializers.Serializer):
    """An object that is not sent, because the conditions or the list of the webhook exclude it."""

    id = serializers.IntegerField(read_only=True, source='pk')
    display = serializers.CharField(read_only=True, source='name')
    reasons = serializers.ListField(child=serializers.CharField(), read_only=True)


class WebhookSentNowSerializer(serializers.Serializer):
    """How many objects are sent, and which are not."""

    count = serializers.IntegerField(read_only=True, help_text=_('Number of objects that are sent.'))
    excluded = WebhookExcludedObjectSerializer(many=True, read_only=True)


class WebhookBackfillCountSerializer(serializers.Serializer):
    """The answer to a dry run of a backfill."""

    total = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text=_('Number of objects that would be sent. Null: you may not view all of them.'),
    )


class WebhookRotationSerializer(StorableMixin, serializers.Serializer):
    """The kind of the new secret, and how long the present one stays valid."""

    prefix = serializers.ChoiceField(
        choices=[signing.SYMMETRIC, signing.PRIVATE],
        default=signing.SYMMETRIC,
        help_text=_(
            'whsec_: a secret shared with the receiver. whsk_: ed25519, the receiver needs only the public key.'
        ),
    )
    overlap = serializers.DurationField(
        default=secret_rotation.DEFAULT_OVERLAP, min_value=timedelta(0), max_value=timedelta(days=365)
    )


class WebhookSecretSerializer(serializers.Serializer):
    """The new secret. It is shown only once."""

    secret = serializers.CharField(read_only=True, help_text=_('Shown only once.'))
    public_key = serializers.CharField(read_only=True)
    previous_until = serializers.DateTimeField(read_only=True, allow_null=True)


class PreviewSourceSerializer(StorableMixin, serializers.Serializer):
    """The event or object to show."""

    source = serializers.CharField(required=False, allow_blank=True, max_length=200, help_text=SOURCE_HELP)


class WebhookPreviewSerializer(KeysMixin, PreviewSourceSerializer, serializers.ModelSerializer):
    """The fields of a request. Others keep the webhook's values."""

    class Meta:
        model = Webhook
        fields = (
            'source', 'type_create', 'type_update', 'type_delete', 'conditions', 'body_template', 'payload_format',
            'http_content_type', 'include_snapshots', 'expand', 'fields', 'omit', 'only_if_changed',
        )  # fmt: skip
        extra_kwargs = {'body_template': {'trim_whitespace': False}}

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        if others := self.initial_data.keys() - self.fields.keys() - {'csrfmiddlewaretoken'}:
            raise serializers.ValidationError(dict.fromkeys(others, _('A preview shows no change of this field.')))
        self._check_keys(data)
        return super().validate(data)


class WebhookConditionPartSerializer(serializers.Serializer):
    """A part of the conditions, and whether it is met."""

    text = serializers.CharField(read_only=True, help_text=_('The attribute and its value.'))
    is_met = serializers.BooleanField(read_only=True)


class WebhookPreviewedSerializer(serializers.Serializer):
    """A request that was not sent, and whether the webhook would send it."""

    method = serializers.CharField(read_only=True)
    url = serializers.CharField(read_only=True)
    headers = serializers.DictField(read_only=True)
    body = serializers.CharField(read_only=True)
    size = serializers.IntegerField(read_only=True, help_text=_('Of the body, in bytes.'))
    is_sent = serializers.BooleanField(
        read_only=True,
        allow_null=True,
        source='verdict.is_sent',
        help_text=_('Whether the webhook takes this event. Null: undecided.'),
    )
    reasons = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        source='verdict.reasons',
        help_text=_('Why the webhook does not take this event.'),
    )
    undecided = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        source='verdict.undecided',
        help_text=_('Other requirements for a change, which can no longer be checked.'),
    )
    conditions = WebhookConditionPartSerializer(
        many=True,
        read_only=True,
        source='verdict.conditions',
        help_text=_('The result of each part of the conditions.'),
    )
    warnings = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text=_('Probable mistakes in the definition.')
    )
