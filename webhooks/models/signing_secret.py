"""What signs the requests of a webhook: its secret and, after a rotation, the one before it for a while."""

from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

from ..exceptions import DecryptionError
from ..security import signing
from .fields import Sealed


class SigningModel(models.Model):
    """The columns are the webhook's."""

    secret: Sealed | str
    previous_secret: Sealed | str
    previous_secret_expires: datetime | None

    class Meta:
        abstract = True

    def secrets(self) -> list[str]:
        """Return the secrets that sign now, the current one first; [] where there is none. Raises DecryptionError."""
        if not self.secret:
            return []
        secrets = [self.secret.reveal()]
        if self.is_previous_secret_valid:
            secrets.append(self.previous_secret.reveal())
        return secrets

    secrets.alters_data = True

    @property
    def is_previous_secret_valid(self) -> bool:
        """Whether the secret before the present one still signs beside it."""
        expires = self.previous_secret_expires
        return bool(self.secret and self.previous_secret and expires and expires > timezone.now())

    @property
    def public_key(self) -> str:
        """What receivers verify signatures with, where the secret is an asymmetric key; else ''."""
        try:
            secret = self.secret.reveal()
            return signing.public_key(secret) if signing.is_asymmetric(secret) else ''
        except (DecryptionError, ValueError):
            return ''

    def rotate_secret(self, secret: str, overlap: timedelta) -> None:
        """Sign with `secret` from now on, and with the present one too until `overlap` has passed. Does not save."""
        # Encrypted anew, with the first of the keys: others may soon be taken out.
        self.previous_secret = self._present_secret()
        self.previous_secret_expires = timezone.now() + overlap if self.previous_secret else None
        self.secret = secret

    rotate_secret.alters_data = True

    def _present_secret(self) -> str:
        """Return '' for one that cannot be decrypted, too: it must not fail what the new one signs."""
        try:
            return self.secret.reveal()
        except DecryptionError:
            return ''

    def _drop_previous_secret(self, stored: 'SigningModel') -> None:
        """A secret that takes the place of the stored one, and not by a rotation, is the only one that signs."""
        if self.secret == stored.secret or self.previous_secret != stored.previous_secret:
            return
        if self._present_secret() != stored._present_secret():
            self.previous_secret, self.previous_secret_expires = '', None
