"""Renders users' templates, and evaluates conditions, by asking a renderer: a process with limits.

A renderer is started when it is needed, kept, and replaced when it is worn out.
"""

import errno
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context

from django.conf import settings
from extras.conditions import InvalidCondition
from netbox.registry import registry
from utilities.jinja2 import DEFAULT_JINJA2_FILTERS, sanitize_http_header

from ..constants import TEMPLATE_SECONDS
from ..interruptions import BROKEN_OFF, Shortage
from ..patience import TICKS_PER_LIMIT, Patience
from . import conditions, process
from .environment import MAX_TEMPLATE_ERROR_CHARS, Environment, described
from .errors import RenderError, TimeUp
from .process import Fork, ProcessEnded, Spawner, TemplateProcess, TimedOut

# A renderer that is still silent this long after its time was over is killed.
KILL_MARGIN_SECONDS = 0.2
# Conditions have little processor time, but a busy machine stretches it. After this time the renderer is killed.
CONDITIONS_ANSWER_SECONDS = 5.0

TOO_SLOW = f'the template takes more than {TEMPLATE_SECONDS:g} seconds'
TOO_SLOW_TOGETHER = f'the templates of this webhook take more than {TEMPLATE_SECONDS:g} seconds together'
TOO_LARGE = 'the template needs too much memory'
ENDED = 'the template stopped the process that rendered it'
# Errors of a fork on an old kernel or under a seccomp filter: they stay. Any other may be gone soon.
LASTING_FORK_ERRORS = frozenset({errno.ENOSYS, errno.EPERM, errno.EACCES})

# How an answer begins.
DONE = b'+'
# The template is wrong, or takes too long.
REFUSED = b'-'
# The conditions are wrong.
UNFIT = b'?'
# The conditions take too long.
SLOW = b's'
NO_MEMORY = b'm'
# A database query of a filter broke off.
INTERRUPTED = b'!'
# After these a new renderer may succeed, with free memory or a new connection.
WORN_OUT = NO_MEMORY, INTERRUPTED

Filters = dict[str, Callable]


def render(template: str, context: str) -> str:
    """Return the rendered template. `context` is a JSON object.

    Raises RenderError if it fails or takes too long, and Shortage if no process can be started now.
    """
    return _ask_in_time('render', template, context)


def render_url(template: str, context: str) -> str:
    """Return the rendered URL. Raises as `render` does, and RenderError if an object's value would change the host."""
    return _ask_in_time('render_url', template, context)


def check(template: str) -> set[str]:
    """Compile the template, for a form, and return the names of the variables that it reads.

    Raises RenderError for a syntax error or an unknown filter; Shortage.
    """
    return set(_ask_in_time('check', template).split())


def are_met(wanted: str, data: str) -> bool:
    """Return whether the data meets the conditions `wanted`. Both are JSON.

    Raises InvalidCondition, conditions.SlowCondition or Shortage.
    """
    try:
        return bool(_ask('are_met', wanted, data, seconds=CONDITIONS_ANSWER_SECONDS))
    except RenderError as error:
        raise conditions.SlowCondition('they need too much time or memory') from error


def check_patterns(patterns: Iterable[str]) -> None:
    """Compile regular expressions. Raises InvalidCondition if one is wrong or slow, or no process can be started."""
    try:
        _ask('check_patterns', *patterns, seconds=CONDITIONS_ANSWER_SECONDS)
    except RenderError:
        raise InvalidCondition('a regular expression needs too much time or memory') from None
    except Shortage as error:
        raise InvalidCondition(str(error)) from error


#
# Which renderer
#


class _Supply:
    def __init__(self, source_class: type[Fork | Spawner]) -> None:
        self._source_class = source_class
        self._source: Fork | Spawner | None = None
        self._renderer: TemplateProcess | None = None
        self._filters: Filters = {}

    @property
    def is_ready(self) -> bool:
        return self._source is not None

    def prepare(self) -> None:
        filters = _filters()
        if self._source and filters != self._filters:
            self.close()
        if self._source is None:
            self._filters = filters
            self._source = self._source_class(lambda channel: _serve(channel, filters))

    def renderer(self) -> TemplateProcess:
        self.prepare()
        if self._renderer is None or not self._renderer.is_there:
            self._renderer = self._source.make()
        return self._renderer

    def close(self) -> None:
        if self._renderer:
            self._renderer.kill()
        if self._source:
            self._source.close()
        self._source = self._renderer = None


_supply: ContextVar[_Supply | None] = ContextVar('supply', default=None)
# The kernel ends a child when the thread that forked it ends. So a spawner belongs to a thread.
_of_thread = threading.local()


@contextmanager
def shared() -> Iterator[None]:
    """Let all questions in the block go to one renderer: the one in use already, else a temporary one."""
    if _supply.get():
        yield
        return
    supply = _Supply(Fork)
    token = _supply.set(supply)
    try:
        yield
    finally:
        _supply.reset(token)
        supply.close()


@contextmanager
def kept(is_needed: Callable[[], bool]) -> Iterator[list[Context]]:
    """Keep three renderers for the sender: one for this thread, two for the contexts that it yields to other threads.

    Enter it while the process has one thread: if `is_needed()`, spawners are forked now. They stay after the block.
    """
    if not hasattr(_of_thread, 'supplies'):
        _of_thread.supplies = [_Supply(Spawner) for _ in range(3)]
    own, *others = _of_thread.supplies
    if own.is_ready or is_needed():
        for supply in _of_thread.supplies:
            supply.prepare()
    token = _supply.set(own)
    try:
        yield [_with(other) for other in others]
    finally:
        _supply.reset(token)


def _with(supply: _Supply) -> Context:
    context = copy_context()
    context.run(_supply.set, supply)
    return context


def _forget() -> None:
    _supply.set(None)
    vars(_of_thread).clear()


os.register_at_fork(after_in_child=_forget)


def _filters() -> Filters:
    return {
        **DEFAULT_JINJA2_FILTERS,
        **registry['plugins'].get('jinja_filters', {}),
        **settings.JINJA_FILTERS,
        'header_safe': sanitize_http_header,
    }


#
# Questions
#


_taken: ContextVar[list[float] | None] = ContextVar('taken', default=None)


@contextmanager
def together() -> Iterator[None]:
    """Let all templates in the block share one renderer, and TEMPLATE_SECONDS in all."""
    token = _taken.set([])
    try:
        with shared():
            yield
    finally:
        _taken.reset(token)


def _ask_in_time(task: str, *texts: str) -> str:
    left = TEMPLATE_SECONDS - sum(_taken.get() or ())
    if left <= 0:
        raise RenderError(TOO_SLOW_TOGETHER)
    return _ask(task, str(left), *texts, seconds=left + KILL_MARGIN_SECONDS, too_slow=_too_slow(left))


def _too_slow(left: float) -> str:
    return TOO_SLOW if left == TEMPLATE_SECONDS else TOO_SLOW_TOGETHER


def _ask(task: str, *texts: str, seconds: float, too_slow: str = TOO_SLOW) -> str:
    question = [task.encode(), *(text.encode(errors='surrogatepass') for text in texts)]
    with shared():
        supply = _supply.get()
        while True:
            try:
                renderer = supply.renderer()
            except (OSError, EOFError) as error:
                kind = RenderError if getattr(error, 'errno', None) in LASTING_FORK_ERRORS else Shortage
                raise kind(f'no process can be started to render the template: {error}') from error
            was_new, patience = renderer.is_new, Patience(seconds)
            try:
                status, answer = renderer.ask(question, patience)
            except TimedOut:
                raise RenderError(too_slow) from None
            except ProcessEnded:
                status, answer = NO_MEMORY, ENDED.encode()
            finally:
                if (taken := _taken.get()) is not None:
                    taken.append(seconds - patience.left)
            text = answer.decode(errors='surrogatepass')
            if status not in WORN_OUT:
                return _understood(status, text)
            renderer.kill()
            if was_new:
                raise RenderError(text)
            # An earlier question may have worn it out. So a new renderer gets this one.


def _understood(status: bytes, text: str) -> str:
    if status == DONE:
        return text
    if status == UNFIT:
        raise InvalidCondition(text)
    if status == SLOW:
        raise conditions.SlowCondition(text)
    raise RenderError(text)


#
# Answers: in the renderer
#


def _serve(channel: socket.socket, filters: Filters) -> None:
    process.ignore_stops()
    environment = Environment(filters)
    tasks = {
        b'render': _timed(environment.render),
        b'render_url': _timed(environment.render_url),
        b'check': _timed(environment.check),
        b'are_met': conditions.are_met,
        b'check_patterns': conditions.check_patterns,
    }
    while True:
        try:
            status, text = _answer(tasks, process.receive(channel))
        except EOFError:
            return
        process.send(channel, [status, text.encode(errors='surrogatepass')])


def _answer(tasks: dict[bytes, Callable], question: list[bytes]) -> tuple[bytes, str]:
    try:
        task, *texts = question
        return DONE, tasks[task](*(text.decode(errors='surrogatepass') for text in texts)) or ''
    except InvalidCondition as error:
        status = SLOW if isinstance(error, conditions.SlowCondition) else UNFIT
        return status, str(error)[:MAX_TEMPLATE_ERROR_CHARS]
    except TimeUp as error:
        return REFUSED, described(RenderError(str(error) or TOO_SLOW).with_traceback(error.__traceback__))
    except MemoryError:
        return NO_MEMORY, TOO_LARGE
    except BROKEN_OFF as error:
        # A query of a filter broke off. The engine's own connection is well.
        return INTERRUPTED, described(error)
    except Exception as error:
        return REFUSED, described(error)


def _timed(task: Callable) -> Callable:
    def call(seconds: str, *texts: str) -> str | None:
        try:
            with _bounded(float(seconds)):
                return task(*texts)
        except TimeUp as error:
            raise TimeUp(_too_slow(float(seconds))).with_traceback(error.__traceback__) from None

    return call


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise TimeUp once in the block, after TICKS_PER_LIMIT ticks or `seconds` of processor time.

    While an operation runs, a single tick counts at most.
    """
    ticks, end = itertools.count(1), time.process_time() + seconds

    def strike(_signum: int, _frame: object) -> None:
        if next(ticks) >= TICKS_PER_LIMIT or time.process_time() >= end:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise TimeUp

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds / TICKS_PER_LIMIT, seconds / TICKS_PER_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
