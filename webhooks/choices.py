"""Names the values of choice fields. They are in the database and in the REST API, so they must not change."""

from django.utils.translation import gettext_lazy as _
from utilities.choices import ChoiceSet


class KindChoices(ChoiceSet):
    """The kind of an event. Only event rules make the kinds of jobs."""

    CREATED = 'created'
    UPDATED = 'updated'
    DELETED = 'deleted'
    JOB_STARTED = 'job_started'
    JOB_ENDED = 'job_ended'

    CHOICES = [
        (CREATED, _('Created'), 'green'),
        (UPDATED, _('Updated'), 'blue'),
        (DELETED, _('Deleted'), 'red'),
        (JOB_STARTED, _('Job started'), 'cyan'),
        (JOB_ENDED, _('Job ended'), 'purple'),
    ]


class StatusChoices(ChoiceSet):
    """The status of a delivery.

    `undecided`, `pending` and `sending` (a test by *Send a test*) are open. `undecided`: conditions that may
    take long are still to be evaluated. `superseded`: a later delivery shows the object.
    """

    PENDING = 'pending'
    SENDING = 'sending'
    DELIVERED = 'delivered'
    FAILED = 'failed'
    SUPERSEDED = 'superseded'
    UNDECIDED = 'undecided'

    CHOICES = [
        (PENDING, _('Pending'), 'cyan'),
        (SENDING, _('Sending'), 'blue'),
        (DELIVERED, _('Delivered'), 'green'),
        (FAILED, _('Failed'), 'red'),
        (SUPERSEDED, _('Replaced'), 'gray'),
        (UNDECIDED, _('Undecided'), 'cyan'),
    ]


class BackfillStateChoices(ChoiceSet):
    """The state of a webhook's backfill. A state of OPEN may still change."""

    RUNNING = 'running'
    PAUSED = 'paused'
    COMPLETED = 'completed'
    CANCELED = 'canceled'
    FAILED = 'failed'

    CHOICES = [
        (RUNNING, _('Running'), 'blue'),
        (PAUSED, _('Paused'), 'yellow'),
        (COMPLETED, _('Completed'), 'green'),
        (CANCELED, _('Canceled'), 'gray'),
        (FAILED, _('Failed'), 'red'),
    ]

    OPEN = (RUNNING, PAUSED)


# The kinds that a change of an object makes.
OBJECT_KINDS = (KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED)
# In place of a kind of change, the kind of a test for which there is no object: a ping.
PING_KIND = 'test'
# Deliveries that may still be sent, or are being sent.
OPEN_STATUSES = (StatusChoices.UNDECIDED, StatusChoices.PENDING, StatusChoices.SENDING)
# Deliveries of the queue: tests, which have the status `sending`, are never in it.
WAITING_STATUSES = (StatusChoices.UNDECIDED, StatusChoices.PENDING)
# Choices of a form: the statuses of deliveries that are over.
CLOSED_CHOICES = [(value, label) for value, label in StatusChoices if value not in OPEN_STATUSES]  # pyright: ignore[reportGeneralTypeIssues]


class CredentialTypeChoices(ChoiceSet):
    """How a credential signs in to an endpoint. The types of OAUTH2 fetch an access token first."""

    BASIC = 'basic'
    BEARER = 'bearer'
    HEADER = 'header'
    OAUTH2_BASIC = 'oauth2'
    OAUTH2_BODY = 'oauth2-body'
    TEMPLATE = 'template'

    CHOICES = [
        (BASIC, _('User and password')),
        (BEARER, _('Bearer token')),
        (HEADER, _('Header')),
        (OAUTH2_BASIC, _('OAuth2 client credentials')),
        (OAUTH2_BODY, _('OAuth2 client credentials, sent in the body')),
        (TEMPLATE, _('Only in templates')),
    ]

    OAUTH2 = (OAUTH2_BASIC, OAUTH2_BODY)


class FormatChoices(ChoiceSet):
    """The format of a webhook's payload."""

    DEFAULT = 'default'
    NETBOX = 'netbox'
    CLOUDEVENTS = 'cloudevents'
    THIN = 'thin'

    CHOICES = [
        (DEFAULT, _('Default')),
        (NETBOX, _("As NetBox's own webhooks")),
        (CLOUDEVENTS, _('CloudEvents 1.0')),
        (THIN, _('Thin: without the object')),
    ]
