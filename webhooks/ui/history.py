"""A webhook's deliveries in the last day or week, counted. The template webhooks/panels/history.html draws them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.humanize.templatetags.humanize import intcomma
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Hour, Webhook


@dataclass(frozen=True, eq=False)
class Period:
    """The time that a chart shows: `slots` bars of `hours` hours each. The last one contains now.

    Every `tick_every`-th slot has its time below, in Django's format `tick_format`. `key` is its name in an address.
    """

    key: str
    label: str
    title: str
    slots: int
    hours: int
    tick_every: int
    tick_format: str

    @property
    def step(self) -> timedelta:
        """Return the length of a slot."""
        return timedelta(hours=self.hours)


DAY = Period('day', gettext_lazy('Day'), gettext_lazy('Last 24 hours'), 24, 1, 6, 'H:i')
WEEK = Period('week', gettext_lazy('Week'), gettext_lazy('Last 7 days'), 28, 6, 4, 'D')
PERIODS = {period.key: period for period in (DAY, WEEK)}


@dataclass(frozen=True)
class Slot:
    """How many deliveries were closed from `since` on and before `until`, by status."""

    since: datetime
    until: datetime
    delivered: int
    failed: int
    superseded: int = 0

    def __str__(self) -> str:
        return f'{date_format(localtime(self.since), "D H:i")} – {date_format(localtime(self.until), "H:i")}'

    @property
    def figures(self) -> str:
        """Return the figures in words, such as '5 delivered, 1 failed'."""
        shown = {'delivered': intcomma(self.delivered), 'failed': intcomma(self.failed)}
        return _('{delivered} delivered, {failed} failed').format(**shown)


def read(webhook: Webhook, period: Period, now: datetime) -> list[Slot]:
    """Return the period's slots with their counts, the oldest first. The last contains `now`.

    Reads the hourly counts in one query.
    """
    since = _next_boundary(now, period) - period.slots * period.step
    totals = [[0, 0, 0] for _ in range(period.slots)]
    hours = Hour.objects.filter(health=webhook.pk, start__gte=since)
    for start, *counts in hours.values_list('start', 'delivered', 'failed', 'superseded'):
        place = min((start - since) // period.step, period.slots - 1)
        totals[place] = [total + count for total, count in zip(totals[place], counts, strict=True)]
    starts = [since + number * period.step for number in range(period.slots)]
    return [Slot(start, start + period.step, *total) for start, total in zip(starts, totals, strict=True)]


def _next_boundary(now: datetime, period: Period) -> datetime:
    """Return the end of the slot that contains `now`: a full local hour, in UTC.

    In UTC all slots have one length, even when the clocks change.
    """
    local = localtime(now)
    hour = local.hour // period.hours * period.hours
    return local.replace(hour=hour, minute=0, second=0, microsecond=0).astimezone(UTC) + period.step


def context(webhook: Webhook, period: Period, now: datetime) -> dict[str, Any]:
    """Return the context of the template: the slots, their sums as a slot, and the most of a slot, for the scale.

    The caller adds `failed_url`, a list of the failed deliveries, or ''.
    """
    slots = read(webhook, period, now)
    delivered, failed, superseded = zip(*((one.delivered, one.failed, one.superseded) for one in slots), strict=True)
    return {
        'webhook': webhook,
        'period': period,
        'slots': slots,
        'total': Slot(slots[0].since, slots[-1].until, sum(delivered), sum(failed), sum(superseded)),
        'most_delivered': max(delivered),
        'most_failed': max(failed),
        'scale': max(delivered) + max(failed),
    }
