import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from standardwebhooks import Webhook, WebhookVerificationError

from webhooks.security import signing

ID, BODY = '7a1d7b6c-0f0e-4d0e-9d52-8f1c3f1f9f10', '{"event": "created", "model": "Zürich \u2028"}'.encode()
KEY = bytes(range(32))
SECRET = f'whsec_{base64.b64encode(KEY).decode()}'
OTHER = f'whsec_{base64.b64encode(KEY[::-1]).decode()}'


def now() -> int:
    return int(datetime.now(UTC).timestamp())


def headers(signature: str, timestamp: int, delivery_id: str = ID) -> dict[str, str]:
    return {'webhook-id': delivery_id, 'webhook-timestamp': str(timestamp), 'webhook-signature': signature}


class TestStandardWebhooks:
    """Verified with the reference library."""

    def test_a_secret_in_base64_gives_the_bytes_it_encodes(self):
        timestamp = now()
        signature = signing.standard([SECRET], ID, timestamp, BODY)
        assert Webhook(SECRET).verify(BODY, headers(signature, timestamp)) == json.loads(BODY)

    @pytest.mark.parametrize('secret', ['s', 'plain secret', 'pässwörd', 'whsecx', 'WHSEC_abc', 'w' * 100])
    def test_any_other_secret_gives_its_own_bytes(self, secret: str):
        timestamp = now()
        signature = signing.standard([secret], ID, timestamp, BODY)
        assert Webhook(secret.encode()).verify(BODY, headers(signature, timestamp))

    @pytest.mark.parametrize('secret', [SECRET, OTHER])
    def test_each_secret_verifies_while_the_previous_one_is_valid(self, secret: str):
        timestamp = now()
        signature = signing.standard([SECRET, OTHER], ID, timestamp, BODY)
        assert Webhook(secret).verify(BODY, headers(signature, timestamp))
        assert [part.partition(',')[0] for part in signature.split(' ')] == ['v1', 'v1']

    def test_it_signs_as_the_library_does(self):
        timestamp = now()
        signed = Webhook(SECRET).sign(ID, datetime.fromtimestamp(timestamp, UTC), BODY.decode())
        assert signing.standard([SECRET], ID, timestamp, BODY) == signed

    @pytest.mark.parametrize('changed', ['body', 'id', 'timestamp', 'secret'])
    def test_no_other_secret_body_id_or_time_verifies(self, changed: str):
        timestamp = now()
        signature = signing.standard([OTHER if changed == 'secret' else SECRET], ID, timestamp, BODY)
        sent = headers(signature, timestamp + (changed == 'timestamp'), f'{ID}x' if changed == 'id' else ID)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(BODY + b' ' if changed == 'body' else BODY, sent)

    def test_the_example_of_the_specification_is_signed_as_it_says(self):
        """https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"""
        signature = signing.standard(
            ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'],
            'msg_p5jXN8AQM9LWM0D4loKWxJek',
            1614265330,
            b'{"test": 2432232314}',
        )
        assert signature == 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='


class TestAsymmetric:
    SECRET = f'whsk_{base64.b64encode(KEY).decode()}'

    def verify(self, secret: str, body: bytes = BODY) -> None:
        name, _comma, signature = signing.standard([secret], ID, 1614265330, BODY).partition(',')
        assert name == 'v1a'
        public = base64.b64decode(signing.public_key(secret).removeprefix('whpk_'))
        Ed25519PublicKey.from_public_bytes(public).verify(
            base64.b64decode(signature), f'{ID}.1614265330.'.encode() + body
        )

    def test_the_public_key_verifies(self):
        self.verify(self.SECRET)

    def test_another_body_does_not_verify(self):
        with pytest.raises(InvalidSignature):
            self.verify(self.SECRET, BODY + b' ')

    def test_the_seed_may_be_followed_by_the_public_key(self):
        public = base64.b64decode(signing.public_key(self.SECRET).removeprefix('whpk_'))
        long = f'whsk_{base64.b64encode(KEY + public).decode()}'
        assert signing.standard([long], ID, 1, BODY) == signing.standard([self.SECRET], ID, 1, BODY)

    def test_each_kind_of_secret_verifies_while_both_are_valid(self):
        """The secret changes to an asymmetric key, and back."""
        timestamp = now()
        signature = signing.standard([self.SECRET, SECRET], ID, timestamp, BODY)
        asymmetric, symmetric = signature.split(' ')
        assert Webhook(SECRET).verify(BODY, headers(signature, timestamp))
        assert asymmetric == signing.standard([self.SECRET], ID, timestamp, BODY)
        assert signing.standard([SECRET, self.SECRET], ID, timestamp, BODY) == f'{symmetric} {asymmetric}'

    def test_a_key_made_by_others_is_taken(self):
        key = Ed25519PrivateKey.generate()
        seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        secret = f'whsk_{base64.b64encode(seed).decode()}'
        self.verify(secret)
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        assert signing.public_key(secret) == f'whpk_{base64.b64encode(public).decode()}'


class TestNetBox:
    def test_the_whole_secret_signs_the_body_alone(self):
        for secret in (SECRET, 'pässwörd'):
            assert signing.netbox(secret, BODY) == hmac.new(secret.encode(), BODY, hashlib.sha512).hexdigest()

    def test_a_known_value_is_reproduced(self):
        assert signing.netbox('key', b'The quick brown fox jumps over the lazy dog') == (
            'b42af09057bac1e2d41708e48a902e09b5ff7f12ab428a4fe86653c73dd248fb'
            '82f948a549f7b791a5b41915ee4d1ec3935357e4e2317250d0372afa2ebeeb3a'
        )


class TestCheck:
    @staticmethod
    def secret(prefix: str, size: int) -> str:
        return prefix + base64.b64encode(b'x' * size).decode()

    @pytest.mark.parametrize('size', [24, 25, 32, 64])
    def test_a_key_that_is_long_enough_is_taken(self, size: int):
        signing.check(self.secret('whsec_', size))

    @pytest.mark.parametrize('size', [0, 1, 23, 65])
    def test_a_key_that_is_too_short_is_refused(self, size: int):
        with pytest.raises(ValueError, match='24 to 64 bytes'):
            signing.check(self.secret('whsec_', size))

    @pytest.mark.parametrize('text', ['!', 'abc', 'YWJj ZGVm', 'YWJjZGVm\n', '____', 'ä'])
    @pytest.mark.parametrize('prefix', ['whsec_', 'whsk_'])
    def test_a_secret_that_is_no_base64_is_refused(self, prefix: str, text: str):
        with pytest.raises(ValueError, match='base64'):
            signing.check(prefix + text)

    @pytest.mark.parametrize('size', [31, 33, 63, 65])
    def test_a_private_key_of_another_length_is_refused(self, size: int):
        with pytest.raises(ValueError, match='32 or 64 bytes'):
            signing.check(self.secret('whsk_', size))

    @pytest.mark.parametrize('secret', ['', 's', 'ä', 'any words'])
    def test_any_other_text_is_taken(self, secret: str):
        signing.check(secret)

    @pytest.mark.parametrize('prefix', ['whsec_', 'whsk_'])
    def test_a_generated_secret_is_taken(self, prefix: str):
        secrets = {signing.generate(prefix) for _ in range(3)}
        assert len(secrets) == 3
        for secret in secrets:
            signing.check(secret)
