"""Where a connection may go: the addresses of a host, without those in `blocked_networks`.

Asked at connect time and for the addresses that are connected to, so that a name which leads elsewhere a moment
later is of no use.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator

from urllib3.util.connection import allowed_gai_family

from .. import conf

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# A host whose last label is a number is an IPv4 address in some form, and no name (WHATWG, URL, 3.5).
NUMBER = re.compile(r'(.+\.)?([0-9]+|0x[0-9a-f]*)\.*', re.IGNORECASE | re.ASCII)


class Blocked(Exception):
    """Every address of the host is in `blocked_networks`."""


def allowed(host: str, port: int) -> list[tuple]:
    """Return what getaddrinfo says, without what is blocked. Raises Blocked where nothing is left."""
    asked = host.rstrip('.') if is_number(host) else host
    found = socket.getaddrinfo(asked, port, allowed_gai_family(), socket.SOCK_STREAM)
    kept = [info for info in found if not is_blocked(info[4][0])]
    if not kept:
        raise Blocked(f'{host} is at {found[0][4][0]}, which is in blocked_networks')
    return kept


def check_all(host: str) -> None:
    """Raise Blocked if any address of the host is blocked: a proxy may connect to any of them.

    Raises OSError for a name that is not known here, ValueError for text that is no address.
    """
    for address in _addresses(host):
        if is_blocked(address):
            raise Blocked(f'{host} is at {address}, which is in blocked_networks')


def _addresses(host: str) -> list[str]:
    """Return all addresses of a host, of both families: a proxy may have one that this machine lacks."""
    if ':' in host:
        # Not looked up: that fails on a machine without IPv6.
        return [str(ipaddress.IPv6Address(host))]
    asked = host.rstrip('.') if is_number(host) else host
    return [info[4][0] for info in socket.getaddrinfo(asked, 0, socket.AF_UNSPEC, socket.SOCK_STREAM)]


def is_number(host: str) -> bool:
    """Whether the host is an IPv4 address in some form, or looks as if it were one."""
    return NUMBER.fullmatch(host) is not None


def is_blocked(address: str) -> bool:
    """Whether an address, or an IPv4 address that is inside of it, is in one of the blocked networks."""
    ip = ipaddress.ip_address(address.partition('%')[0])
    settings = conf.get()
    networks = (*settings.blocked_networks, *settings.additional_blocked_networks)
    return any(one in network for one in _forms(ip) for network in networks if one.version == network.version)


# Their addresses end in an IPv4 address: NAT64 (RFC 6052), SIIT (RFC 2765), and compatible ones (RFC 4291).
EMBEDDING = tuple(map(ipaddress.ip_network, ('64:ff9b::/96', '::ffff:0:0:0/96', '::/96')))
# NAT64 of a local network (RFC 8215). Where the IPv4 address is depends on the length of the network's own prefix.
LOCAL_NAT64 = ipaddress.IPv6Network('64:ff9b:1::/48')
# Bytes of the IPv4 address by that length, in bits (RFC 6052, 2.2). The byte 8 is always skipped.
POSITIONS = {48: (6, 7, 9, 10), 56: (7, 9, 10, 11), 64: (9, 10, 11, 12), 96: (12, 13, 14, 15)}
THIS_NETWORK = ipaddress.IPv4Network('0.0.0.0/8')
# ISATAP (RFC 5214): this stands before the IPv4 address, whatever the network is.
ISATAP = (0x00005EFE, 0x02005EFE)


# The kernel connects to these where it is asked for an unspecified address.
LOOPBACK = {4: ipaddress.IPv4Address('127.0.0.1'), 6: ipaddress.IPv6Address('::1')}


def _forms(ip: Address) -> Iterator[Address]:
    for one in (ip, *(_inside(ip) if ip.version == 6 else ())):
        yield one
        if one.is_unspecified:
            yield LOOPBACK[one.version]


def _inside(ip: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses that packets to the address may end at."""
    last = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.ipv4_mapped:
        yield ip.ipv4_mapped
    if ip.sixtofour:
        yield ip.sixtofour
    if ip.teredo:
        yield from ip.teredo  # the server, and the client behind it
    if int(ip) >> 32 & 0xFFFFFFFF in ISATAP:
        yield last
    if any(ip in network for network in EMBEDDING) and not (ip.is_loopback or ip.is_unspecified):
        yield last
    if ip in LOCAL_NAT64:
        yield from _behind_local_nat64(ip)


def _behind_local_nat64(ip: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield what the address may mean. We do not know the length of the prefix, so it is each of these."""
    for length, positions in POSITIONS.items():
        found = ipaddress.IPv4Address(bytes(ip.packed[position] for position in positions))
        # The zeros of a longer prefix, read as an address.
        if length == 96 or found not in THIS_NETWORK:
            yield found
