"""The script that is usually written: requests, a thread pool, tenacity, csv.

    python with_requests.py staff.csv out.csv --endpoint URL --group-id staff --workers 16

Photos are looked for beside the manifest. A row that out.csv has a token for is left out.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import hmac
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tenacity import (
    RetryError,
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)


class TryAgain(Exception):  # noqa: N818 - it is no error of ours
    """The service is busy, or has a bad moment."""


class Client:
    def __init__(self, endpoint: str, group_id: str, workers: int) -> None:
        self.url = f"{endpoint}/finauth/search/group/add"
        self.group_id = group_id
        self.key = os.environ["ENROLL_API_KEY"]
        self.secret = os.environ["ENROLL_API_SECRET"].encode()
        self.session = requests.Session()
        adapter = HTTPAdapter(pool_maxsize=workers)
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def sign(self) -> str:
        now = int(time.time())
        raw = f"a={self.key}&b={now + 60}&c={now}&d={secrets.randbelow(10**10):010}".encode()
        return base64.b64encode(hmac.digest(self.secret, raw, "sha1") + raw).decode()

    @retry(
        retry=retry_if_exception_type((requests.RequestException, TryAgain)),
        wait=wait_random_exponential(multiplier=0.5, max=30),
        stop=stop_after_attempt(8),
    )
    def add(self, row: dict[str, str], photo: bytes) -> str:
        """Add a face; its token."""
        answer = self.session.post(
            self.url,
            data={
                "sign": self.sign(),
                "sign_version": "hmac_sha1",
                "group_id": self.group_id,
                "user_id": row["user_id"],
                "user_data": row["user_data"],
            },
            files={"file": ("photo.jpg", photo, "image/jpeg")},
            timeout=60,
        )
        said = answer.json()
        error = said.get("error", "")
        if answer.status_code >= 500 or error.startswith("CONCURRENCY_LIMIT_EXCEEDED"):
            raise TryAgain(error)
        if "face_token" not in said:
            raise ValueError(error)
        return str(said["face_token"])


def enroll(client: Client, folder: Path, row: dict[str, str]) -> dict[str, str]:
    try:
        photo = (folder / row["image"]).read_bytes()
        token, error = client.add(row, photo), ""
    except (OSError, ValueError, RetryError) as exc:
        token, error = "", str(exc)
    digest = hashlib.sha256(photo).hexdigest() if token else ""
    return {**row, "sha256": digest, "face_token": token, "error": error}


def done_before(results: Path) -> set[tuple[str, str]]:
    if not results.exists():
        return set()
    with results.open(encoding="utf-8", newline="") as file:
        return {(row["user_id"], row["image"]) for row in csv.DictReader(file) if row["face_token"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--group-id", required=True)
    parser.add_argument("--workers", type=int, default=16)
    options = parser.parse_args()
    done = done_before(options.results)
    client = Client(options.endpoint, options.group_id, options.workers)
    folder = options.manifest.parent
    with (
        options.manifest.open(encoding="utf-8", newline="") as manifest,
        options.results.open("a", encoding="utf-8", newline="") as out,
        ThreadPoolExecutor(options.workers) as pool,
    ):
        names = ["user_id", "user_data", "image", "sha256", "face_token", "error"]
        writer = csv.DictWriter(out, names)
        if out.tell() == 0:
            writer.writeheader()
        rows = csv.DictReader(manifest)
        futures = [
            pool.submit(enroll, client, folder, row)
            for row in rows
            if (row["user_id"], row["image"]) not in done
        ]
        for future in as_completed(futures):
            writer.writerow(future.result())
            out.flush()


if __name__ == "__main__":
    main()
