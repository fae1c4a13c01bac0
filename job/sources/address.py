"""Which addresses a URL of a spec may reach: public ones only (no SSRF).

A job may be started by somebody who must not see what this machine can: the cloud's metadata
service, its neighbours, itself. Names are resolved here, once, and the caller connects to what was
checked, so that a second answer of the name server (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

from job.errors import AccessRefused, NotFound, Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
IsAllowed = Callable[[Address], bool]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: its last 32 bits are an IPv4 address


def is_global(address: Address) -> bool:
    """Whether this is one machine on the public internet, also inside the IPv6 forms of IPv4."""
    inner = _embedded(address)
    if inner is not None:
        return is_global(inner)
    is_odd = address.is_multicast or address.is_reserved or address.is_unspecified
    is_near = address.is_private or address.is_loopback or address.is_link_local
    is_site = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not (is_odd or is_near or is_site)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a packet to this IPv6 address ends up at."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo


def resolve(host: str, port: int, is_allowed: IsAllowed, where: str) -> list[Address]:
    """All addresses of a host, each allowed.

    Raises:
        AccessRefused: one of them is not; a name with a public and a private address is a trick.
        NotFound: the name does not exist.
        Unavailable: the name server does not answer.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise Unavailable(f"{where}: the name {host} cannot be looked up now.") from error
        raise NotFound(f"{where}: there is no host {host}; correct the address.") from error
    except UnicodeError as error:
        raise NotFound(f"{where}: {host!r} is no host name; correct the address.") from error
    addresses = [ipaddress.ip_address(info[4][0]) for info in found]
    for address in addresses:
        if not is_allowed(address):
            raise AccessRefused(
                f"{where}: {host} is {address}, which is no public address; it is refused. Put the "
                "file on a public server, on S3 or on the Hub, or mount it as a path."
            )
    return list(dict.fromkeys(addresses))
