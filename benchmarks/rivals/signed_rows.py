"""What curl and GNU parallel are given: every row with its signature, made beforehand.

    python signed_rows.py staff.csv --endpoint URL --group-id staff --curl calls.curl
    python signed_rows.py staff.csv --endpoint URL --group-id staff --table rows.tsv

A service that checks expiry would not take them for longer than the minutes they are valid for.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hmac
import os
import secrets
import time
from pathlib import Path


def sign(key: str, secret: bytes) -> str:
    now = int(time.time())
    raw = f"a={key}&b={now + 3600}&c={now}&d={secrets.randbelow(10**10):010}".encode()
    return base64.b64encode(hmac.digest(secret, raw, "sha1") + raw).decode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--group-id", required=True)
    parser.add_argument("--curl", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    key, secret = os.environ["ENROLL_API_KEY"], os.environ["ENROLL_API_SECRET"].encode()
    folder = options.manifest.resolve().parent
    url = f"{options.endpoint}/finauth/search/group/add"
    with options.manifest.open(encoding="utf-8", newline="") as manifest:
        rows = list(csv.DictReader(manifest))
    if options.curl is not None:
        calls = (
            f'url = "{url}"\n'
            f'form-string = "sign={sign(key, secret)}"\n'
            'form-string = "sign_version=hmac_sha1"\n'
            f'form-string = "group_id={options.group_id}"\n'
            f'form-string = "user_id={row["user_id"]}"\n'
            f'form-string = "user_data={row["user_data"]}"\n'
            f'form = "file=@{folder / row["image"]};type=image/jpeg;filename=photo.jpg"\n'
            f'output = "answers/{number:08}.json"\n'
            "retry = 3\n"
            "max-time = 60\n"
            for number, row in enumerate(rows)
        )
        options.curl.write_text("next\n".join(calls), encoding="utf-8")
    if options.table is not None:
        with options.table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, "excel-tab", lineterminator="\n").writerows(
                (
                    f"{number:08}",
                    row["user_id"],
                    row["user_data"],
                    folder / row["image"],
                    sign(key, secret),
                )
                for number, row in enumerate(rows)
            )


if __name__ == "__main__":
    main()
