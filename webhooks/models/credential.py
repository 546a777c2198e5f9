"""Credentials that many webhooks may share, and the OAuth2 tokens that workers fetch with them."""

from collections.abc import Iterable
from datetime import datetime

from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import ProtectedError, Q
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy
from netbox.models import NetBoxModel

from ..choices import CredentialTypeChoices
from ..constants import MAX_URL_CHARS
from ..validation import credential as validation
from .concurrent import ConcurrentModel, update_unlocked
from .fields import SealedField
from .managed import ManagedModel
from .webhook import Webhook

# The secret, and the fields that decide where it goes. A save writes all of them, or none.
BOUND_FIELDS = ('type', 'hosts', 'token_url', 'ca_file_path', 'secret')


class Credential(ManagedModel, ConcurrentModel, NetBoxModel):
    """A login or token that webhooks add to their requests, but only to the `hosts` that it names.

    `secret` is encrypted at rest, and masked wherever it is shown.
    """

    name = models.CharField(_('name'), max_length=150, unique=True)
    description = models.CharField(_('description'), max_length=200, blank=True)
    type = models.CharField(_('type'), max_length=30, choices=CredentialTypeChoices)
    hosts = ArrayField(
        models.CharField(max_length=300),
        verbose_name=_('hosts'),
        help_text=_(
            'Hosts that may get the secret, separated by commas: awx.example.com, awx.example.com:8443. For HTTP, or '
            'HTTPS without verification: http://awx.example.com:8000. To add a host, enter the secret again.'
        ),
    )
    username = models.CharField(
        _('user'), max_length=300, blank=True, help_text=_('The user of a basic login, or the client ID of OAuth2.')
    )
    header = models.CharField(
        _('header'), max_length=100, blank=True, help_text=_('The name of the header, such as X-API-Key.')
    )
    secret = SealedField(
        pgettext_lazy('webhooks', 'secret'),
        blank=True,
        help_text=_('The password, the token, or the client secret of OAuth2. Stored encrypted and never shown.'),
    )
    valid_until = models.DateField(
        _('valid until'),
        null=True,
        blank=True,
        help_text=_(
            'Last day on which it is valid. In the two weeks before, notification groups are notified '
            'daily. Leave blank if it does not expire.'
        ),
    )
    token_url = models.CharField(
        _('token URL'), max_length=MAX_URL_CHARS, blank=True, help_text=_('Where OAuth2 access tokens are requested.')
    )
    scope = models.CharField(
        _('scope'), max_length=500, blank=True, help_text=_('For OAuth2, if the server requires it.')
    )
    audience = models.CharField(
        _('audience'), max_length=500, blank=True, help_text=_('For OAuth2, if the server requires it.')
    )
    ca_file_path = models.CharField(
        _('CA file'), max_length=4096, blank=True, help_text=_("Verifies the token URL's certificate.")
    )

    guarded = (BOUND_FIELDS,)
    exclusive = (BOUND_FIELDS,)
    docs_url = ''
    clone_fields = ('description', 'type', 'hosts', 'username', 'header', 'token_url', 'scope', 'audience')

    class Meta:
        ordering = ('name',)
        verbose_name = _('credential')
        verbose_name_plural = _('credentials')

    def __str__(self) -> str:
        return self.name

    @property
    def is_oauth2(self) -> bool:
        """Whether workers first fetch an access token at `token_url`."""
        return self.type in CredentialTypeChoices.OAUTH2

    def clean(self) -> None:
        """Bring the hosts into one form, and check all fields. Raises ValidationError.

        If the secret would go elsewhere than it did, it has to be entered again: nobody may read it out that way.
        """
        super().clean()
        if isinstance(self.hosts, list):
            self.hosts = [validation.normalized(host) for host in self.hosts]
        errors = validation.errors(self)
        stored = type(self).objects.filter(pk=self.pk).first() if self.pk else None
        if stored:
            vars(stored).update({name: value for name, value in self._read.items() if name in BOUND_FIELDS})
            if self.secret == stored.secret and validation.goes_elsewhere(stored, self):
                errors.setdefault('secret', validation.ELSEWHERE)
        if errors:
            raise ValidationError(errors)

    def save(self, *args, **kwargs) -> None:
        """Save it, drop its OAuth2 token, and touch its webhooks, so that workers read them again.

        Raises ChangedMeanwhile.
        """
        super().save(*args, **kwargs)
        AccessToken.objects.update_or_create(credential=self, create_defaults={}, defaults=AccessToken.NOTHING)
        Webhook.objects.filter(credential=self).update(last_updated=timezone.now())

    save.alters_data = True

    def serialize_object(self, exclude: Iterable[str] | None = None) -> dict:
        """Return the change log's data, with a masked secret.

        `stamps` changes with the secret: otherwise its change would leave no trace.
        """
        data = super().serialize_object(exclude=[*(exclude or ()), 'secret'])
        data['secret'] = str(self.secret)
        data['stamps'] = {'secret': self.secret.stamp}
        return data


@receiver(pre_delete, sender=Credential, dispatch_uid='webhooks.credential')
def _protect(instance: Credential, **kwargs) -> None:
    if users := set(Webhook.objects.filter(credential=instance)):
        raise ProtectedError(_('Webhooks use this credential.'), users)


class AccessToken(models.Model):
    """The present OAuth2 token of a credential. One worker fetches the next one for all.

    `fetching_until` is a claim: until then nobody else fetches. A worker that stops meanwhile loses it by this time.
    A save of the credential locks the row until its commit. No worker waits for that.
    """

    # A row without a token.
    NOTHING = {'token': '', 'fetched_at': None, 'expires_at': None, 'fetching_until': None}

    credential = models.OneToOneField(
        Credential, on_delete=models.CASCADE, related_name='access_token', primary_key=True
    )
    token = SealedField(blank=True)
    fetched_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    fetching_until = models.DateTimeField(null=True)

    _netbox_private = True

    class Meta:
        verbose_name = _('access token')
        verbose_name_plural = _('access tokens')

    def __str__(self) -> str:
        return str(self.credential)

    def claim(self, now: datetime, until: datetime) -> bool:
        """Claim the next fetch until `until`.

        Return whether this worker is to fetch: False if another worker does, or has.
        """
        is_free = Q(fetching_until=None) | Q(fetching_until__lt=now)
        same = AccessToken.objects.filter(is_free, pk=self.pk, fetched_at=self.fetched_at)
        return update_unlocked(same, fetching_until=until)

    @staticmethod
    def keep(credential_id: int, token: str, until: datetime, now: datetime, expires_at: datetime) -> None:
        """Write a fetched token, if the claim that ends at `until` still stands.

        If another worker has claimed it since, nothing is written.
        """
        claimed = AccessToken.objects.filter(pk=credential_id, fetching_until=until)
        update_unlocked(claimed, token=token, fetched_at=now, expires_at=expires_at, fetching_until=None)

    def end(self, now: datetime) -> bool:
        """End this token, because the endpoint refused it. Return whether that is done.

        False: the row is locked, so the token stays in use.
        """
        in_use = AccessToken.objects.filter(pk=self.pk, fetched_at=self.fetched_at, expires_at__gt=now)
        return update_unlocked(in_use, expires_at=now) or not in_use.exists()
