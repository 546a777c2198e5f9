"""Names the webhooks that are paused or suspended: since when, and who paused them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from core.models import ObjectChange
from django.contrib.contenttypes.models import ContentType
from django.db.models import F, QuerySet
from django.utils.translation import gettext as _

from ..models import Webhook
from ..presentation.moments import moment
from ..presentation.states import IS_PAUSED, IS_SUSPENDED

MAX_NAMED = 5


@dataclass(frozen=True)
class NotSending:
    """A paused or suspended webhook, by its name.

    `since` and `by` are unknown for a pause that NetBox's change log does not show, such as one from the shell.
    """

    webhook: str
    since: datetime | None
    by: str = ''

    def __str__(self) -> str:
        if self.since is None:
            return self.webhook
        if not self.by:
            return _('{webhook} (since {since})').format(webhook=self.webhook, since=moment(self.since))
        return _('{webhook} (since {since}, by {user})').format(
            webhook=self.webhook, since=moment(self.since), user=self.by
        )


def suspended(webhooks: QuerySet[Webhook]) -> list[NotSending]:
    """Return the suspended ones among `webhooks`, the longest suspended first."""
    rows = webhooks.filter(IS_SUSPENDED).order_by('health__suspended_since', 'name')
    return [NotSending(*row) for row in rows.values_list('name', 'health__suspended_since')]


def paused(webhooks: QuerySet[Webhook], changes: QuerySet[ObjectChange]) -> list[NotSending]:
    """Return the paused ones among `webhooks`, sorted by name. `changes`: where to look for who paused them."""
    names = dict(webhooks.filter(IS_PAUSED).order_by('name').values_list('pk', 'name'))
    switched = changes.filter(
        changed_object_type=ContentType.objects.get_for_model(Webhook), changed_object_id__in=names
    ).exclude(prechange_data__paused=F('postchange_data__paused'))
    last = switched.order_by('changed_object_id', '-time').distinct('changed_object_id')
    pauses = {one.changed_object_id: one for one in last if one.postchange_data and one.postchange_data.get('paused')}
    return [
        NotSending(name, pauses[pk].time, pauses[pk].user_name) if pk in pauses else NotSending(name, None)
        for pk, name in names.items()
    ]


def name_some(webhooks: Sequence[object]) -> str:
    """Return the first MAX_NAMED of these webhooks, or other items, as text in one line."""
    named = ' · '.join(map(str, webhooks[:MAX_NAMED]))
    return f'{named} · …' if len(webhooks) > MAX_NAMED else named
