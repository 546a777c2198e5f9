"""Renders Jinja templates in a sandbox, inside a renderer.

The sandbox is for templates only: filters have the rights, files and database of the parent process.
"""

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from types import CodeType
from typing import Any

from jinja2 import BaseLoader, Template, Undefined, nodes, pass_context, pass_eval_context
from jinja2.exceptions import TemplateSyntaxError
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from .errors import RenderError
from .placeholders import MARK_NAME, signature

# A longer result of a template is an error.
MAX_OUTPUT_CHARS = 4 * 1024 * 1024
# Errors repeat names in the template, which may be long.
MAX_TEMPLATE_ERROR_CHARS = 1000
# At most this many templates are kept compiled.
COMPILED_TEMPLATES = 32
# Characters in a value that would change the host of a URL. `@` makes the text before it a user.
ENDS_HOST = re.compile(r'[/?#@\\]')
# Characters with which the template itself ends the host.
AFTER_HOST = re.compile(r'[/?#\\]')

# A text, and whether the template itself contains it.
Piece = tuple[str, bool]


class Environment:
    """Checks and renders templates, with NetBox's filters and `hmac()`. Keeps compiled templates."""

    def __init__(self, filters: dict[str, Callable]) -> None:
        # Jinja would run filters of constants while it compiles. But saving a template must run no filters.
        self._jinja = SandboxedEnvironment(loader=BaseLoader(), optimized=False, finalize=self._note)
        self._jinja.filters.update(filters)
        self._jinja.globals['hmac'] = _hmac
        self._jinja.policies['json.dumps_kwargs'] = {'sort_keys': True, 'default': _null_if_undefined}
        self._compiled = functools.lru_cache(COMPILED_TEMPLATES)(self._jinja.from_string)
        self._noted = ''

    def check(self, template: str) -> str:
        """Compile the template, and run nothing. Return the names of the variables that it reads, with blanks between.

        Raises TemplateSyntaxError, for an unknown filter too.
        """
        self._jinja.from_string(template)
        # Jinja's own search for them would compute constants, by running filters.
        found = list(self._jinja.parse(template).find_all(nodes.Name))
        assigned = {one.name for one in found if one.ctx != 'load'}
        return ' '.join({one.name for one in found} - assigned)

    def render(self, template: str, context: str) -> str:
        """Return the rendered template. `context` is a JSON object. Raises RenderError, errors of Jinja and filters."""
        return _sound(self._compiled(template).render(json.loads(context)))

    def render_url(self, template: str, context: str) -> str:
        """Return the rendered URL, as `render` does. Raises RenderError if an object's value would change the host."""
        pieces = list(self._pieces(self._compiled(template), json.loads(context)))
        text = ''.join(text for text, _is_written in pieces)
        _check_host(pieces, text.find('://'))
        return _sound(text)

    @pass_eval_context
    def _note(self, _context: Any, value: Any) -> str:
        self._noted = str(value)
        return self._noted

    def _pieces(self, template: Template, context: dict[str, Any]) -> Iterator[Piece]:
        written = _constants(template)
        for text in template.generate(context):
            # In Python equal texts with a single character are the same object. So a value could pass for a constant.
            yield text, id(text) in written and text is not self._noted


def _null_if_undefined(value: Any) -> None:
    """Return what `tojson` writes of a value that JSON does not know: null of a missing one, else raise TypeError."""
    if not isinstance(value, Undefined):
        raise TypeError(f'Object of type {type(value).__name__} is not JSON serializable')


@pass_context
def _hmac(
    context: Context, algorithm: str = 'sha256', encoding: str = 'hex', over: str = 'body', secret: str = 'old'
) -> str:
    return signature(context[MARK_NAME], algorithm, encoding, over, secret)


def _constants(template: Template) -> set[int]:
    functions = [template.root_render_func, *template.blocks.values()]
    codes: list[CodeType] = [function.__code__ for function in functions]
    return {id(constant) for code in codes for constant in code.co_consts}


def _check_host(pieces: Sequence[Piece], scheme_end: int) -> None:
    """Raise RenderError if an object's value ends the host that the template began. A value may hold a whole URL."""
    host_start, position = scheme_end + len('://'), 0
    for (text, is_written), (following, _) in pairwise([*pieces, ('', True)]):
        start, position = position, position + len(text)
        if start <= scheme_end < position and not is_written and not following.startswith('://'):
            return
        if position <= host_start:
            continue
        rest = text[max(host_start - start, 0) :]
        if is_written and AFTER_HOST.search(rest):
            return
        if not is_written and (found := ENDS_HOST.search(rest)):
            raise RenderError(f'a value in the host of the URL contains a {found[0]}')


def _sound(text: str) -> str:
    """Return the text with surrogate pairs joined, which JSON may hold. Raises RenderError if it is too long."""
    if len(text) > MAX_OUTPUT_CHARS:
        raise RenderError(f'the result has more than {MAX_OUTPUT_CHARS} characters')
    try:
        return text.encode('utf-16', 'surrogatepass').decode('utf-16')
    except UnicodeDecodeError:
        raise RenderError('the result contains a character that is not valid (half a surrogate pair)') from None


def described(error: BaseException) -> str:
    """Return the error as one text of at most MAX_TEMPLATE_ERROR_CHARS characters, and the template's line if known."""
    if isinstance(error, RenderError | RecursionError):
        text = str(error) if isinstance(error, RenderError) else 'the template calls itself without end'
    else:
        text = f'{type(error).__name__}: {error}'
    line, text = _line(error), text[:MAX_TEMPLATE_ERROR_CHARS]
    return f'{text} (line {line})' if line else text


def _line(error: BaseException) -> int | None:
    line = error.lineno if isinstance(error, TemplateSyntaxError) else None
    traceback = error.__traceback__
    while traceback:
        if traceback.tb_frame.f_code.co_filename == '<template>':
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
