"""People who change things in their own processes, and their journal.

A killed process cannot tell whether it committed, so it notes its transaction before and PostgreSQL is asked later.
"""

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from dcim.models import Site
from django.db import Error, connection, transaction

from support.chaos.audit import Regret
from webhooks.choices import KindChoices
from webhooks.models import Webhook

# Drawn under the object's lock, so its numbers grow in commit order.
NUMBERS = 'webhooks_chaos_numbers'
SLUGS = [f'crowded-{number}' for number in range(6)]
# Shares of transactions: kept open for a while, and rolled back.
LONG, REGRETTED = 0.1, 0.15
# Shares of the changes: deletions, made twice, undone by a savepoint, of the facility too, and saves of nothing new.
DELETIONS, TWICE, UNDONE, MOVED, BARE = 0.05, 0.15, 0.1, 0.4, 0.1
FACILITIES = ['odd', 'even', '']


@dataclass
class Change:
    """A change left `number` in the description, and `facility`, which was `facility_before`.

    `bare`: it saved nothing new. `views` are the committed states before and after each of its statements.
    """

    pk: int
    number: int
    kind: str
    facility: str = ''
    facility_before: str = ''
    bare: bool = False
    views: list[tuple[str, str]] = field(default_factory=list)


class Journal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, **what: Any) -> None:
        os.write(self._file, json.dumps({'id': _ask('SELECT pg_current_xact_id()::text')} | what).encode() + b'\n')

    def committed(self) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [one for one in entries if _ask('SELECT pg_xact_status(%s::xid8)', one['id']) == 'committed']

    def changed(self) -> list[dict[str, Any]]:
        return [one for one in self.committed() if 'changes' in one]


def make_numbers() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE SEQUENCE IF NOT EXISTS {NUMBERS}')


def drop_numbers() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f'DROP SEQUENCE {NUMBERS}')


def write(journal: Journal, seed: int) -> NoReturn:
    chance = random.Random(seed)
    while True:
        try:
            with transaction.atomic():
                slugs = sorted(chance.sample(SLUGS, chance.choice([1, 1, 2, 3])))
                changes = [_change(chance, slug) for slug in slugs]
                time.sleep(chance.random() * 2 if chance.random() < LONG else 0)
                if chance.random() < REGRETTED:
                    raise Regret
                journal.note(changes=[vars(one) for one in changes])
        except Regret:
            pass
        except Error:
            connection.close()
        time.sleep(chance.random() / 5)


def toggle(journal: Journal, seed: int, webhook_id: int) -> NoReturn:
    """Disable and enable a webhook. Some transactions stay open."""
    chance = random.Random(seed)
    while True:
        try:
            with transaction.atomic():
                webhook = Webhook.objects.get(pk=webhook_id)
                webhook.enabled = not webhook.enabled
                webhook.save()
                time.sleep(chance.random() * 2 if chance.random() < 0.5 else 0)
                if chance.random() < REGRETTED:
                    raise Regret
                journal.note(enabled=webhook.enabled)
        except Regret:
            pass
        except Error:
            connection.close()
        time.sleep(chance.random())


def _change(chance: random.Random, slug: str) -> Change:
    place = Site.objects.select_for_update().filter(slug=slug).first()
    if place is None:
        place = Site(name=slug, slug=slug)
        change = Change(0, 0, KindChoices.CREATED)
        # Another creation waits for this unique name.
        _watch(change, place.save)
    else:
        change = Change(place.pk, int(place.description), KindChoices.UPDATED, place.facility, place.facility)
        change.bare = chance.random() < BARE
    change.pk = place.pk
    if change.bare:
        _watch(change, place.save)
    else:
        _save(place, change, chance)
    if change.kind == KindChoices.UPDATED and chance.random() < DELETIONS:
        change.kind = KindChoices.DELETED
        _watch(change, place.delete)
        return change
    if chance.random() < UNDONE:
        _undo(place)
    if chance.random() < TWICE:
        change.bare = False
        _save(place, change, chance)
    return change


def _save(place: Site, change: Change, chance: random.Random) -> None:
    change.number = _ask('SELECT nextval(%s)', NUMBERS)
    place.description = str(change.number)
    if chance.random() < MOVED:
        place.facility = change.facility = chance.choice(FACILITIES)
    _watch(change, place.save)


def _watch(change: Change, save: Callable[[], object]) -> None:
    before = _view()
    save()
    change.views.append((before, _view()))


def _undo(place: Site) -> None:
    try:
        with transaction.atomic():
            place.description = str(_ask('SELECT nextval(%s)', NUMBERS))
            place.save()
            raise Regret
    except Regret:
        pass


def _view() -> str:
    return _ask('SELECT pg_current_snapshot()::text')


def _ask(question: str, *parameters: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(question, parameters)
        return cursor.fetchone()[0]
