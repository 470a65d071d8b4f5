"""A bucket on loopback: the files of a folder as objects, as S3 lists and gives them.

    cd benchmarks && python -m suite.bucket FOLDER PORT [ROWS]

It checks no signature, and lists what was there when it was started; with ROWS, that many photos of
an archive, of which the folder need only have the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from .archives import Archive

BUCKET = "s3://bench"
_PAGE = 1_000
_DATE = "2026-01-01T00:00:00.000Z"
_LAST_MODIFIED = formatdate(1_767_225_600, usegmt=True)


@contextmanager
def running(folder: Path, *, rows: int = 0) -> Iterator[Mapping[str, str]]:
    """Serve a folder, or list so many photos of an archive, all as large as the first; what a
    command's environment needs to read it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", __name__, str(folder.resolve()), str(port), str(rows)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as server:
        try:
            _wait_for(port)
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "bench-key",
                "AWS_SECRET_ACCESS_KEY": "bench-secret",
                "AWS_REGION": "us-east-1",
            }
        finally:
            server.kill()


def _wait_for(port: int) -> None:
    for _ in range(6_000):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise TimeoutError("the bucket does not answer")


class _Bucket:
    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder
        self._size: int | None = None
        if rows:
            archive = Archive(folder, rows, [], None)
            self._keys = [archive.image(number) for number in range(rows)]
            self._size = (folder / self._keys[0]).stat().st_size
            return
        start = len(str(folder)) + 1
        self._keys = sorted(
            os.path.join(at, name)[start:]  # noqa: PTH118 - a million of them
            for at, _, names in os.walk(folder)
            for name in names
        )

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                writer.write(self._respond(method, target))
                await writer.drain()
        writer.close()

    def _respond(self, method: str, target: str) -> bytes:
        parts = urlsplit(target)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        path = self._folder / (self._keys[0] if key and self._size else key)
        if not key:
            return _response(self._page(parse_qs(parts.query)), tag="list")
        if not path.is_file():
            return _response(b"<Error><Code>NoSuchKey</Code></Error>", status="404 Not Found")
        content = path.read_bytes()
        whole = _response(content, tag=f"{len(content):x}")
        return whole if method == "GET" else whole[: -len(content)]

    def _page(self, query: Mapping[str, list[str]]) -> bytes:
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        at, most = bisect_right(self._keys, after), int(query.get("max-keys", ["1000"])[0])
        page = self._keys[at : at + min(most, _PAGE)]
        more = at + len(page) < len(self._keys)
        found = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{_DATE}</LastModified>"
            f"<ETag>&quot;{size:x}&quot;</ETag><Size>{size}</Size></Contents>"
            for key in page
            for size in [self._size or os.stat(self._folder / key).st_size]  # noqa: PTH116 - as above
        )
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><Name>bench</Name><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{found}</ListBucketResult>"
        ).encode()


def _response(body: bytes, *, status: str = "200 OK", tag: str = "") -> bytes:
    head = (
        f'HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nETag: "{tag}"\r\n'
        f"Last-Modified: {_LAST_MODIFIED}\r\n\r\n"
    )
    return head.encode() + body


async def _serve(folder: Path, port: int, rows: int) -> None:
    server = await asyncio.start_server(_Bucket(folder, rows).answer, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), *map(int, sys.argv[2:])))
