"""What rendering prepares of NetBox's serializers is a matter of speed, and it is prepared part by part.

Where NetBox is not as expected, a part is left as NetBox has it: slower and right. That is noted, once for each part in
the log, and by the system check webhooks.W004.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

logger = logging.getLogger('webhooks.rendering')

# What Python raises where an attribute is missing, a signature is another one, or a value is of another kind.
UNEXPECTED = (AssertionError, AttributeError, ImportError, LookupError, NotImplementedError, TypeError, ValueError)

# {part: why it is left as NetBox has it}
left: dict[str, str] = {}


@contextmanager
def part(name: str) -> Iterator[None]:
    """Prepare one part inside. If NetBox is not as expected there, leave the part and note it."""
    try:
        yield
    except UNEXPECTED as error:
        leave(name, error)


def leave(name: str, error: Exception) -> None:
    """Note that the part is left as NetBox has it, and log it the first time."""
    if name not in left:
        left[name] = f'{type(error).__name__}: {error}'
        logger.warning('part=%s is left as NetBox has it: %s', name, left[name])


def find(module: str, name: str) -> Any:
    """Return what NetBox has of this name; where it has none, `()`, of which nothing is an instance."""
    with part(name):
        return getattr(import_module(module), name)
    return ()


def put(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Put `replacement` in place of a method of NetBox's. Raises where there is none, or it takes something else."""
    takes = _count_arguments(getattr(owner, name))
    if takes != _count_arguments(replacement):
        raise TypeError(f'{type(owner).__name__}.{name}() takes {takes} arguments')
    setattr(owner, name, replacement)


def _count_arguments(function: Callable[..., Any]) -> int:
    required = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature(function).parameters.values()
    return sum(one.kind in required and one.default is Parameter.empty for one in parameters)
