"""Leaves the chosen keys of an object in its events: a webhook's `fields` and `omit`, as in NetBox's REST API.

`?fields=` and `?omit=` of NetBox name keys of an object. Here a dot leads on to a key below, as in `expand`.
"""

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from django.contrib.contenttypes.models import ContentType
from rest_framework.utils.encoders import JSONEncoder

from ..models import Event, Webhook
from ..object_types import label_of
from ..rendering import expansion
from ..rendering.expansion import Tree
from ..rendering.keys import snapshot_names

ENCODER = JSONEncoder(ensure_ascii=False)


class Selection(NamedTuple):
    """Keys of one object type, as a tree: {"site": {"name": {}}} is "site.name".

    `keeps`: whether only these keys are sent, or all other keys.
    """

    tree: Tree
    keeps: bool

    def of(self, value: Any) -> Any:
        """Return the data without the keys that are not sent."""
        return (_kept if self.keeps else _without)(value, self.tree)

    def of_snapshot(self, state: Any, names: Mapping[str, Collection[str]]) -> Any:
        """Return a state of the change log without the keys that are not sent. `names`: as its columns call them."""
        columns: Tree = {}
        for name, below in self.tree.items():
            # A column holds an id where the data hold an object: it goes with the whole object.
            if self.keeps or not below:
                columns |= {column: {} for column in names.get(name, ())}
            columns[name] = below
        return self._replace(tree=columns).of(state)


def of(webhook: Webhook, label: str) -> Selection | None:
    """Return the keys that the webhook sends or omits for an object type such as 'dcim.site'. None: it sends all."""
    for chosen, keeps in ((webhook.fields, True), (webhook.omit, False)):
        if keys := (chosen or {}).get(label):
            return Selection(tree_of(keys), keeps)
    return None


def tree_of(keys: Collection[str]) -> Tree:
    """Return the keys as a tree. A key goes before those below it: "site" and "site.name" are {"site": {}}."""
    return expansion.tree_of([key for key in keys if not any(key.startswith(f'{other}.') for other in keys)])


def narrow(webhook: Webhook, events: Sequence[Event], expand: Collection[str]) -> list[Event]:
    """Return the events as this webhook sends them: related objects in full, and without keys that it does not send.

    An event is returned itself if nothing differs. Otherwise it is a copy, which must not be saved. Webhooks with the
    same choice share a copy.
    """
    return [_narrow(webhook, event, expand) for event in events]


def _narrow(webhook: Webhook, event: Event, expand: Collection[str]) -> Event:
    object_type = ContentType.objects.get_for_id(event.object_type_id)
    selection = of(webhook, label_of(object_type))
    if not event.data or not (expand or selection):
        return event
    copies = vars(event).setdefault('_narrowed', {})
    key = (*expand, repr(selection))
    if key not in copies:
        copies[key] = _copy(event, expand, selection, object_type)
    return copies[key]


def _copy(event: Event, expand: Collection[str], selection: Selection | None, object_type: ContentType) -> Event:
    shown = copy.copy(event)
    for cached in ('_bodies', '_narrowed'):
        vars(shown).pop(cached, None)
    tree = expansion.tree_of(expand)
    data, unknown = expansion.merge(event.payload_data or {}, tree, json.loads(event.expanded or '{}'))
    partial = [*(name for name in event.partial or () if name not in tree), *unknown]
    if selection:
        data = selection.of(data)
        partial = [name for name in partial if name.partition('.')[0] in data]
        shown.snapshots = event.snapshots and _snapshots(event.snapshots, selection, object_type)
    shown.data, shown.partial = ENCODER.encode(data), partial or None
    return shown


def _snapshots(snapshots: Mapping[str, Any], selection: Selection, object_type: ContentType) -> dict[str, Any]:
    model = object_type.model_class()
    names = snapshot_names(model) if model else {}
    return {when: state and selection.of_snapshot(state, names) for when, state in snapshots.items()}


def _kept(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_kept(one, tree) for one in value]
    if not tree or not isinstance(value, dict):
        return value
    return {name: _kept(below, tree[name]) for name, below in value.items() if name in tree}


def _without(value: Any, tree: Tree) -> Any:
    if isinstance(value, list):
        return [_without(one, tree) for one in value]
    if not tree or not isinstance(value, dict):
        return value
    return {name: _without(below, tree.get(name, {})) for name, below in value.items() if tree.get(name) != {}}
