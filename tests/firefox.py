"""Firefox without a window, driven by its own protocol, Marionette: no driver has to be installed.

The protocol: https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")

SECONDS = 60.0
"""Nothing here takes so long."""

_PREFERENCES = """
user_pref("marionette.port", 0);
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", 9);
user_pref("network.proxy.ssl", "127.0.0.1");
user_pref("network.proxy.ssl_port", 9);
"""
"""A free port, and a proxy at which nobody answers: no request gets anywhere."""


class Firefox:
    """A Firefox with one tab."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._number = 0
        self._receive()
        self._call("WebDriver:NewSession", capabilities={})

    def open(self, address: str) -> None:
        """Open a page, and wait until it is loaded."""
        self._call("WebDriver:Navigate", url=address)

    def run(self, script: str) -> Any:
        """What a script returns, which may be a promise."""
        return self._call("WebDriver:ExecuteScript", script=script, args=[])["value"]

    def wait(self, script: str) -> None:
        """Wait until a script returns what is true."""
        deadline = time.monotonic() + SECONDS
        while not self.run(script):
            assert time.monotonic() < deadline, script
            time.sleep(0.05)

    def close(self) -> None:
        """End the session, not the browser."""
        self._socket.close()

    def _call(self, name: str, **parameters: Any) -> Any:
        self._number += 1
        message = json.dumps([0, self._number, name, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, _, error, result = self._receive()
        assert error is None, error
        return result

    def _receive(self) -> Any:
        length = b""
        while not length.endswith(b":"):
            length += self._socket.recv(1)
        content = b""
        while len(content) < int(length[:-1]):
            content += self._socket.recv(int(length[:-1]) - len(content))
        return json.loads(content)


@contextmanager
def running(profile: Path) -> Iterator[Firefox]:
    """Start one, with a new profile in this folder, and end it."""
    assert FIREFOX is not None
    profile.mkdir()
    (profile / "user.js").write_text(_PREFERENCES, encoding="utf-8")
    command = [FIREFOX, "--headless", "--no-remote", "--marionette", "--profile", str(profile)]
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=silent, stderr=silent, env={"HOME": str(profile)})
    port = profile / "MarionetteActivePort"
    try:
        deadline = time.monotonic() + SECONDS
        while not (port.exists() and port.read_text(encoding="ascii")):
            assert process.poll() is None
            assert time.monotonic() < deadline, "Firefox does not answer"
            time.sleep(0.05)
        opened = Firefox(int(port.read_text(encoding="ascii")))
        yield opened
        opened.close()
    finally:
        process.kill()
        process.wait()
