"""Objects of the 19 models, with all their relations.

`make_<model>(**fields)` saves one, `make_everything()` one per model. `change(instance)` makes a plausible update.
Names are unique, so a database can hold any number.
"""

from collections.abc import Callable

from django.db.models import Model

from .circuits import make_circuit, make_provider
from .dcim import (
    make_child_device,
    make_device,
    make_interface,
    make_rack,
    make_rack_group,
    make_site,
    make_wireless_interface,
)
from .ipam import (
    make_aggregate,
    make_ip_address,
    make_prefix,
    make_region_prefix,
    make_service,
    make_vlan,
    make_vlan_group,
    make_vm_ip_address,
    make_vm_service,
    make_vrf,
)
from .surroundings import some_tenant, unique
from .tenancy import make_tenant, make_tenant_group
from .virtualization import make_cluster, make_cluster_group, make_virtual_machine

MAKERS: dict[str, Callable[..., Model]] = {
    'dcim.site': make_site,
    'dcim.rack': make_rack,
    'dcim.rackgroup': make_rack_group,
    'dcim.device': make_device,
    'dcim.interface': make_interface,
    'ipam.vrf': make_vrf,
    'ipam.ipaddress': make_ip_address,
    'ipam.prefix': make_prefix,
    'ipam.aggregate': make_aggregate,
    'ipam.vlan': make_vlan,
    'ipam.vlangroup': make_vlan_group,
    'ipam.service': make_service,
    'tenancy.tenant': make_tenant,
    'tenancy.tenantgroup': make_tenant_group,
    'circuits.circuit': make_circuit,
    'circuits.provider': make_provider,
    'virtualization.cluster': make_cluster,
    'virtualization.clustergroup': make_cluster_group,
    'virtualization.virtualmachine': make_virtual_machine,
}

# The same models in other circumstances.
VARIANTS: dict[str, Callable[..., Model]] = {
    'unnamed child device': make_child_device,
    'wireless interface': make_wireless_interface,
    'address of a virtual machine': make_vm_ip_address,
    'prefix of a region': make_region_prefix,
    'service of a virtual machine': make_vm_service,
}


def make_everything() -> dict[str, Model]:
    return {label: make() for label, make in MAKERS.items()}


def change(instance: Model) -> Model:
    for name in ('name', 'description', 'comments'):
        if hasattr(instance, name):
            setattr(instance, name, unique('Changed'))
    if hasattr(instance, 'tenant'):
        instance.tenant = some_tenant()
    instance.custom_field_data |= {'cf_text': 'changed', 'cf_select': 'a', 'cf_multiobject': None}
    instance.save()
    return instance


def empty_relations(instance: Model) -> None:
    for field in instance._meta.many_to_many:
        getattr(instance, field.name).clear()


def strip(instance: Model) -> None:
    """Remove all optional values."""
    for field in instance._meta.concrete_fields:
        if field.null and field.editable and field.name != 'cable':
            setattr(instance, field.attname, None)
    instance.custom_field_data = {}
    instance.save()
    instance.refresh_from_db()
    empty_relations(instance)
