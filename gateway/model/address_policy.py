"""Which addresses a registered server may have: the gateway must not be a way into the network it stands in.

Reads every spelling of an IPv4 address that a resolver would (octal, hex, decimal, short, trailing dots) and looks
into IPv6 addresses that carry an IPv4 one. Sources: RFC 6890, 6052 (NAT64), 3056 (6to4), 4380 (Teredo).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_METADATA = frozenset(
    ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")  # for use within one network (RFC 8215), with a prefix of any length
_NEVER = (IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4"), IPv4Network("255.255.255.255/32"))
_SHARED = IPv4Network("100.64.0.0/10")
_NAME = re.compile(r"[A-Za-z0-9*?._-]{1,253}")
_PART = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which private and loopback addresses servers may have all the same: by network, or by the name of the host."""

    everything: bool = False
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def read(cls, entries: Iterable[str], *, everything: bool = False) -> Allowed:
        """Read networks (`10.1.0.0/16`), addresses, host names and globs (`*.corp.example`). Raises ValueError."""
        networks: list[IPv4Network | IPv6Network] = []
        names: list[str] = []
        for entry in entries:
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if not _NAME.fullmatch(entry):
                    raise ValueError(f"{entry!r} is no network, address, host name or glob") from None
                names.append(entry.lower().rstrip("."))
        return cls(everything, tuple(networks), tuple(names))

    def private(self, host: str, address: Address) -> bool:
        """Tell whether a server at `host`, which has `address`, may be at a private one."""
        name = host.lower().rstrip(".")
        return (
            self.everything
            or any(address in network for network in self.networks if network.version == address.version)
            or any(fnmatchcase(name, pattern) for pattern in self.names)
        )


def refusal(address: Address, *, allow_private: bool) -> str | None:
    """Say why a server must not have this address, or None if it may."""
    for each in (address, *_carried(address)):
        if each in _METADATA:
            return "it is the address of a cloud's metadata service"
        if each.is_link_local:
            return "it is a link-local address"
        if each.is_multicast:
            return "it is a multicast address"
        if each.is_unspecified or (isinstance(each, IPv4Address) and any(each in net for net in _NEVER)):
            return "it is a reserved address"
        if not allow_private and not _public(each):
            kind = "a loopback" if each.is_loopback else "a private"
            return (
                f"it is {kind} address. The operator can allow it: GATEWAY_ALLOWED_UPSTREAMS takes networks and host "
                "names, GATEWAY_ALLOW_PRIVATE_UPSTREAMS=true allows all"
            )
    return None


def literal(host: str) -> Address | None:
    """Read a host that is an address in any spelling; None for a name. Raises ValueError for a broken one."""
    host = host.rstrip(".")
    if ":" in host:
        return IPv6Address(host.partition("%")[0])
    parts = host.split(".")
    if not _PART.fullmatch(parts[-1]):
        return None
    if len(parts) > 4 or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError("it looks like an address, but is none")
    numbers = [_number(part) for part in parts]
    *head, last = numbers
    if any(number > 255 for number in head) or last >= 256 ** (5 - len(numbers)):
        raise ValueError("it looks like an address, but is none")
    return IPv4Address(sum(number << (24 - 8 * at) for at, number in enumerate(head)) + last)


def _number(part: str) -> int:
    if part[:2] in ("0x", "0X"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if len(part) > 1 and part.startswith("0") else 10)


def _public(address: Address) -> bool:
    """Whether it is meant for the public net; what an IPv6 address carries is judged by itself."""
    if isinstance(address, IPv4Address):
        return address.is_global and address not in _SHARED
    if address in _LOCAL_NAT64:
        return False
    if address.sixtofour is not None or address in _NAT64:
        return True
    return address.is_global and not address.is_site_local


def _carried(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or int(address) >> 32 == 0:
        found.append(IPv4Address(int(address) & 0xFFFFFFFF))
    if int(address) >> 32 == 0 and int(address) < 2:
        found.pop()  # :: and ::1 are themselves
    if address in _LOCAL_NAT64:
        found += [each for each in _translated(int(address)) if each not in _NEVER[0]]
    return [each for each in found if each is not None]


def _translated(address: int) -> list[IPv4Address]:
    """The IPv4 addresses that a translator with a prefix of 48, 56, 64 or 96 bits would read (RFC 6052, 2.2)."""
    plain = (address >> 64 << 56) | (address & (1 << 56) - 1)  # without the octet of bits 64 to 71, which is 0
    places = [plain >> 120 - prefix - 32 for prefix in (48, 56, 64)]
    return [IPv4Address(each & 0xFFFFFFFF) for each in (*places, address)]
