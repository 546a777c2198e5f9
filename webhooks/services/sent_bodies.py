"""Shows the bodies that a delivery has sent, and the next one."""

from collections.abc import Sequence
from typing import NamedTuple

from django.utils.translation import gettext as _

from ..exceptions import Busy, DefinitionError
from ..models import Attempt, Delivery
from ..payload import kept
from ..payload.kept import Origin
from ..presentation.json_text import readable
from ..security.masking import MASK
from . import preview


class Body(NamedTuple):
    """A text for people, and a sentence about where it comes from. `is_sent`: the receiver got it."""

    text: str
    note: str
    is_sent: bool = True


def body_of(attempt: Attempt) -> Body | None:
    """Return the body that the attempt has sent. None: it is unknown."""
    text, origin = kept.body_of(attempt)
    if origin is Origin.UNKNOWN:
        return None
    notes = {
        Origin.KEPT: _('This is what was sent.'),
        Origin.CUT: _('This is the beginning of what was sent: only the first 64 KiB are kept.'),
        Origin.SAME: _('This is what was sent. It was rebuilt from the event, and has the same checksum.'),
        Origin.OTHER: _('Something else was sent, which was not kept. This was rebuilt from the event.'),
    }
    masked = _('Credentials are masked.') if MASK in text and attempt.request_body is not None else ''
    return Body(readable(text), ' '.join(filter(None, [notes[origin], masked])), origin is not Origin.OTHER)


def read_bodies(attempts: Sequence[Attempt]) -> None:
    """Read the bodies that these attempts keep, in one query."""
    kept_bodies = dict(Attempt.objects.filter(pk__in=[one.pk for one in attempts]).values_list('pk', 'request_body'))
    for attempt in attempts:
        attempt.request_body = kept_bodies.get(attempt.pk)


def last_body(delivery: Delivery, attempts: Sequence[Attempt], *, may_build: bool) -> Body | None:
    """Return the body of the first of `attempts`, which are the newest first.

    If that is unknown, return the body that the delivery would send now. If there is none, the text says why. None:
    the body would have to be built, but the reader may not see it (`may_build`).
    """
    if attempts and (sent := body_of(attempts[0])):
        return sent
    return Body(_now(delivery), _note(delivery, attempts), False) if may_build else None


def other_body_of(attempt: Attempt, last: Body | None) -> Body | None:
    """Return the body that the attempt has sent, if it differs from the last one."""
    body = body_of(attempt)
    return None if body is None or (last and body.text == last.text) else body


def next_body(delivery: Delivery, last: Body) -> str:
    """Return the text that it would send now, if it differs from the last one, else ''."""
    if not last.is_sent or not (delivery.is_open or delivery.error):
        return ''
    text = _now(delivery)
    return '' if text == last.text else text


def _note(delivery: Delivery, attempts: Sequence[Attempt]) -> str:
    settings = _('It is built from the current settings of the webhook.')
    if attempts:
        text = _('What was sent is unknown. This body would be sent now.')
    elif delivery.position:
        text = _('Readers of the feed get this body.')
    elif delivery.is_open:
        text = _('The next attempt would send this body.')
    else:
        text = _('Nothing was sent. This body would be sent now.')
    return f'{text} {settings}'


def _now(delivery: Delivery) -> str:
    try:
        return preview.body_of(delivery)
    except DefinitionError as error:
        return f'{error.field}: {error}'
    except Busy as busy:
        return str(busy)
