"""Webhooks whose options are random get what they ask for and nothing else, although faults strike.

`--long` runs twenty seeds, all but the first with more faults and changes.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcim.models import Site
from django.core.exceptions import ValidationError
from support.builders import subscribe
from support.chaos import crowd
from support.chaos.audit import finish, is_whole
from support.chaos.crowd import Change, Journal
from support.chaos.faults import Faults
from support.chaos.seeds import seeds
from support.chaos.victims import Children
from support.chaos.wishes import Wishes, broken, told
from support.engine import deliveries

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.choices import OPEN_STATUSES, StatusChoices
from webhooks.engine.dispatch.render import Renderer
from webhooks.models import Event, Webhook

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

WRITERS, WEBHOOKS = 3, 24
# Faults, and changes that come beside them at least: with the first seed, and with the others.
FEW, MANY = (12, 20), (30, 40)
PATIENCE = 120


@pytest.fixture
def journal(committed: None, tmp_path: Path) -> Iterator[Journal]:
    crowd.make_numbers()
    yield Journal(tmp_path / 'journal')
    crowd.drop_numbers()


def subscribed(receiver: Receiver, chance: random.Random) -> dict[str, Wishes]:
    """Return what the webhook at each path wants. Options that exclude each other are drawn again."""
    made: dict[str, Wishes] = {}
    while len(made) < WEBHOOKS:
        path, wishes = f'/{len(made)}', Wishes.at_random(chance)
        try:
            subscribe(receiver.url(path), Site, timeout=1, max_attempts=100, **wishes.options)
        except ValidationError:
            continue
        made[path] = wishes
    return made


@pytest.mark.parametrize('seed', seeds(20))
def test_each_gets_what_its_options_ask_for(receiver, journal, children: Children, tasks_redis, seed):
    if not tasks_redis.private:
        pytest.skip('this Redis is not ours to kill')
    chance = random.Random(seed)
    webhooks = subscribed(receiver, chance)
    Renderer()  # a first load takes long
    people = [children.fork(lambda seed=seed + number: crowd.write(journal, seed)) for number in range(WRITERS)]
    faults = Faults(chance, children, receiver, tasks_redis, list(webhooks), Webhook.objects.first().pk)

    count, least = FEW if seed == 1 else MANY
    faults.inject(count)

    assert wait_until(lambda: len(journal.changed()) > least, PATIENCE)
    assert all(map(children.is_running, people)), 'somebody who changes things has given up'
    for pid in people:
        children.kill(pid)
    faults.end()
    finish()

    report = f'seed {seed}, {dict(faults.done)}'
    assert not Event.objects.filter(dispatched_at=None).exists(), report
    assert not deliveries(*OPEN_STATUSES, StatusChoices.FAILED), report
    changes = [Change(**change) for entry in journal.changed() for change in entry['changes']]
    for path, wishes in webhooks.items():
        requests = receiver.matching(lambda request, path=path: request.path == path and is_whole(request))
        got = [one for request in requests for one in told(request)]
        assert not broken(wishes, changes, got), f'{wishes}, {report}'
