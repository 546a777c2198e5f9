"""Finds which keys of an object a Jinja2 template names, from its syntax tree. Nothing is rendered."""

from collections.abc import Iterable

from jinja2 import Environment, TemplateSyntaxError, nodes

# The variable of a template that holds the object, and the list in a change set whose items hold it.
DATA = 'data'
CHANGES = 'changes'
# Filters whose result has the same keys as their input. For others the path ends.
KEEPING = frozenset(
    {
        'batch', 'd', 'default', 'first', 'groupby', 'last', 'list', 'max', 'min', 'random', 'reject', 'rejectattr',
        'reverse', 'select', 'selectattr', 'slice', 'sort', 'tojson', 'unique',
    }
)  # fmt: skip
# {filter: position of its argument that names a key}. All may name one by the argument `attribute`.
NAMING = {
    'attr': 0, 'groupby': 0, 'join': 1, 'max': 1, 'min': 1, 'rejectattr': 0, 'selectattr': 0, 'sort': 2, 'sum': 0,
    'unique': 1,
}  # fmt: skip

# A variable may stand for at most this many paths, and this many calls of macros are followed. Each line may double
# them.
MAX_PATHS = 1000
MAX_MACRO_CALLS = 1000
# Statements whose names end with them.
SCOPES = (nodes.For, nodes.With, nodes.Macro, nodes.CallBlock, nodes.AssignBlock, nodes.FilterBlock)

# ('data', 'site', 'name'). A list on the way has no place of its own.
Path = tuple[str, ...]
Paths = frozenset[Path]
NOTHING: Paths = frozenset()
PARSER = Environment()


def named_in(template: str) -> list[str]:
    """Return the dotted keys of the object that the template names, such as 'site.name', sorted.

    `{% for tag in data.tags %}{{ tag.slug }}` names 'tags' and 'tags.slug'. Unknown are keys that are computed, as in
    `data[key]`, with all below them, and those of objects in a mapping or a namespace. A template that cannot be
    compiled names none.
    """
    reader = _Reader()
    try:
        reader.read(PARSER.parse(template))
    except (TemplateSyntaxError, RecursionError):
        return []
    found = (path[1:] if path[:2] == (CHANGES, DATA) else path for path in reader.used)
    return sorted({'.'.join(path[1:]) for path in found if path[0] == DATA and len(path) > 1})


class _Reader:
    """Follows variables through assignments, loops and macros. `used` holds the paths that the template reads."""

    def __init__(self) -> None:
        self.used: set[Path] = set()
        self._names: dict[str, Paths] = {name: frozenset({(name,)}) for name in (DATA, CHANGES)}
        self._macros: dict[str, nodes.Macro] = {}
        # How many calls of macros were read, and in how many `if` it is now: what is assigned there may be skipped.
        self._entered = 0
        self._branches = 0

    def read(self, node: nodes.Node) -> None:
        """Read a statement, and all below it."""
        outer, below = self._names.copy(), node.iter_child_nodes()
        match node:
            case nodes.Assign():
                self._assign(node.target, node.node)
                return
            case nodes.For():
                self._assign(node.target, node.iter)
                below = node.iter_child_nodes(exclude=('target', 'iter'))
            case nodes.With():
                for target, value in zip(node.targets, node.values, strict=True):
                    self._assign(target, value)
                below = node.iter_child_nodes(exclude=('targets', 'values'))
            case nodes.Macro() | nodes.CallBlock():
                self._names |= dict.fromkeys((one.name for one in node.args), NOTHING)
            case _:
                pass
        if isinstance(node, nodes.Macro):
            self._macros[node.name] = node
        self._branches += isinstance(node, nodes.If)
        self._read_all(below)
        self._branches -= isinstance(node, nodes.If)
        if isinstance(node, SCOPES):
            self._names = outer

    def _read_all(self, found: Iterable[nodes.Node]) -> None:
        for node in found:
            if isinstance(node, nodes.Expr):
                self._use(node)
            else:
                self.read(node)

    def _assign(self, target: nodes.Node, value: nodes.Node) -> None:
        if isinstance(target, nodes.Tuple) and isinstance(value, nodes.Tuple):
            for one, below in zip(target.items, value.items, strict=False):
                self._assign(one, below)
            return
        paths = self._use(value)
        if isinstance(target, nodes.Name):
            if self._branches:
                paths |= self._names.get(target.name, NOTHING)
            if len(paths) > MAX_PATHS:
                paths = NOTHING
            self._names[target.name] = paths
        elif isinstance(target, nodes.Tuple):
            # `for key, values in … | groupby('key')`: the last has the items.
            self._names |= {one.name: NOTHING for one in target.items if isinstance(one, nodes.Name)}
            if isinstance(target.items[-1], nodes.Name):
                self._names[target.items[-1].name] = paths

    def _use(self, node: nodes.Node | None) -> Paths:
        """Return the paths that an expression may have, and note them as used."""
        paths = self._paths(node)
        self.used |= paths
        return paths

    def _paths(self, node: nodes.Node | None) -> Paths:
        found = NOTHING
        match node:
            case nodes.Name(ctx='load'):
                found = self._names.get(node.name, NOTHING)
            case nodes.Getattr(attr='grouper' | 'list' as part):
                # Of a group that `groupby` makes.
                found = self._paths(node.node) if part == 'list' else NOTHING
            case nodes.Getattr():
                found = _below(self._paths(node.node), node.attr)
            case nodes.Getitem(arg=nodes.Const(value=str() as key)):
                found = _below(self._paths(node.node), key)
            case nodes.Getitem(arg=nodes.Const() | nodes.Neg() | nodes.Slice()):
                self._use(node.arg)
                found = self._paths(node.node)
            case nodes.Call(node=nodes.Getattr()):
                found = self._called(node)
            case nodes.Call(node=nodes.Name(name=name)) if name in self._macros:
                self._enter(self._macros[name], node)
            case nodes.List() | nodes.Tuple():
                found = NOTHING.union(*map(self._paths, node.items))
            case nodes.Filter():
                found = self._filtered(node)
            case nodes.CondExpr():
                self._use(node.test)
                found = self._paths(node.expr1) | self._paths(node.expr2)
            case nodes.And() | nodes.Or():
                found = self._paths(node.left) | self._paths(node.right)
            case _:
                self._use_all(node.iter_child_nodes() if node else ())
        return found

    def _called(self, call: nodes.Call) -> Paths:
        """Return the paths of a method's result: `.get('key')` reads a key, `.values()` and `.items()` all of them."""
        paths = self._use(call.node.node)
        self._use_all(call.iter_child_nodes(exclude=('node',)))
        if call.node.attr == 'get' and call.args and isinstance(call.args[0], nodes.Const):
            found = _below(paths, str(call.args[0].value))
            self.used |= found
            return found
        return NOTHING

    def _enter(self, macro: nodes.Macro, call: nodes.Call) -> None:
        """Read a macro with the arguments of a call. A macro that calls itself is read once."""
        self._entered += 1
        if self._entered > MAX_MACRO_CALLS:
            return
        names = [one.name for one in macro.args]
        given = dict(zip(names, map(self._use, call.args), strict=False))
        given |= {one.key: self._use(one.value) for one in call.kwargs}
        outer, self._names = self._names, self._names | dict.fromkeys(names, NOTHING) | given
        del self._macros[macro.name]
        self._read_all(macro.body)
        self._names, self._macros[macro.name] = outer, macro

    def _filtered(self, node: nodes.Filter) -> Paths:
        paths = self._use(node.node)
        self._use_all([*node.args, *(one.value for one in node.kwargs)])
        named = [one.value for one in node.kwargs if one.key == 'attribute']
        if node.name in NAMING:
            named += node.args[NAMING[node.name] :][:1]
        texts = [one.value for one in named if isinstance(one, nodes.Const) and isinstance(one.value, str)]
        # `sort` takes several.
        below = NOTHING.union(*(_below(paths, key) for text in texts for key in text.split(',')))
        self.used |= below
        if node.name in ('attr', 'map'):
            return below
        return paths if node.name in KEEPING else NOTHING

    def _use_all(self, found: Iterable[nodes.Node]) -> None:
        for node in found:
            self._use(node)


def _below(paths: Paths, key: str) -> Paths:
    return frozenset((*path, *key.split('.')) for path in paths)
