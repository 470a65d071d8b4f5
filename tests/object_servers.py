"""Real object stores on this machine: rclone serves a folder's folders as the buckets of S3."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "AKIDEXAMPLE", "a-secret-of-this-machine"
"""Of the servers here, which live as long as a test."""

RCLONE = Path(sys.executable).with_name("rclone")


@dataclass(frozen=True, slots=True)
class ObjectServer:
    """`folder` holds the buckets."""

    folder: Path
    endpoint: str

    @property
    def environ(self) -> dict[str, str]:
        """What the AWS tools read."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def s3_server(folder: Path) -> Iterator[ObjectServer]:
    """Serve what is in a folder, as it is at each request."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = (
        *(str(RCLONE), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}"),
        *(
            "--auth-key",
            f"{KEY},{SECRET}",
            "--dir-cache-time",
            "0s",
            "--config",
            os.devnull,
            "--no-unicode-normalization",
        ),
    )
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(port)
            yield ObjectServer(folder, f"http://127.0.0.1:{port}")
        finally:
            server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise TimeoutError("rclone does not answer")
