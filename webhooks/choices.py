from django.utils.translation import gettext_lazy as _
from utilities.choices import ChoiceSet


class KindChoices(ChoiceSet):
    """Event rules alone have job kinds."""

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
    """States of a delivery.

    `undecided`, `pending` and `sending` (a test by *Send a test*) are open. `undecided`: a regular expression in the
    webhook's conditions is still to be evaluated. `superseded`: a later delivery shows the object.
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
        (UNDECIDED, _('Undecided'), 'purple'),
    ]


class BackfillStateChoices(ChoiceSet):
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


OBJECT_KINDS = (KindChoices.CREATED, KindChoices.UPDATED, KindChoices.DELETED)
OPEN_STATUSES = (StatusChoices.UNDECIDED, StatusChoices.PENDING, StatusChoices.SENDING)
WAITING_STATUSES = (StatusChoices.UNDECIDED, StatusChoices.PENDING)
CLOSED_CHOICES = [(value, label) for value, label in StatusChoices if value not in OPEN_STATUSES]  # pyright: ignore[reportGeneralTypeIssues]


class CredentialTypeChoices(ChoiceSet):
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
    DEFAULT = 'default'
    NETBOX = 'netbox'
    CLOUDEVENTS = 'cloudevents'

    CHOICES = [
        (DEFAULT, _('Default')),
        (NETBOX, _("As NetBox's own webhooks")),
        (CLOUDEVENTS, _('CloudEvents 1.0')),
    ]
