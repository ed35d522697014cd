"""What the name of a host tells."""

import ipaddress
import re
from collections.abc import Collection

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
"""The value of a `Host` header: a name or an address, and perhaps a port."""


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, by its name or address alone."""
    return host == "localhost" or ((address := _address(host)) is not None and address.is_loopback)


def is_served(host: str, names: Collection[str]) -> bool:
    """Return whether a `Host` header is one of ours at any port: localhost, an address, or one of `names`.

    A page elsewhere may give its own name the address of this machine, and then reads whatever is served to that name
    (DNS rebinding). It cannot do so with an address.
    """
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = match[1].strip("[]").lower().removesuffix(".")
    return name == "localhost" or name in names or _address(name) is not None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
