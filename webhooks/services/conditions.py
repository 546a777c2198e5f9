"""Explains NetBox's conditions: what each part finds in an object's data, whether it is met, and probable mistakes."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django.utils.text import Truncator
from django.utils.translation import gettext as _
from extras.conditions import Condition

from ..engine.dispatch import matching
from ..interruptions import INTERRUPTIONS

# A sentence quotes at most this many characters of a value.
MAX_VALUE_CHARS = 80

LOGIC = {'and', 'or'}
# The value of a key that the object does not have. It differs from null, which a key may have.
ABSENT = object()

Conditions = Mapping[str, Any]
Data = Mapping[str, Any]


class Part(NamedTuple):
    """A part of conditions with the value that it found, as a sentence, and whether it is met."""

    text: str
    is_met: bool


def parts(conditions: Conditions, data: Data) -> Iterator[Part]:
    """Yield each part of the conditions, in order: the value that it found in the data, and whether it is met."""
    if _is_set(conditions):
        for part in _below(conditions):
            yield from parts(part, data)
    else:
        is_met, _problem = _evaluate(conditions, data)
        yield Part(_describe(conditions, data, is_met), is_met)


def unmet(conditions: Conditions, data: Data) -> list[str]:
    """Return the parts of the conditions that are not met, with their values. Empty: all is met."""
    is_met, problem = _evaluate(conditions, data)
    if is_met:
        return []
    return list(_unmet(conditions, data)) or [problem or _('they are not met')]


def warnings(conditions: Conditions, data: Data) -> Iterator[str]:
    """Yield probable mistakes in conditions: attributes that the object lacks, and lists without conditions."""
    if _is_set(conditions):
        if not _below(conditions):
            yield _without_parts(conditions)
        for part in _below(conditions):
            yield from warnings(part, data)
    elif 'attr' in conditions and _is_unknown(conditions, data):
        yield _('The object has no attribute {name}.').format(name=conditions['attr'])


def _unmet(node: Conditions, data: Data) -> Iterator[str]:
    if not _is_set(node):
        yield _describe(node, data, is_met=False)
        return
    if not _below(node):
        yield _without_parts(node)
    for part in _below(node):
        if not _evaluate(part, data)[0]:
            yield from _unmet(part, data)


def _evaluate(conditions: Conditions, data: Data) -> tuple[bool, str]:
    """Return whether they are met, and else the error, if there is one."""
    try:
        return matching.are_met(dict(conditions), dict(data)), ''
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # A script may have saved conditions that nobody checked, so anything may be raised.
        return False, str(error)


def _describe(leaf: Conditions, data: Data, is_met: bool) -> str:
    name, operator = leaf.get('attr', ''), leaf.get('op')
    if _is_unknown(leaf, data):
        return _('{name} does not exist').format(name=name)
    if operator in Condition.SNAPSHOT_OPERATORS:
        is_changed = (operator == Condition.CHANGED) == (is_met != bool(leaf.get('negate')))
        text = _('{name} changed') if is_changed else _('{name} did not change')
        return text.format(name=name)
    value = _value(data, name)
    shown = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return _('{name} is {value}').format(name=name, value=Truncator(shown).chars(MAX_VALUE_CHARS))


def _is_unknown(leaf: Conditions, data: Data) -> bool:
    name = leaf.get('attr', '')
    if leaf.get('op') not in Condition.SNAPSHOT_OPERATORS:
        # After a creation or a deletion, only one snapshot has values.
        return _value(data, name) is ABSENT
    snapshots = [one for one in (data.get('snapshots') or {}).values() if one is not None]
    return bool(snapshots) and all(_value(one, name) is ABSENT for one in snapshots)


def _without_parts(node: Conditions) -> str:
    if next(iter(node)).lower() == 'or':
        return _('{"or": []} is never met.')
    return _('{"and": []} is always met.')


def _is_set(node: Conditions) -> bool:
    return len(node) == 1 and str(next(iter(node))).lower() in LOGIC


def _below(node: Conditions) -> list[Any]:
    return next(iter(node.values()))


def _value(data: Any, name: str) -> Any:
    """Return the value that NetBox compares: null if something on the way is null, ABSENT if there is no such key."""
    for key in name.split('.'):
        if data is None or data is ABSENT:
            return data
        if isinstance(data, list):
            data = [one.get(key, ABSENT) if isinstance(one, dict) else ABSENT for one in data]
            data = ABSENT if ABSENT in data else data
        else:
            data = data.get(key, ABSENT) if isinstance(data, dict) else ABSENT
    return data
