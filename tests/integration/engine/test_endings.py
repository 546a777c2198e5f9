from datetime import timedelta
from pathlib import Path

import pytest
from core.models import Job
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

from webhooks.engine import notifications
from webhooks.engine.notifications import CERTIFICATE_ENDS, CREDENTIAL_ENDS
from webhooks.jobs import WebhooksRetentionJob
from webhooks.models import Credential, Webhook

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


def credential(days: int | None) -> Credential:
    """Return one that ends in that many days; None: nobody knows when."""
    end = None if days is None else timezone.localdate() + timedelta(days=days)
    return Credential.objects.create(
        name='AWX', type='bearer', secret='tok3n', hosts=['http://127.0.0.1:9'], valid_until=end
    )


@pytest.fixture
def webhook() -> Webhook:
    group = NotificationGroup.objects.create(name='On call')
    group.users.add(User.objects.create_user('ann'))
    made = subscribe(NOWHERE, Site)
    made.notification_groups.add(group)
    rule(made, Webhook, kinds=(CERTIFICATE_ENDS.name, CREDENTIAL_ENDS.name), action_type='webhooks.send')
    return made


def told() -> list[str]:
    return list(Notification.objects.values_list('event_type', flat=True))


@pytest.mark.parametrize(('days', 'is_told'), [(13, True), (-1, True), (15, False)])
def test_people_are_notified_of_a_certificate_that_ends_within_two_weeks(webhook, tmp_path, days, is_told):
    Webhook.objects.update(client_cert_path=certificate(tmp_path / 'client.pem', days))
    notifications.notify_endings()
    names = [CERTIFICATE_ENDS.name] if is_told else []
    assert told() == names
    assert health(webhook).notices == names


@pytest.mark.parametrize(('days', 'is_told'), [(14, True), (-1, True), (15, False), (None, False)])
def test_people_are_notified_of_a_credential_that_ends_within_two_weeks(webhook, days, is_told):
    Webhook.objects.update(credential=credential(days))
    notifications.notify_endings()
    names = [CREDENTIAL_ENDS.name] if is_told else []
    assert told() == names
    assert health(webhook).notices == names


def test_people_are_notified_of_each_webhook_that_uses_the_credential(webhook):
    other, without = subscribe(NOWHERE, Site), subscribe(NOWHERE, Site)
    rule(without, Webhook, kinds=(CREDENTIAL_ENDS.name,), action_type='webhooks.send')
    Webhook.objects.filter(pk__in=[webhook.pk, other.pk]).update(credential=credential(3))
    notifications.notify_endings()
    assert [health(one).notices for one in (webhook, other, without)] == [[CREDENTIAL_ENDS.name]] * 2 + [[]]


def test_an_event_rule_gets_both_endings(webhook, tmp_path):
    path = certificate(tmp_path / 'client.pem', 3)
    Webhook.objects.update(client_cert_path=path, credential=credential(3))
    notifications.notify_endings()
    assert health(webhook).notices == [CERTIFICATE_ENDS.name, CREDENTIAL_ENDS.name]


def test_the_daily_job_notifies_of_endings(webhook):
    Webhook.objects.update(credential=credential(3))
    WebhooksRetentionJob(Job()).run()
    assert told() == [CREDENTIAL_ENDS.name]


def test_a_file_that_cannot_be_read_stops_nothing(webhook, tmp_path):
    (tmp_path / 'bad.pem').write_text('no certificate')
    other = subscribe(NOWHERE, Site)
    Webhook.objects.update(client_cert_path=str(tmp_path / 'bad.pem'))
    Webhook.objects.filter(pk=other.pk).update(client_cert_path=str(tmp_path / 'missing.pem'))
    notifications.notify_endings()
    assert not Notification.objects.exists()


def test_a_disabled_webhook_is_left(webhook, tmp_path):
    path = certificate(tmp_path / 'client.pem', 3)
    Webhook.objects.update(client_cert_path=path, credential=credential(3), enabled=False)
    notifications.notify_endings()
    assert not told()
    assert health(webhook).notices == []
    Webhook.objects.update(enabled=True)
    notifications.notify_endings()
    assert told()
    assert len(health(webhook).notices) == 2
