"""Proxies and CA certificates that the environment names."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
NETWORK_VARIABLES = (
    *(name for upper in _PROXY_VARIABLES for name in (upper, upper.lower())),
    *CERTIFICATE_VARIABLES,
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_ENV_PROXY",
)
"""The variables with which common programs find proxies and CA certificates."""

PACKAGE_VARIABLES = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
    *("npm_config_registry", "npm_config_proxy", "npm_config_https_proxy", "npm_config_cafile", "NPM_CONFIG_REGISTRY"),
)
"""The variables with which uv, pip and npm find packages."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """The URL of a proxy, and the variable that names it."""

    variable: str
    url: str


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies by scheme, and the hosts to reach directly. As in curl, lower-case variables take precedence."""

    http: Proxy | None = None
    https: Proxy | None = None
    direct: tuple[str, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read the proxies from an environment."""
        http, https, every, direct = (_find_proxy(environ, name) for name in _PROXY_VARIABLES)
        hosts = tuple(host.strip().lower() for host in direct.url.split(",") if host.strip()) if direct else ()
        return cls(http or every, https or every, hosts)

    def choose(self, scheme: str, host: str, port: int | None) -> Proxy | None:
        """Return the proxy for a host, or None to connect directly, as always to this machine."""
        name, address = host.strip("[]").lower().rstrip("."), _read_address(host.strip("[]"))
        if name == "localhost" or (address is not None and address.is_loopback):
            return None
        if any(_covers(entry, name, address, port) for entry in self.direct):
            return None
        return self.https if scheme == "https" else self.http


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _find_proxy(environ: Mapping[str, str], name: str) -> Proxy | None:
    for variable in (name.lower(), name):
        if value := environ.get(variable, "").strip():
            return Proxy(variable, value)
    return None


def _read_address(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _covers(entry: str, host: str, address: _Address | None, port: int | None) -> bool:
    """Return whether an item of NO_PROXY covers a host. An item is `*`, a domain, an address or a network."""
    if entry == "*":
        return True
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        name, colon, digits = entry.rpartition(":")
        if colon and digits.isdecimal():
            return int(digits) == port and _covers(name, host, address, port)
        name = entry.removeprefix("*").removeprefix(".").rstrip(".")
        return address is None and bool(name) and (host == name or host.endswith(f".{name}"))
    return address is not None and address in network
