import json
from collections.abc import Callable, Mapping
from typing import Any

from django.utils.translation import gettext as _
from extras.conditions import ConditionSet, InvalidCondition

from ..storable import is_flat

# Takes status, headers and text. Returns the reason of a failure, or ''.
Judge = Callable[[int, Mapping[str, str], str], str]


def judge_by(conditions: dict[str, Any] | None) -> Judge:
    """Raises ValueError and other errors for unchecked conditions."""
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
    """Deep JSON counts as none: a comparison recurses."""
    try:
        value = json.loads(text)
        return value if is_flat(value) else None
    except (ValueError, RecursionError):
        return None
