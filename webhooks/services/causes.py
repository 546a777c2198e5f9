"""Groups failed deliveries by cause: webhook, and how the error begins (models/delivery.py, CAUSE_CHARS)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib.humanize.templatetags.humanize import intcomma
from django.db.models import Count, Max, Min
from django.db.models.functions import Coalesce, Length
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..choices import StatusChoices
from ..models import Delivery, Webhook
from ..models.delivery import CAUSE_CHARS
from ..models.querysets import attempts_of
from ..payload_visibility import conceal
from ..presentation.moments import moment
from ..storable import storable
from ..visibility import Reader

# At most this many of the newest failures are grouped. If a page read millions of rows, it would take minutes.
MAX_FAILURES_READ = 20_000
MAX_CAUSES_SHOWN = 50
# The receiver's last answer is cut to this length.
MAX_ANSWER_CHARS = 200


@dataclass(frozen=True)
class Cause:
    """Deliveries to a webhook that failed from `first` to `last`, with errors that begin alike.

    `answer` is the receiver's last answer, '' if there was none or the reader may not see it. `is_cut`: some of the
    errors are longer than `error`.
    """

    webhook: Webhook
    error: str
    count: int
    first: datetime
    last: datetime
    answer: str = ''
    is_cut: bool = False

    @property
    def figures(self) -> str:
        """Return the number in words, such as '1,200 deliveries'."""
        shown = {'shown': intcomma(self.count)}
        return ngettext('%(shown)s delivery', '%(shown)s deliveries', self.count) % shown

    @property
    def period(self) -> str:
        """Return when they failed, such as '10:57 – 10:59' today, with the date on other days."""
        (first_day, first), (last_day, last) = (moment(when)[:16].split() for when in (self.first, self.last))
        if first_day != last_day:
            return f'{first_day} {first} – {last_day} {last}'
        span = first if first == last else f'{first} – {last}'
        return span if first_day == moment(timezone.now())[:10] else f'{first_day} {span}'

    @property
    def query(self) -> str:
        """Return the query of the list that shows these deliveries, in NetBox and in REST."""
        chosen = {'status': StatusChoices.FAILED, 'webhook_id': self.webhook.pk, 'error': self.error, 'test': 'false'}
        return urlencode(chosen)


@dataclass(frozen=True)
class Causes:
    """The causes with most failures, and how many `others` there are. `is_bounded`: older failures were not read.

    Without any cause, it counts as false.
    """

    shown: list[Cause]
    others: int
    is_bounded: bool

    def __bool__(self) -> bool:
        return bool(self.shown)

    @property
    def note(self) -> str:
        """Return sentences about causes and failures that `shown` leaves out. '' if it has all."""
        parts = []
        if self.is_bounded:
            text = _('Only the newest {count} failures are grouped.')
            parts.append(text.format(count=intcomma(MAX_FAILURES_READ)))
        if self.others:
            text = ngettext('%(count)s more cause is not shown.', '%(count)s more causes are not shown.', self.others)
            parts.append(text % {'count': intcomma(self.others)})
        return ' '.join(parts)


def find(reader: Reader | None = None, webhook: Webhook | None = None) -> Causes:
    """Group the newest failures that the reader may view, without tests.

    Reader None may view all. Reads MAX_FAILURES_READ rows at most, by an index. Takes four queries.
    """
    log = Delivery.objects.all() if reader is None else Delivery.objects.restrict(reader, 'view')
    newest = log.failures()
    if webhook is not None:
        newest = newest.filter(webhook=webhook)
    pks = newest.order_by('-pk').values('pk')[:MAX_FAILURES_READ]
    grouped = Delivery.objects.filter(pk__in=pks).with_cause(reader).order_by().values('webhook_id', 'cause')
    closed = Coalesce('finished_at', 'created')
    found = list(
        grouped.annotate(
            count=Count('pk'),
            first=Min(closed),
            last=Max(closed),
            newest=Max('pk'),
            chars=Max(Length('beginning')),
        ).order_by('-count', '-last', 'webhook_id', 'cause')
    )
    rows = found[:MAX_CAUSES_SHOWN]
    answers = _answers(reader, [row['newest'] for row in rows])
    webhooks = Webhook.objects.select_related('health').in_bulk({row['webhook_id'] for row in rows})
    return Causes(
        # Somebody may have deleted a webhook since.
        [_cause(row, webhooks, answers) for row in rows if row['webhook_id'] in webhooks],
        others=len(found) - len(rows),
        is_bounded=sum(row['count'] for row in found) >= MAX_FAILURES_READ,
    )


def _cause(row: Mapping[str, Any], webhooks: Mapping[int, Webhook], answers: Mapping[int, str]) -> Cause:
    webhook, answer = webhooks[row['webhook_id']], answers.get(row['newest'], '')
    is_cut = row['chars'] == CAUSE_CHARS
    return Cause(webhook, row['cause'], row['count'], row['first'], row['last'], answer, is_cut)


def _answers(reader: Reader | None, pks: Iterable[int]) -> dict[int, str]:
    """Return the last answers to these deliveries, in one line each, that the reader may see."""
    last = {pk: attempts[0] for pk, attempts in attempts_of(pks).items() if attempts}
    if reader is not None:
        conceal(reader, last.values())
    return {pk: _line(attempt.response_body or '') for pk, attempt in last.items()}


def _line(body: str) -> str:
    return storable(Truncator(' '.join(body.split())).chars(MAX_ANSWER_CHARS))
