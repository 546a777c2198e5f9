"""Third-party code verifies our signatures."""

import base64
import hashlib
import hmac
import re
from datetime import timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dcim.models import Site
from django.core.exceptions import ValidationError
from django.utils import timezone
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError
from support.builders import NOWHERE, site, subscribe
from support.engine import dispatch_all, pass_retry_waits, work

from devstack.receiver import Received, Receiver
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.payload.http_request import Builder
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
    """Follows Standard Webhooks 1.0.0. Raises InvalidSignature."""
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


def github(secret: str, body: bytes) -> str:
    """Follows GitHub's "Validating webhook deliveries"."""
    return f'sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}'


class TestInAHeader:
    def signed(self, receiver: Receiver, line: str, **fields: object) -> Received:
        fields = {'secret': 's3cret of ours', **fields}
        subscribe(receiver.url('/'), Site, additional_headers=line, **fields)
        site(name='Genève')
        return received(receiver)

    def test_a_header_signs_as_github_does(self, receiver: Receiver):
        request = self.signed(receiver, 'X-Hub-Signature-256: sha256={{ hmac() }}')
        assert request.header('X-Hub-Signature-256') == github('s3cret of ours', request.body)

    def test_a_signature_in_a_header_covers_the_body_by_the_template(self, receiver: Receiver):
        line = "X-Hub-Signature-256: sha256={{ hmac('sha256') }}"
        request = self.signed(receiver, line, body_template='{"n": {{ data.name | tojson }}}')
        assert request.body == b'{"n": "Gen\\u00e8ve"}'
        assert request.header('X-Hub-Signature-256') == github('s3cret of ours', request.body)

    @pytest.mark.parametrize('algorithm', ['sha1', 'sha256', 'sha512'])
    def test_hmac_is_in_hex_or_base64(self, receiver: Receiver, algorithm: str):
        line = f"X-Both: {{{{ hmac('{algorithm}') }}}} {{{{ hmac('{algorithm}', 'base64') }}}}"
        request = self.signed(receiver, line)
        digest = hmac.digest(b's3cret of ours', request.body, algorithm)
        assert request.header('X-Both') == f'{digest.hex()} {base64.b64encode(digest).decode()}'

    def test_over_the_timestamp_too(self, receiver: Receiver):
        line = "X-Signature: t={{ webhook_timestamp }},v1={{ hmac(over='timestamp.body') }}"
        request = self.signed(receiver, line)
        timestamp = request.header('webhook-timestamp')
        signed = timestamp.encode() + b'.' + request.body
        digest = hmac.digest(b's3cret of ours', signed, 'sha256').hex()
        assert request.header('X-Signature') == f't={timestamp},v1={digest}'

    def test_by_the_old_secret_while_that_is_valid(self, receiver: Receiver):
        line = "X-Old: {{ hmac() }}\nX-New: {{ hmac(secret='new') }}"
        webhook = subscribe(receiver.url('/'), Site, secret='s3cret of ours', additional_headers=line)
        webhook.rotate_secret('another one', DAY)
        webhook.save()
        site()
        request = received(receiver)
        by = [hmac.digest(one, request.body, 'sha256').hex() for one in (b's3cret of ours', b'another one')]
        assert [request.header('X-Old'), request.header('X-New')] == by
        Webhook.objects.update(previous_secret_expires=timezone.now())
        site()
        request = received(receiver, 2)
        assert request.header('X-Old') == request.header('X-New')
        assert request.header('X-New') == hmac.digest(b'another one', request.body, 'sha256').hex()

    def test_a_builder_that_is_kept_notices_the_end_of_the_old_secret(self):
        webhook = subscribe(NOWHERE, Site, secret='s3cret of ours', additional_headers='X-Old: {{ hmac() }}')
        webhook.rotate_secret('another one', DAY)
        site()
        dispatch_all()
        delivery, builder = Delivery.objects.get(), Builder(webhook)
        request = builder.build(delivery, 0)
        assert request.headers['X-Old'] == hmac.digest(b's3cret of ours', request.body, 'sha256').hex()
        webhook.previous_secret_expires = timezone.now()
        assert builder.build(delivery, 0).headers['X-Old'] == hmac.digest(b'another one', request.body, 'sha256').hex()

    @pytest.mark.parametrize('secret', ['', signing.generate(signing.PRIVATE)])
    def test_nothing_is_saved_that_cannot_sign(self, secret: str):
        webhook = subscribe(NOWHERE, Site, secret='s', additional_headers='X-Signature: {{ hmac() }}')
        webhook.secret = secret
        with pytest.raises(ValidationError) as error:
            webhook.full_clean()
        assert error.value.message_dict == {'secret': ['Enter a secret without whsk_: hmac() in a header needs it.']}
        webhook.secret = 's3cret of ours'
        webhook.full_clean()

    @pytest.mark.parametrize(
        ('fields', 'reason'),
        [
            ({'additional_headers': "X-S: {{ hmac('md5') }}"}, 'hmac() knows sha1, sha256, sha512, but not md5'),
            ({'additional_headers': 'X-S: {{ hmac() | int(default=none) + 1 }}'}, 'unsupported operand'),
            ({'body_template': '{{ hmac() }}'}, 'body_template: hmac() is for headers only'),
            ({'payload_url': NOWHERE + '{{ hmac() }}'}, 'payload_url: hmac() is for headers only'),
        ],
    )
    def test_a_request_that_cannot_be_signed_fails_with_a_reason_and_shows_no_signature(self, fields, reason):
        subscribe(fields.pop('payload_url', NOWHERE), Site, **{'secret': 's3cret of ours', **fields})
        site()
        work()
        delivery = Delivery.objects.get()
        assert delivery.status == 'failed'
        assert reason in delivery.error
        assert not re.search('[0-9a-f]{40}', delivery.error.replace(delivery.uuid.hex, ''))

    def test_an_object_cannot_be_named_like_a_placeholder(self, receiver: Receiver):
        name = f'w{"0" * 32}_hmac-sha256-hex-body-old_'
        subscribe(receiver.url('/'), Site, secret='s', additional_headers='X-N: {{ data.name }} {{ hmac() }}')
        site(name=name, slug='x')
        assert received(receiver).header('X-N').startswith(f'{name} ')

    def test_the_log_and_the_preview_show_none(self, receiver: Receiver, api_client):
        request = self.signed(receiver, 'X-Hub-Signature-256: sha256={{ hmac() }}')
        (attempt,) = Attempt.objects.all()
        assert attempt.request_headers['X-Hub-Signature-256'] == '********'
        assert github('s3cret of ours', request.body).removeprefix('sha256=') not in str(vars(attempt))
        pk = Webhook.objects.get().pk
        shown = api_client.get(f'/api/plugins/webhooks/webhooks/{pk}/preview/').json()
        assert shown['headers']['X-Hub-Signature-256'] == '********'


class TestStandardHeaders:
    NAMES = ('webhook-id', 'webhook-timestamp', 'webhook-signature', 'X-Hook-Signature')

    @pytest.mark.parametrize('is_on', [True, False])
    def test_they_can_be_switched_off(self, receiver: Receiver, is_on):
        line = 'X-Id: {{ webhook_id }}'
        subscribe(receiver.url('/'), Site, secret='s', standard_headers=is_on, additional_headers=line)
        site()
        request = received(receiver)
        assert [request.header(name) is not None for name in self.NAMES] == [is_on] * 4
        assert request.header('X-Id') == str(Delivery.objects.get().uuid)
