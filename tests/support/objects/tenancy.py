from typing import Any

from dcim.models import Site
from ipam.models import VRF
from tenancy.models import Tenant, TenantGroup

from .surroundings import dressed, named, unique


def make_tenant_group(**fields: Any) -> TenantGroup:
    parent = TenantGroup.objects.create(parent=TenantGroup.objects.create(**named('holding')), **named('company'))
    group = dressed(TenantGroup(**named('tenants') | {'parent': parent} | fields))
    subsidiary = TenantGroup.objects.create(parent=group, **named('subsidiary'))
    Tenant.objects.create(group=subsidiary, **named('tenant'))
    return group


def make_tenant(**fields: Any) -> Tenant:
    tenant = dressed(Tenant(**named('tenant') | {'group': TenantGroup.objects.create(**named('tenants'))} | fields))
    Site.objects.create(tenant=tenant, **named('site'))
    VRF.objects.create(tenant=tenant, name=unique('VRF'))
    return tenant
