"""Edges of blocked networks, and getaddrinfo's answers. See also test_client.py."""

import ipaddress
import socket

import pytest
from support.settings import change_settings

from webhooks.transport.blocked_networks import Blocked, allowed, is_blocked


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch):
    def block(*texts: str) -> None:
        networks = tuple(map(ipaddress.ip_network, texts))
        change_settings(monkeypatch, blocked_networks=networks)

    return block


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch):
    def answer(*addresses: str) -> None:
        known = socket.getaddrinfo
        found = [info for address in addresses for info in known(address, 80, 0, socket.SOCK_STREAM)]
        monkeypatch.setattr(socket, 'getaddrinfo', lambda *_args: found)

    return answer


def addresses(host: str) -> list[str]:
    return [info[4][0] for info in allowed(host, 80)]


# An edge of a blocked network, and its neighbour outside.
EDGES = [
    ('0.255.255.255', '1.0.0.0'),
    ('169.254.0.0', '169.253.255.255'),
    ('169.254.255.255', '169.255.0.0'),
    ('224.0.0.0', '223.255.255.255'),
    ('239.255.255.255', '240.0.0.0'),
    ('255.255.255.255', '255.255.255.254'),
    ('192.0.0.192', '192.0.0.193'),
    ('fe80::', 'fe7f:ffff::'),
    ('febf:ffff::', 'fec0::'),
    ('ff00::', 'feff:ffff::'),
    ('fd00:ec2::254', 'fd00:ec2::253'),
]


@pytest.mark.parametrize(('inside', 'outside'), EDGES)
def test_the_default_networks_end_at_their_edges(inside, outside):
    assert is_blocked(inside)
    assert not is_blocked(outside)


@pytest.mark.parametrize(
    'address', ['64:ff9b::10.0.0.1', '64:ff9b:1::127.0.0.1', '2002:0a00:0001::', '::ffff:127.0.0.1']
)
def test_another_form_of_an_allowed_address_is_allowed(address):
    assert not is_blocked(address)


@pytest.mark.parametrize('address', ['::1', '2001:db8::a9fe:a9fe', '64:ff9c::a9fe:a9fe', '2003:a9fe:a9fe::'])
def test_an_address_that_only_looks_like_a_form_of_a_blocked_one_is_allowed(address):
    """::1 is not the compatible form of 0.0.0.1, which is blocked."""
    assert not is_blocked(address)


def test_the_network_of_a_form_can_be_blocked_itself(block):
    block('64:ff9b::/96')
    assert is_blocked('64:ff9b::93.184.216.34')
    assert not is_blocked('93.184.216.34')


def test_nothing_is_blocked_where_nothing_is_listed(block):
    assert is_blocked('169.254.169.254')
    block()
    assert not is_blocked('169.254.169.254')


@pytest.mark.parametrize('zone', ['%1', '%lo', '%25eth0'])
def test_a_zone_hides_nothing(block, zone):
    block('fd00::/8')
    assert is_blocked(f'fd00::1{zone}')
    assert not is_blocked(f'2001:db8::1{zone}')


class TestAnswers:
    def test_allowed_addresses_of_a_name_keep_their_order(self, answer):
        answer('10.0.0.2', '169.254.169.254', '::1', '::ffff:169.254.169.254', '10.0.0.1')
        assert addresses('mixed.example') == ['10.0.0.2', '::1', '10.0.0.1']

    def test_an_error_names_host_and_address_where_none_is_left(self, answer):
        answer('169.254.169.254', 'fe80::1')
        with pytest.raises(Blocked, match=r'metadata\.example is at 169\.254\.169\.254'):
            allowed('metadata.example', 80)

    def test_a_name_that_nobody_knows_is_an_error(self):
        with pytest.raises(socket.gaierror):
            allowed('nowhere.invalid', 80)

    def test_the_port_is_in_the_answer(self):
        assert {info[4][1] for info in allowed('127.0.0.1', 8080)} == {8080}
