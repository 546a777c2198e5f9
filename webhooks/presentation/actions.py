from typing import NamedTuple

from django.utils.translation import gettext_lazy as _

from ..choices import BackfillStateChoices


class Action(NamedTuple):
    """`name` is the view's; `permission` is an action of NetBox's permissions.

    `title` and `explanation` are for a page that confirms.
    """

    name: str
    label: str
    permission: str
    icon: str = ''
    title: str = ''
    explanation: str = ''


TEST = Action('test', _('Send a test'), 'test', 'send-check')
REPLAY = Action(
    'replay',
    _('Replay'),
    'replay',
    'history',
    _('Redeliver Past Events'),
    _(
        'Sends the deliveries of a range of time again. Failed ones keep their webhook-id. Delivered ones get a new '
        'webhook-id: a receiver that ignores known ids acts on them again. Each request shows the object as it was at '
        'that change, not as it is now.'
    ),
)
PAUSE = Action('pause', _('Pause'), 'change', 'pause')
RESUME = Action('resume', _('Resume'), 'change', 'play')
SEND_WAITING = Action(
    'send_waiting',
    _('Send what waits'),
    'change',
    'tray-arrow-up',
    _('Send What Waits'),
    _(
        'For an endpoint that is back: what waits for a retry or a probe is sent now. Where only the state of an '
        'object counts, and not how it came to it, send only the latest change of each: the others are superseded.'
    ),
)
SEND_ALL = Action('send_all', _('Send all that waits'), 'change')
SEND_LATEST = Action('send_latest', _('Send only the latest'), 'change')
BACKFILL = Action(
    'backfill',
    _('Backfill'),
    'backfill',
    'database-export-outline',
    _('Send Everything as It Is Now'),
    _(
        'Each object is sent as an update that is marked as a backfill, in the order of its changes. What changes '
        'meanwhile goes first, and so does what others wait for.'
    ),
)
PAUSE_BACKFILL = Action('pause_backfill', _('Pause'), 'backfill', 'pause')
RESUME_BACKFILL = Action('resume_backfill', _('Resume'), 'backfill', 'play')
CANCEL_BACKFILL = Action('cancel_backfill', _('Cancel'), 'backfill', 'stop')
ROTATE_SECRET = Action(
    'rotate_secret',
    _('Rotate secret'),
    'change',
    'key-change',
    _('Generate a New Secret'),
    _('Requests are signed with it as soon as it is there, those that are waiting too. It is shown once.'),
)
ENABLE = Action('enable', _('Enable'), 'change')
DISABLE = Action('disable', _('Disable'), 'change')
REDELIVER = Action('redeliver', _('Redeliver'), 'redeliver', 'send')
REDELIVER_SELECTED = Action('bulk_redeliver', _('Redeliver selected'), 'redeliver', 'send')
REDELIVER_FAILED = Action('redeliver_failed', _('Redeliver what failed'), 'redeliver', 'send')

# By the backfill's state.
MOVES = {
    BackfillStateChoices.RUNNING: (PAUSE_BACKFILL, CANCEL_BACKFILL),
    BackfillStateChoices.PAUSED: (RESUME_BACKFILL, CANCEL_BACKFILL),
}

STILL_OPEN = _('The delivery is still open: it is sent without being asked.')
