"""Where the service is: its base URL checked, the route there, and the certificates to trust."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.exceptions import InvalidProxyURL, InvalidURL
from requests.utils import (
    DEFAULT_CA_BUNDLE_PATH,
    get_auth_from_url,
    prepend_scheme_if_needed,
    select_proxy,
)

from enroll.addresses import is_loopback
from enroll.errors import UsageError
from enroll.model import CallKind

API_PATH = "/finauth/search/group/"

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked base URL without a final slash, and how to reach it.

    `verify` is the path of trusted certificates; `proxies` as requests takes them.
    """

    base: str
    verify: str
    proxies: Mapping[str, str]

    def url(self, kind: CallKind) -> str:
        """The URL of a call."""
        return f"{self.base}{API_PATH}{kind.value}"


def check_endpoint(text: str, *, ca_bundle: Path | None, allow_http: bool) -> Endpoint:
    """The endpoint of a base URL; reads the environment's proxy and certificate settings once.

    Raises UsageError for text that is no base URL, for plain HTTP that would leave this machine
    without `allow_http`, for certificates that cannot be read, and for a proxy that is not an
    HTTP one.
    """
    base, host = _checked_base(text, allow_http=allow_http)
    with requests.Session() as session:
        merged = session.merge_environment_settings(
            base, {}, None, str(ca_bundle) if ca_bundle else True, None
        )
    verify = DEFAULT_CA_BUNDLE_PATH if merged["verify"] is True else str(merged["verify"])
    # A proxy would take off this machine what must not leave it.
    chosen = None if is_loopback(host) else select_proxy(base, merged["proxies"])
    proxies = {urlsplit(base).scheme: chosen} if chosen else {}
    try:
        find_route(base, proxies)
        if base.startswith("https:"):
            tls_context(verify)  # read now, and not by every thread at once
    except InvalidProxyURL as exc:
        raise UsageError(
            f"The proxy that the environment names cannot be used: {exc}. Check "
            "HTTPS_PROXY and the related variables."
        ) from exc
    except OSError as exc:
        raise UsageError(
            f"The certificates in {verify} cannot be read: {exc}. Check --ca-bundle."
        ) from exc
    return Endpoint(base, verify, proxies)


def _checked_base(text: str, *, allow_http: bool) -> tuple[str, str]:
    """The base URL as requests writes it, and its host."""
    try:
        given = urlsplit(text)
        url = requests.Request("POST", text).prepare().url or ""
        parts = urlsplit(url)
        port = given.port
    except (ValueError, requests.exceptions.RequestException) as exc:
        raise UsageError(f"{_shown(text)} is not a URL: give one like https://HOST.") from exc
    host = parts.hostname
    if parts.scheme not in ("https", "http") or not host or port == 0 or not text.isprintable():
        raise UsageError(f"{_shown(text)} is not the URL of a service: give one like https://HOST.")
    if "@" in given.netloc or "?" in text or "#" in text or " " in text:
        raise UsageError(
            "The endpoint's URL may only have scheme, host, port and path: no user, query or "
            "fragment. Correct --endpoint."
        )
    if parts.scheme == "http" and not (allow_http or is_loopback(host)):
        raise UsageError(
            f"{_shown(text)} is plain HTTP, which shows photos and signatures to everybody on the "
            "way. Use https, or --allow-http if that is acceptable here."
        )
    return url.rstrip("/"), host


def _shown(text: str) -> str:
    """The URL for a message, without a password that it may hold."""
    return repr(text.rpartition("@")[2][:200])


@lru_cache(maxsize=8)
def tls_context(verify: str) -> ssl.SSLContext:
    """The context that trusts `verify`, a file or folder; OSError when it cannot be read.

    One for the process, because reading the certificates takes as long as many calls.
    """
    folder = Path(verify).is_dir()
    return ssl.create_default_context(
        cafile=None if folder else verify, capath=verify if folder else None
    )


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `authorization` is the value of `Proxy-Authorization`, empty without one."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Origin:
    """What one connection leads to, and the key by which connections are kept."""

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
