"""Turns snapshots into the data of NetBox's REST API. It depends on NetBox's internals, not on the plugin's."""

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
