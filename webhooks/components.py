"""What belongs to a device, a module or a virtual machine: for `include_components` its changes are theirs as well."""

from collections.abc import Collection

from django.apps import apps
from django.db.models import Model

_MODULAR = (
    'dcim.consoleport', 'dcim.consoleserverport', 'dcim.powerport', 'dcim.poweroutlet', 'dcim.interface',
    'dcim.frontport', 'dcim.rearport', 'dcim.modulebay', 'dcim.coolingintake', 'dcim.coolingoutflow',
)  # fmt: skip
# At interfaces.
_ADDRESSES = ('ipam.ipaddress', 'dcim.macaddress')
CABLE, SERVICE = 'dcim.cable', 'ipam.service'

COMPONENTS = {
    'dcim.device': (*_MODULAR, 'dcim.devicebay', 'dcim.inventoryitem', SERVICE, *_ADDRESSES, CABLE),
    'dcim.module': (*_MODULAR, *_ADDRESSES, CABLE),
    'virtualization.virtualmachine': (
        'virtualization.vminterface', 'virtualization.virtualdisk', SERVICE, *_ADDRESSES,
    ),
}  # fmt: skip
EVERY_COMPONENT = frozenset(label for labels in COMPONENTS.values() for label in labels)
# Columns by which a component points to what it belongs to.
COLUMNS = {
    'device_id': 'dcim.device',
    'module_id': 'dcim.module',
    'virtual_machine_id': 'virtualization.virtualmachine',
}


def models_of(owners: Collection[type[Model]]) -> set[type[Model]]:
    """Return the models of what belongs to objects of these models."""
    labels = {label for owner in owners for label in COMPONENTS.get(owner._meta.label_lower, ())}
    return {apps.get_model(label) for label in labels}


def owners() -> list[type[Model]]:
    return [apps.get_model(label) for label in COMPONENTS]
