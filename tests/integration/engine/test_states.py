"""A delivery's state changes only as docs/architecture.md says."""

import ast
import importlib
import random
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from dcim.models import Site
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone
from support.builders import NOWHERE, site, subscribe
from support.chaos.audit import finish
from support.chaos.seeds import seeds
from support.engine import deliveries, die, dispatch_all, expire, pass_retry_waits, suspect, try_suspects, work
from support.log import delivery, event

import webhooks
from devstack.receiver import Receiver
from webhooks.delivery_states import (
    CLOSED_STATES,
    OPEN_STATES,
    STATES_OF_STATUS,
    STATUS_OF_STATE,
    TIMED_STATES,
    WAITING_STATES,
    DeliveryState,
)
from webhooks.exceptions import DefinitionError
from webhooks.models import Delivery, Event, Webhook, Worker
from webhooks.models.delivery import UNFORMED
from webhooks.services import backfill, redelivery, send_waiting, trial

PACKAGE = Path(webhooks.__file__).parent
DOCS = PACKAGE.parent / 'docs' / 'architecture.md'
NEW = 'new'
# Each state as the docs name it, by its value.
NAMES = {value: name.lower() for name, value in vars(DeliveryState).items() if name.isupper()}
# They write the state through Django.
BY_DJANGO = {'reopen', '_make_test'}


class Transition(NamedTuple):
    before: set[str]
    after: set[str]


#
# The table and the statements
#


@cache
def table() -> dict[str, Transition]:
    """Return what the docs say of each statement, by its name."""
    block = DOCS.read_text().partition('```states\n')[2].partition('```')[0]
    found = {}
    for line in block.splitlines()[1:]:
        statement, _what, states = re.split(r'  +', line)
        before, after = states.split(' → ')
        found[statement] = Transition(set(before.split()), set(after.split()))
    return found


@cache
def statements() -> dict[str, str]:
    """Return each named statement that writes the state of deliveries."""
    found = {}
    for path in product_files():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and 'webhooks_delivery' in ast.unparse(node.value):
                module = '.'.join(['webhooks', *path.relative_to(PACKAGE).with_suffix('').parts])
                name = ast.unparse(node.targets[0])
                sql = getattr(importlib.import_module(module), name)
                if isinstance(sql, str) and _writes(sql):
                    assert name not in found, 'its name is not its own'
                    found[name] = sql
    return found


def product_files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob('*.py')) if 'migrations' not in path.parts]


def _writes(sql: str) -> bool:
    return 'INSERT INTO webhooks_delivery' in sql or bool(re.search(r'\bstatus = ', _changed(_outermost(sql))))


def _changed(text: str) -> str:
    return text.partition('UPDATE webhooks_delivery')[2].rpartition(' WHERE ')[0]


def _outermost(sql: str) -> str:
    """Return a statement without its subqueries, in one line. Lists of states stay, as IN[…]."""
    text = re.sub(r"IN \(('[a-z]*'(?:, '[a-z]*')*)\)", r'IN[\1]', ' '.join(sql.split()))
    while (shorter := re.sub(r'\([^()]*\)', '', text)) != text:
        text = shorter
    return text


def transition_of(sql: str) -> Transition:
    text = _outermost(sql)
    if 'INSERT INTO webhooks_delivery' in text:
        return Transition({NEW}, _states(text))
    condition = text.rpartition(' WHERE ')[2]
    written = re.search(r"\bstatus = (CASE .*? END|'\w+'|v\.status)", _changed(text))[1]
    before = re.search(r"\bstatus (IN\[.*?\]|= '\w+')", condition)
    assert before, f'it does not say from which states: {sql}'
    return Transition(_states(before[1]), _states(written.replace('WHEN', '')))


def _states(text: str) -> set[str]:
    return {NAMES[value] for value in re.findall(r"'(\w+)'", text) if value in NAMES}


def test_each_statement_that_writes_a_state_is_in_the_table():
    assert statements().keys() | BY_DJANGO == table().keys()


@pytest.mark.parametrize('name', sorted(table().keys() - BY_DJANGO))
def test_a_statement_leads_from_and_to_the_states_of_the_table(name: str):
    said, found = table()[name], transition_of(statements()[name])
    assert found.before == said.before
    # RECORD writes what the verdict says.
    assert found.after == (said.after if name != 'RECORD' else set())


def test_nothing_else_writes_the_state():
    functions = [
        node
        for path in product_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]
    assert {one.name for one in functions if any(map(_writes_by_django, ast.walk(one)))} == BY_DJANGO


def _writes_by_django(node: ast.AST) -> bool:
    is_write = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(('.update', '.create', '.bulk_create'))
    return is_write and any(one.arg == 'state' and 'DeliveryState' in ast.unparse(one.value) for one in node.keywords)


def test_each_state_has_a_status_and_a_way_in_and_out():
    assert STATUS_OF_STATE.keys() == NAMES.keys()
    entered = set().union(*(one.after for one in table().values()))
    left = set().union(*(one.before for one in table().values()))
    assert entered == set(NAMES.values())
    assert left == {NEW, *NAMES.values()} - {'delivered'}


@pytest.mark.usefixtures('db')
def test_queries_filter_sort_and_read_by_the_status_of_the_state():
    webhook = subscribe(NOWHERE, Site)
    for state in NAMES:
        Delivery.objects.filter(pk=delivery(event(site()), webhook).pk).update(state=state)
    for status, states in STATES_OF_STATUS.items():
        found = Delivery.objects.filter(status=status)
        assert {one.state for one in found} == set(states)
        assert {one.status for one in found} == set(found.values_list('status', flat=True)) == {status}
        assert {one.state for one in Delivery.objects.exclude(status__in=[status])} == NAMES.keys() - set(states)
    assert [one.status for one in Delivery.objects.order_by('status')] == sorted(STATUS_OF_STATE.values())
    assert not Delivery.objects.filter(status='unknown').exists()


#
# Random walks
#


@pytest.fixture
def walked(committed: None) -> Iterator[Callable[[], set[tuple[str, str]]]]:
    """Return what tells which states have followed each other."""
    with connection.cursor() as cursor:
        cursor.execute("""
            CREATE TABLE walked (before text, after text);
            CREATE FUNCTION note_walk() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO walked VALUES (CASE TG_OP WHEN 'INSERT' THEN 'new' ELSE OLD.status END, NEW.status);
                RETURN NULL;
            END $$;
            CREATE TRIGGER note_walk AFTER INSERT OR UPDATE ON webhooks_delivery
            FOR EACH ROW EXECUTE FUNCTION note_walk()""")

    def pairs() -> set[tuple[str, str]]:
        with connection.cursor() as cursor:
            cursor.execute('SELECT DISTINCT before, after FROM walked WHERE before <> after')
            return {(NAMES.get(before, before), NAMES[after]) for before, after in cursor.fetchall()}

    yield pairs
    with connection.cursor() as cursor:
        cursor.execute('DROP TRIGGER note_walk ON webhooks_delivery; DROP FUNCTION note_walk; DROP TABLE walked')


class Model:
    """Random things that happen to deliveries."""

    def __init__(self, receiver: Receiver, chance: random.Random) -> None:
        self.receiver, self.chance = receiver, chance
        options = [
            {},
            {'ordered': False},
            {'latest_only': True},
            {'quiet': 60, 'quiet_max': 120},
            {'change_set': True},
            {'conditions': {'attr': 'name', 'op': 'regex', 'value': '[02468]$'}},
        ]
        for number, fields in enumerate(options):
            subscribe(receiver.url(f'/{number}'), Site, max_attempts=3, **fields)
        self.number = 0
        self.happenings = [
            self.change, self.change, self.change_several, self.change_several, self.remove, work, work, dispatch_all,
            self.answer, self.lose_workers, try_suspects, pass_retry_waits, self.pass_time, self.redeliver,
            self.start_backfill, self.pause_backfill, self.resume_backfill, self.cancel_backfill, self.send_now,
            self.expire, self.switch, self.send_test,
        ]  # fmt: skip

    def step(self) -> str:
        happening = self.chance.choice(self.happenings)
        with suppress(DefinitionError, ValidationError):
            happening()
        return happening.__name__

    def webhook(self) -> Webhook:
        return Webhook.objects.order_by('pk')[self.chance.randrange(Webhook.objects.count())]

    def change(self) -> None:
        self.number += 1
        name = f'site {self.number}'
        sites = list(Site.objects.order_by('pk'))
        if len(sites) < 3:
            Site.objects.create(name=name, slug=f'site-{self.number}')
            return
        one = self.chance.choice(sites)
        one.name = name
        one.save()

    @transaction.atomic
    def change_several(self) -> None:
        for _ in range(3):
            self.change()

    def remove(self) -> None:
        if one := Site.objects.order_by('?').first():
            one.delete()

    def answer(self) -> None:
        for number in range(6):
            self.receiver.answers(f'/{number}', self.chance.choice([200, 200, 500]))

    def lose_workers(self) -> None:
        due = Delivery.objects.filter(state__in=TIMED_STATES, due_at__lte=timezone.now())
        # A change set is sent only once it has parts.
        ready = list(due.exclude(part=UNFORMED))
        if ready:
            lose = self.chance.choice([die, suspect])
            lose(*self.chance.sample(ready, min(len(ready), 2)))

    def pass_time(self) -> None:
        past = timedelta(seconds=self.chance.choice([30, 60, 200]))
        resting = Delivery.objects.filter(state=DeliveryState.RESTING)
        resting.update(due_at=F('due_at') - past, waits_until=F('waits_until') - past)

    def redeliver(self) -> None:
        closed = [one.pk for one in deliveries() if one.state in CLOSED_STATES]
        some = self.chance.sample(closed, min(len(closed), 3))
        redelivery.redeliver(Delivery.objects.filter(pk__in=some))

    def start_backfill(self) -> None:
        webhook = self.webhook()
        backfill.start(webhook, backfill.choose(webhook))

    def pause_backfill(self) -> None:
        backfill.pause(self.webhook())

    def resume_backfill(self) -> None:
        backfill.resume(self.webhook())

    def cancel_backfill(self) -> None:
        backfill.cancel(self.webhook())

    def send_now(self) -> None:
        send_waiting.send(self.webhook(), latest_only=self.chance.random() < 0.5)

    def expire(self) -> None:
        some = self.chance.sample(deliveries(), min(Delivery.objects.count(), 1))
        expire(pk__in=[one.pk for one in some])

    def switch(self) -> None:
        webhook = self.webhook()
        name = self.chance.choice(['ordered', 'latest_only', 'paused', 'payload_url'])
        if name == 'payload_url':
            webhook.payload_url = '' if webhook.payload_url else self.receiver.url('/0')
        else:
            setattr(webhook, name, not getattr(webhook, name))
        webhook.full_clean()
        webhook.save()

    def send_test(self) -> None:
        trial.send_test(self.webhook())


def check() -> None:
    """Check what each state says of a delivery's other columns."""
    for one in deliveries():
        is_in_hand = one.state == DeliveryState.SUSPECT
        assert (one.due_at is not None) == (one.state in TIMED_STATES) or is_in_hand, one.state
        assert (one.finished_at is not None) == (one.state in CLOSED_STATES), one.state
        assert (one.state == DeliveryState.SUSPECT) <= bool(one.lapses), one.state
        assert (one.state == DeliveryState.RESTING) <= (one.waits_until is not None), one.state


def finish_all(receiver: Receiver) -> None:
    for number in range(6):
        receiver.answers(f'/{number}', 200)
    Webhook.objects.update(paused=False, last_updated=timezone.now())
    for webhook in Webhook.objects.all():
        with suppress(DefinitionError):
            backfill.resume(webhook)
    for _ in range(5):
        finish()
        try_suspects()


@pytest.mark.parametrize('seed', seeds(20))
def test_each_path_that_a_delivery_takes_is_in_the_table(walked, receiver, seed: int):
    model = Model(receiver, random.Random(seed))
    happened = []
    for _ in range(150):
        happened.append(model.step())
        check()
    finish_all(receiver)
    assert not Worker.objects.exists()
    assert not Event.objects.filter(dispatched_at=None).exists()
    left = [(one.state, one.webhook_id, one.sequence) for one in deliveries() if one.state in OPEN_STATES]
    assert not left, f'seed {seed}: {happened}'
    allowed = {
        (before, after) for one in table().values() for before in one.before for after in one.after if before != after
    }
    assert walked() <= allowed
    if seed == 1:
        # This walk reaches each state. Some others never meet a rare one.
        assert {after for _before, after in walked()} >= {NAMES[state] for state in (*WAITING_STATES, *CLOSED_STATES)}
