"""The README's table beside NetBox's built-in webhooks. A row that fails here has to go: NetBox has become better."""

from collections.abc import Callable

import pytest
from dcim.models import Site
from django.db import transaction
from extras.models import EventRule
from redis import RedisError
from support.builders import site, subscribe
from support.builtin import builtin_rule, request_by
from support.engine import pass_retry_waits, work

from devstack.receiver import Receiver
from webhooks.models import Webhook

OURS, BUILTIN = '/ours', '/builtin'


@pytest.fixture(autouse=True)
def both(committed: None, receiver: Receiver) -> tuple[Webhook, EventRule]:
    """Both are told of sites."""
    return subscribe(receiver.url(OURS), Site), builtin_rule(Site, payload_url=receiver.url(BUILTIN))


@pytest.fixture
def arrived(receiver: Receiver, drain: Callable) -> Callable[[], dict[str, list[str]]]:
    """Let both send all that waits, retries too. Return the names of the sites that each has sent so far."""

    def send() -> dict[str, list[str]]:
        drain('high', 'default')
        work()
        pass_retry_waits()
        work()
        found: dict[str, list[str]] = {OURS: [], BUILTIN: []}
        for request in receiver.requests:
            found[request.path].append(request.json()['data']['name'])
        return found

    return send


def test_only_ours_is_sent_again_when_the_endpoint_is_back(arrived, receiver, netbox_user):
    for path in (OURS, BUILTIN):
        receiver.answers(path, 503, 200)
    with request_by(netbox_user):
        site(name='Bern')
    assert arrived() == {OURS: ['Bern', 'Bern'], BUILTIN: ['Bern']}


def test_only_ours_is_sent_if_redis_is_away_during_the_save(arrived, netbox_user, tasks_redis):
    tasks_redis.stop()
    with pytest.raises(RedisError), request_by(netbox_user):
        site(name='Bern')
    tasks_redis.start()
    assert Site.objects.filter(name='Bern').exists()
    with request_by(netbox_user):
        site(name='Basel')
    assert arrived() == {OURS: ['Bern', 'Basel'], BUILTIN: ['Basel']}


def test_only_ours_is_sent_for_a_save_outside_requests(arrived, netbox_user):
    site(name='Bern')
    with request_by(netbox_user):
        site(name='Basel')
    assert arrived() == {OURS: ['Bern', 'Basel'], BUILTIN: ['Basel']}


def test_only_the_builtin_is_sent_for_what_a_request_rolls_back_before_it_succeeds(arrived, netbox_user):
    class Undone(Exception):
        pass

    def undo() -> None:
        with transaction.atomic():
            site(name='Bern')
            raise Undone

    with request_by(netbox_user):
        with pytest.raises(Undone):
            undo()
        site(name='Basel')
    assert arrived() == {OURS: ['Basel'], BUILTIN: ['Bern', 'Basel']}


def test_nothing_is_sent_for_a_request_that_fails(arrived, netbox_user):
    def fail() -> None:
        with request_by(netbox_user):
            site(name='Bern')
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert arrived() == {OURS: [], BUILTIN: []}


def test_only_ours_waits_with_a_change_until_the_one_before_it_is_delivered(arrived, receiver, netbox_user):
    for path in (OURS, BUILTIN):
        receiver.answers(path, 503, 200)
    with request_by(netbox_user):
        place = site(name='first')
    with request_by(netbox_user):
        place.name = 'second'
        place.save()
    assert arrived() == {OURS: ['first', 'first', 'second'], BUILTIN: ['first', 'second']}
