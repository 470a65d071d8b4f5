"""A bucket in this process that counts requests and answers as badly as a test wants it to."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from object_servers import KEY, SECRET

BUCKET = "staff"
SECOND = 1_780_000_000
"""When every object was last modified, unless it says otherwise."""


@dataclass(frozen=True)
class Fault:
    """How a request goes wrong: with a status and code, or with part of the body only."""

    status: int = 200
    code: str = ""
    cut: bool = False
    stall: bool = False


@dataclass
class StubBucket:
    """The objects of the bucket `staff` by key, and the requests so far, as `GET photos/1.jpg`.

    `fault` says what goes wrong with a request, if anything. A listing's `HEAD`, `GET` and `LIST`
    agree in what they say of an object, in the forms in which S3 says it.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    fault: Callable[[str, str], Fault | None] = lambda kind, key: None
    requests: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """Whose they were: the access key ids."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """Those that begin with x-amz."""
    endpoint: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    _keys: list[str] = field(default_factory=list)

    def fill(self, count: int, name: str = "photos/{}.jpg") -> None:
        """Put so many objects there, each unlike the others, and no pictures."""
        self.objects |= {
            name.format(number): f"no picture {number}".encode() for number in range(count)
        }

    @property
    def counts(self) -> Counter[str]:
        """Requests by kind."""
        return Counter(request.partition(" ")[0] for request in self.requests)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def listing(self, query: dict[str, list[str]]) -> bytes:
        """A page of ListObjectsV2."""
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        most = int(query.get("max-keys", ["1000"])[0])
        if len(self._keys) != len(self.objects):
            self._keys = sorted(self.objects)
        begin = max(bisect_right(self._keys, after), bisect_left(self._keys, prefix))
        end = bisect_left(self._keys, f"{prefix}\U0010ffff")
        keys = self._keys[begin:end]
        if delimiter:
            keys = [key for key in keys if delimiter not in key[len(prefix) :]]
        page, more = keys[:most], len(keys) > most
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        found = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            "<LastModified>2026-05-28T20:26:40.000Z</LastModified>"
            f"<ETag>&quot;{etag(self.objects[key])}&quot;</ETag></Contents>"
            for key in page
        )
        return (
            f"<ListBucketResult><Name>{BUCKET}</Name><IsTruncated>{str(more).lower()}"
            f"</IsTruncated>{token}{found}</ListBucketResult>"
        ).encode()


def etag(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """A connection to it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer("GET")

    def do_HEAD(self) -> None:
        self.answer("HEAD")

    def answer(self, kind: str) -> None:
        bucket, parts = self.server.bucket, urlsplit(self.path)
        name, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = parse_qs(parts.query)
        if not key:
            kind, key = "LIST", query.get("prefix", [""])[0]
        bucket.requests.append(f"{kind} {key}")
        signed = self.headers.get("Authorization", "").partition("Credential=")[2]
        bucket.keys.append(signed.partition("/")[0])
        sent = {name.lower(): value for name, value in self.headers.items()}
        bucket.headers.append({name: sent[name] for name in sent if name.startswith("x-amz")})
        fault = bucket.fault(kind, key) or Fault()
        if fault.status != 200:
            self.say(error(fault.code), status=fault.status)
        elif name != BUCKET:
            self.say(error("NoSuchBucket"), status=404)
        elif kind == "LIST":
            self.say(bucket.listing(query))
        elif key not in bucket.objects:
            self.say(error("NoSuchKey"), status=404)
        else:
            self.send_object(bucket.objects[key], fault)

    def say(self, body: bytes, *, status: int = 200) -> None:
        self.begin(status, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send_object(self, content: bytes, fault: Fault) -> None:
        """The object, or the part of it that is wanted, if it is still the same."""
        tag, wanted = f'"{etag(content)}"', self.headers.get("Range", "")
        if self.headers.get("If-Match", tag) != tag:
            self.say(error("PreconditionFailed"), status=412)
            return
        known = {"ETag": tag, "Last_Modified": formatdate(SECOND, usegmt=True)}
        at, whole = 0, len(content)
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            at, content = int(first), content[: int(last) + 1] if last else content
            known["Content_Range"] = f"bytes {at}-{len(content) - 1}/{whole}"
        self.begin(206 if wanted else 200, len(content) - at, **known)
        if self.command == "HEAD":
            return
        if not (fault.cut or fault.stall):
            self.wfile.write(content[at:])
            return
        self.wfile.write(content[at : (at + len(content)) // 2])
        self.wfile.flush()
        if fault.stall:
            self.server.bucket.released.wait(60)
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(2)


class Server(ThreadingHTTPServer):
    """The server of a bucket."""

    daemon_threads = True

    def __init__(self, bucket: StubBucket) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bucket = bucket
        bucket.endpoint = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        pass  # a client that goes away early


@contextmanager
def stub_bucket() -> Iterator[StubBucket]:
    """A running one."""
    bucket = StubBucket()
    with Server(bucket) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield bucket
        finally:
            bucket.released.set()
            server.shutdown()
            thread.join()


def error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>A message of S3.</Message></Error>".encode()
