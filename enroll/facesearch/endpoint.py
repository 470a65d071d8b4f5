"""Where the service is, how this machine's settings lead there, and whether that is safe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy

from enroll.errors import UsageError
from enroll.facesearch.route import find_route, is_loopback
from enroll.facesearch.wire import tls_context
from enroll.model import CallKind

API_PATH = "/finauth/search/group/"


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

    Raises UsageError for what is no base URL, for plain HTTP that would leave this machine
    without `allow_http`, for certificates that cannot be read, and for a proxy that is not an
    HTTP one.
    """
    base, host = _checked_base(text, allow_http=allow_http)
    with requests.Session() as session:
        merged = session.merge_environment_settings(
            base, {}, None, str(ca_bundle) if ca_bundle else True, None
        )
    verify = DEFAULT_CA_BUNDLE_PATH if merged["verify"] is True else str(merged["verify"])
    # A proxy would carry what must not leave this machine off it.
    chosen = None if is_loopback(host) else select_proxy(base, merged["proxies"])
    proxies = {urlsplit(base).scheme: chosen} if chosen else {}
    try:
        find_route(base, proxies)
        if base.startswith("https:"):
            tls_context(verify)  # read now, and not by every thread at once
    except requests.exceptions.InvalidProxyURL as exc:
        raise UsageError(f"The environment's proxy cannot be used: {exc}.") from exc
    except OSError as exc:
        raise UsageError(f"The certificates in {verify} cannot be read: {exc}.") from exc
    return Endpoint(base, verify, proxies)


def _checked_base(text: str, *, allow_http: bool) -> tuple[str, str]:
    """The base URL as requests writes it, and its host."""
    try:
        given = urlsplit(text)
        url = requests.Request("POST", text).prepare().url or ""
        parts = urlsplit(url)
        port = given.port
    except (ValueError, requests.exceptions.RequestException) as exc:
        raise UsageError(f"{_shown(text)} is no URL: give one like https://HOST.") from exc
    host = parts.hostname
    if parts.scheme not in ("https", "http") or not host or port == 0 or not text.isprintable():
        raise UsageError(f"{_shown(text)} is no URL of a service: give one like https://HOST.")
    if "@" in given.netloc or "?" in text or "#" in text or " " in text:
        raise UsageError(
            "The endpoint's URL may hold scheme, host, port and path only: "
            "no user, query or fragment."
        )
    if parts.scheme == "http" and not (allow_http or is_loopback(host)):
        raise UsageError(
            f"{_shown(text)} is plain HTTP, which shows photos and signatures to everybody on "
            "the way: use https, or --allow-http if that is all right here."
        )
    return url.rstrip("/"), host


def _shown(text: str) -> str:
    """The URL for a message, without a password that somebody may have put in."""
    return repr(text.rpartition("@")[2][:200])
