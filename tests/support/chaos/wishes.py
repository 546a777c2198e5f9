"""Webhooks of random options: what each of them must get, may get, and gets last."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devstack.receiver import Received
from support.builders import DELETED, KINDS, UPDATED
from support.chaos.crowd import Change

ODD_FACILITY = {'attr': 'facility', 'value': 'odd'}
ODD_NUMBER = {'attr': 'description', 'value': '.*[13579]$', 'op': 'regex'}


@dataclass
class Wishes:
    """The options of a webhook, of which some may exclude each other."""

    options: dict[str, Any]

    @classmethod
    def at_random(cls, chance: random.Random) -> 'Wishes':
        shares = (
            (0.3, {'latest_only': True}),
            (0.4, {'quiet': chance.randint(1, 2), 'quiet_max': chance.randint(3, 5)}),
            (0.4, {'change_set': True}),
            (0.2, {'ordered': False}),
            (0.5, {'only_real_changes': True}),
            (0.3, {'only_if_changed': ['facility']}),
            (0.4, {'conditions': chance.choice([ODD_FACILITY, ODD_NUMBER])}),
            (0.3, {'kinds': tuple(chance.sample(KINDS, 2))}),
            (0.2, {'payload_format': 'cloudevents'}),
            (0.2, {'include_components': True}),
            (0.2, {'expand': ['region']}),
            (0.2, {'rate_limit': 40}),
            (1.0, {'concurrency': chance.choice([1, 2, 16])}),
        )
        options = {}
        for share, some in shares:
            if chance.random() < share:
                options |= some
        return cls(options)

    @property
    def folds(self) -> bool:
        """Whether several changes of an object may be sent as one."""
        return bool(self.options.get('latest_only') or self.options.get('quiet'))

    @property
    def in_order(self) -> bool:
        return self.options.get('ordered', True)

    def wants(self, change: Change) -> bool:
        return (
            change.kind in self.options.get('kinds', KINDS)
            and not (change.bare and change.kind == UPDATED and self.options.get('only_real_changes'))
            and not (self._asks_for_facility(change) and change.facility == change.facility_before)
            and self._meets_conditions(change)
        )

    def _asks_for_facility(self, change: Change) -> bool:
        return change.kind == UPDATED and 'only_if_changed' in self.options

    def _meets_conditions(self, change: Change) -> bool:
        match self.options.get('conditions'):
            case {'attr': 'facility'}:
                return change.facility == 'odd'
            case {'attr': 'description'}:
                return change.number % 2 == 1
        return True


@dataclass(frozen=True)
class Told:
    """What a request says of an object."""

    pk: int
    number: int
    kind: str


def told(request: Received) -> Iterator[Told]:
    """Yield what the request says, in whatever form."""
    for kind, data in _parts(request.json()):
        shown = data.get('object', data)
        yield Told(shown['id'], int(shown['description']), kind)


def _parts(body: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    match body:
        case list():
            for event in body:
                yield from _parts(event)
        case {'specversion': _}:
            yield body['type'].rpartition('.')[2], body['data']
        case {'changes': changes}:
            for change in changes:
                yield change['event'], change['data']
        case _:
            yield body['event'], body['data']


def broken(wishes: Wishes, changes: list[Change], got: list[Told]) -> list[str]:
    """Return each broken promise in words. `got` is in the order of arrival, `changes` are all committed ones."""
    wanted = [change for change in changes if wishes.wants(change)]
    states = {(change.pk, change.number) for change in wanted}
    found = [f'{one}: not wanted' for one in got if (one.pk, one.number) not in states]
    if wishes.folds:
        found += _not_current(wishes, wanted, got)
    else:
        said = set(got)
        asked = (Told(change.pk, change.number, change.kind) for change in wanted)
        found += [f'{one}: lost' for one in asked if one not in said]
    if wishes.in_order:
        found += _late(got)
    return found


def _not_current(wishes: Wishes, wanted: list[Change], got: list[Told]) -> Iterator[str]:
    """Of an object that is gone again, nothing need be sent."""
    latest = {change.pk: change for change in sorted(wanted, key=_when)}
    for pk, change in latest.items():
        numbers = [one.number for one in got if one.pk == pk]
        if change.number in numbers[-1:] if wishes.in_order else change.number in numbers:
            continue
        if numbers or change.kind != DELETED:
            yield f'{change}: not the last, {numbers}'


def _when(change: Change) -> tuple[int, bool]:
    return change.number, change.kind == DELETED


def _late(got: list[Told]) -> Iterator[str]:
    highest: dict[int, int] = {}
    for one in got:
        if one.number < highest.get(one.pk, 0):
            yield f'{one}: after {highest[one.pk]}'
        highest[one.pk] = max(one.number, highest.get(one.pk, 0))
