"""Are a webhook's conditions met? By NetBox's ConditionSet.

What holds a regular expression is evaluated in a renderer, which gives it up in time (templating/conditions.py). All
others take a moment only.
"""

import json
from typing import Any

from extras.conditions import Condition, ConditionSet

from ..storable import nodes
from ..templating import renderer

ENCODER = json.JSONEncoder(ensure_ascii=False)


def are_met(conditions: dict[str, Any], data: dict[str, Any]) -> bool:
    """Raises InvalidCondition for conditions that do not fit the data, or take too long."""
    if _has_pattern(conditions):
        return renderer.are_met(ENCODER.encode(conditions), ENCODER.encode(data))
    return ConditionSet(conditions).eval(data)


def _has_pattern(conditions: dict[str, Any]) -> bool:
    return any(isinstance(node, dict) and node.get('op') == Condition.REGEX for node in nodes(conditions))
