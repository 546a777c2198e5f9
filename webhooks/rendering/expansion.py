"""Finds related objects in full, and puts them into the data of an object. Queries depend on models and levels only."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

from django.db.models import Model

from .serializer import view_at

Data = dict[str, Any]
# "device.site" is {"device": {"site": {}}}: both are expanded.
type Tree = dict[str, Tree]
# URL → GET's data.
Objects = Mapping[str, Data]
# Model and primary keys → GET's data of known objects.
LookUp = Callable[[type[Model], Collection[int]], Mapping[int, Data]]

# For one event. A trunk may have thousands of VLANs: the rest stays brief.
MAX_EXPANDED_OBJECTS = 500


def tree_of(keys: Collection[str]) -> Tree:
    """Return the keys as a tree: "device.site" gives {"device": {"site": {}}}."""
    tree: Tree = {}
    for key in keys:
        node = tree
        for name in key.split('.'):
            node = node.setdefault(name, {})
    return tree


def find(shown: Sequence[tuple[Data, Tree]], look_up: LookUp) -> list[dict[str, Data]]:
    """Return {URL: data} of the related objects in full, for each pair of an object's data and its tree of keys.

    `look_up` is called once for each level and model. Objects that it does not know are left out. At
    MAX_EXPANDED_OBJECTS the rest is left out too.
    """
    found: dict[str, Data] = {}
    tried: set[str] = set()
    while new := {url for data, tree in shown for url in _first_urls(data, tree, found)} - tried:
        tried |= new
        for model, urls in _by_model(new).items():
            known = look_up(model, urls.keys())
            found |= {urls[pk]: data for pk, data in known.items()}
    return [
        {url: found[url] for url in _first_urls(data, tree, found) if url in found} if tree else {}
        for data, tree in shown
    ]


def merge(data: Data, tree: Tree, objects: Objects) -> tuple[Data, list[str]]:
    """Return a copy of the data with related objects in full, and the keys whose objects are unknown."""
    unknown: dict[str, None] = {}
    return _merge(data, tree, objects, '', unknown), list(unknown)


def model_at(url: str) -> type[Model] | None:
    """Return the model whose object the URL of the REST API shows. None: no view with a queryset is there."""
    return _model_below(_split(url)[0])


def _first_urls(data: Data, tree: Tree, found: Objects) -> Iterator[str]:
    return islice(dict.fromkeys(_urls(data, tree, found)), MAX_EXPANDED_OBJECTS)


def _urls(data: Data, tree: Tree, found: Objects) -> Iterator[str]:
    # Short lists first: a long one may use up MAX_EXPANDED_OBJECTS.
    shown = {name: list(_objects(data.get(name))) for name in tree}
    for name in sorted(shown, key=lambda name: len(shown[name])):
        below = tree[name]
        for one in shown[name]:
            yield one['url']
            if below and one['url'] in found:
                yield from _urls(found[one['url']], below, found)


def _objects(value: Any) -> Iterator[Data]:
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, dict) and isinstance(one.get('url'), str) and 'id' in one:
            yield one


def _merge(data: Data, tree: Tree, objects: Objects, path: str, unknown: dict[str, None]) -> Data:
    merged = dict(data)
    for name, below in tree.items():
        if name in data:
            merged[name] = _replaced(data[name], below, objects, f'{path}{name}', unknown)
    return merged


def _replaced(value: Any, below: Tree, objects: Objects, path: str, unknown: dict[str, None]) -> Any:
    if isinstance(value, list):
        return [_replaced(one, below, objects, path, unknown) for one in value]
    if not any(_objects(value)):
        return value
    if (whole := objects.get(value['url'])) is None:
        unknown[path] = None
        return value
    return _merge(whole, below, objects, f'{path}.', unknown)


def _by_model(urls: Collection[str]) -> dict[type[Model], dict[int, str]]:
    found: dict[type[Model], dict[int, str]] = {}
    for url in sorted(urls):
        folder, pk = _split(url)
        if pk.isdecimal() and (model := _model_below(folder)):
            found.setdefault(model, {})[int(pk)] = url
    return found


def _split(url: str) -> tuple[str, str]:
    folder, _slash, pk = url.rstrip('/').rpartition('/')
    return folder, pk


@cache
def _model_below(folder: str) -> type[Model] | None:
    queryset = getattr(view_at(f'{folder}/1/'), 'queryset', None)
    return None if queryset is None else queryset.model
