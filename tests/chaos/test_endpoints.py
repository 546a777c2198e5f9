import random
from dataclasses import dataclass

import pytest
from dcim.models import Site
from support.builders import subscribe
from support.cases import named
from support.chaos.audit import Ledger, check, finish
from support.engine import work

from devstack.receiver import Answer, Manner, Receiver
from webhooks.models import Webhook

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'
BODY = b'x' * 100


@dataclass(frozen=True)
class Nonsense(Answer):
    def encode(self) -> bytes:
        return b'\x00\xff nonsense \r\n\r\n' + BODY


GOOD = Answer(200)
MOODS = {
    'fails': [Answer(500), Answer(502), Answer(429, headers={'Retry-After': '100'}), Answer(302)],
    'hangs up': [Answer(200, BODY, manner=Manner.CUT)],
    'hangs': [Answer(manner=Manner.HANG)],
    'drips': [Answer(200, BODY, delay=0.3, manner=Manner.DRIP)],
    'talks nonsense': [Nonsense(), Answer(200, BODY, {'Content-Type': 'text/plain; charset=no'}), Answer(999)],
}


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, timeout=1, max_attempts=100, concurrency=20)


def changes(chance: random.Random, objects: int = 8, times: int = 24) -> Ledger:
    ledger = Ledger()
    pks = [ledger.create() for _ in range(objects)]
    ledger.change_at_random(chance, pks, times)
    return ledger


# The next test has them all at once.
@pytest.mark.parametrize('bad', named(['hangs'], MOODS))
def test_an_endpoint_that_is_bad_now_and_then_gets_everything(webhook, receiver, bad):
    chance = random.Random(len(bad))
    ledger = changes(chance)
    answers = [chance.choice(bad) if chance.random() < 0.4 else GOOD for _ in range(30)]
    receiver.answers(HOOK, *answers, GOOD)
    work()
    finish()
    check(ledger, receiver)


def test_an_endpoint_that_is_bad_in_every_way_gets_everything(webhook, receiver, chance):
    ledger = changes(chance)
    bad = [answer for mood in MOODS.values() for answer in mood]
    answers = [chance.choice(bad) if chance.random() < 0.5 else GOOD for _ in range(40)]
    receiver.answers(HOOK, *answers, GOOD)
    work()
    finish()
    check(ledger, receiver)


def test_an_endpoint_that_comes_and_goes_gets_everything(webhook, receiver, chance):
    """It also ends open connections."""
    ledger = changes(chance)
    for _ in range(4):
        receiver.close()
        finish(rounds=1)
        receiver.open()
        finish(rounds=1)
        ledger.change_at_random(chance, [pk for pk, _number in ledger.committed], 3)
    finish()
    check(ledger, receiver)
