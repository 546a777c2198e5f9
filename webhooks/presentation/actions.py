"""The actions on webhooks, backfills and deliveries: label, icon, permission and explanation."""

from typing import NamedTuple

from django.utils.translation import gettext_lazy as _

from ..choices import BackfillStateChoices


class Action(NamedTuple):
    """An action that users may take, as a button or in a menu shows it.

    `name` is the name of its view. `permission` is an action of NetBox's permissions, such as 'change'. `title` and
    `explanation` head its page, if it has one.
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
    _('Redeliver past events'),
    'replay',
    'history',
    _('Redeliver Past Events'),
    _(
        'Redelivers the events of a period. Failed deliveries keep their webhook-id. Delivered ones get a new '
        'webhook-id, so that the receiver does not ignore them as duplicates. Each request shows the object as it was '
        'at that change, not as it is now.'
    ),
)
PAUSE = Action('pause', _('Pause'), 'change', 'pause')
RESUME = Action('resume', _('Resume'), 'change', 'play')
SEND_WAITING = Action(
    'send_waiting',
    _('Send waiting deliveries'),
    'change',
    'tray-arrow-up',
    _('Send Waiting Deliveries'),
    _(
        'Use this when the receiver works again. Waiting deliveries are sent now, not at their next attempt. If the '
        'receiver needs only the latest state, send only the latest change of each object. It replaces earlier changes.'
    ),
)
SEND_ALL = Action('send_all', _('Send all waiting deliveries'), 'change')
SEND_LATEST = Action('send_latest', _('Send only the latest waiting changes'), 'change')
BACKFILL = Action(
    'backfill',
    _('Backfill'),
    'backfill',
    'database-export-outline',
    _('Send All Objects as They Are Now'),
    _(
        'Each object is sent once, as an update that is marked as a backfill. New changes are sent first, so the '
        'backfill does not delay them.'
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
    _('From now on, all requests are signed with the new secret, waiting ones too. The secret is shown once.'),
)
ENABLE = Action('enable', _('Enable'), 'change')
DISABLE = Action('disable', _('Disable'), 'change')
REDELIVER = Action('redeliver', _('Redeliver'), 'redeliver', 'send')
REDELIVER_FROM_HERE = Action('replay', _('Redeliver everything from here on'), 'replay', 'history')
REDELIVER_SELECTED = Action('bulk_redeliver', _('Redeliver selected'), 'redeliver', 'send')
REDELIVER_FAILED = Action('redeliver_failed', _('Redeliver failed deliveries'), 'redeliver', 'send')

# {state of a backfill: the actions that are possible in it}
MOVES = {
    BackfillStateChoices.RUNNING: (PAUSE_BACKFILL, CANCEL_BACKFILL),
    BackfillStateChoices.PAUSED: (RESUME_BACKFILL, CANCEL_BACKFILL),
}

STILL_OPEN = _('This delivery is still pending. Only finished deliveries can be redelivered.')
