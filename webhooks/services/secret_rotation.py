"""The session keeps a new secret, encrypted, for the user's next page."""

from datetime import timedelta

from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.shortcuts import get_object_or_404

from ..exceptions import DecryptionError
from ..models import Webhook
from ..security import encryption, signing
from ..validation.secret import check

DEFAULT_OVERLAP = timedelta(hours=24)
SESSION_KEY = '_webhooks_secret_{}'


@transaction.atomic
def rotate(pk: int, prefix: str, overlap: timedelta) -> tuple[Webhook, str]:
    """For `overlap` both secrets sign. Returns the new secret too.

    `prefix` is signing.SYMMETRIC or signing.PRIVATE. The lock prevents lost updates. Raises Http404 and
    DefinitionError.
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
    session[SESSION_KEY.format(webhook.pk)] = encryption.encrypt(secret)


def is_waiting(session: SessionBase, webhook: Webhook) -> bool:
    return SESSION_KEY.format(webhook.pk) in session


def take(session: SessionBase, webhook: Webhook) -> str:
    """Also forgets it. '' without one."""
    token = session.pop(SESSION_KEY.format(webhook.pk), '')
    try:
        return encryption.decrypt(token) if token else ''
    except DecryptionError:
        return ''
