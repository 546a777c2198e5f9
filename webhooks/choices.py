from django.utils.translation import gettext_lazy as _
from utilities.choices import ChoiceSet


class KindChoices(ChoiceSet):
    """The payload's `event`. Event rules alone have job kinds."""

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
    """`pending` and `sending` are open. `superseded` is no failure: a later delivery tells of the object."""

    PENDING = 'pending'
    SENDING = 'sending'
    DELIVERED = 'delivered'
    FAILED = 'failed'
    SUPERSEDED = 'superseded'

    CHOICES = [
        (PENDING, _('Pending'), 'cyan'),
        (SENDING, _('Sending'), 'blue'),
        (DELIVERED, _('Delivered'), 'green'),
        (FAILED, _('Failed'), 'red'),
        (SUPERSEDED, _('Replaced'), 'gray'),
    ]


class BackfillStateChoices(ChoiceSet):
    """`running` and `paused` are open."""

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
OPEN_STATUSES = (StatusChoices.PENDING, StatusChoices.SENDING)
CLOSED_CHOICES = [(value, label) for value, label in StatusChoices if value not in OPEN_STATUSES]  # pyright: ignore[reportGeneralTypeIssues]


class FormatChoices(ChoiceSet):
    """See docs/payload.md."""

    DEFAULT = 'default'
    NETBOX = 'netbox'
    CLOUDEVENTS = 'cloudevents'

    CHOICES = [
        (DEFAULT, _('Default')),
        (NETBOX, _("As NetBox's own webhooks")),
        (CLOUDEVENTS, _('CloudEvents 1.0')),
    ]
