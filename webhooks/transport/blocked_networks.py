"""Refuses hosts at connect time (SSRF): names may change."""

import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

from urllib3.util.connection import allowed_gai_family

from .. import conf

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# A number as the last label makes it an IPv4 address (WHATWG URL, 3.5).
NUMBER = re.compile(r'(.+\.)?([0-9]+|0x[0-9a-f]*)\.*', re.IGNORECASE | re.ASCII)

# A look-up has so many descriptors open at once: a file, and a socket to the service that knows names.
LOOK_UP_DESCRIPTORS = 2


class Blocked(Exception):
    pass


def allowed(host: str, port: int) -> list[tuple]:
    """Return getaddrinfo's results that are allowed. Raises Blocked if none is."""
    found = _look_up(host, port, allowed_gai_family())
    kept = [info for info in found if not is_blocked(info[4][0])]
    if not kept:
        raise Blocked(f'{host} is at {found[0][4][0]}, which is in blocked_networks')
    return kept


def check_all(host: str) -> None:
    """Raises Blocked if any address is blocked, OSError for an unknown name, ValueError for an invalid address."""
    for address in _addresses(host):
        if is_blocked(address):
            raise Blocked(f'{host} is at {address}, which is in blocked_networks')


def _addresses(host: str) -> list[str]:
    """A proxy may have an address family that this machine lacks."""
    if ':' in host:
        # A look-up fails on machines without IPv6.
        return [str(ipaddress.IPv6Address(host))]
    return [info[4][0] for info in _look_up(host, 0, socket.AF_UNSPEC)]


def _look_up(host: str, port: int, family: int) -> list[tuple]:
    """Return getaddrinfo's results. Raises gaierror for an unknown name, OSError if this machine is short of something.

    What a look-up without descriptors raises depends on the machine's services for names. So it is asked for here.
    """
    asked = host.rstrip('.') if is_number(host) else host
    try:
        return socket.getaddrinfo(asked, port, family, socket.SOCK_STREAM)
    except OSError:
        with ExitStack() as opened:
            for _ in range(LOOK_UP_DESCRIPTORS):
                opened.enter_context(socket.socket())
        raise


def is_number(host: str) -> bool:
    return NUMBER.fullmatch(host) is not None


def is_blocked(address: str) -> bool:
    """Also an IPv4 address inside it."""
    ip = ipaddress.ip_address(address.partition('%')[0])
    settings = conf.get()
    networks = (*settings.blocked_networks, *settings.additional_blocked_networks)
    return any(one in network for one in _forms(ip) for network in networks if one.version == network.version)


# NAT64 (RFC 6052), SIIT (RFC 2765), IPv4-compatible (RFC 4291).
EMBEDDING = tuple(map(ipaddress.ip_network, ('64:ff9b::/96', '::ffff:0:0:0/96', '::/96')))
# RFC 8215. The IPv4 address moves with the local prefix's length.
LOCAL_NAT64 = ipaddress.IPv6Network('64:ff9b:1::/48')
# Its bytes, by that length in bits (RFC 6052, 2.2).
POSITIONS = {48: (6, 7, 9, 10), 56: (7, 9, 10, 11), 64: (9, 10, 11, 12), 96: (12, 13, 14, 15)}
THIS_NETWORK = ipaddress.IPv4Network('0.0.0.0/8')
# RFC 5214: these bits precede an IPv4 address.
ISATAP = (0x00005EFE, 0x02005EFE)


# The kernel connects here for an unspecified address.
LOOPBACK = {4: ipaddress.IPv4Address('127.0.0.1'), 6: ipaddress.IPv6Address('::1')}


def _forms(ip: Address) -> Iterator[Address]:
    for one in (ip, *(_inside(ip) if ip.version == 6 else ())):
        yield one
        if one.is_unspecified:
            yield LOOPBACK[one.version]


def _inside(ip: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
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
    """Yield all readings: the prefix's length is unknown."""
    for length, positions in POSITIONS.items():
        found = ipaddress.IPv4Address(bytes(ip.packed[position] for position in positions))
        # Zeros of a longer prefix are no address.
        if length == 96 or found not in THIS_NETWORK:
            yield found
