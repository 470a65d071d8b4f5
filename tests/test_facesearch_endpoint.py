"""Which base URLs may be used, and the environment's part in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases import cases
from facesearch_servers import LOCALHOST_CERTIFICATE

from enroll.errors import UsageError
from enroll.facesearch.endpoint import Endpoint, check_endpoint
from enroll.model import CallKind


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def check(text: str, *, allow_http: bool = False, ca_bundle: Path | None = None) -> Endpoint:
    return check_endpoint(text, ca_bundle=ca_bundle, allow_http=allow_http)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://api-sgp.yljz.com", "https://api-sgp.yljz.com/finauth/search/group/add"),
        ("https://api-sgp.yljz.com/", "https://api-sgp.yljz.com/finauth/search/group/add"),
        ("https://h:8443/a/b/", "https://h:8443/a/b/finauth/search/group/add"),
        ("http://127.0.0.1:80", "http://127.0.0.1:80/finauth/search/group/add"),
        ("http://127.9.9.9", "http://127.9.9.9/finauth/search/group/add"),
        ("http://[::1]:8080", "http://[::1]:8080/finauth/search/group/add"),
        ("http://localhost", "http://localhost/finauth/search/group/add"),
        ("http://LOCALHOST", "http://localhost/finauth/search/group/add"),
    ],
)
def test_https_and_http_to_this_machine_are_endpoints(text: str, url: str) -> None:
    assert check(text).url(CallKind.ADD) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://10.0.0.1",
        "http://api.test",
        "http://localhost.evil.test",
        "http://0.0.0.0",
        "http://[::]",
    ],
)
def test_plain_http_to_elsewhere_has_to_be_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="--allow-http"):
        check(text)
    assert check(text, allow_http=True).base == text


@cases(
    "text",
    [
        "",
        "api.test",
        "ftp://api.test",
        "https://",
        "https:///path",
        "https://h:0",
        "https://h:70000",
        "https://h:x",
        "https://[::1",
        "https://user:pass@h",
        "https://h?",
        "https://h/?a=b",
        "https://h/#f",
        "https://h/a b",
        " https://h",
        "https://h\r\nX: y",
        "http://127.0.0.1\\@evil.test",
        "https://" + "a" * 300 + ".test\x00",
    ],
)
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        check(text, allow_http=True)


def test_a_password_in_the_url_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        check("https://user:hunter2@h:70000")
    assert "hunter2" not in str(caught.value)


def test_certificates_that_cannot_be_read_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        check("https://h", ca_bundle=tmp_path / "missing.pem")
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(UsageError, match="cannot be read"):
        check("https://h", ca_bundle=empty)


def test_the_environments_certificates_are_used_unless_others_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = tmp_path / "theirs.pem", tmp_path / "ours.pem"
    for path in (theirs, ours):
        path.write_text(LOCALHOST_CERTIFICATE)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(theirs))
    assert check("https://h").verify == str(theirs)
    assert check("https://h", ca_bundle=ours).verify == str(ours)


def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    assert check("https://h").proxies == {"https": "http://proxy.test:3128"}
    monkeypatch.setenv("NO_PROXY", "h")
    assert check("https://h").proxies == {}


def test_what_stays_on_this_machine_goes_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("ALL_PROXY", "http://proxy.test:3128")
    for text in ("http://127.0.0.1:1", "http://localhost", "https://[::1]"):
        assert check(text).proxies == {}


@pytest.mark.parametrize(
    "proxy", ["socks5://u:hunter2@p:1", "https://u:hunter2@p", "http://u:hunter2@p:x"]
)
def test_a_proxy_that_is_not_plain_http_is_wrong_usage(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UsageError, match="proxy") as caught:
        check("https://h")
    shown = [str(caught.value), str(caught.value.__cause__), str(caught.value.__cause__.__cause__)]  # type: ignore[union-attr]
    assert not any("hunter2" in text for text in shown)
