"""Webhook: an endpoint with its settings. A save of it also syncs its subscriptions, and makes its lane."""

from collections.abc import Iterable

from django.conf import settings
from django.contrib.contenttypes.fields import GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connection, models
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy
from extras.choices import WebhookHttpMethodChoices
from extras.constants import HTTP_CONTENT_TYPE_JSON
from netbox.models import NetBoxModel

from .. import constants, validation
from ..choices import FormatChoices, KindChoices
from ..constants import DEFAULT_MAX_ATTEMPTS, MAX_ATTEMPTS, MAX_TIMEOUT_SECONDS, MAX_URL_CHARS
from ..object_types import label_of
from ..validation.headers import MOVED, mask_headers
from ..validation.moved import IDENTIFYING, is_moved
from ..validation.url import UNMASKED
from .concurrent import ConcurrentModel
from .exported import ExportedModel
from .fields import SEALED_MARK, SealedField, UrlField
from .managed import ManagedModel
from .signing_secret import SigningModel

# Where requests go, with which headers, and how the endpoint is verified. A save writes all of them, or none.
ENDPOINT_FIELDS = ('payload_url', 'secret_path', 'additional_headers', 'ssl_verification', *IDENTIFYING)
SEALED_FIELDS = ('secret', 'previous_secret', 'additional_headers')
# A copy begins without them. NetBox adds tags and custom fields itself.
NOT_COPIED = (
    'name', 'enabled', 'paused', *SEALED_FIELDS, 'client_cert_path', 'client_key_path', 'tags', 'custom_field_data',
)  # fmt: skip

# Read whether any enabled webhook has a template, or conditions with regular expressions. A sealed URL may have one.
IS_ANY_TEMPLATED = f"""
    SELECT EXISTS (SELECT FROM webhooks_webhook
        WHERE enabled AND (body_template <> '' OR payload_url LIKE '%{{%' OR payload_url LIKE '%{SEALED_MARK}%'
                           OR conditions::text LIKE '%"regex"%'))"""


class Webhook(SigningModel, ExportedModel, ManagedModel, ConcurrentModel, NetBoxModel):
    """An endpoint: which changes are sent to it, how, and when they are tried again."""

    name = models.CharField(_('name'), max_length=150, unique=True)
    description = models.CharField(_('description'), max_length=200, blank=True)
    enabled = models.BooleanField(
        _('enabled'),
        default=True,
        help_text=_('If this is off, new changes are not recorded, and pending deliveries wait until they expire.'),
    )
    paused = models.BooleanField(
        _('paused'),
        default=False,
        help_text=_('Changes are recorded but not sent. Resume the webhook before they expire.'),
    )
    object_types = models.ManyToManyField(
        'contenttypes.ContentType',
        related_name='+',
        blank=True,
        verbose_name=_('object types'),
        help_text=_(
            'Changes of these objects are sent. Leave blank to send only what event rules send through this webhook.'
        ),
    )
    type_create = models.BooleanField(_('creations'), default=False, help_text=_('Send when an object is created.'))
    type_update = models.BooleanField(_('updates'), default=False, help_text=_('Send when an object is updated.'))
    type_delete = models.BooleanField(_('deletions'), default=False, help_text=_('Send when an object is deleted.'))
    payload_url = UrlField(
        _('URL'),
        max_length=MAX_URL_CHARS,
        blank=True,
        help_text=_(
            'Address of the receiver. It begins with http:// or https://, or with the name of a message broker '
            'from the settings, such as nats://bus/. Leave blank for a feed, which receivers read from NetBox.'
        ),
    )
    secret_path = models.BooleanField(
        _('secret path'),
        default=False,
        db_default=False,
        help_text=_('The path of the URL is a secret, as with Slack. It is shown as ********.'),
    )
    http_method = models.CharField(
        _('HTTP method'), max_length=30, choices=WebhookHttpMethodChoices, default=WebhookHttpMethodChoices.METHOD_POST
    )
    http_content_type = models.CharField(_('content type'), max_length=100, default=HTTP_CONTENT_TYPE_JSON)
    payload_format = models.CharField(
        _('payload format'), max_length=30, choices=FormatChoices, default=FormatChoices.DEFAULT
    )
    additional_headers = SealedField(
        _('additional headers'),
        blank=True,
        help_text=_(
            'One "Name: value" per line. Values are stored encrypted and shown as ********. '
            'Leave ******** in a line to keep its value.'
        ),
    )
    body_template = models.TextField(
        pgettext_lazy('webhooks', 'body template'),
        blank=True,
        help_text=_('Jinja2 template for the body. Leave blank for the JSON of the payload format.'),
    )
    conditions = models.JSONField(
        pgettext_lazy('webhooks', 'conditions'),
        blank=True,
        null=True,
        help_text=_('Only changes that meet these conditions are sent. JSON, as in event rules.'),
    )
    success_conditions = models.JSONField(
        _('success conditions'),
        blank=True,
        null=True,
        help_text=_('A delivery succeeds only if the answer also meets these conditions.'),
    )
    filters = models.JSONField(
        _('filters'),
        blank=True,
        default=dict,
        db_default={},
        help_text=_(
            'Subscribe to a list: {"dcim.device": "status=active&region=europe"}, for each object type the filter in '
            "the address of NetBox's list. An object that enters the list is sent as created, one that leaves it as "
            'deleted.'
        ),
    )
    only_real_changes = models.BooleanField(
        _('only real changes'),
        default=True,
        db_default=False,  # 1.0.0 has no such column, and sends every save
        help_text=_(
            'An update is sent only if a value, a tag or a link has changed. If this is off, every save is sent.'
        ),
    )
    only_if_changed = ArrayField(
        models.CharField(max_length=150),
        verbose_name=_('only if changed'),
        blank=True,
        default=list,
        db_default=[],
        help_text=_(
            'An update is sent only if one of these keys has changed. Separate keys with commas, such as status, site.'
        ),
    )
    ignore_users = models.ManyToManyField(
        settings.AUTH_USER_MODEL,
        related_name='+',
        blank=True,
        verbose_name=_('ignored users'),
        help_text=_(
            'Changes by these users are not sent. This prevents loops when the receiver writes back to NetBox.'
        ),
    )
    secret = SealedField(
        pgettext_lazy('webhooks', 'secret'),
        blank=True,
        help_text=_('Signs each request, so that the receiver can verify it. Stored encrypted and not shown.'),
    )
    credential = models.ForeignKey(
        'webhooks.Credential',
        # models/credential.py protects a used credential. A visible name would let NetBox empty the column.
        on_delete=models.DO_NOTHING,
        related_name='+',
        null=True,
        blank=True,
        verbose_name=_('credential'),
        help_text=_(
            'Login or token for requests. Templates of the URL, headers and body may use {{ credential.token }}.'
        ),
    )
    standard_headers = models.BooleanField(
        _('standard headers'),
        default=True,
        db_default=True,
        help_text=_(
            'Send webhook-id, webhook-timestamp, webhook-signature and X-Hook-Signature. Turn this off if the '
            'receiver rejects them.'
        ),
    )
    previous_secret = SealedField(_('previous secret'), blank=True, editable=False)
    previous_secret_expires = models.DateTimeField(
        _('previous secret valid until'), null=True, blank=True, editable=False
    )
    ssl_verification = models.BooleanField(
        _('TLS verification'), default=True, help_text=_("Verify the receiver's certificate.")
    )
    ca_file_path = models.CharField(
        _('CA file'),
        max_length=4096,
        blank=True,
        help_text=_(
            "File with the certificate authorities to trust. Leave blank for those of Python's requests library."
        ),
    )
    client_cert_path = models.CharField(_('client certificate file'), max_length=4096, blank=True)
    client_key_path = models.CharField(_('client key file'), max_length=4096, blank=True)
    timeout = models.PositiveSmallIntegerField(
        pgettext_lazy('webhooks', 'timeout'),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_TIMEOUT_SECONDS)],
        help_text=format_lazy(
            _('Maximum duration of a whole request in seconds. Leave blank for {default}, the default of this NetBox.'),
            default=settings.WEBHOOK_DEFAULT_TIMEOUT,
        ),
    )
    max_attempts = models.PositiveSmallIntegerField(
        _('maximum attempts'),
        default=DEFAULT_MAX_ATTEMPTS,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_ATTEMPTS)],
        help_text=_('With 1, a failed delivery is not retried automatically.'),
    )
    rate_limit = models.PositiveIntegerField(
        _('rate limit'),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_('Maximum number of requests per second. Leave blank for no limit.'),
    )
    concurrency = models.PositiveSmallIntegerField(
        _('concurrency'),
        default=16,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text=_('Maximum number of requests at the same time.'),
    )
    ordered = models.BooleanField(
        _('ordered'),
        default=True,
        help_text=_('Send the changes of an object in order. A later one waits while an earlier one is retried.'),
    )
    latest_only = models.BooleanField(
        _('latest only'),
        default=False,
        db_default=False,
        help_text=_(
            'If several changes of an object are waiting, send only the latest; if it was created and deleted, '
            'send nothing.'
        ),
    )
    quiet = models.PositiveSmallIntegerField(
        _('send when quiet for'),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(constants.MAX_QUIET_SECONDS)],
        help_text=_('Seconds. Changes of an object wait until it has not changed for this long, and are sent as one.'),
    )
    quiet_max = models.PositiveIntegerField(
        _('at the latest after'),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(constants.MAX_QUIET_MAX_SECONDS)],
        help_text=_(
            'Seconds. No change waits longer than this for its object to be quiet. Leave blank for ten '
            'times the quiet time.'
        ),
    )
    change_set = models.BooleanField(
        _('change set'),
        default=False,
        db_default=False,
        help_text=_(
            'Send all changes of one transaction in one request. Objects come before others that refer to them.'
        ),
    )
    include_snapshots = models.BooleanField(
        _('include snapshots'),
        default=False,
        help_text=_('Add the state of the object before and after the change to the body.'),
    )
    include_components = models.BooleanField(
        _('include components'),
        default=False,
        db_default=False,
        help_text=_(
            'A change of a component (interface, port, address, …) is also sent as an update of its device, module or '
            'virtual machine.'
        ),
    )
    include_config_contexts = models.BooleanField(
        _('include config contexts'),
        default=False,
        db_default=False,
        help_text=_(
            'A change that affects the config context of devices or virtual machines is also sent as an update '
            'of each of them.'
        ),
    )
    expand = ArrayField(
        models.CharField(max_length=150),
        verbose_name=_('expand'),
        blank=True,
        default=list,
        db_default=[],
        help_text=_('Keys of related objects to send with all their fields, separated by commas, such as device.site.'),
    )
    fields = models.JSONField(
        _('fields'),
        blank=True,
        null=True,
        help_text=_('Only these keys of an object are sent. JSON, by object type: {"dcim.site": ["id", "name"]}'),
    )
    omit = models.JSONField(
        _('omit'),
        blank=True,
        null=True,
        help_text=_('These keys of an object are not sent. JSON, by object type: {"dcim.device": ["config_context"]}'),
    )
    notification_groups = models.ManyToManyField(
        'extras.NotificationGroup',
        related_name='+',
        blank=True,
        verbose_name=_('notification groups'),
        help_text=_(
            'These groups are notified when the webhook is suspended, resumed or disabled by its receiver, when the '
            'first delivery of a day fails, when a backfill ends, and when its client certificate or credential ends '
            'soon.'
        ),
    )
    # As with NetBox's own webhooks, they are deleted with it.
    event_rules = GenericRelation('extras.EventRule', 'action_object_id', 'action_object_type')
    # Rotations write secrets, and an answer 410 disables.
    guarded = (('secret', 'previous_secret', 'previous_secret_expires'), ('enabled',), ENDPOINT_FIELDS)
    exclusive = (ENDPOINT_FIELDS,)
    _send_list = False
    docs_url = ''  # otherwise NetBox links to its own manual

    class Meta:
        ordering = ('name',)
        verbose_name = _('webhook')
        verbose_name_plural = _('webhooks')
        permissions = [
            ('test', 'Send a test event'),
            ('replay', 'Replay past events'),
            ('backfill', 'Send everything as it is now'),
            ('read_feed', 'Read a feed'),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of change that it sends: values of KindChoices."""
        flags = (
            (KindChoices.CREATED, self.type_create),
            (KindChoices.UPDATED, self.type_update),
            (KindChoices.DELETED, self.type_delete),
        )
        return [kind for kind, wanted in flags if wanted]

    @property
    def kind_labels(self) -> str:
        """Return the kinds of change that it sends, for people, such as 'Created, Deleted'."""
        labels = dict(KindChoices)
        return ', '.join(str(labels[kind]) for kind in self.kinds)

    @property
    def shows_before(self) -> bool:
        """Whether its requests show the state before a change."""
        return self.include_snapshots or self.payload_format in (FormatChoices.NETBOX, FormatChoices.THIN)

    @property
    def needs_before(self) -> bool:
        """Whether it shows the state before a change, or may ask for it in its conditions."""
        return self.shows_before or bool(self.conditions)

    @property
    def compares(self) -> bool:
        """Whether saves that change nothing are no updates to it."""
        return self.only_real_changes or bool(self.only_if_changed)

    @property
    def wants_unchanged(self) -> bool:
        """Whether saves that change nothing have to be recorded for it."""
        return self.type_update and not self.compares

    @property
    def records_before(self) -> bool:
        """Whether the state before a change has to be recorded: to show it, or to see if the change is one."""
        return self.needs_before or (self.type_update and self.compares)

    @property
    def is_feed(self) -> bool:
        """Whether receivers read its changes from NetBox: it has no URL."""
        return not self.payload_url

    @property
    def masked_url(self) -> str:
        """Return the URL without its secrets, for people. '' for a feed."""
        return str(self.payload_url)

    @property
    def masked_headers(self) -> str:
        """Return the additional headers with masked values, one a line."""
        return mask_headers(self.additional_headers)

    @property
    def effective_timeout(self) -> int:
        """Return the seconds that a request may take: the webhook's own, or NetBox's default."""
        return self.timeout or settings.WEBHOOK_DEFAULT_TIMEOUT

    @classmethod
    def any_is_templated(cls) -> bool:
        """Whether workers need a renderer. Headers are encrypted, so templates in them do not count."""
        with connection.cursor() as cursor:
            cursor.execute(IS_ANY_TEMPLATED)
            return cursor.fetchone()[0]

    @property
    def has_new_secret(self) -> bool:
        """Whether somebody has entered a secret since it was read."""
        return self.has_changed('secret')

    @property
    def clone_fields(self) -> list[str]:
        """Return the fields that a copy takes over: all that users set, except NOT_COPIED."""
        columns = (*self._meta.concrete_fields, *self._meta.many_to_many)
        return [one.name for one in columns if one.editable and not one.primary_key and one.name not in NOT_COPIED]

    def clone(self) -> dict:
        """Return the fields for NetBox's *Clone* link. A link shows them, so the URL is masked."""
        return super().clone() | {'payload_url': self.masked_url}

    @property
    def send_list(self) -> bool:
        """Whether a save sends the present objects of a new list. Else they are taken as known to the receiver."""
        return self._send_list

    @send_list.setter
    def send_list(self, value: bool) -> None:
        self._send_list = value

    @property
    def filter_lines(self) -> str:
        """Return the filters as text, one a line, such as 'dcim.site: status=active'."""
        return '\n'.join(f'{label}: {query}' for label, query in self.filters.items())

    def listed_types(self) -> list[ContentType]:
        """Return those of its object types that have a filter."""
        return [one for one in self.object_types.all() if label_of(one) in self.filters]

    def clean(self) -> None:
        """Check all fields. Raises ValidationError. Drops the previous secret if the present one was replaced."""
        super().clean()
        errors = validation.errors(self)
        stored = type(self).objects.filter(pk=self.pk).first() if self.pk else None
        if stored:
            # Compare with the values that this user has read: others may have entered headers since.
            vars(stored).update({name: value for name, value in self._read.items() if name in ENDPOINT_FIELDS})
            if self._takes_headers_along(stored):
                errors.setdefault('additional_headers', MOVED)
            if stored.secret_path and not self.secret_path and not getattr(self.payload_url, 'is_entered', True):
                errors.setdefault('payload_url', UNMASKED)
            self._drop_previous_secret(stored)
        if errors:
            raise ValidationError(errors)

    def _takes_headers_along(self, stored: 'Webhook') -> bool:
        """Whether untouched headers would go elsewhere, or less safely."""
        is_untouched = bool(self.additional_headers) and self.additional_headers == stored.additional_headers
        return is_untouched and is_moved(stored, vars(self))

    def serialize_object(self, exclude: Iterable[str] | None = None) -> dict:
        """Return the change log's data, with masks in place of secrets, and `stamps` that change with them."""
        data = super().serialize_object(exclude=[*(exclude or ()), *SEALED_FIELDS, 'previous_secret_expires'])
        data['payload_url'] = self.masked_url
        data['additional_headers'] = self.masked_headers
        data['secret'] = str(self.secret)
        # Without stamps, a new secret would leave no trace in the change log: both masks are the same.
        data['stamps'] = {name: getattr(self, name).stamp for name in ('additional_headers', 'secret')}
        return data
