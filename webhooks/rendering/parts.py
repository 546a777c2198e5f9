"""Replaces parts of NetBox's rendering by faster ones.

If a part is not as expected, as in another version, NetBox's own stays: slower, but right. The log and the check
webhooks.W004 name it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

logger = logging.getLogger('webhooks.rendering')

# Errors that show that NetBox's code is not as expected.
UNEXPECTED = (AssertionError, AttributeError, ImportError, LookupError, NotImplementedError, TypeError, ValueError)

# {part: reason} of the parts that stay NetBox's, in this process.
left: dict[str, str] = {}


@contextmanager
def part(name: str) -> Iterator[None]:
    """Replace a part in the block. If that raises an error of UNEXPECTED, NetBox's own stays."""
    try:
        yield
    except UNEXPECTED as error:
        leave(name, error)


def leave(name: str, error: Exception) -> None:
    """Note that a part stays NetBox's, and log it the first time in this process."""
    if name not in left:
        left[name] = f'{type(error).__name__}: {error}'
        logger.warning('part=%s works, but slowly: %s', name, left[name])


def find(module: str, name: str) -> Any:
    """Return an attribute of NetBox's module. If it is missing: `()`, so that isinstance() is false."""
    with part(name):
        return getattr(import_module(module), name)
    return ()


def put(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Replace the owner's method. Raises AttributeError if it is missing, TypeError if it takes other arguments."""
    takes = _count_arguments(getattr(owner, name))
    if takes != _count_arguments(replacement):
        raise TypeError(f'{type(owner).__name__}.{name}() takes {takes} arguments')
    setattr(owner, name, replacement)


def _count_arguments(function: Callable[..., Any]) -> int:
    required = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature(function).parameters.values()
    return sum(one.kind in required and one.default is Parameter.empty for one in parameters)
