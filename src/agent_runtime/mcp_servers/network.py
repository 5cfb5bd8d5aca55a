"""The connections to all HTTP servers: direct or through a proxy, with the operator's certificates."""

import ssl

import httpx2

from agent_runtime.config import CERTIFICATE_VARIABLES, NETWORK_VARIABLES, Proxies, Proxy, Secrets
from agent_runtime.domain.errors import ConfigurationError


class Network:
    """The connections, shared by all sessions. Setting up TLS takes 20 ms, so it is done once, for the first of them.

    The service's environment names the proxies and certificates.
    """

    def __init__(self, secrets: Secrets) -> None:
        environ = secrets.read_variables(NETWORK_VARIABLES)
        self._proxies = Proxies.read(environ)
        self._certificates = {name: environ[name] for name in CERTIFICATE_VARIABLES if environ.get(name)}
        self._tls: ssl.SSLContext | None = None
        self._transports: dict[Proxy | None, httpx2.AsyncHTTPTransport] = {}

    def choose_proxy(self, url: httpx2.URL) -> Proxy | None:
        """Return the proxy for this URL; None for a direct connection."""
        return self._proxies.choose(url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme))

    def get_transport(self, proxy: Proxy | None) -> httpx2.AsyncBaseTransport:
        """Return the connections through this proxy. Raises: ConfigurationError naming the variable that is wrong."""
        if proxy not in self._transports:
            # No common ceiling: a server that holds on to its requests must not starve the others (G9).
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100)
            tls = self._load_certificates()
            self._transports[proxy] = httpx2.AsyncHTTPTransport(tls, limits=limits, proxy=_make_proxy(proxy, tls))
        return self._transports[proxy]

    def _load_certificates(self) -> ssl.SSLContext:
        if self._tls is None:
            file, folder = map(self._certificates.get, CERTIFICATE_VARIABLES)
            try:
                given = ssl.create_default_context(cafile=file, capath=folder) if self._certificates else None
            except OSError as error:
                names = " and ".join(f"{name} ({value})" for name, value in self._certificates.items())
                raise ConfigurationError(f"The certificates of {names} cannot be read: {error}.") from error
            self._tls = given or httpx2.create_ssl_context(trust_env=False)
        return self._tls

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.aclose()


def _make_proxy(proxy: Proxy | None, tls: ssl.SSLContext) -> httpx2.Proxy | None:
    if proxy is None:
        return None
    try:
        url = httpx2.URL(proxy.url if "://" in proxy.url else f"http://{proxy.url}")
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(
            f"The variable {proxy.variable} must name a proxy as http://HOST:PORT or https://HOST:PORT; "
            "NO_PROXY names the servers that are reached without one."
        )
    return httpx2.Proxy(url, ssl_context=tls if url.scheme == "https" else None)
