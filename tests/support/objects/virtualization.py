from decimal import Decimal
from typing import Any

from virtualization.models import (
    Cluster,
    ClusterGroup,
    ClusterType,
    VirtualDisk,
    VirtualMachine,
    VirtualMachineType,
    VMInterface,
)

from .surroundings import (
    dressed,
    give_addresses,
    make_config_contexts,
    make_config_template,
    make_device_role,
    make_location,
    make_platform,
    named,
    some_device,
    some_site,
    some_tenant,
    unique,
)


def make_cluster_group(**fields: Any) -> ClusterGroup:
    group = dressed(ClusterGroup(**named('clusters') | fields))
    Cluster.objects.create(name=unique('cluster'), type=ClusterType.objects.create(**named('type')), group=group)
    return group


def make_cluster(**fields: Any) -> Cluster:
    given = {
        'name': unique('cluster'),
        'type': ClusterType.objects.create(**named('type')),
        'group': ClusterGroup.objects.create(**named('clusters')),
        'status': 'staging',
        'tenant': some_tenant(),
        'scope': make_location(some_site()),
    }
    cluster = dressed(Cluster(**given | fields))
    for vcpus in ('1.50', '2.25'):
        VirtualMachine.objects.create(name=unique('vm'), cluster=cluster, vcpus=Decimal(vcpus), memory=1024, disk=9)
    return cluster


def make_virtual_machine(**fields: Any) -> VirtualMachine:
    site = fields.get('site') or some_site()
    cluster = Cluster.objects.create(
        name=unique('cluster'),
        type=ClusterType.objects.create(**named('type')),
        group=ClusterGroup.objects.create(**named('clusters')),
        scope=site,
    )
    given = {
        'name': unique('vm'),
        'virtual_machine_type': VirtualMachineType.objects.create(**named('type')),
        'role': make_device_role(),
        'status': 'paused',
        'start_on_boot': 'on',
        'site': site,
        'cluster': cluster,
        'device': some_device(site, cluster=cluster),
        'platform': make_platform(),
        'vcpus': Decimal('2.50'),
        'memory': 4096,
        'tenant': some_tenant(),
        'serial': unique('S'),
        'config_template': make_config_template(),
        'local_context_data': {'local': True},
    }
    machine = dressed(VirtualMachine(**given | fields))
    make_config_contexts(machine)
    VirtualDisk.objects.create(virtual_machine=machine, name='disk0', size=50)
    interface = VMInterface.objects.create(virtual_machine=machine, name='eth0')
    # The database changed the disk's size and the counts.
    machine.refresh_from_db()
    give_addresses(machine, interface)
    machine.save()
    return machine
