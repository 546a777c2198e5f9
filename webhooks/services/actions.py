"""The table of actions that users may take on webhooks, backfills, definitions and deliveries.

Each has a permission. Most have the service that does it.

NetBox's pages, the admin and the REST API read it. A row with a `service` is complete: NetBox's page and the admin
offer it, as `where` says, and the REST API needs a method for its answer. The admin may also write the action out, if
it asks first or takes many objects at once. A row without a service has a form in each place, which passes
the entered values to a service.

Commands need no permission, so they call the services themselves. Credentials have no actions but NetBox's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from functools import partial
from typing import Any

from django.contrib import messages
from django.db.models import Model, QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from utilities.permissions import get_permission_for_model

from .. import visibility
from ..as_code import definitions
from ..choices import BackfillStateChoices
from ..models import Definition, Delivery, Webhook
from ..visibility import Reader
from . import backfill, lists, redelivery, switching, trial


class Where(Flag):
    """The places that offer an action.

    BUTTON: a button on NetBox's page of the object. CARD: one on the card that it is about. MENU: an entry of the
    page's menu, which leads to a form. ADMIN: the admin's list and page. REST: POST below the object's address.
    """

    NOWHERE = 0
    BUTTON = auto()
    CARD = auto()
    MENU = auto()
    ADMIN = auto()
    REST = auto()


@dataclass(frozen=True, eq=False, kw_only=True)
class Action:
    """An action that users may take with an object of `model`.

    `name` is the name of its view, and of the method if a place writes it out. `permission` is an action of NetBox's
    permissions, such as 'change'. `icon` is one of Material Design's. `title` and `explanation` head its page, if it
    has one. `path` is the last part of its address, if that is not the name. `list_label` is for the button below a
    list, which takes the selected objects.

    `service` gets the object and the user; None: a form passes the entered values to one. It raises Busy or
    DefinitionError if the action is not possible, PermissionsViolation or PermissionDenied if the user may not take it.
    `message` gets the object and what the service returned. It returns the level, of django.contrib.messages, and the
    text of a message to the user, or None. `is_offered` says whether the object's page has the button. `obstacle` says
    why the button is disabled, '' if it is not.
    """

    model: type[Model]
    name: str
    label: str
    list_label: str = ''
    permission: str
    icon: str = ''
    title: str = ''
    explanation: str = ''
    path: str = ''
    where: Where = Where.NOWHERE
    service: Any = None
    message: Callable[[Any, Any], tuple[int, str] | None] = lambda _one, _result: None
    is_offered: Callable[[Any], bool] = lambda _one: True
    obstacle: Callable[[Any], str] = lambda _one: ''

    @property
    def has_form(self) -> bool:
        """Whether a form calls the service, because it needs to know more than the object and the user."""
        return self.service is None

    @property
    def address(self) -> str:
        """Return the last part of the action's URL."""
        return self.path or self.name.replace('_', '-')

    @property
    def full_permission(self) -> str:
        """Return the permission as users have it, such as 'webhooks.change_webhook'."""
        return get_permission_for_model(self.model, self.permission)

    def permitted(self, user: Reader) -> QuerySet:
        """Return the objects that the user may view, and may do this with."""
        return visibility.permitted(self.model.objects.all(), user, self.permission)


#
# Webhooks
#

TEST = Action(
    model=Webhook,
    name='test',
    label=_('Send a test'),
    permission='test',
    icon='send-check',
    where=Where.BUTTON | Where.ADMIN | Where.REST,
    service=trial.send_test,
    message=lambda _webhook, delivery: trial.announce(delivery),
)
PAUSE = Action(
    model=Webhook,
    name='pause',
    label=_('Pause'),
    permission='change',
    icon='pause',
    where=Where.BUTTON | Where.ADMIN,
    service=partial(switching.switch, paused=True),
    message=lambda _webhook, _nothing: (
        messages.SUCCESS,
        gettext('Paused. Resume the webhook before its changes expire.'),
    ),
    is_offered=lambda webhook: not webhook.paused,
)
RESUME = Action(
    model=Webhook,
    name='resume',
    label=_('Resume'),
    permission='change',
    icon='play',
    where=Where.BUTTON | Where.ADMIN,
    service=partial(switching.switch, paused=False),
    message=lambda webhook, _nothing: switching.resumed_message(webhook),
    is_offered=lambda webhook: webhook.paused,
)
SEND_WAITING = Action(
    model=Webhook,
    name='send_waiting',
    label=_('Send waiting deliveries'),
    permission='change',
    icon='tray-arrow-up',
    title=_('Send Waiting Deliveries'),
    explanation=_(
        'Use this when the receiver works again. Waiting deliveries are sent now, not at their next attempt. If '
        'the receiver needs only the latest state, send only the latest change of each object. It replaces '
        'earlier ones.'
    ),
    where=Where.MENU,
)
REPLAY = Action(
    model=Webhook,
    name='replay',
    label=_('Redeliver past events'),
    permission='replay',
    icon='history',
    title=_('Redeliver Past Events'),
    explanation=_(
        'Redelivers the events of a period. Failed deliveries keep their webhook-id. Delivered ones get a new '
        'webhook-id, so that the receiver does not ignore them as duplicates. Each request shows the object as it was '
        'at that change, not as it is now.'
    ),
    where=Where.MENU,
)
BACKFILL = Action(
    model=Webhook,
    name='backfill',
    label=_('Backfill'),
    permission='backfill',
    icon='database-export-outline',
    title=_('Send All Objects as They Are Now'),
    explanation=_(
        'Each object is sent once, as an update that is marked as a backfill. New changes are sent first, so the '
        'backfill does not delay them.'
    ),
    where=Where.MENU,
)
# It begins at objects of NetBox: at their tab and lists, and in the REST API.
SEND_NOW = Action(
    model=Webhook,
    name='send_now',
    label=_('Send now'),
    permission='backfill',
    icon='send',
    title=_('Send Objects as They Are Now'),
    explanation=_(
        'Each object is sent as an update that is marked as a backfill, in the same order as changes. The log '
        'names you as its user.'
    ),
)
COMPARE = Action(
    model=Webhook,
    name='compare',
    label=_('Compare now'),
    permission='backfill',
    icon='compare',
    where=Where.BUTTON | Where.REST,
    service=lambda webhook, _user: lists.compare(webhook),
    message=lambda _webhook, _nothing: (
        messages.SUCCESS,
        gettext('The lists are being compared. What differs is sent.'),
    ),
    is_offered=lambda webhook: bool(webhook.filters),
)
ROTATE_SECRET = Action(
    model=Webhook,
    name='rotate_secret',
    label=_('Rotate secret'),
    permission='change',
    icon='key-change',
    title=_('Generate a New Secret'),
    explanation=_(
        'From now on, all requests are signed with the new secret, including waiting ones. The secret is shown once.'
    ),
    where=Where.MENU,
)

#
# Backfills: their buttons are beside their progress
#

PAUSE_BACKFILL = Action(
    model=Webhook,
    name='pause_backfill',
    label=_('Pause'),
    permission='backfill',
    icon='pause',
    path='backfill/pause',
    where=Where.CARD | Where.REST,
    service=lambda webhook, _user: backfill.pause(webhook),
)
RESUME_BACKFILL = Action(
    model=Webhook,
    name='resume_backfill',
    label=_('Resume'),
    permission='backfill',
    icon='play',
    path='backfill/resume',
    where=Where.CARD | Where.REST,
    service=lambda webhook, _user: backfill.resume(webhook),
)
CANCEL_BACKFILL = Action(
    model=Webhook,
    name='cancel_backfill',
    label=_('Cancel'),
    permission='backfill',
    icon='stop',
    path='backfill/cancel',
    where=Where.CARD | Where.REST,
    service=lambda webhook, _user: backfill.cancel(webhook),
)
# {state of a backfill: the actions that are possible in it}
MOVES = {
    BackfillStateChoices.RUNNING: (PAUSE_BACKFILL, CANCEL_BACKFILL),
    BackfillStateChoices.PAUSED: (RESUME_BACKFILL, CANCEL_BACKFILL),
}

#
# Definitions
#

APPLY = Action(
    model=Definition,
    name='apply',
    label=_('Apply'),
    permission='change',
    icon='check-all',
    where=Where.BUTTON | Where.REST,
    service=definitions.start,
    message=lambda _definition, _job: (messages.SUCCESS, gettext('A job applies it. Its log says what has changed.')),
)

#
# Deliveries
#

REDELIVER = Action(
    model=Delivery,
    name='redeliver',
    label=_('Redeliver'),
    list_label=_('Redeliver selected'),
    permission='redeliver',
    icon='send',
    where=Where.BUTTON | Where.ADMIN | Where.REST,
    service=lambda delivery, _user: redelivery.redeliver_one(delivery),
    message=lambda _delivery, count: (messages.SUCCESS, redelivery.announce(count)),
    obstacle=lambda delivery: redelivery.STILL_OPEN if delivery.is_open else '',
)

TABLE = (
    TEST,
    PAUSE,
    RESUME,
    SEND_WAITING,
    REPLAY,
    BACKFILL,
    SEND_NOW,
    COMPARE,
    ROTATE_SECRET,
    PAUSE_BACKFILL,
    RESUME_BACKFILL,
    CANCEL_BACKFILL,
    APPLY,
    REDELIVER,
)


def of(model: type[Model], where: Where) -> list[Action]:
    """Return the actions on objects of a model that a place, or one of some, offers, in the order of the table."""
    return [one for one in TABLE if one.model is model and one.where & where]
