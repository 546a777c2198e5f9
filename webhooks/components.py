"""Names the components of devices, modules and virtual machines.

For a webhook with `include_components`, a change of a component is also an update of its owner.
"""

from collections.abc import Collection

from django.apps import apps
from django.db.models import Model

_MODULAR = (
    'dcim.consoleport', 'dcim.consoleserverport', 'dcim.powerport', 'dcim.poweroutlet', 'dcim.interface',
    'dcim.frontport', 'dcim.rearport', 'dcim.modulebay', 'dcim.coolingintake', 'dcim.coolingoutflow',
)  # fmt: skip
# They belong to an interface, which belongs to the owner.
_ADDRESSES = ('ipam.ipaddress', 'dcim.macaddress')
CABLE = 'dcim.cable'
SERVICE = 'ipam.service'

# {owner: its components}
COMPONENTS = {
    'dcim.device': (*_MODULAR, 'dcim.devicebay', 'dcim.inventoryitem', SERVICE, *_ADDRESSES, CABLE),
    'dcim.module': (*_MODULAR, *_ADDRESSES, CABLE),
    'virtualization.virtualmachine': (
        'virtualization.vminterface', 'virtualization.virtualdisk', SERVICE, *_ADDRESSES,
    ),
}  # fmt: skip
EVERY_COMPONENT = frozenset(label for labels in COMPONENTS.values() for label in labels)
# {column of a component: the owner that it points to}
COLUMNS = {
    'device_id': 'dcim.device',
    'module_id': 'dcim.module',
    'virtual_machine_id': 'virtualization.virtualmachine',
}


def models_of(owners: Collection[type[Model]]) -> set[type[Model]]:
    """Return the models of the components that these models may own; none for models that are no owners."""
    labels = {label for owner in owners for label in COMPONENTS.get(owner._meta.label_lower, ())}
    return {apps.get_model(label) for label in labels}


def owners() -> list[type[Model]]:
    """Return the models that have components."""
    return [apps.get_model(label) for label in COMPONENTS]
