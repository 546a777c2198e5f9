"""Tells which keys of an object a Jinja2 template names, from its syntax tree. Nothing is rendered."""

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
# Filters that name a key by their first argument. All may name one by the argument `attribute`.
NAMING = frozenset({'groupby', 'rejectattr', 'selectattr', 'sum'})

# ('data', 'site', 'name'). A list on the way has no place of its own.
Path = tuple[str, ...]
Paths = frozenset[Path]
NOTHING: Paths = frozenset()
PARSER = Environment()


def named_in(template: str) -> list[str]:
    """Return the dotted keys of the object that the template names, such as 'site.name', sorted.

    `{% for tag in data.tags %}{{ tag.slug }}` names 'tags' and 'tags.slug'. A key that is computed, as in `data[key]`,
    is unknown. A template with a syntax error names none.
    """
    reader = _Reader()
    try:
        reader.read(PARSER.parse(template))
    except TemplateSyntaxError:
        return []
    found = (path[1:] if path[:2] == (CHANGES, DATA) else path for path in reader.used)
    return sorted({'.'.join(path[1:]) for path in found if path[0] == DATA and len(path) > 1})


class _Reader:
    """Follows variables through assignments and loops. `used` holds the paths that the template reads."""

    def __init__(self) -> None:
        self.used: set[Path] = set()
        self._names: dict[str, Paths] = {name: frozenset({(name,)}) for name in (DATA, CHANGES)}

    def read(self, node: nodes.Node) -> None:
        """Read a statement, and all below it."""
        if isinstance(node, nodes.For):
            self._assign(node.target, self._use(node.iter))
        elif isinstance(node, nodes.Assign):
            self._assign(node.target, self._use(node.node))
        elif isinstance(node, nodes.With):
            for target, value in zip(node.targets, node.values, strict=True):
                self._assign(target, self._use(value))
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Expr):
                self._use(child)
            else:
                self.read(child)

    def _assign(self, target: nodes.Node, paths: Paths) -> None:
        if isinstance(target, nodes.Name):
            self._names[target.name] = paths
        elif isinstance(target, nodes.Tuple):
            # `for key, values in … | groupby('key')`: the last has the items.
            for one in target.items:
                self._assign(one, paths if one is target.items[-1] else NOTHING)

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
            case nodes.Getattr():
                found = _below(self._paths(node.node), node.attr)
            case nodes.Getitem(arg=nodes.Const(value=str() as key)):
                found = _below(self._paths(node.node), key)
            case nodes.Getitem():
                self._use(node.arg)
                found = self._paths(node.node)
            case nodes.Call(node=nodes.Getattr()):
                found = self._called(node)
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
        self._use_all(call.args)
        if call.node.attr == 'get' and call.args and isinstance(call.args[0], nodes.Const):
            found = _below(paths, str(call.args[0].value))
            self.used |= found
            return found
        return NOTHING

    def _filtered(self, node: nodes.Filter) -> Paths:
        paths = self._use(node.node)
        self._use_all([*node.args, *(one.value for one in node.kwargs)])
        named = [one.value for one in node.kwargs if one.key == 'attribute']
        if node.name in NAMING:
            named += node.args[:1]
        keys = [one.value for one in named if isinstance(one, nodes.Const) and isinstance(one.value, str)]
        below = NOTHING.union(*(_below(paths, key) for key in keys))
        self.used |= below
        if node.name == 'map':
            return below
        return paths if node.name in KEEPING else NOTHING

    def _use_all(self, found: Iterable[nodes.Node]) -> None:
        for node in found:
            self._use(node)


def _below(paths: Paths, key: str) -> Paths:
    return frozenset((*path, *key.split('.')) for path in paths)
