"""Makes a new secret, and shows it once: the session keeps it, encrypted, for the user's next page."""

from datetime import timedelta

from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from ..models import Webhook
from ..models.fields import Sealed
from ..security import encryption, signing
from ..validation.secret import check

# How long both secrets sign, unless the user says otherwise.
DEFAULT_OVERLAP = timedelta(hours=24)
SESSION_KEY = '_webhooks_secret_{}'


@transaction.atomic
def rotate(pk: int, prefix: str, overlap: timedelta) -> tuple[Webhook, str]:
    """Replace the webhook's secret by a generated one, and save. Return the webhook and the new secret.

    `prefix` is signing.SYMMETRIC or signing.PRIVATE. For `overlap` both secrets sign. The row's lock prevents lost
    updates. Raises Http404 and DefinitionError.
    """
    secret = signing.generate(prefix)
    webhook = get_object_or_404(Webhook.objects.select_for_update(no_key=True), pk=pk)
    webhook.snapshot()
    webhook.rotate_secret(secret, overlap)
    if signing.is_asymmetric(secret):
        check(webhook)
    webhook.save()
    return webhook, secret


def show_once(session: SessionBase, webhook: Webhook, secret: str) -> None:
    """Keep a new secret in the session, encrypted, until `take`."""
    session[SESSION_KEY.format(webhook.pk)] = encryption.encrypt(secret)


def is_waiting(session: SessionBase, webhook: Webhook) -> bool:
    """Whether a new secret of this webhook is still to be shown in this session."""
    return SESSION_KEY.format(webhook.pk) in session


def waiting_message(webhook: Webhook) -> str:
    """Return a sentence for a user who comes to a page that does not show the new secret."""
    return _('The secret of “{webhook}” is shown once, when you open its page.').format(webhook=webhook)


def take(session: SessionBase, webhook: Webhook) -> str:
    """Return the new secret of this webhook, and forget it. '' if nothing is kept, or it cannot be decrypted."""
    return Sealed(session.pop(SESSION_KEY.format(webhook.pk), '')).reveal_or_blank()
