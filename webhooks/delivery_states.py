"""Why a delivery is not sent now: its states, what people see of them, and conditions of SQL by them.

docs/architecture.md lists the transitions.

In SQL one writes `status {TIMED}`: the column of the state is named `status`, as in 1.0.0. Conditions that end with
`_BY_ID` mean the same. They are for statements that find their deliveries in another way, such as by id: with the plain
conditions PostgreSQL may choose a partial index, and read all of it. To find deliveries of an object in one state,
write `status = (SELECT 'held')`: the planner does not know the value, so it leaves partial indexes out.
"""

from collections.abc import Iterable

from .choices import StatusChoices


class DeliveryState:
    """The states as PostgreSQL stores them.

    While NetBox is upgraded, processes of 1.0.0 go on inserting deliveries. So READY is stored as they write it.
    """

    # Its webhook's conditions may take long to evaluate, or a list's filter is to be applied.
    UNDECIDED = 'undecided'
    # It waits for another delivery: of its object, or of its change set. Or its backfill is paused.
    HELD = 'held'
    # It waits until its object is quiet, at `due_at`.
    RESTING = 'resting'
    # It goes in its turn.
    READY = 'pending'
    # It was tried, and waits for its next attempt at `due_at`.
    RETRYING = 'retrying'
    # Its worker stopped during its request, which may be under way until `due_at`.
    DOUBTFUL = 'doubtful'
    # It was in hand at two deaths in a row: a process of its own tries it.
    SUSPECT = 'suspect'
    # A test by *Send a test*, under way. No worker sends it.
    TESTING = 'sending'
    DELIVERED = 'delivered'
    FAILED = 'failed'
    # Another delivery made it needless.
    SUPERSEDED = 'superseded'


# A sender sends these once their `due_at` has come.
TIMED_STATES = (DeliveryState.READY, DeliveryState.RESTING, DeliveryState.RETRYING, DeliveryState.DOUBTFUL)
# The queue of a sender: timed deliveries, and held ones.
QUEUED_STATES = (DeliveryState.HELD, *TIMED_STATES)
# Shown as the status `pending`: the queue, and suspects.
PENDING_STATES = (*QUEUED_STATES, DeliveryState.SUSPECT)
# All deliveries that workers still work on: pending ones, and undecided ones.
WAITING_STATES = (DeliveryState.UNDECIDED, *PENDING_STATES)
# A request may still be sent: waiting deliveries, and tests under way.
OPEN_STATES = (*WAITING_STATES, DeliveryState.TESTING)
# A request for it may be under way.
IN_HAND_STATES = (*PENDING_STATES, DeliveryState.TESTING)
CLOSED_STATES = (DeliveryState.DELIVERED, DeliveryState.FAILED, DeliveryState.SUPERSEDED)
# Few deliveries are in these, so an index of them costs little.
RARE_STATES = (
    DeliveryState.UNDECIDED,
    DeliveryState.SUSPECT,
    DeliveryState.TESTING,
    DeliveryState.FAILED,
    DeliveryState.SUPERSEDED,
)

STATES_OF_STATUS = {
    StatusChoices.PENDING: PENDING_STATES,
    StatusChoices.SENDING: (DeliveryState.TESTING,),
    StatusChoices.DELIVERED: (DeliveryState.DELIVERED,),
    StatusChoices.FAILED: (DeliveryState.FAILED,),
    StatusChoices.SUPERSEDED: (DeliveryState.SUPERSEDED,),
    StatusChoices.UNDECIDED: (DeliveryState.UNDECIDED,),
}
STATUS_OF_STATE = {state: status for status, states in STATES_OF_STATUS.items() for state in states}


def _in(states: Iterable[str]) -> str:
    return f'IN ({", ".join(f"'{state}'" for state in states)})'


TIMED = _in(TIMED_STATES)
QUEUED = _in(QUEUED_STATES)
PENDING = _in(PENDING_STATES)
WAITING = _in(WAITING_STATES)
IN_HAND = _in(IN_HAND_STATES)
OPEN = _in(OPEN_STATES)
# No state is ''.
TIMED_BY_ID = _in((*TIMED_STATES, ''))
QUEUED_BY_ID = _in((*QUEUED_STATES, ''))
PENDING_BY_ID = _in((*PENDING_STATES, ''))
WAITING_BY_ID = _in((*WAITING_STATES, ''))
