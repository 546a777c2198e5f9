"""The installation's state in a few lines, for the page *Status* in NetBox."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from django.contrib.humanize.templatetags.humanize import intcomma
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import conf
from ..choices import WAITING_STATUSES, StatusChoices
from ..models import Webhook
from ..payload import schema_guard
from ..presentation.links import page_url
from ..visibility import Reader
from . import backlog, switching
from .backlog import Backlog
from .not_sending import MAX_NAMED, NotSending, name_some

# The list of workers, on the same page.
WORKERS_URL = '#workers'


@dataclass(frozen=True)
class Line:
    """A line: a label with a link, a word with the same link, coloured if `color` is one of NetBox's, and a text."""

    label: str
    url: str
    word: str = ''
    color: str = ''
    text: str = ''


def lines(user: Reader) -> Iterator[Line]:
    """Yield the lines that the user may see, with links to NetBox's lists."""
    found = backlog.measure(user)
    if not conf.get().enabled:
        yield Line(_('Webhooks'), WORKERS_URL, _('Off'), 'red', str(switching.NOT_RECORDED))
    yield _workers(found)
    if user.has_perm('webhooks.view_delivery'):
        waiting = page_url('delivery_list', status=WAITING_STATUSES)
        yield _waiting(waiting, found)
        if found.suspect_events or found.suspect_deliveries:
            yield _suspects(waiting, found)
        failed = page_url('delivery_list', status=StatusChoices.FAILED, test='false')
        yield Line(_('Failed deliveries'), failed, intcomma(found.failed), 'red' if found.failed else 'green')
    if user.has_perm('webhooks.view_webhook'):
        color = 'orange' if found.suspended else 'green'
        yield _named(_('Suspended webhooks'), page_url('webhook_list', suspended='true'), found.suspended, color)
        if found.paused:
            yield _named(_('Paused webhooks'), page_url('webhook_list', state='paused'), found.paused, 'yellow')
        if found.gone:
            gone = page_url('webhook_list', state='gone')
            yield Line(_('Webhooks disabled by their receivers'), gone, intcomma(found.gone), 'orange')
        webhooks = Webhook.objects.restrict(user, 'view')
        if unknown := [*islice(schema_guard.unknown(webhooks), MAX_NAMED + 1)]:
            text = _('No payload has these keys: {names}').format(names=name_some(unknown))
            yield Line(_('Unknown keys'), page_url('webhook_list'), _('Check these webhooks'), 'orange', text)


def _named(label: str, url: str, webhooks: Sequence[NotSending], color: str) -> Line:
    return Line(label, url, intcomma(len(webhooks)), color, name_some(webhooks))


def _workers(found: Backlog) -> Line:
    label, url = _('Workers'), WORKERS_URL
    if found.workers:
        return Line(label, url, _('{count} running').format(count=found.workers), 'green')
    if found.workers is None:
        return Line(label, url, _('Redis cannot be reached'), 'red', str(switching.NO_REDIS))
    text = _('Nothing is sent. Start the service {worker}.').format(worker=conf.get().worker)
    return Line(label, url, _('None running'), 'red', text)


def _waiting(url: str, found: Backlog) -> Line:
    number = ngettext('%(shown)s delivery', '%(shown)s deliveries', found.pending) % {'shown': intcomma(found.pending)}
    # So a dot stands between the number and the first fact.
    facts = ['']
    if found.undispatched:
        unseen = ngettext(
            '%(shown)s change not processed yet',
            '%(shown)s changes not processed yet',
            found.undispatched,
        )
        facts.append(unseen % {'shown': intcomma(found.undispatched)})
    if found.oldest:
        facts.append(_('oldest: {age}').format(age=timesince(found.oldest)))
    return Line(_('Waiting'), url, number, text=' · '.join(facts))


def _suspects(url: str, found: Backlog) -> Line:
    deliveries, changes = found.suspect_deliveries, found.suspect_events
    words = (
        ngettext('%(shown)s delivery', '%(shown)s deliveries', deliveries) % {'shown': intcomma(deliveries)},
        ngettext('%(shown)s change', '%(shown)s changes', changes) % {'shown': intcomma(changes)},
    )
    text = _(
        'A worker stopped twice while it worked on these, or they took too long. Each is tried alone, in its own '
        'process.'
    )
    return Line(_('Suspects'), url, ' · '.join(words), 'orange', text)
