"""Signatures as a receiver verifies them, by code that this project did not write."""

import base64
from datetime import timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dcim.models import Site
from django.utils import timezone
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from support.builders import site, subscribe
from support.engine import pass_retry_waits, work

from devstack.receiver import Received, Receiver
from webhooks.models import Webhook
from webhooks.security import signing

pytestmark = pytest.mark.usefixtures('committed')

DAY = timedelta(days=1)


def received(receiver: Receiver, count: int = 1) -> Received:
    """Return the last of `count` requests."""
    work()
    return receiver.wait_for(count)[-1]


def headers(request: Received) -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers}


def verify_asymmetric(public_key: str, request: Received) -> None:
    """As Standard Webhooks 1.0.0 describes it. Raises InvalidSignature."""
    found = headers(request)
    signed = f'{found["webhook-id"]}.{found["webhook-timestamp"]}.'.encode() + request.body
    signatures = [one.removeprefix('v1a,') for one in found['webhook-signature'].split(' ') if one.startswith('v1a,')]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix('whpk_')))
    key.verify(base64.b64decode(signatures[0]), signed)


def test_a_symmetric_signature_verifies(receiver: Receiver):
    secret = signing.generate()
    subscribe(receiver.url('/'), Site, secret=secret)
    site(name='Genève')
    request = received(receiver)
    assert Verifier(secret).verify(request.body, headers(request))['data']['name'] == 'Genève'
    with pytest.raises(WebhookVerificationError):
        Verifier(signing.generate()).verify(request.body, headers(request))


def test_an_asymmetric_signature_verifies_by_the_key_that_is_shown(receiver: Receiver):
    webhook = subscribe(receiver.url('/'), Site, secret=signing.generate(signing.PRIVATE))
    site()
    request = received(receiver)
    verify_asymmetric(webhook.public_key, request)
    assert request.header('X-Hook-Signature') is None
    with pytest.raises(InvalidSignature):
        verify_asymmetric(signing.public_key(signing.generate(signing.PRIVATE)), request)


def test_each_attempt_is_signed_anew(receiver: Receiver):
    secret = signing.generate()
    subscribe(receiver.url('/'), Site, secret=secret)
    receiver.answers('/', 500, 200)
    site()
    first = received(receiver)
    pass_retry_waits()
    second = received(receiver, 2)
    assert first.body == second.body
    assert int(first.header('webhook-timestamp')) <= int(second.header('webhook-timestamp'))
    for request in (first, second):
        assert Verifier(secret).verify(request.body, headers(request))


class TestRotation:
    def rotate(self, webhook: Webhook, secret: str, overlap: timedelta = DAY) -> None:
        webhook.rotate_secret(secret, overlap)
        webhook.save()
        site()

    def test_both_secrets_verify_until_the_old_one_expires(self, receiver: Receiver):
        old, new = signing.generate(), signing.generate()
        webhook = subscribe(receiver.url('/'), Site, secret=old)
        self.rotate(webhook, new)
        request = received(receiver)
        assert len(request.header('webhook-signature').split(' ')) == 2
        for secret in (old, new):
            assert Verifier(secret).verify(request.body, headers(request))
        assert request.header('X-Hook-Signature') == signing.netbox(new, request.body)

        Webhook.objects.update(previous_secret_expires=timezone.now() - timedelta(seconds=1))
        site()
        request = received(receiver, 2)
        assert Verifier(new).verify(request.body, headers(request))
        with pytest.raises(WebhookVerificationError):
            Verifier(old).verify(request.body, headers(request))

    def test_both_kinds_of_secret_verify_during_a_change_of_kind(self, receiver: Receiver):
        old = signing.generate()
        webhook = subscribe(receiver.url('/'), Site, secret=old)
        self.rotate(webhook, signing.generate(signing.PRIVATE))
        request = received(receiver)
        assert Verifier(old).verify(request.body, headers(request))
        verify_asymmetric(webhook.public_key, request)

    def test_a_second_rotation_forgets_the_first_secret(self, receiver: Receiver):
        first, second, third = (signing.generate() for _ in range(3))
        webhook = subscribe(receiver.url('/'), Site, secret=first)
        webhook.rotate_secret(second, DAY)
        self.rotate(webhook, third)
        request = received(receiver)
        for secret in (second, third):
            assert Verifier(secret).verify(request.body, headers(request))
        with pytest.raises(WebhookVerificationError):
            Verifier(first).verify(request.body, headers(request))

    def test_without_an_overlap_the_new_secret_alone_verifies(self, receiver: Receiver):
        old, new = signing.generate(), signing.generate()
        webhook = subscribe(receiver.url('/'), Site, secret=old)
        self.rotate(webhook, new, timedelta())
        request = received(receiver)
        assert Verifier(new).verify(request.body, headers(request))
        with pytest.raises(WebhookVerificationError):
            Verifier(old).verify(request.body, headers(request))


def test_without_a_secret_there_is_no_signature(receiver: Receiver):
    subscribe(receiver.url('/'), Site)
    site()
    request = received(receiver)
    assert request.header('webhook-signature') is request.header('X-Hook-Signature') is None
    assert request.header('webhook-id')
