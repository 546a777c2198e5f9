"""Checks the kinds of change, and the conditions of changes and of answers."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _
from extras.conditions import Condition, ConditionSet, InvalidCondition

from ..choices import KindChoices
from ..constants import MAX_CONDITIONS, MAX_TEMPLATE_CHARS
from ..exceptions import DefinitionError
from ..storable import UNSTORABLE, is_flat, nodes
from ..templating import renderer
from .definition import Definition

# Names in `success_conditions`, as payload/answers.py gives them.
ANSWER_ATTRIBUTE = re.compile(r'status|text|headers\.[^.A-Z]+|body(\..+)?', re.DOTALL)


def check_kinds(definition: Definition) -> None:
    """Raise DefinitionError if no kind of change is chosen."""
    if not definition.kinds:
        raise DefinitionError('type_create', _('Choose at least one of creations, updates and deletions.'))


def check_components(definition: Definition) -> None:
    """Raise DefinitionError if components are included, but updates are not chosen."""
    if definition.include_components and KindChoices.UPDATED not in definition.kinds:
        raise DefinitionError(
            'include_components', _('Changes of components are sent as updates. Choose updates as well.')
        )


def check_config_contexts(definition: Definition) -> None:
    """Raise DefinitionError if changes of config contexts are included, but updates are not chosen."""
    if definition.include_config_contexts and KindChoices.UPDATED not in definition.kinds:
        raise DefinitionError(
            'include_config_contexts', _('Changes of config contexts are sent as updates. Choose updates as well.')
        )


def check_conditions(definition: Definition) -> None:
    """Raise DefinitionError unless `conditions` can be stored, and evaluated for every change."""
    _check('conditions', definition.conditions)


def check_success_conditions(definition: Definition) -> None:
    """Raise DefinitionError unless `success_conditions` can be stored, and evaluated for every answer."""
    _check('success_conditions', definition.success_conditions, _check_of_answer)


def _check(field: str, conditions: Any, check_one: Callable[[Any], None] = lambda node: None) -> None:
    """Raise DefinitionError for conditions that NetBox, PostgreSQL or the evaluation refuses. `check_one` gets each."""
    if conditions in (None, {}, ''):
        return
    if not is_flat(conditions):
        raise DefinitionError(field, _('Conditions are nested too deeply.'))
    try:
        if len(json.dumps(conditions)) > MAX_TEMPLATE_CHARS:
            raise ValueError(_('no more than {limit} characters are allowed').format(limit=MAX_TEMPLATE_CHARS))
        ConditionSet(conditions)
        found = list(nodes(conditions))
        if sum(map(is_condition, found)) > MAX_CONDITIONS:
            raise ValueError(_('no more than {limit} conditions are allowed').format(limit=MAX_CONDITIONS))
        for node in found:
            _check_node(node)
        for node in filter(is_condition, found):
            check_one(node)
        if patterns := [node['value'] for node in found if is_pattern(node)]:
            renderer.check_patterns(patterns)
    except (ValueError, TypeError, KeyError, AttributeError, InvalidCondition) as error:
        raise DefinitionError(field, _('Invalid conditions: {error}').format(error=error)) from None


def _check_of_answer(node: Any) -> None:
    """Raise ValueError unless the condition reads a part of an answer, by a quick operator."""
    if not ANSWER_ATTRIBUTE.fullmatch(node['attr']):
        raise ValueError(_('attr must be status, text, headers.<name in lower case> or body.<key>'))
    # A regular expression could take for ever, in the thread that waits for answers. And an answer has no snapshots.
    if node.get('op') in (Condition.REGEX, *Condition.SNAPSHOT_OPERATORS):
        raise ValueError(_('{op} cannot be used here').format(op=node['op']))


def _check_node(node: Any) -> None:
    """Raise ValueError for a value at any depth that PostgreSQL or the evaluation refuses.

    ConditionSet accepts it.
    """
    if isinstance(node, str) and UNSTORABLE.search(node):
        raise ValueError(_('a text contains a character that cannot be stored'))
    if isinstance(node, float) and not math.isfinite(node):
        raise ValueError(_('Infinity and NaN are not allowed'))
    if isinstance(node, dict) and not isinstance(node.get('attr', ''), str):
        raise ValueError(_('"attr" must be the name of an attribute'))


def is_condition(node: Any) -> bool:
    """Return whether this part of conditions compares an attribute."""
    return isinstance(node, dict) and 'attr' in node


def is_pattern(node: Any) -> bool:
    """Return whether this part of conditions has a regular expression."""
    return isinstance(node, dict) and node.get('op') == Condition.REGEX
