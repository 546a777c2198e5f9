"""NetBox's Jinja sandbox, in which a template cannot run on.

The sandbox keeps a template from Python's internals, not from the processor. Python cannot interrupt an operation in
its midst, so each one is looked at before it begins: filters, tests, calls, operators, comparisons, loops and output
see the clock, and refuse values that are too large. What is nested counts as often as it is reached: a list that holds
one list twice, forty levels deep, is small in memory and has 2**40 members to compare.
"""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

from jinja2 import BaseLoader, nodes, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

# Members of a value that an operation may take, at all levels together; TEXT characters count as one.
SIZE_LIMIT = 1_000_000
TEXT = 4
# Bits of a number that an operator may make, and decimal places that round() may be asked for.
NUMBER_LIMIT = 4096
PLACES_LIMIT = 100
# Characters that a filter or a method may take whose time grows faster than its text.
SLOW_TEXT_LIMIT = 65536
SLOW_FILTERS = frozenset({'pprint', 'striptags', 'title', 'urlize', 'wordcount', 'wordwrap', 'xmlattr'})
# These do if they are told what to look for.
SLOW_SEARCHES = frozenset({'lstrip', 'rfind', 'rindex', 'rpartition', 'rsplit', 'rstrip', 'strip', 'trim'})

CONTAINERS = (list, tuple, set, frozenset)


class BoundedEnvironment(SandboxedEnvironment):
    """An environment for one rendering, which has to end `seconds` after it was made."""

    intercepted_binops = frozenset(SandboxedEnvironment.default_binop_table)

    def __init__(self, seconds: float, filters: dict[str, Callable]) -> None:
        # `finalize` takes the context so that no output is computed by the compiler, where nothing bounds it. Nor may
        # the optimizer, for the same reason.
        super().__init__(loader=BaseLoader(), optimized=False, finalize=self._bounded_output)
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        # Text of any length, for trying out layouts.
        del self.globals['lipsum']
        self.filters.update(filters)
        self.filters = {name: self._bounded(name, function) for name, function in self.filters.items()}
        self.tests = {name: self._bounded(name, function) for name, function in self.tests.items()}

    def tick(self) -> None:
        """Raise SecurityError once the time is up."""
        if time.monotonic() > self._deadline:
            raise SecurityError(f'the template takes more than {self._seconds:g} seconds')

    def bounded(self, value: Any) -> Any:
        """Return the value. Raises SecurityError for one that is too large, or once the time is up."""
        self.tick()
        _check_size(value)
        return value

    @pass_eval_context
    def _bounded_output(self, _eval_context: Any, value: Any) -> Any:
        return self.bounded(value)

    def _bounded(self, name: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            is_slow = name in SLOW_FILTERS or (name in SLOW_SEARCHES and len(args) + len(kwargs) > 1)
            _check_size((args, kwargs), SLOW_TEXT_LIMIT // TEXT if is_slow else SIZE_LIMIT)
            if name == 'round':
                _check_places(*args[1:2], *kwargs.values())
            result = function(*args, **kwargs)
            return self._ticking(result) if isinstance(result, Iterator) else result

        return call

    def _ticking(self, items: Iterator) -> Iterator:
        """What a filter gives one by one may have no end, and be taken by what does not ask for the time."""
        for item in items:
            self.tick()
            yield item

    #
    # What SandboxedEnvironment asks its subclasses to intercept
    #

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Guards().visit(source), *args, **kwargs)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.tick()
        is_slow = getattr(__obj, '__name__', '') in SLOW_SEARCHES and (args or kwargs)
        values = getattr(__obj, '__self__', None), args, kwargs
        _check_size(values, SLOW_TEXT_LIMIT // TEXT if is_slow else SIZE_LIMIT)
        return SandboxedEnvironment.call(__self, __context, __obj, *args, **kwargs)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return super().getitem(obj, self.bounded(argument))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.bounded((left, right))
        if isinstance(left, int) and isinstance(right, int) and operator in ('*', '**'):
            bits = left.bit_length() * right if operator == '**' else left.bit_length() + right.bit_length()
            if bits > NUMBER_LIMIT:
                raise SecurityError('the number is too large')
        return super().call_binop(context, operator, left, right)


class _Guards(NodeTransformer):
    """Puts BoundedEnvironment.tick and .bounded where Jinja's compiler asks nobody."""

    def _tick_first(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_call('tick')).set_lineno(node.lineno))
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self._tick_first(node)
        node.iter = _call('bounded', node.iter)
        return node

    visit_Macro = visit_CallBlock = _tick_first

    def _expression_bounded(self, node: nodes.Compare | nodes.Operand) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _call('bounded', node.expr)
        return node

    visit_Compare = visit_Operand = _expression_bounded

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_call('bounded', part) for part in node.nodes]
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = _call('bounded', node.key)
        return node


def _call(method: str, *arguments: nodes.Expr) -> nodes.Call:
    # An attribute of the environment, not a name, which a template could set to something else.
    return nodes.Call(nodes.EnvironmentAttribute(method), list(arguments), [], None, None)


def _check_size(value: Any, limit: int = SIZE_LIMIT) -> None:
    """Raise SecurityError if the value has more members than the limit. Takes time in proportion to the limit only."""
    size, rest = 0, [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str | bytes):
            size += len(one) // TEXT
        elif isinstance(one, dict):
            size += 2 * len(one)
        elif isinstance(one, CONTAINERS):
            size += len(one)
        else:
            continue
        if size > limit:
            raise SecurityError('the value is too large')
        if isinstance(one, dict):
            rest.extend(one.keys())
            rest.extend(one.values())
        elif isinstance(one, CONTAINERS):
            rest.extend(one)


def _check_places(*places: Any) -> None:
    if any(isinstance(one, int) and abs(one) > PLACES_LIMIT for one in places):
        raise SecurityError('the number is too large')
