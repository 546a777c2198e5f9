"""A receiver's copy of a list is what NetBox's REST API shows, although much fails at random.

`--long`: twenty seeds.
"""

import random
from collections import defaultdict
from contextlib import suppress
from typing import Any, NoReturn

import pytest
from core.models import ObjectType
from dcim.models import Region, Site
from django.db import Error, connection, transaction
from django.db.models import Q
from extras.models import CustomField, Tag
from support.builders import forget_events, site, subscribe
from support.chaos.audit import Regret, finish, is_whole
from support.chaos.seeds import seeds
from support.chaos.victims import Children, freeze, strike_before, toil
from support.engine import deliveries, pass_alive, work
from tenancy.models import Tenant, TenantGroup

from devstack.process import wait_until
from devstack.receiver import Answer, Received, Receiver
from webhooks.choices import OPEN_STATUSES, StatusChoices
from webhooks.engine.walks import loop as walks
from webhooks.models import Event, ListMember, ListWalk, Webhook

pytestmark = [
    pytest.mark.usefixtures('committed'),
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

# Own columns, related objects two hops away, tags, custom fields and dates.
FILTERS = {
    '/status': 'status=active',
    '/region': 'region=north',
    '/tag': 'tag=core',
    '/custom': 'cf_level=gold&cf_due__lt=2030-01-01',
    '/group': 'tenant_group=customers&status__n=retired',
}
WRITERS, WORKERS = 3, 3
# Sites at first, and their changes in a run: of the first seed alone, and with the others.
OBJECTS, MORE_OBJECTS = 100, 300
CHANGES, MORE_CHANGES = 100, 500
STATUSES, LEVELS, DATES = ['active', 'planned', 'retired'], ['gold', 'tin', None], ['2029-01-01', '2031-01-01', None]
# Shares of transactions: of other objects, of deletions, and rolled back.
INDIRECT, DELETED, REGRETTED = 0.3, 0.05, 0.15


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked children inherit it."""
    monkeypatch.setattr(walks, 'OBJECTS_PER_SLICE', 40)


@pytest.fixture
def world(pytestconfig: pytest.Config) -> None:
    """Objects that the filters are about."""
    sites = [ObjectType.objects.get_for_model(Site)]
    for name, kind in (('level', 'text'), ('due', 'date')):
        CustomField.objects.create(name=name, type=kind).object_types.set(sites)
    north = Region.objects.create(name='North', slug='north')
    for number in range(4):
        Region.objects.create(name=f'Region {number}', slug=f'region-{number}', parent=north if number % 2 else None)
        Tag.objects.create(name=f'Tag {number}', slug=f'tag-{number}')
    groups = [TenantGroup.objects.create(name=name, slug=name) for name in ('customers', 'others')]
    for number in range(6):
        Tenant.objects.create(name=f'Tenant {number}', slug=f'tenant-{number}', group=groups[number % 2])
    Tag.objects.create(name='Core', slug='core')
    chance = random.Random(0)
    for _ in range(MORE_OBJECTS if pytestconfig.getoption('--long') else OBJECTS):
        _change(chance, site())
    forget_events()


@pytest.fixture
def webhooks(world: None, receiver: Receiver) -> list[Webhook]:
    return [
        subscribe(receiver.url(path), Site, filters={'dcim.site': query}, send_list=True, timeout=2, max_attempts=100)
        for path, query in FILTERS.items()
    ]


def write(seed: int) -> NoReturn:
    """Change sites, and what they point to, for ever."""
    chance = random.Random(seed)
    while True:
        with suppress(Regret):
            try:
                with transaction.atomic():
                    _write_some(chance)
                    if chance.random() < REGRETTED:
                        raise Regret
            except Error:  # a deadlock, or an object that is gone
                connection.close()


def _write_some(chance: random.Random) -> None:
    if chance.random() < INDIRECT:
        _change_others(chance)
        return
    for _ in range(chance.choice([1, 1, 2, 5])):
        one = Site.objects.filter(pk__gte=chance.choice(Site.objects.values_list('pk', flat=True))).first()
        if chance.random() < DELETED:
            one.delete()
            one = site()
        _change(chance, one)


def _change(chance: random.Random, one: Site) -> None:
    one.description = str(chance.random())
    one.status = chance.choice(STATUSES)
    one.region, one.tenant = _any(chance, Region), _any(chance, Tenant)
    one.custom_field_data = {'level': chance.choice(LEVELS), 'due': chance.choice(DATES)}
    one.save()
    if chance.random() < 0.5:
        one.tags.set(Tag.objects.order_by('?')[: chance.randrange(3)])


def _change_others(chance: random.Random) -> None:
    """Change what sites point to: no site has an event by that."""
    _change_kind(chance, chance.randrange(3))


def _change_kind(chance: random.Random, kind: int) -> None:
    match kind:
        case 0:
            region = Region.objects.exclude(slug='north').order_by('?').first()
            region.parent = chance.choice([None, Region.objects.get(slug='north')])
            region.save()
        case 1:
            tenant = Tenant.objects.order_by('?').first()
            tenant.group = _any(chance, TenantGroup)
            tenant.save()
        case _:
            # Another tag has the slug from now on.
            Tag.objects.filter(slug='core').update(slug=f'tag-{chance.getrandbits(60)}')
            Tag.objects.filter(pk=_any(chance, Tag).pk).update(slug='core')


def _any[T](chance: random.Random, model: type[T]) -> T:
    return chance.choice(list(model.objects.all()))


def fail_a_third(receiver: Receiver, chance: random.Random) -> None:
    for path in FILTERS:
        answers = [Answer(chance.choice([200, 200, 500]), delay=0.002) for _ in range(50)]
        receiver.answers(path, *answers, 200)


@pytest.mark.parametrize('seed', seeds(20))
def test_each_copy_ends_equal_to_the_list(webhooks, receiver, children: Children, api_client, seed):
    chance = random.Random(seed)
    people = [children.fork(lambda seed=seed + 100 * number: write(seed)) for number in range(WRITERS)]
    workers = [children.fork(toil) for _ in range(WORKERS)]
    stopped: list[int] = []
    changes = 0
    while changes < (CHANGES if seed == 1 else MORE_CHANGES):
        fail_a_third(receiver, chance)
        _disturb(chance, children, workers, stopped)
        if chance.random() < 0.1:
            # One is disabled at most. Without any webhook, changes have no events.
            disabled = [one for one in webhooks if not one.enabled]
            _switch(chance.choice(disabled or webhooks))
        latest = changes
        # A stopped worker may hold what all writers wait for. Then it has to go on first.
        wait_until(lambda latest=latest: _changes() > latest, timeout=10)
        changes = _changes()
        assert all(map(children.is_running, people)), 'somebody who changes things has given up'
    for pid in [*people, *workers, *stopped]:
        children.kill(pid)
    for webhook in webhooks:
        if not webhook.enabled:
            _switch(webhook)
    for path in FILTERS:
        receiver.answers(path, 200)
    finish()
    finish_walks()
    # Nothing but the walk that follows can tell of these.
    before = {query: listed(api_client, query).keys() for query in FILTERS.values()}
    for _ in range(50):
        for kind in range(3):
            _change_kind(chance, kind)
        now = {query: listed(api_client, query).keys() for query in FILTERS.values()}
        has_left = any(before[query] - now[query] for query in now)
        has_entered = any(now[query] - before[query] for query in now)
        # A list without objects would prove nothing.
        if has_left and has_entered and all(now.values()):
            break
    else:
        pytest.fail('no site has left a list, or none has entered one, or one is empty')
    Site.objects.filter(pk__in=[*listed(api_client, 'limit=1000')][::7]).update(description='changed without an event')
    ListWalk.objects.update(asked=True)
    finish_walks()

    assert not deliveries(*OPEN_STATUSES, StatusChoices.FAILED)
    for path, query in FILTERS.items():
        requests = receiver.matching(lambda one, path=path: one.path == path and is_whole(one))
        assert copy_of(requests) == listed(api_client, query)
        assert not repeated(requests)
    for webhook in webhooks:
        (path,) = [path for path in FILTERS if webhook.payload_url.endswith(path)]
        told = copy_of(receiver.matching(lambda one, path=path: one.path == path and is_whole(one)))
        assert {*ListMember.objects.filter(webhook_id=webhook.pk).values_list('object_id', flat=True)} == told.keys()


def test_others_go_on_where_a_worker_is_stopped_in_a_walk(receiver, children: Children):
    subscribe(receiver.url('/status'), Site, filters={'dcim.site': 'status=active'})
    subscribe(receiver.url('/other'), Tenant)
    one = site(status='planned')
    work()
    Site.objects.filter(pk=one.pk).update(status='active')
    ListWalk.objects.update(asked=True)

    def stops() -> None:
        strike_before('webhooks.outbox.restating.restate', 1, freeze)
        work()

    pid = children.fork(stops)
    assert wait_until(lambda: children.is_frozen(pid), timeout=60)
    Tenant.objects.create(name='Other', slug='other')
    pass_alive()
    assert wait_until(lambda: work() and receiver.requests, timeout=60), 'others were stopped'
    assert [request.path for request in receiver.requests] == ['/other']
    children.thaw(pid)
    assert children.ends_well(pid)
    finish_walks()
    assert [request.json()['membership'] for request in receiver.requests if request.path == '/status'] == ['entered']


def _disturb(chance: random.Random, children: Children, workers: list[int], stopped: list[int]) -> None:
    """Kill a worker, stop one, let one go on, and ask for a walk: each at times."""
    if stopped and chance.random() < 0.5:
        children.thaw(stopped[0])
        workers.append(stopped.pop())
    elif len(workers) > 1 and chance.random() < 0.2:
        stopped.append(workers.pop())
        children.freeze(stopped[0])
    if chance.random() < 0.3:
        children.kill(workers.pop(0))
        workers.append(children.fork(toil))
    if chance.random() < 0.3:
        ListWalk.objects.filter(pk=chance.choice(ListWalk.objects.values_list('pk', flat=True))).update(asked=True)


def _changes() -> int:
    return Event.objects.filter(backfill_for=None).count()


def _switch(webhook: Webhook) -> None:
    """What changes while it is disabled has no event."""
    webhook.enabled = not webhook.enabled
    webhook.save()


def finish_walks() -> None:
    """A walk rests between slices."""

    def are_walks_ended() -> bool:
        work()
        finish()
        return not ListWalk.objects.filter(Q(asked=True) | Q(walking=True)).exists()

    assert wait_until(are_walks_ended, timeout=300), 'the walks do not end'
    finish()


def listed(api_client: Any, query: str) -> dict[int, dict[str, Any]]:
    """Return what NetBox's REST API shows."""
    found = api_client.get(f'/api/dcim/sites/?{query}&limit=1000').json()['results']
    return {one['id']: own(one) for one in found}


def own(data: dict[str, Any]) -> dict[str, Any]:
    """Return what belongs to the object itself. Names of related objects may have changed since."""
    return {
        'name': data['name'],
        'description': data['description'],
        'status': data['status']['value'],
        'region': data['region'] and data['region']['id'],
        'tenant': data['tenant'] and data['tenant']['id'],
        'tags': sorted(tag['id'] for tag in data['tags']),
        'custom_fields': data['custom_fields'],
    }


def copy_of(requests: list[Received]) -> dict[int, dict[str, Any]]:
    """Return what a receiver has that began empty and lets the higher sequence win."""
    held: dict[int, tuple[int, dict[str, Any] | None]] = {}
    for body in (request.json() for request in requests):
        pk = body['data']['id']
        if body['sequence'] >= held.get(pk, (0,))[0]:
            held[pk] = body['sequence'], None if body['event'] == 'deleted' else own(body['data'])
    return {pk: data for pk, (_sequence, data) in held.items() if data is not None}


def repeated(requests: list[Received]) -> list[tuple[int, list[str]]]:
    """Return the objects that entered or left twice in a row, with all that was told of them in order."""
    kinds: dict[int, dict[str, str]] = defaultdict(dict)
    for request in requests:
        body = request.json()
        kinds[body['data']['id']].setdefault(request.header('webhook-id'), body['event'])
    lines = [(pk, [*told.values()]) for pk, told in kinds.items()]
    return [(pk, line) for pk, line in lines if not _is_in_turn(line)]


def _is_in_turn(line: list[str]) -> bool:
    is_in = False
    for kind in line:
        if (kind == 'created') == is_in:
            return False
        is_in = kind != 'deleted'
    return True
