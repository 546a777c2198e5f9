"""Names the objects that have config contexts, and the objects whose changes give them other data.

For a webhook with `include_config_contexts`, such a change is also an update of each object whose data it changes. A
change of the object itself, of its tags or of its local data is an event of its own in any case.
"""

from collections.abc import Collection

from django.apps import apps
from django.db.models import Model

OWNERS = ('dcim.device', 'virtualization.virtualmachine')

CONFIG_CONTEXT = 'extras.configcontext'
# {source: its columns that decide which contexts apply to objects, or the data of these}. `weight` and `name` decide
# which context wins. Many-to-many fields of a context count too.
SOURCES = {
    CONFIG_CONTEXT: ('data', 'is_active', 'name', 'weight'),
    'dcim.devicerole': ('parent_id',),
    'dcim.location': ('parent_id',),
    'dcim.platform': ('parent_id',),
    'dcim.region': ('parent_id',),
    'dcim.site': ('group_id', 'region_id'),
    'dcim.sitegroup': ('parent_id',),
    'tenancy.tenant': ('group_id',),
    'virtualization.cluster': ('group_id', 'type_id'),
}


def owners(chosen: Collection[type[Model] | None]) -> list[type[Model]]:
    """Return the chosen models whose objects have config contexts."""
    return [model for model in map(apps.get_model, OWNERS) if model in chosen]


def sources() -> list[type[Model]]:
    """Return the models whose changes give other objects other data."""
    return [apps.get_model(label) for label in SOURCES]


def is_derived(caused_by: Collection[str] | None) -> bool:
    """Return whether these causes of an event are changes of sources, and not of components. Without causes: False."""
    return not SOURCES.keys().isdisjoint(caused_by or ())
