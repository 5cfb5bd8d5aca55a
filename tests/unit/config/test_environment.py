"""The proxy for a host, from the usual environment variables."""

import pytest

from agent_runtime.config import Proxies, Proxy, Secrets

BOTH = {"HTTP_PROXY": "http://plain:1", "HTTPS_PROXY": "http://secure:2"}


def test_a_scheme_has_its_own_proxy_and_a_name_in_lower_case_counts_first() -> None:
    proxies = Proxies.read({**BOTH, "http_proxy": "http://lower:3"})
    assert proxies.choose("http", "mcp.example", 80) == Proxy("http_proxy", "http://lower:3")
    assert proxies.choose("https", "mcp.example", 443) == Proxy("HTTPS_PROXY", "http://secure:2")


def test_all_proxy_serves_the_schemes_that_have_none_of_their_own() -> None:
    proxies = Proxies.read({"ALL_PROXY": "http://every:1", "HTTPS_PROXY": "http://secure:2"})
    assert proxies.choose("http", "mcp.example", 80) == Proxy("ALL_PROXY", "http://every:1")
    assert proxies.choose("https", "mcp.example", 443) == Proxy("HTTPS_PROXY", "http://secure:2")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.0.1", "::1", "[::1]"])
def test_this_machine_is_never_reached_through_a_proxy(host: str) -> None:
    assert Proxies.read(BOTH).choose("http", host, 80) is None


@pytest.mark.parametrize(
    ("direct", "host"),
    [
        ("*", "mcp.example"),
        ("mcp.example", "mcp.example"),
        ("MCP.example", "mcp.Example."),
        ("mcp.example", "eu.mcp.example"),
        (".example", "mcp.example"),
        ("*.example", "mcp.example"),
        ("other.example, mcp.example", "mcp.example"),
        ("mcp.example:8443", "mcp.example"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3:8443", "10.1.2.3"),
        ("fd00::/8", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
    ],
)
def test_what_no_proxy_names_is_reached_directly(direct: str, host: str) -> None:
    assert Proxies.read({**BOTH, "NO_PROXY": direct}).choose("https", host, 8443) is None


@pytest.mark.parametrize(
    ("direct", "host"),
    [
        ("", "mcp.example"),
        ("cp.example", "mcp.example"),
        ("mcp.example:443", "mcp.example"),
        ("eu.mcp.example", "mcp.example"),
        ("10.0.0.0/8", "11.0.0.1"),
        ("10", "1.1.1.10"),
        ("fd00::/8", "10.1.2.3"),
    ],
)
def test_what_no_proxy_does_not_name_is_reached_through_it(direct: str, host: str) -> None:
    assert Proxies.read({**BOTH, "NO_PROXY": direct}).choose("https", host, 8443) is not None


@pytest.mark.parametrize("proxy", ["http://me:hunter22@proxy:3128", "me:hunter22@proxy:3128"])
def test_the_password_of_a_proxy_is_redacted_from_then_on(proxy: str) -> None:
    secrets = Secrets(environ={"HTTP_PROXY": proxy, "OTHER": "x", "EMPTY": ""})
    assert list(secrets.read_variables(["HTTP_PROXY", "EMPTY", "GONE"])) == ["HTTP_PROXY"]
    assert secrets.redactor.redact("the password hunter22 was refused") == "the password [redacted] was refused"
    assert secrets.redactor.redact("bWU6aHVudGVyMjI=") == "[redacted]"
