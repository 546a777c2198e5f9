"""Turns snapshots into the data of NetBox's REST API. It depends on NetBox's internals, not on the plugin's.

bulk: renders the snapshots of a model. Begin here.
serializer: prepares NetBox's own serializer. parts replaces slow parts of it.
decoding: makes instances from snapshots. related finds the objects that they point to, gone the deleted ones.
customfields, configcontext, derived: values that are not in the row.
remains: completes the data of deleted objects.
expansion: puts related objects in full into the data.
keys: which keys the data has. changelog renders as NetBox's change log does.
"""

from .bulk import SHOWN, TAKEN_AT, Rendered, left_as_netbox_has_it, prepare, render
from .changelog import change_log
from .configcontext import data_of as config_contexts
from .gone import NOW

__all__ = (
    'NOW',
    'SHOWN',
    'TAKEN_AT',
    'Rendered',
    'change_log',
    'config_contexts',
    'left_as_netbox_has_it',
    'prepare',
    'render',
)
