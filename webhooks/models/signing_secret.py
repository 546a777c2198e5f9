from datetime import datetime, timedelta

from django.db import models
from django.utils import timezone

from ..exceptions import DecryptionError
from ..security import signing
from .fields import Sealed


class SigningModel(models.Model):
    """The webhook defines the columns."""

    secret: Sealed | str
    previous_secret: Sealed | str
    previous_secret_expires: datetime | None

    class Meta:
        abstract = True

    def secrets(self) -> list[str]:
        """The current first. Raises DecryptionError."""
        if not self.secret:
            return []
        secrets = [self.secret.reveal()]
        if self.is_previous_secret_valid:
            secrets.append(self.previous_secret.reveal())
        return secrets

    secrets.alters_data = True

    @property
    def is_previous_secret_valid(self) -> bool:
        expires = self.previous_secret_expires
        return bool(self.secret and self.previous_secret and expires and expires > timezone.now())

    @property
    def public_key(self) -> str:
        """'' without a key pair."""
        try:
            secret = self.secret.reveal()
            return signing.public_key(secret) if signing.is_asymmetric(secret) else ''
        except (DecryptionError, ValueError):
            return ''

    def rotate_secret(self, secret: str, overlap: timedelta) -> None:
        """For `overlap` both secrets sign. Does not save."""
        # Its key may soon be removed.
        self.previous_secret = self._present_secret()
        self.previous_secret_expires = timezone.now() + overlap if self.previous_secret else None
        self.secret = secret

    rotate_secret.alters_data = True

    def _present_secret(self) -> str:
        """A damaged secret must not block a new one."""
        try:
            return self.secret.reveal()
        except DecryptionError:
            return ''

    def _drop_previous_secret(self, stored: 'SigningModel') -> None:
        """Only a rotation keeps the previous secret."""
        if self.secret == stored.secret or self.previous_secret != stored.previous_secret:
            return
        if self._present_secret() != stored._present_secret():
            self.previous_secret, self.previous_secret_expires = '', None
