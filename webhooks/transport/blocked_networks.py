"""Refuses addresses in the blocked networks (SSRF).

A name may get another address at any time. So this is asked anew for each connection.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack

from urllib3.util.connection import allowed_gai_family

from .. import conf

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# If the last label is a number, browsers and proxies read the host as an IPv4 address (WHATWG URL, 3.5).
NUMERIC_HOST = re.compile(r'(.+\.)?([0-9]+|0x[0-9a-f]*)\.*', re.IGNORECASE | re.ASCII)

# A look-up has this many open at once: a file, and a socket to the service that knows names.
LOOK_UP_DESCRIPTORS = 2


class Blocked(Exception):
    """The host is in a blocked network. str() names host and address."""


def allowed(host: str, port: int) -> list[tuple]:
    """Look a host up, and return getaddrinfo's results that may be called.

    Raises Blocked if all are blocked, and OSError if the name is unknown or cannot be looked up now.
    """
    found = _look_up(host, port, allowed_gai_family())
    kept = [info for info in found if not is_blocked(info[4][0])]
    if not kept:
        raise Blocked(f'{host} is at {found[0][4][0]}, which is in blocked_networks')
    return kept


def check_all(host: str) -> None:
    """Check a host that a proxy is to call. The proxy may take any of its addresses.

    Raises Blocked if an address is blocked, OSError for an unknown name, ValueError for an invalid address.
    """
    for address in _addresses(host):
        if is_blocked(address):
            raise Blocked(f'{host} is at {address}, which is in blocked_networks')


def _addresses(host: str) -> list[str]:
    """Return the addresses of a host, as texts.

    They are of any family: a proxy may have one that this machine lacks.
    """
    if ':' in host:
        # Without IPv6 a look-up would fail on this machine, although the proxy may have IPv6.
        return [str(ipaddress.IPv6Address(host))]
    return [info[4][0] for info in _look_up(host, 0, socket.AF_UNSPEC)]


def _look_up(host: str, port: int, family: int) -> list[tuple]:
    """Return getaddrinfo's results. Raises gaierror for an unknown name, OSError if this machine is short of something.

    Without free descriptors a look-up may fail as if the name were unknown: that depends on the machine's services for
    names. So after a failure check_descriptors() raises the right error.
    """
    asked = host.rstrip('.') if is_number(host) else host
    try:
        return socket.getaddrinfo(asked, port, family, socket.SOCK_STREAM)
    except OSError:
        check_descriptors()
        raise


def check_descriptors() -> None:
    """Open as many descriptors as a look-up does, and close them. Raises OSError if this machine has too few left."""
    with ExitStack() as opened:
        for _ in range(LOOK_UP_DESCRIPTORS):
            opened.enter_context(socket.socket())


def is_number(host: str) -> bool:
    """Return whether the host ends with a number, such as 127.1: many programs read that as an IPv4 address."""
    return NUMERIC_HOST.fullmatch(host) is not None


def is_blocked(address: str) -> bool:
    """Return whether the settings block the address, or an IPv4 address inside it.

    `address` is a text, and may end with a zone (`%eth0`). An unspecified address counts as loopback too.
    """
    ip = ipaddress.ip_address(address.partition('%')[0])
    settings = conf.get()
    networks = (*settings.blocked_networks, *settings.additional_blocked_networks)
    return any(one in network for one in _forms(ip) for network in networks if one.version == network.version)


# Their last four bytes are an IPv4 address: NAT64 (RFC 6052), SIIT (RFC 2765), IPv4-compatible (RFC 4291).
EMBEDDING_NETWORKS = tuple(map(ipaddress.ip_network, ('64:ff9b::/96', '::ffff:0:0:0/96', '::/96')))
# NAT64 with a prefix of the network's own (RFC 8215). Its length decides where the IPv4 address stands.
LOCAL_NAT64 = ipaddress.IPv6Network('64:ff9b:1::/48')
# By the prefix's length in bits: which bytes are the IPv4 address (RFC 6052, 2.2).
LOCAL_NAT64_POSITIONS = {48: (6, 7, 9, 10), 56: (7, 9, 10, 11), 64: (9, 10, 11, 12), 96: (12, 13, 14, 15)}
# No host has an address in it.
THIS_NETWORK = ipaddress.IPv4Network('0.0.0.0/8')
# ISATAP (RFC 5214): after these 32 bits the last 32 are an IPv4 address.
ISATAP_MARKS = (0x00005EFE, 0x02005EFE)


# By version. If 0.0.0.0 or :: is called, the kernel connects here.
LOOPBACK = {4: ipaddress.IPv4Address('127.0.0.1'), 6: ipaddress.IPv6Address('::1')}


def _forms(ip: Address) -> Iterator[Address]:
    """Yield the address, the IPv4 addresses inside it, and loopback for an unspecified one."""
    for one in (ip, *(_inside(ip) if ip.version == 6 else ())):
        yield one
        if one.is_unspecified:
            yield LOOPBACK[one.version]


def _inside(ip: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses that routers or tunnels may take out of this IPv6 address."""
    last = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.ipv4_mapped:
        yield ip.ipv4_mapped
    if ip.sixtofour:
        yield ip.sixtofour
    if ip.teredo:
        yield from ip.teredo  # the server, and the client behind it
    if int(ip) >> 32 & 0xFFFFFFFF in ISATAP_MARKS:
        yield last
    if any(ip in network for network in EMBEDDING_NETWORKS) and not (ip.is_loopback or ip.is_unspecified):
        yield last
    if ip in LOCAL_NAT64:
        yield from _behind_local_nat64(ip)


def _behind_local_nat64(ip: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 address of each possible length of the prefix: only the network's own routers know it."""
    for length, positions in LOCAL_NAT64_POSITIONS.items():
        found = ipaddress.IPv4Address(bytes(ip.packed[position] for position in positions))
        # If the prefix is longer in fact, this reads its zeros, and finds no host's address.
        if length == 96 or found not in THIS_NETWORK:
            yield found
