"""Decides whether an answer counts as delivered, by the webhook's `success_conditions`."""

import json
import re
from collections.abc import Callable
from typing import Any

from django.utils.translation import gettext as _
from extras.conditions import ConditionSet, InvalidCondition

from ..security.masking import MASK
from ..storable import is_flat
from ..transport.exchange import Answer

# Takes an answer, and returns why it is a failure, or ''.
Judge = Callable[[Answer], str]
# A text of JSON, or another value. It reads each character once, so no endpoint can make it slow.
JSON_VALUE = re.compile(r'"(?:\\.|[^"\\])*+"?|[^\s"{}\[\]:,]++', re.DOTALL)


def judge_by(conditions: dict[str, Any] | None) -> Judge:
    """Return a function that judges answers by these conditions. Without conditions each answer succeeds.

    Raises ValueError, TypeError, KeyError or AttributeError for conditions that were saved unchecked.
    """
    if not conditions:
        return lambda answer: ''
    wanted = ConditionSet(conditions)

    def judge(answer: Answer) -> str:
        text = answer.text
        by_name = {name.lower(): value for name, value in answer.headers.items()}
        try:
            met = wanted.eval({'status': answer.status, 'headers': by_name, 'body': _parsed(text), 'text': text})
        except InvalidCondition as error:
            return _('the answer does not meet success_conditions: {error}').format(error=error)
        return '' if met else _('the answer does not meet success_conditions')

    return judge


def _parsed(text: str) -> Any:
    """Return the value of a JSON text, or None.

    Deeply nested JSON counts as none: a comparison would recurse too far.
    """
    try:
        value = json.loads(_with_texts(text) if MASK in text else text)
        return value if is_flat(value) else None
    except (ValueError, RecursionError):
        return None


def _with_texts(text: str) -> str:
    """Return the JSON text with quotes around masked numbers.

    JSON has no masks. Without quotes nothing in the answer could be read.
    """
    return JSON_VALUE.sub(lambda found: f'"{found[0]}"' if found[0][0] != '"' and MASK in found[0] else found[0], text)
