"""A server that is not the limit: nginx on loopback, with the answers of a service that has room.

It reads a call's body and throws it away, checks nothing and answers at once. `$request_id` is 32
hexadecimal digits, fresh for every request, and so the face token of every `add`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import trustme

from .programs import need

GROUP_ID = "staff"
ADD_TIME = "2026-01-01T00:00:00Z"
ADD = "/finauth/search/group/add"

_AUTHORITY, _CERTIFICATE = "authority.pem", "certificate.pem"

_START_SECONDS = 10.0
_TRIES = 5
"""A free port can be taken by somebody else before nginx has it."""

_LIBRARY = {
    "group_id": GROUP_ID,
    "group_name": GROUP_ID,
    "group_data": "",
    "model_version": "s21",
    "add_time": ADD_TIME,
}
_ANSWERS: dict[str, dict[str, object]] = {
    "add": {"group_id": GROUP_ID, "face_token": "$request_id"},
    "group_list": {"group_infos": [_LIBRARY]},
    "list": {"face_tokens": []},
}

_CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
events {{ worker_connections 2048; }}
http {{
  log_format moments '$msec $request_time $uri';
  access_log {access_log};
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 3m;
  keepalive_requests 100000000;
  keepalive_timeout 60;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port}{tls};
{locations}
    location / {{ return 404 '{{"error":"API_NOT_FOUND"}}'; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running server; `log` and `authority`, the certificate to trust, are there when it keeps a
    log and has TLS."""

    endpoint: str
    log: Path
    authority: Path

    def first_add(self) -> float | None:
        """When the first `add` arrived, in UNIX seconds; None before it was answered."""
        for line in self.log.read_text(encoding="ascii").splitlines():
            ended, took, path = line.split(" ", 2)
            if path == ADD:
                return float(ended) - float(took)
        return None

    def forget(self) -> None:
        """Empty the log."""
        with self.log.open("r+b") as file:  # nginx appends to it
            file.truncate(0)


@contextmanager
def running(*, logged: bool = False, tls: bool = False) -> Iterator[Nginx]:
    """Start nginx on a free port, and stop it in the end; `logged` has it note every request.
    With `tls` it has a certificate for 127.0.0.1, whose authority is made for it alone.

    Raises MissingError where there is no nginx.
    """
    program = need("nginx")
    folder = Path(tempfile.mkdtemp(prefix="enroll-bench-"))
    try:
        if tls:
            _certify(folder)
        process, port = _started(program, folder, logged=logged, tls=tls)
        try:
            endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            yield Nginx(endpoint, folder / "access.log", folder / _AUTHORITY)
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(folder)


def _certify(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / _AUTHORITY)
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / _CERTIFICATE)


def _started(
    program: str, folder: Path, *, logged: bool, tls: bool
) -> tuple[subprocess.Popen[bytes], int]:
    errors = folder / "error.log"
    for _ in range(_TRIES):
        port = _free_port()
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _configured(folder, port, logged=logged, tls=tls), encoding="ascii"
        )
        process = subprocess.Popen(
            [program, "-e", str(errors), "-p", str(folder), "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if _listens(process, port):
            return process, port
    raise click.ClickException(f"nginx does not start: {errors.read_text(encoding='utf-8')}")


def _configured(folder: Path, port: int, *, logged: bool, tls: bool) -> str:
    locations = "\n".join(
        f"    location = /finauth/search/group/{kind} {{ return 200 '{_said(answer)}'; }}"
        for kind, answer in _ANSWERS.items()
    )
    access_log = f"{folder}/access.log moments" if logged else "off"
    pem = folder / _CERTIFICATE
    return _CONFIGURATION.format(
        folder=folder,
        port=port,
        tls=f" ssl; ssl_certificate {pem}; ssl_certificate_key {pem}" if tls else "",
        locations=locations,
        access_log=access_log,
    )


def _said(answer: dict[str, object]) -> str:
    return json.dumps({"request_id": "$request_id", "time_used": 3, **answer})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it comes up; False when it has ended or takes too long, and is ended then."""
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    process.kill()
    process.wait()
    return False
