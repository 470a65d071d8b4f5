"""The way to a URL: which host to connect to, through which proxy, and what to ask there."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from requests.exceptions import InvalidProxyURL, InvalidURL
from requests.utils import get_auth_from_url, prepend_scheme_if_needed, select_proxy

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `authorization` is the value of `Proxy-Authorization`, empty without one."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """What one connection leads to. Connections are kept by it."""

    host: str
    port: int
    tls: bool
    proxy: Proxy | None


@dataclass(frozen=True, slots=True)
class Route:
    """The origin of a URL, the `Host` to name, and the target of the request line."""

    origin: Origin
    authority: str
    target: str


def find_route(url: str, proxies: Mapping[str, str] | None) -> Route:
    """The route to `url`, an absolute http or https URL, by a mapping as requests keeps it.

    Raises requests' `InvalidProxyURL` for a proxy that is not `http://host:port`; its text
    does not repeat the proxy's address, which may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise InvalidURL("not an absolute http or https URL")
    tls = parts.scheme == "https"
    host, port = parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]
    authority = host_and_port(host, port) if parts.port else _bracketed(host)
    chosen = select_proxy(url, proxies)
    proxy = _read_proxy(chosen) if chosen else None
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if parts.query else path
    if proxy is not None and not tls:
        target = f"http://{authority}{target}"
    return Route(Origin(host, port, tls, proxy), authority, target)


def host_and_port(host: str, port: int) -> str:
    """`host:port`, with the brackets that an IPv6 address needs."""
    return f"{_bracketed(host)}:{port}"


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _read_proxy(text: str) -> Proxy:
    try:
        url: str = prepend_scheme_if_needed(text, "http")  # type: ignore[no-untyped-call]
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        # `from None`, because the cause repeats the address with its password.
        raise InvalidProxyURL("the proxy's address cannot be read") from None
    if parts.scheme != "http":
        raise InvalidProxyURL(f"{parts.scheme} proxies are not supported, only http:// ones")
    if not host:
        raise InvalidProxyURL("the proxy's address names no host")
    user, password = get_auth_from_url(url)
    if not user:
        return Proxy(host, port)
    token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return Proxy(host, port, f"Basic {token}")
