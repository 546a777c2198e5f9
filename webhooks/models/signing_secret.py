"""The secrets with which a webhook signs its requests."""

from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

from ..exceptions import DecryptionError
from ..security import references, signing
from ..security.references import SecretUnavailable
from .fields import Sealed


class SigningModel(models.Model):
    """Gives Webhook its present secret, and for a while the previous one. Webhook defines the columns."""

    secret: Sealed | str
    previous_secret: Sealed | str
    previous_secret_expires: datetime | None

    class Meta:
        abstract = True

    def secrets(self) -> list[str]:
        """Return the secrets that sign a request, as texts: the present one first, then the previous one while it is
        valid. A reference is not read.

        Empty: requests are not signed. Raises DecryptionError.
        """
        if not self.secret:
            return []
        secrets = [self.secret.reveal()]
        if self.is_previous_secret_valid:
            secrets.append(self.previous_secret.reveal())
        return secrets

    secrets.alters_data = True

    @property
    def is_previous_secret_valid(self) -> bool:
        """Whether requests are signed with the previous secret, too."""
        expires = self.previous_secret_expires
        return bool(self.secret and self.previous_secret and expires and expires > timezone.now())

    @property
    def public_key(self) -> str:
        """Return the public key that receivers verify with. '' if the secret is no key pair, or cannot be read here."""
        try:
            secret = references.read(self.secret.reveal())
            return signing.public_key(secret) if signing.is_asymmetric(secret) else ''
        except (DecryptionError, SecretUnavailable, ValueError):
            return ''

    def rotate_secret(self, secret: str, overlap: timedelta) -> None:
        """Replace the secret. For `overlap` the former one signs too. Saves nothing: the caller does."""
        # Encrypted anew, with the present key: the former key may soon be removed from the settings. A secret that no
        # key decrypts is dropped: it must not block a new one.
        self.previous_secret = self.secret.reveal_or_blank()
        self.previous_secret_expires = timezone.now() + overlap if self.previous_secret else None
        self.secret = secret

    rotate_secret.alters_data = True

    def _drop_previous_secret(self, stored: 'SigningModel') -> None:
        """End the previous secret if the present one was replaced. Only a rotation keeps it."""
        if self.secret == stored.secret or self.previous_secret != stored.previous_secret:
            return
        if self.secret.reveal_or_blank() != stored.secret.reveal_or_blank():
            self.previous_secret, self.previous_secret_expires = '', None
