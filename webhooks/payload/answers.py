"""Whether an answer counts as delivered, by a webhook's `success_conditions`."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from django.utils.translation import gettext as _
from extras.conditions import ConditionSet, InvalidCondition

from ..storable import is_flat

# Of status, headers and text of an answer: why it counts as a failure, '' if it does not.
Judge = Callable[[int, Mapping[str, str], str], str]


def judge_by(conditions: dict[str, Any] | None) -> Judge:
    """Return what judges answers. Raises ValueError and its like for what was never checked."""
    if not conditions:
        return lambda *answer: ''
    wanted = ConditionSet(conditions)

    def judge(status: int, headers: Mapping[str, str], text: str) -> str:
        by_name = {name.lower(): value for name, value in headers.items()}
        try:
            met = wanted.eval({'status': status, 'headers': by_name, 'body': _parsed(text), 'text': text})
        except InvalidCondition as error:
            return _('the answer does not meet success_conditions: {error}').format(error=error)
        return '' if met else _('the answer does not meet success_conditions')

    return judge


def _parsed(text: str) -> Any:
    """Return the JSON, None of anything else. Its levels are bounded: a comparison recurses too."""
    try:
        value = json.loads(text)
        return value if is_flat(value) else None
    except (ValueError, RecursionError):
        return None
