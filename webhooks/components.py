"""For `include_components`."""

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
# Columns that point to the owner.
COLUMNS = {
    'device_id': 'dcim.device',
    'module_id': 'dcim.module',
    'virtual_machine_id': 'virtualization.virtualmachine',
}


def models_of(owners: Collection[type[Model]]) -> set[type[Model]]:
    labels = {label for owner in owners for label in COMPONENTS.get(owner._meta.label_lower, ())}
    return {apps.get_model(label) for label in labels}


def owners() -> list[type[Model]]:
    return [apps.get_model(label) for label in COMPONENTS]
