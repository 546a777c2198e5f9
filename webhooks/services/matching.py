"""Says whether a webhook takes an event, and why not. It decides anew, and writes nothing."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from django.contrib.contenttypes.models import ContentType
from django.db.models import Q
from django.utils.translation import gettext as _
from extras.conditions import Condition
from users.models import User

from ..choices import KindChoices
from ..engine.dispatch import matching
from ..engine.dispatch.changed_keys import value_at
from ..engine.dispatch.render import Shown
from ..exceptions import Busy
from ..models import Delivery, Event, Subscription, Webhook
from ..object_types import label_of_id
from ..payload_visibility import may_see_expanded
from ..storable import nodes
from . import conditions, preview_room
from .conditions import Part

# A page shows the reasons of this many webhooks at most: each evaluates its conditions.
MAX_WEBHOOKS_EXPLAINED = 20


class Refusal(NamedTuple):
    """A webhook that did not take an event, and why.

    `saved_at`: its settings are newer than that decision, else None.
    """

    webhook: Webhook
    reasons: list[str]
    saved_at: datetime | None


class Verdict(NamedTuple):
    """Whether a webhook takes an event, in sentences.

    `reasons` say why it does not. `undecided` names requirements that can no longer be checked. `conditions` has the
    result of each part of the conditions, and `warnings` the probable mistakes in them.
    """

    reasons: list[str]
    undecided: list[str]
    conditions: list[Part]
    warnings: list[str]

    @property
    def is_sent(self) -> bool | None:
        """Whether the webhook takes the event. None: undecided."""
        if self.reasons:
            return False
        return None if self.undecided else True


class Refusals(NamedTuple):
    """The webhooks that did not take an event, as one reader may see them.

    `hidden`: how many more did not: beyond MAX_WEBHOOKS_EXPLAINED, hidden from this reader, or deleted. `problem`: why
    no reasons are given.
    """

    shown: list[Refusal]
    hidden: int
    problem: str = ''


def refusals_of(event: Event, user: User) -> Refusals:
    """Return the webhooks that did not take an event, and why. The user may view the event's object."""
    asked = Subscription.objects.filter(
        Q(until=None) | Q(until__gte=event.sequence),
        object_type=event.object_type_id,
        kind=matching.asked_kind(event),
        since__lt=event.sequence,
    )
    wanting = Q(pk=event.backfill_for) if event.backfill else Q(pk__in=asked.values('webhook'))
    taken = Delivery.objects.filter(event=event).values('webhook')
    webhooks = Webhook.objects.restrict(user, 'view').filter(wanting).exclude(pk__in=taken)
    try:
        with preview_room.taken():
            found = webhooks.prefetch_related('ignore_users')[:MAX_WEBHOOKS_EXPLAINED]
            shown = [_refusal(webhook, event, user) for webhook in found]
    except Busy as busy:
        return Refusals([], 0, str(busy))
    return Refusals(shown, max(event.skipped - len(shown), 0))


def _refusal(webhook: Webhook, event: Event, reader: User) -> Refusal:
    if webhook.expand and not may_see_expanded(reader, event.expanded_types or ()):
        return Refusal(webhook, [_('Hidden, because you may not view the object.')], None)
    names = [user.username for user in webhook.ignore_users.all()]
    is_newer = bool(webhook.last_updated and event.dispatched_at and webhook.last_updated > event.dispatched_at)
    found = [*_ignored(event, names), *unmet_conditions(webhook, event)] or _possible_reasons(webhook, event, is_newer)
    return Refusal(webhook, found, webhook.last_updated if is_newer else None)


def _possible_reasons(webhook: Webhook, event: Event, is_newer: bool) -> list[str]:
    """Return guesses where no reason can be shown. Empty: with its present settings it takes the event."""
    is_changed = _is_changed(webhook, event)
    unknown = [] if is_changed else _unknown_change(webhook)
    if is_changed is False:
        return [comparison(webhook, event)]
    if query := _filter_of(webhook, event):
        return [_('Filter: {query}').format(query=query), *unknown]
    has_pattern = matching.has_pattern(webhook.conditions or {})
    if unknown and not is_newer and not has_pattern:
        return [comparison(webhook, event)]
    if is_newer:
        return unknown
    if has_pattern:
        return [*unknown, _('Not known. A regular expression may have taken too long.')]
    return [_('Not known.')]


def _filter_of(webhook: Webhook, event: Event) -> str:
    """Return the filter of the webhook for objects of the event's type, '' if it has none."""
    return webhook.filters.get(label_of_id(event.object_type_id), '')


def comparison(webhook: Webhook, event: Event) -> str:
    """Return the setting that may have refused this update because nothing that it asks for changed, in words.

    '' if no setting compares, and for events that are never compared: creations, deletions, backfills, tests, derived
    changes.
    """
    is_compared = event.kind == KindChoices.UPDATED and not (event.backfill or event.caused_by or event.test)
    if not is_compared or not webhook.compares:
        return ''
    if webhook.only_if_changed:
        return _('Only if changed: {keys}').format(keys=', '.join(webhook.only_if_changed))
    return _('Only real changes: nothing changed')


def judge(webhook: Webhook, event: Event, ignored: Collection[str]) -> Verdict:
    """Decide whether the webhook takes the event, which need not be saved: then it shows an object as it is now.

    `ignored` are names of users.
    """
    unknown = _unknown_conditions(webhook, event)
    is_changed = _is_changed(webhook, event)
    data = _data_of(webhook, event) if webhook.conditions else None
    return Verdict(
        reasons=[
            *_ignored(event, ignored),
            *([] if unknown else unmet_conditions(webhook, event)),
            *([comparison(webhook, event)] if is_changed is False else []),
        ],
        undecided=[
            *unknown,
            *_unknown_membership(webhook, event),
            *([] if is_changed is not None else _unknown_change(webhook)),
        ],
        conditions=[] if unknown or data is None else list(conditions.parts(webhook.conditions, data)),
        warnings=[] if data is None else list(conditions.warnings(webhook.conditions, data)),
    )


def _unknown_conditions(webhook: Webhook, event: Event) -> list[str]:
    """Return a sentence if the conditions ask for the state before the change, and that is not known."""
    is_known = event.snapshots and (event.pk or event.kind != KindChoices.UPDATED)
    if is_known or not any(map(_asks_for_before, nodes(webhook.conditions or {}))):
        return []
    if event.pk is None:
        return [_('The conditions ask for the state before a change. An object as it is now has none.')]
    return [
        _(
            'The conditions ask for the state before the change, which was not kept: no webhook asked for it then. '
            'Save this one, change an object, and look again.'
        )
    ]


def _asks_for_before(node: Any) -> bool:
    if not isinstance(node, dict):
        return False
    return node.get('op') in Condition.SNAPSHOT_OPERATORS or str(node.get('attr')).startswith('snapshots.')


def _unknown_membership(webhook: Webhook, event: Event) -> list[str]:
    query = _filter_of(webhook, event)
    return [_('Not checked here: whether the object is in the list: {query}').format(query=query)] if query else []


def _unknown_change(webhook: Webhook) -> list[str]:
    if webhook.only_if_changed:
        keys = ', '.join(webhook.only_if_changed)
        return [_('Not checked here: whether one of these changed: {keys}').format(keys=keys)]
    return [_('Not checked here: whether it is a real change')]


def _is_changed(webhook: Webhook, event: Event) -> bool | None:
    """Return whether a value that the webhook compares has changed. None: only dispatch could tell.

    Dispatch removes the state before. The change log's data are kept if some webhook shows them.
    """
    if not comparison(webhook, event):
        return True
    snapshots: dict[str, dict[str, Any] | None] = event.snapshots or {}
    before, after = snapshots.get('prechange'), snapshots.get('postchange')
    if event.pk is None or before is None or after is None:
        return None
    if not webhook.only_if_changed:
        # The time of the save does not count. The change log leaves out some values, which may have changed.
        return {**before, 'last_updated': None} != {**after, 'last_updated': None} or None
    found = [_is_key_changed(key, event.object_type, before, after) for key in webhook.only_if_changed]
    if any(found):
        return True
    return None if None in found else False


def _is_key_changed(key: str, object_type: ContentType, before: dict[str, Any], after: dict[str, Any]) -> bool | None:
    name, _dot, rest = key.partition('.')
    if name not in before or name not in after:
        return None
    if value_at(before, key) == value_at(after, key):
        return False
    # The change log names a related object by its id. Another one may have the same value.
    names = {field.name for field in object_type.model_class()._meta.get_fields() if field.is_relation}
    return None if rest and name in names else True


def _ignored(event: Event, ignored: Collection[str]) -> list[str]:
    if event.username in ignored and not event.backfill:
        return [_('Ignored user: {name}').format(name=event.username)]
    return []


def unmet_conditions(webhook: Webhook, event: Event) -> list[str]:
    """Return the parts of the webhook's conditions that the event does not meet, a sentence each.

    Regular expressions run in the renderer's process.
    """
    if not webhook.conditions or (data := _data_of(webhook, event)) is None:
        return []
    return [_('Conditions: {part}').format(part=part) for part in conditions.unmet(webhook.conditions, data)]


def _data_of(webhook: Webhook, event: Event) -> dict[str, Any] | None:
    """Return the data that conditions are about.

    None: the event has no data, and is taken in spite of all conditions.
    """
    shown = Shown.of_dispatched(event)
    return None if shown.data is None else matching.data_of(webhook, shown)
