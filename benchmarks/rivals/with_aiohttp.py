"""The same as with_requests.py with aiohttp: as many coroutines as calls may be in flight.

    python with_aiohttp.py staff.csv out.csv --endpoint URL --group-id staff --workers 16

Photos are looked for beside the manifest. A row that out.csv has a token for is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import csv
import hashlib
import hmac
import os
import random
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

ATTEMPTS = 8


class TryAgain(Exception):  # noqa: N818 - it is no error of ours
    """The service is busy, or has a bad moment."""


class Client:
    def __init__(self, session: aiohttp.ClientSession, endpoint: str, group_id: str) -> None:
        self.session = session
        self.url = f"{endpoint}/finauth/search/group/add"
        self.group_id = group_id
        self.key = os.environ["ENROLL_API_KEY"]
        self.secret = os.environ["ENROLL_API_SECRET"].encode()

    def sign(self) -> str:
        now = int(time.time())
        raw = f"a={self.key}&b={now + 60}&c={now}&d={secrets.randbelow(10**10):010}".encode()
        return base64.b64encode(hmac.digest(self.secret, raw, "sha1") + raw).decode()

    async def add(self, row: dict[str, str], photo: bytes) -> str:
        """Add a face; its token."""
        for attempt in range(ATTEMPTS):
            try:
                return await self.add_once(row, photo)
            except (aiohttp.ClientError, TimeoutError, TryAgain):
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(random.uniform(0, min(30, 0.5 * 2**attempt)))
        raise AssertionError("not reached")

    async def add_once(self, row: dict[str, str], photo: bytes) -> str:
        form = aiohttp.FormData()
        form.add_field("sign", self.sign())
        form.add_field("sign_version", "hmac_sha1")
        form.add_field("group_id", self.group_id)
        form.add_field("user_id", row["user_id"])
        form.add_field("user_data", row["user_data"])
        form.add_field("file", photo, filename="photo.jpg", content_type="image/jpeg")
        async with self.session.post(self.url, data=form) as answer:
            said = await answer.json(content_type=None)
        error = said.get("error", "")
        if answer.status >= 500 or error.startswith("CONCURRENCY_LIMIT_EXCEEDED"):
            raise TryAgain(error)
        if "face_token" not in said:
            raise ValueError(error)
        return str(said["face_token"])


async def enroll(client: Client, folder: Path, row: dict[str, str]) -> dict[str, str]:
    try:
        photo = (folder / row["image"]).read_bytes()
        token, error = await client.add(row, photo), ""
    except (OSError, ValueError, aiohttp.ClientError, TimeoutError, TryAgain) as exc:
        token, error = "", str(exc)
    digest = hashlib.sha256(photo).hexdigest() if token else ""
    return {**row, "sha256": digest, "face_token": token, "error": error}


def done_before(results: Path) -> set[tuple[str, str]]:
    if not results.exists():
        return set()
    with results.open(encoding="utf-8", newline="") as file:
        return {(row["user_id"], row["image"]) for row in csv.DictReader(file) if row["face_token"]}


async def enroll_all(options: argparse.Namespace) -> None:
    done = done_before(options.results)
    connector = aiohttp.TCPConnector(limit=options.workers)
    timeout = aiohttp.ClientTimeout(total=60)
    with (
        options.manifest.open(encoding="utf-8", newline="") as manifest,
        options.results.open("a", encoding="utf-8", newline="") as out,
    ):
        names = ["user_id", "user_data", "image", "sha256", "face_token", "error"]
        writer = csv.DictWriter(out, names)
        if out.tell() == 0:
            writer.writeheader()
        rows = (
            row for row in csv.DictReader(manifest) if (row["user_id"], row["image"]) not in done
        )

        async def work(client: Client, rows: Iterator[dict[str, str]]) -> None:
            for row in rows:
                writer.writerow(await enroll(client, options.manifest.parent, row))
                out.flush()

        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            client = Client(session, options.endpoint, options.group_id)
            await asyncio.gather(*(work(client, rows) for _ in range(options.workers)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--group-id", required=True)
    parser.add_argument("--workers", type=int, default=16)
    asyncio.run(enroll_all(parser.parse_args()))


if __name__ == "__main__":
    main()
