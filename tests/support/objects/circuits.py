from datetime import date
from decimal import Decimal
from typing import Any

from circuits.models import (
    Circuit,
    CircuitGroup,
    CircuitGroupAssignment,
    CircuitTermination,
    CircuitType,
    Provider,
    ProviderAccount,
    ProviderNetwork,
)

from .surroundings import dressed, make_asns, named, some_site, some_tenant, unique


def make_provider(**fields: Any) -> Provider:
    provider = dressed(Provider(**named('provider') | fields))
    provider.asns.set(make_asns(2))
    for name in ('Main', 'Other'):
        ProviderAccount.objects.create(provider=provider, account=unique('account'), name=name)
    Circuit.objects.create(cid=unique('C'), provider=provider, type=CircuitType.objects.create(**named('type')))
    return provider


def make_circuit(**fields: Any) -> Circuit:
    provider = Provider.objects.create(**named('provider'))
    given = {
        'cid': unique('C'),
        'provider': provider,
        'provider_account': ProviderAccount.objects.create(provider=provider, account=unique('account'), name='Main'),
        'type': CircuitType.objects.create(color='00ff00', **named('type')),
        'status': 'offline',
        'tenant': some_tenant(),
        'install_date': date(2024, 1, 31),
        'termination_date': date(2034, 1, 31),
        'commit_rate': 1000,
        'distance': Decimal('12.50'),
        'distance_unit': 'km',
    }
    circuit = dressed(Circuit(**given | fields))
    network = ProviderNetwork.objects.create(provider=provider, name=unique('network'))
    CircuitTermination.objects.create(circuit=circuit, term_side='A', termination=some_site(), port_speed=1000)
    CircuitTermination.objects.create(circuit=circuit, term_side='Z', termination=network, xconnect_id='X1')
    group = CircuitGroup.objects.create(**named('circuits'))
    CircuitGroupAssignment.objects.create(group=group, member=circuit, priority='primary')
    circuit.refresh_from_db()
    return circuit
