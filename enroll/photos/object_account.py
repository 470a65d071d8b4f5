"""How a bucket is reached: credentials, endpoint and region, from where the cloud's own tools have
them.

obstore reads the environment, and asks the machine it runs on (instance, container and workload
identities). What the AWS tools read besides is added here: the shared files of profiles. Nothing
of it is kept anywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from enroll import clock
from enroll.addresses import is_loopback
from enroll.errors import UsageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Credential

RETRIES = 6
"""How often a request is sent again that the store refused for the moment, or did not answer."""

RETRY_SECONDS = 30
"""How long that may take in all."""

CONNECT_SECONDS, READ_SECONDS = 5, 30
"""How long is waited for a connection, and for the next bytes of an answer."""

RENEWED_SECONDS = 60
"""How long keys of a session are used before a profile's files are read again."""

_OWN_KEYS = (
    *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
"""Any of these says that the environment has the credentials."""

_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}
"""What allows an endpoint without TLS. That of `gs` is only ever an emulator's."""

_INDIRECT = ("role_arn", "sso_session", "sso_start_url", "credential_process")
"""What a profile has that does not hold the keys itself."""


def connect(bucket: str) -> ObjectStore:
    """A client of a bucket, given as scheme and name; it asks nothing yet.

    Raises UsageError without the extra `objects`, and where the settings cannot be used.
    """
    try:
        from obstore.store import from_url  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "Photos in a bucket need an extra: pip install 'enroll[objects]'."
        ) from error
    environ = os.environ
    _refuse_unprintable(environ)
    config: Any = CONFIGS[bucket.partition(":")[0]](environ)
    endpoint = config.get("endpoint") or config.get("base_url") or ""
    if endpoint:
        _check_endpoint(endpoint, bucket, environ)
    client: ClientConfig = {
        "allow_http": endpoint.lower().startswith("http://") or "use_emulator" in config,
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=READ_SECONDS),
        "timeout": timedelta(seconds=10 * READ_SECONDS),
    }
    if authority := environ.get("AWS_CA_BUNDLE"):
        client["root_certificate"] = _read(Path(authority), "AWS_CA_BUNDLE")
    provider: Any = _RenewedKeys(config) if "session_token" in config else None  # of a profile
    retry: RetryConfig = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}
    try:
        store: ObjectStore = from_url(
            bucket,
            config=config,
            client_options=client,
            retry_config=retry,
            credential_provider=provider,
        )
    except Exception as error:
        why = str(error).partition("\n")[0].rpartition(" error: ")[2].rstrip(".")
        raise UsageError(
            f"{bucket} cannot be used: {why}. Check the settings of the cloud's own tools, such as "
            "credentials, region and endpoint in the environment."
        ) from error
    return store


def _refuse_unprintable(environ: Mapping[str, str]) -> None:
    """Raise UsageError for a line end or the like in a setting: obstore would crash."""
    for name, value in environ.items():
        if name.startswith(("AWS_", "AZURE_")) and not value.isprintable():
            raise UsageError(f"{name} has a line end or a control character. Remove it.")


def _check_endpoint(endpoint: str, bucket: str, environ: Mapping[str, str]) -> None:
    """Raise UsageError for what is no endpoint, and for one without TLS beyond this machine."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port  # raises ValueError for none
    except ValueError:
        parts, port = urlsplit(""), 0
    host = parts.hostname or ""
    plain = endpoint.isprintable() and not set(" @?#") & set(endpoint) and port != 0
    if not (plain and host and parts.scheme in ("http", "https")):
        raise UsageError(
            f"The endpoint of {bucket} is no address such as https://minio.example:9000. Correct "
            "it in the environment or the profile."
        )
    allowed = _ALLOW_HTTP.get(bucket.partition(":")[0])
    if parts.scheme == "https" or is_loopback(host) or allowed is None:
        return
    if environ.get(allowed, "").lower() not in ("1", "true", "yes", "on"):
        raise UsageError(
            f"The endpoint of {bucket} is plain HTTP, which shows photos to everybody on the way. "
            f"Use https, or set {allowed}=true if that is acceptable here."
        )


def _google_config(environ: Mapping[str, str]) -> dict[str, Any]:
    emulator = environ.get("STORAGE_EMULATOR_HOST", "")
    if not emulator:
        return {}
    url = emulator if "://" in emulator else f"http://{emulator}"
    return {"base_url": url, "skip_signature": True}


def _azure_config(environ: Mapping[str, str]) -> dict[str, Any]:
    """What `az` reads and obstore does not: its names of account and key, and a connection string,
    which comes first, as there."""
    text = environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    parts = dict(part.strip().partition("=")[::2] for part in text.split(";") if part.strip())
    if "AZURE_STORAGE_USE_EMULATOR" in environ or parts.get("UseDevelopmentStorage") == "true":
        return {"use_emulator": True}
    account = parts.get("AccountName") or environ.get("AZURE_STORAGE_ACCOUNT")
    endpoint = parts.get("BlobEndpoint") or environ.get("AZURE_STORAGE_SERVICE_ENDPOINT")
    if not endpoint and account and (suffix := parts.get("EndpointSuffix")):
        protocol = parts.get("DefaultEndpointsProtocol", "https")
        endpoint = f"{protocol}://{account}.blob.{suffix}"
    config = {
        "account_name": account,
        "account_key": parts.get("AccountKey") or environ.get("AZURE_STORAGE_KEY"),
        "sas_key": parts.get("SharedAccessSignature"),
        "endpoint": (endpoint or environ.get("AZURE_STORAGE_ENDPOINT", "")).rstrip("/"),
    }
    return {name: value for name, value in config.items() if value}


def _aws_config(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the environment does not say, from the profile's section of the shared files."""
    name = environ.get("AWS_PROFILE", "default")
    home = Path(environ.get("HOME") or "/").joinpath(".aws")
    settings = _section(environ.get("AWS_CONFIG_FILE") or home / "config", name, prefixed=True)
    keys = _section(environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials", name)
    found = {**settings, **keys}
    config: dict[str, Any] = {}
    endpoint = (
        environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL")
        or environ.get("AWS_ENDPOINT")
        or found.get("endpoint_url")
    )
    if endpoint:
        config["endpoint"] = endpoint
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or found.get("region")
    if region:
        config["region"] = region
    if any(environ.get(one) for one in _OWN_KEYS):
        return config
    if "aws_access_key_id" in found:
        config["access_key_id"] = found["aws_access_key_id"]
        config["secret_access_key"] = found.get("aws_secret_access_key", "")
        if token := found.get("aws_session_token"):
            config["session_token"] = token
    elif any(one in found for one in _INDIRECT):
        raise UsageError(
            f"The AWS profile {name!r} holds no keys itself. Put them into the environment first: "
            f'eval "$(aws configure export-credentials --profile {name} --format env)"'
        )
    elif "AWS_PROFILE" in environ and not found:
        raise UsageError(
            f"There is no AWS profile {name!r} in {home}. Correct AWS_PROFILE, or run "
            f"aws configure --profile {name}."
        )
    return config


CONFIGS = {"s3": _aws_config, "gs": _google_config, "az": _azure_config}
"""What obstore needs to know from the environment, by scheme."""


class _RenewedKeys:
    """The keys of a profile with a session, which soon ends: read again where a tool renews them.
    obstore calls it before a request when what it had from it has expired."""

    refresh_threshold = timedelta(0)

    def __init__(self, config: dict[str, Any]) -> None:
        """Takes the keys out of `config`."""
        self._keys = self._taken(config)

    def __call__(self) -> S3Credential:
        with suppress(UsageError):  # the files are just being written
            self._keys = self._taken(_aws_config(os.environ)) or self._keys
        until = datetime.fromtimestamp(clock.time(), UTC) + timedelta(seconds=RENEWED_SECONDS)
        return {
            "access_key_id": self._keys["access_key_id"],
            "secret_access_key": self._keys["secret_access_key"],
            "token": self._keys.get("session_token"),
            "expires_at": until,
        }

    @staticmethod
    def _taken(config: dict[str, Any]) -> dict[str, str]:
        names = ("access_key_id", "secret_access_key", "session_token")
        return {name: config.pop(name) for name in names if name in config}


def _section(path: Path | str, name: str, *, prefixed: bool = False) -> dict[str, str]:
    """A profile's settings in a shared file; none where there is no file or no such profile."""
    section = f"profile {name}" if prefixed and name != "default" else name
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (Error, UnicodeDecodeError) as error:
        why = str(error).partition("\n")[0]
        raise UsageError(f"{path} cannot be read: {why}. Correct it.") from error
    return dict(parser[section]) if parser.has_section(section) else {}


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name} names {path}, which cannot be read: {error.strerror}.") from error
