"""A new secret is made here, put in use, and shown once.

The user who asked for it sees it on the webhook's next page, as NetBox shows a new token. Until then the session holds
it, encrypted.
"""

from datetime import timedelta

from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.shortcuts import get_object_or_404

from ..exceptions import DecryptionError
from ..models import Webhook
from ..security import encryption, signing

DEFAULT_OVERLAP = timedelta(hours=24)
SESSION_KEY = '_webhooks_secret_{}'


@transaction.atomic
def rotate(pk: int, prefix: str, overlap: timedelta) -> tuple[Webhook, str]:
    """Sign with a new secret from now on, and with the present one too until `overlap` has passed.

    Returns the webhook as it is then and the new secret. `prefix` is signing.SYMMETRIC or signing.PRIVATE. The webhook
    is read under a lock, for all of its columns are saved: what others change at the same time must stay. Raises
    Http404 where there is none.
    """
    secret = signing.generate(prefix)
    webhook = get_object_or_404(Webhook.objects.select_for_update(no_key=True), pk=pk)
    webhook.snapshot()
    webhook.rotate_secret(secret, overlap)
    webhook.save()
    return webhook, secret


def show_once(session: SessionBase, webhook: Webhook, secret: str) -> None:
    """Keep the secret, encrypted, in the session until `take` is called for the webhook."""
    session[SESSION_KEY.format(webhook.pk)] = encryption.encrypt(secret)


def is_waiting(session: SessionBase, webhook: Webhook) -> bool:
    """Whether there is a secret that is to be shown."""
    return SESSION_KEY.format(webhook.pk) in session


def take(session: SessionBase, webhook: Webhook) -> str:
    """Return the secret that is to be shown now and not again, '' if there is none."""
    token = session.pop(SESSION_KEY.format(webhook.pk), '')
    try:
        return encryption.decrypt(token) if token else ''
    except DecryptionError:
        return ''
