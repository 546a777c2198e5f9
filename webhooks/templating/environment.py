"""Jinja templates of a webhook: NetBox's sandbox and filters, with bounds on time and memory.

A template sees the payload and nothing else: no model, no settings, no file. The sandbox keeps it from Python's
internals; sandbox.py lets it not run on; and while it renders the process may not grow by more than MEMORY_LIMIT.
"""

import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateSyntaxError
from netbox.config import get_config
from netbox.registry import registry
from utilities.jinja2 import DEFAULT_JINJA2_FILTERS, sanitize_http_header

from ..interruptions import INTERRUPTIONS
from .sandbox import BoundedEnvironment

# Seconds that one template may take.
TIME_LIMIT = 2.0
# Bytes by which the process may grow meanwhile.
MEMORY_LIMIT = 256 * 1024 * 1024
# Characters of a rendered template.
OUTPUT_LIMIT = 4 * 1024 * 1024

_memory_lock = threading.Lock()


class RenderError(Exception):
    """The template cannot be rendered; str() says why, and in which line."""


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return the rendered template. Raises RenderError."""
    with _bounded() as environment:
        text = environment.from_string(template).render(**context)
    if len(text) > OUTPUT_LIMIT:
        raise RenderError(f'the result has more than {OUTPUT_LIMIT} characters')
    return _joined(text)


def check(template: str) -> None:
    """Raise RenderError for a template with a mistake in its syntax, or a filter that does not exist."""
    with _bounded() as environment:
        environment.from_string(template)


def _joined(text: str) -> str:
    """Return the text with characters that were written as surrogate pairs, as JSON writes them."""
    try:
        return text.encode('utf-16', 'surrogatepass').decode('utf-16')
    except UnicodeDecodeError:
        raise RenderError('the result holds half a surrogate pair') from None


def _environment() -> BoundedEnvironment:
    filters = {
        **DEFAULT_JINJA2_FILTERS,
        **registry['plugins'].get('jinja_filters', {}),
        **get_config().JINJA_FILTERS,
        'header_safe': sanitize_http_header,
    }
    return BoundedEnvironment(TIME_LIMIT, filters)


#
# Bounds
#


@contextmanager
def _bounded() -> Iterator[BoundedEnvironment]:
    """Give an environment, and raise RenderError for whatever goes wrong: filters are anybody's code."""
    environment = _environment()
    try:
        with _bounded_memory():
            yield environment
    except INTERRUPTIONS:
        raise
    except Exception as error:
        raise RenderError(f'{_message(error)}{_line(error)}') from error


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Let allocations beyond MEMORY_LIMIT fail. One at a time, for the limit is the process's."""
    with _memory_lock:
        before = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path('/proc/self/statm').read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY_LIMIT
        hard = before[1]
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


#
# Errors
#


def _message(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return 'the template needs too much memory'
    if isinstance(error, RecursionError):
        return 'the template calls itself without end'
    return f'{type(error).__name__}: {error}'


def _line(error: BaseException) -> str:
    """Return ' (line N)' for the line of the template that raised the error, '' if there is none."""
    line = error.lineno if isinstance(error, TemplateSyntaxError) else None
    traceback = error.__traceback__
    while traceback:
        if traceback.tb_frame.f_code.co_filename == '<template>':
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f' (line {line})' if line else ''
