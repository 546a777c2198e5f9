from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dcim.models import Site
from django.utils import timezone
from extras.models import Notification, NotificationGroup
from support.builders import NOWHERE, subscribe
from support.builtin import rule
from support.engine import health
from users.models import User

from webhooks.engine.notifications import CERTIFICATE_ENDS
from webhooks.engine.tidy import certificates
from webhooks.models import Webhook

pytestmark = pytest.mark.usefixtures('committed')

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'netbox')])


def certificate(path: Path, days: int) -> str:
    """Write a key and a certificate that ends in that many days. Returns its path."""
    key, now = Ed25519PrivateKey.generate(), timezone.now()
    made = x509.CertificateBuilder(
        NAME, NAME, key.public_key(), 1, now - timedelta(days=400), now + timedelta(days=days)
    ).sign(key, None)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return str(path)


@pytest.fixture
def webhook() -> Webhook:
    group = NotificationGroup.objects.create(name='On call')
    group.users.add(User.objects.create_user('ann'))
    made = subscribe(NOWHERE, Site)
    made.notification_groups.add(group)
    rule(made, Webhook, kinds=(CERTIFICATE_ENDS.name,), action_type='webhooks.send')
    return made


@pytest.mark.parametrize(('days', 'is_told'), [(13, True), (-1, True), (15, False)])
def test_an_end_within_two_weeks_is_told(webhook, tmp_path, days, is_told):
    Webhook.objects.update(client_cert_path=certificate(tmp_path / 'client.pem', days))
    certificates.tell()
    names = [CERTIFICATE_ENDS.name] if is_told else []
    assert list(Notification.objects.values_list('event_type', flat=True)) == names
    assert health(webhook).news == names


def test_a_file_that_cannot_be_read_stops_nothing(webhook, tmp_path):
    (tmp_path / 'bad.pem').write_text('no certificate')
    other = subscribe(NOWHERE, Site)
    Webhook.objects.update(client_cert_path=str(tmp_path / 'bad.pem'))
    Webhook.objects.filter(pk=other.pk).update(client_cert_path=str(tmp_path / 'missing.pem'))
    certificates.tell()
    assert not Notification.objects.exists()


def test_a_disabled_webhook_is_left(webhook, tmp_path):
    path = certificate(tmp_path / 'client.pem', 3)
    Webhook.objects.update(client_cert_path=path, enabled=False)
    certificates.tell()
    assert not Notification.objects.exists()
    Webhook.objects.update(enabled=True)
    certificates.tell()
    assert Notification.objects.exists()
