"""The installation's state in a few lines, for the page *Status* in NetBox and the index of the admin."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from django.contrib.humanize.templatetags.humanize import intcomma
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import conf
from ..models import Webhook
from ..payload import schema_guard
from ..visibility import Reader
from . import backlog
from .backlog import Backlog
from .not_sending import MAX_NAMED, NotSending, name_some


@dataclass(frozen=True)
class Line:
    """A line: a label with a link, a word with the same link, coloured if `color` is one of NetBox's, and a text."""

    label: str
    url: str
    word: str = ''
    color: str = ''
    text: str = ''


def lines(urls: Mapping[str, str], user: Reader | None = None) -> Iterator[Line]:
    """Yield the lines that the user may see. User None sees all.

    `urls` has the keys 'workers', 'waiting', 'failed', 'webhooks', 'suspended', 'paused' and 'gone': where the lines
    link to.
    """
    found = backlog.measure(user)
    if not conf.get().enabled:
        text = _(
            'Changes are not recorded, and nothing is sent. To switch the plugin on, set "enabled" (or '
            'WEBHOOKS_ENABLED) to True.'
        )
        yield Line(_('Webhooks'), urls['workers'], _('Off'), 'red', text)
    yield _workers(urls['workers'], found)
    if _may_view(user, 'delivery'):
        yield _waiting(urls['waiting'], found)
        if found.suspect_events or found.suspect_deliveries:
            yield _suspects(urls['waiting'], found)
        color = 'red' if found.failed else 'green'
        yield Line(_('Failed deliveries'), urls['failed'], intcomma(found.failed), color)
    if _may_view(user, 'webhook'):
        color = 'orange' if found.suspended else 'green'
        yield _named(_('Suspended webhooks'), urls['suspended'], found.suspended, color)
        if found.paused:
            yield _named(_('Paused webhooks'), urls['paused'], found.paused, 'yellow')
        if found.gone:
            yield Line(_('Webhooks disabled by their receivers'), urls['gone'], intcomma(found.gone), 'orange')
        webhooks = Webhook.objects.all() if user is None else Webhook.objects.restrict(user, 'view')
        if unknown := [*islice(schema_guard.unknown(webhooks), MAX_NAMED + 1)]:
            text = _('No payload has these keys: {names}').format(names=name_some(unknown))
            yield Line(_('Unknown keys'), urls['webhooks'], _('Check these webhooks'), 'orange', text)


def _named(label: str, url: str, webhooks: Sequence[NotSending], color: str) -> Line:
    return Line(label, url, intcomma(len(webhooks)), color, name_some(webhooks))


def _may_view(user: Reader | None, model: str) -> bool:
    return user is None or user.has_perm(f'webhooks.view_{model}')


def _workers(url: str, found: Backlog) -> Line:
    label = _('Workers')
    if found.workers:
        return Line(label, url, _('{count} running').format(count=found.workers), 'green')
    if found.workers is None:
        text = _('Changes are recorded, and running workers send them. Check that Redis is running.')
        return Line(label, url, _('Redis cannot be reached'), 'red', text)
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
