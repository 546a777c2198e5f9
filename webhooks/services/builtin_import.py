"""Imports NetBox's own webhooks: first `plan`, then `carry_out`.

An event rule becomes a webhook with the same name, whole or not at all. Existing webhooks stay.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.choices import ObjectChangeActionChoices
from core.events import OBJECT_CREATED, OBJECT_DELETED, OBJECT_UPDATED
from core.models import ObjectChange
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Model
from extras.choices import EventRuleActionChoices
from extras.models import CustomField, EventRule
from extras.models import Webhook as BuiltinWebhook
from netbox.config import get_config

from .. import object_types
from ..choices import FormatChoices
from ..constants import MAX_ATTEMPTS
from ..exceptions import DecryptionError
from ..models import Webhook
from ..models.fields import MaskedUrl, Sealed
from ..security import signing

# {event type of NetBox: the webhook's switch}
FLAGS = {OBJECT_CREATED: 'type_create', OBJECT_UPDATED: 'type_update', OBJECT_DELETED: 'type_delete'}
COPIED_FIELDS = ('payload_url', 'http_method', 'http_content_type', 'additional_headers', 'body_template', 'secret')
# Fields that only our webhooks have. An import sets them so that requests stay the same; people may change them.
OUR_FIELDS = (
    'change_set', 'latest_only', 'quiet', 'include_components', 'include_config_contexts', 'expand',
    'include_snapshots', 'fields', 'omit', 'filters', 'only_if_changed', 'only_real_changes',
)  # fmt: skip
COMPARED_FIELDS = (*OUR_FIELDS, *COPIED_FIELDS, 'payload_format', 'ssl_verification', 'ca_file_path')
# These may differ: they name the webhook, authenticate it, or decide when and how often a request is made. Put a new
# field of a webhook here, or into OUR_FIELDS.
FREE_FIELDS = (
    'name', 'description', 'tags', 'secret_path', 'credential', 'standard_headers', 'client_cert_path',
    'client_key_path', 'success_conditions', 'max_attempts', 'timeout', 'rate_limit', 'concurrency', 'ordered',
    'quiet_max', 'notification_groups',
)  # fmt: skip
# In the change log, in place of a user: a command has none.
ACTOR = 'webhooks_import'


@dataclass
class Plan:
    """The plan for an event rule: the `webhook` that it would become, and the `reasons` that prevent it.

    `existing` is the webhook of this name, imported before. `webhook` is not saved. It is None if NetBox's own webhook
    no longer exists.
    """

    rule: EventRule
    webhook: Webhook | None = None
    types: Sequence[ContentType] = ()
    reasons: list[str] = field(default_factory=list)
    existing: Webhook | None = None

    @property
    def is_new(self) -> bool:
        """Whether the rule is to be imported now."""
        return not self.existing and not self.reasons

    @property
    def may_be_disabled(self) -> bool:
        """Whether the rule is on and its webhook sends all that it sends. Then nothing is lost without it."""
        return self.rule.enabled and not self.reasons and not self.gaps()

    def gaps(self) -> list[str]:
        """Return the settings that make the existing webhook send less than the rule, or different requests.

        Empty: the webhook may replace the rule.
        """
        if self.existing is None:
            return []
        differs = {
            'enabled': self.rule.enabled and not self.existing.enabled,
            'paused': self.existing.paused,
            'object_types': not self._has_all_types(),
            'ignore_users': self.existing.ignore_users.exists(),
        }
        return [*(name for name, is_gap in differs.items() if is_gap), *self._gaps_in_request()]

    def _has_all_types(self) -> bool:
        sent = set(self.existing.object_types.values_list('pk', flat=True))
        return sent.issuperset(object_type.pk for object_type in self.types)

    def _gaps_in_request(self) -> Iterator[str]:
        ours, wanted = self.existing, self.webhook
        if wanted is None:
            return
        if not set(ours.kinds).issuperset(wanted.kinds):
            yield 'creations, updates and deletions'
        if ours.conditions and ours.conditions != wanted.conditions:
            yield 'conditions'
        yield from (name for name in COMPARED_FIELDS if not _is_same(getattr(ours, name), getattr(wanted, name)))


def plan() -> list[Plan]:
    """Return a plan for each event rule that sends a webhook, sorted by name. Writes nothing."""
    rules = EventRule.objects.filter(action_type=EventRuleActionChoices.WEBHOOK).order_by('name')
    ours = {webhook.name: webhook for webhook in Webhook.objects.all()}
    return [_plan(rule, ours.get(rule.name)) for rule in rules.prefetch_related('object_types')]


def carry_out(plans: Sequence[Plan], *, disable_builtin: bool) -> None:
    """Create the webhooks of new plans, and with `disable_builtin` disable their rules: all in one transaction.

    Each change gets an entry in the change log, under one request id.
    """
    request_id = uuid.uuid4()
    with transaction.atomic():
        for one in plans:
            if one.is_new:
                _create(one, request_id)
            if disable_builtin and one.may_be_disabled:
                _disable(one.rule, request_id)


#
# Plan
#


def _plan(rule: EventRule, existing: Webhook | None) -> Plan:
    types = list(rule.object_types.all())
    builtin = rule.action_object
    if not isinstance(builtin, BuiltinWebhook):
        return Plan(rule, types=types, reasons=['its webhook no longer exists'], existing=existing)
    webhook = _translate(rule, builtin)
    return Plan(rule, webhook, types, [*_rule_reasons(rule, types), *_webhook_reasons(webhook, builtin)], existing)


def _is_same(one: Any, other: Any) -> bool:
    try:
        return _whole(one) == _whole(other)
    except DecryptionError:
        return False


def _whole(value: Any) -> Any:
    return value.reveal() if isinstance(value, MaskedUrl | Sealed) else value


def _translate(rule: EventRule, builtin: BuiltinWebhook) -> Webhook:
    """Return the unsaved webhook that sends the same. With a template it includes snapshots, as NetBox's own does."""
    has_template = bool(builtin.body_template)
    return Webhook(
        name=rule.name,
        description=rule.description or builtin.description,
        enabled=rule.enabled,
        payload_format=FormatChoices.DEFAULT if has_template else FormatChoices.NETBOX,
        include_snapshots=has_template,
        conditions=rule.conditions,
        # NetBox's own webhooks send each save.
        only_real_changes=False,
        ssl_verification=builtin.ssl_verification,
        ca_file_path=builtin.ca_file_path or '',
        timeout=builtin.timeout,
        max_attempts=min(1 + get_config().RQ_RETRY_MAX, MAX_ATTEMPTS),
        **{name: getattr(builtin, name) for name in COPIED_FIELDS},
        custom_field_data=CustomField.objects.get_defaults_for_model(Webhook),
        **{flag: event_type in rule.event_types for event_type, flag in FLAGS.items()},
    )


def _rule_reasons(rule: EventRule, types: Sequence[ContentType]) -> Iterator[str]:
    if others := sorted(set(rule.event_types) - FLAGS.keys()):
        yield (
            f'event_types: {", ".join(others)}: a webhook sends only changes of objects; '
            'keep the event rule, and give it the action "Send with Webhooks"'
        )
    elif not rule.event_types:
        yield 'event_types: the event rule has none'
    if rule.action_data:
        yield 'action_data: a webhook cannot add data to the object; use a body template instead'
    if not types:
        yield 'object_types: the event rule has none'
    allowed = object_types.by_label()
    for label in sorted(object_types.label_of(object_type) for object_type in types):
        if label not in allowed:
            yield f'object_types: {label} is not in the setting allowed_models'


def _webhook_reasons(webhook: Webhook, builtin: BuiltinWebhook) -> Iterator[str]:
    if signing.is_asymmetric(builtin.secret):
        yield f'secret: it begins with {signing.PRIVATE}, so requests would be signed in another way; change the secret'
    try:
        webhook.full_clean(validate_unique=False)
    except ValidationError as error:
        for name, messages in error.message_dict.items():
            if name not in FLAGS.values():
                yield f'{name}: {" ".join(messages)}'


#
# Carry out
#


def _create(one: Plan, request_id: uuid.UUID) -> None:
    one.webhook.save()
    one.webhook.object_types.set(one.types)
    _log(one.webhook, ObjectChangeActionChoices.ACTION_CREATE, request_id)


def _disable(rule: EventRule, request_id: uuid.UUID) -> None:
    rule.snapshot()
    rule.enabled = False
    rule.save()
    _log(rule, ObjectChangeActionChoices.ACTION_UPDATE, request_id)


def _log(instance: Model, action: str, request_id: uuid.UUID) -> None:
    """Write an entry of the change log: NetBox writes them only in requests."""
    change: ObjectChange = instance.to_objectchange(action)
    change.user_name = ACTOR
    change.request_id = request_id
    change.save()
