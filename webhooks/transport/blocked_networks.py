"""Where a connection may go: the addresses of a host, without those in `blocked_networks`.

Asked at connect time and for the addresses that are connected to, so that a name which leads elsewhere a moment
later is of no use.
"""

import ipaddress
import socket
from collections.abc import Iterator

from urllib3.util.connection import allowed_gai_family

from .. import conf


class Blocked(Exception):
    """Every address of the host is in `blocked_networks`."""


def allowed(host: str, port: int) -> list[tuple]:
    """Return what getaddrinfo says, without what is blocked. Raises Blocked where nothing is left."""
    found = socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM)
    kept = [info for info in found if not is_blocked(info[4][0])]
    if not kept:
        raise Blocked(f'{host} is at {found[0][4][0]}, which is in blocked_networks')
    return kept


def is_blocked(address: str) -> bool:
    """Whether an address, or the IPv4 address inside a mapped, NAT64 or 6to4 one, is in `blocked_networks`."""
    ip = ipaddress.ip_address(address.partition('%')[0])
    return any(
        one in network
        for one in _forms(ip)
        for network in conf.get().blocked_networks
        if one.version == network.version
    )


# Their addresses end in an IPv4 address: NAT64 (RFC 6052 and, of a local network, 8215), SIIT, and compatible ones.
EMBEDDING = tuple(map(ipaddress.ip_network, ('64:ff9b::/96', '64:ff9b:1::/48', '::ffff:0:0:0/96', '::/96')))


def _forms(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    yield ip
    if ip.version == 6:
        if ip.ipv4_mapped:
            yield ip.ipv4_mapped
        if ip.sixtofour:
            yield ip.sixtofour
        if any(ip in network for network in EMBEDDING) and not (ip.is_loopback or ip.is_unspecified):
            yield ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
