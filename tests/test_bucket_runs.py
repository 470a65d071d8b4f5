"""Commands whose photos, or manifest, are in a bucket."""

from __future__ import annotations

import pickle
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from archive import Archive, picture
from object_servers import KEY, RCLONE, SECRET, free_port, wait_for
from real_command import Command, Done
from stub_bucket import Fault, StubBucket, stub_bucket

import enroll
from enroll.addresses import named_path, path_of
from enroll.commands.forget_search import MANIFEST, find_traces
from enroll.errors import ExitCode
from enroll.photos import object_account as account
from enroll.photos import objects, open_store
from enroll.sandbox import Sandbox
from enroll.settings import Bound

DOCS = Path(__file__).parents[1] / "docs"
PHOTOS = "s3://staff/photos"
LIST = "s3://staff/staff.csv"


@pytest.fixture
def box(faceless_box: Sandbox) -> Sandbox:
    """The photos here are `picture`s, without a face."""
    return faceless_box


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubBucket]:
    with stub_bucket() as running:
        for name, value in running.environ.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def archive(archive: Archive, bucket: StubBucket) -> Archive:
    """40 people, whose photos are in the bucket, and the manifest here."""
    archive.crowd(40)
    for number in range(40):
        bucket.objects[f"photos/{number}.jpg"] = picture(number)
        archive.folder.joinpath(f"{number}.jpg").unlink()
    return archive


@pytest.fixture
def command(command: Command, archive: Archive, bucket: StubBucket) -> Command:
    """The command with the bucket's credentials in its environment, and the manifest there, too."""
    command.environ.update(bucket.environ)
    listed = (archive.folder / "staff.csv").read_text().replace(",", ",", 1)
    lines = [line.rpartition(",") for line in listed.splitlines()]
    in_bucket = [lines[0], *((head, comma, f"photos/{name}") for head, comma, name in lines[1:])]
    text = "".join(f"{''.join(line)}\n" for line in in_bucket)
    bucket.objects["staff.csv"] = text.encode()
    return command


def held(archive: Archive) -> set[str]:
    return {face.sha256 for face in archive.box.faces("staff")}


def wanted(bucket: StubBucket) -> set[str]:
    return {sha256(one).hexdigest() for key, one in bucket.objects.items() if "photos/" in key}


def test_each_photo_is_read_once_and_an_unchanged_night_reads_none(
    archive: Archive, bucket: StubBucket
) -> None:
    images = path_of(PHOTOS)
    assert archive.run(images=images).exit_code == 0
    assert bucket.counts["GET"] == 40
    assert held(archive) == wanted(bucket)

    for again in (archive.run, archive.sync, archive.run):
        bucket.requests.clear()
        assert again(images=images).exit_code == 0
        assert set(bucket.counts) == {"LIST"}
        assert bucket.counts["LIST"] <= 6

    bucket.requests.clear()
    bucket.objects["photos/7.jpg"] = picture(77)
    assert archive.run(images=images).exit_code == 0
    assert [one for one in bucket.requests if one.startswith("GET")] == ["GET photos/7.jpg"]
    assert wanted(bucket) <= held(archive)


def test_what_is_recorded_of_a_photo_replaced_between_look_and_read_is_what_was_read(
    archive: Archive, bucket: StubBucket
) -> None:
    def replace(kind: str, key: str) -> None:
        if kind == "GET":
            bucket.objects[key] = picture(100 + int(Path(key).stem))

    bucket.fault = replace
    assert archive.run(images=path_of(PHOTOS)).exit_code == 0
    assert held(archive) == wanted(bucket)
    bucket.requests.clear()
    assert archive.run(images=path_of(PHOTOS)).exit_code == 0
    assert bucket.counts["GET"] == 0


def test_a_store_that_goes_away_ends_the_run_and_leaves_every_row_due(
    archive: Archive, bucket: StubBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "RETRIES", 0)
    for fault in (Fault(503, "SlowDown"), Fault(404, "NoSuchBucket"), Fault(403, "AccessDenied")):
        bucket.requests.clear()

        def away(kind: str, key: str, fault: Fault = fault) -> Fault | None:
            return fault if bucket.counts["GET"] > 5 else None

        bucket.fault = away
        ended = archive.run(images=path_of(PHOTOS), readers=1)
        assert ended.exit_code == ExitCode.LOCAL, ended
        assert "stays due" in str(ended.ended.stop)
    bucket.fault = lambda kind, key: None
    assert archive.run(images=path_of(PHOTOS)).exit_code == 0
    assert held(archive) == wanted(bucket)


def test_photos_that_may_not_be_read_are_not_missing_to_a_sync(
    archive: Archive, bucket: StubBucket
) -> None:
    del archive.rows[7:]
    assert archive.run(images=path_of(PHOTOS)).exit_code == 0
    bucket.fault = lambda kind, key: Fault(403, "AccessDenied") if kind != "LIST" else None
    bucket.requests.clear()
    none = Bound(0, percent=True)
    done = archive.sync(images=path_of(PHOTOS), max_missing=none, max_removals=none)
    assert bucket.counts["HEAD"] >= 7
    assert done.exit_code == ExitCode.SOME_ROWS_FAILED
    assert {line["error"] for line in archive.results()} == {"PHOTO_UNREADABLE"}
    assert len(archive.in_library()) == 7


def test_a_name_that_keeps_photos_from_being_listed_is_said_and_keeps_no_row_from_its_photo(
    archive: Archive, command: Command, bucket: StubBucket
) -> None:
    given, photos = (*archive.arguments[:-1], PHOTOS), dict(bucket.objects)
    for name in ("0//a.jpg", "0/./a.jpg", "0/../a.jpg", "0/\x07.jpg"):  # each before the others
        bucket.objects[f"photos/{name}"] = b"no picture"
        bucket.requests.clear()
        done = command(*given)
        assert (done.code, len(archive.in_library())) == (0, 40), (name, done)
        assert done.err.count("cannot be listed") == 1, (name, done)
        assert (bucket.counts["HEAD"], bucket.counts["LIST"] < 6) == (40, True), name
        listed = command("run", PHOTOS, "--id-from", "{user_id}", "--group-id", "staff")
        assert (listed.code, "cannot be listed" in listed.err) == (2, True), (name, listed)
    bucket.objects = photos
    done = command(*given)
    assert (done.code, "cannot be listed" in done.err) == (0, False), done
    assert "nothing to do" in done.out


def test_a_path_with_empty_and_dotted_parts_is_that_of_the_photo_without_them(
    archive: Archive, command: Command, bucket: StubBucket
) -> None:
    rows = [(user_id, data, f"/photos//./x/../{image}") for user_id, data, image in archive.rows]
    archive.manifest(rows)
    bucket.requests.clear()
    done = command(*archive.arguments[:-1], PHOTOS)
    assert (done.code, len(archive.in_library())) == (0, 40), done
    assert bucket.counts["HEAD"] == 0


def test_kills_add_nobody_twice_and_lose_nobody(
    archive: Archive, command: Command, bucket: StubBucket
) -> None:
    archive.box.latency = 0.02
    given = [*archive.arguments[:-1], PHOTOS]
    for calls in (4, 12, 25):
        with command.started(*given, stdout=None, stderr=None) as process:
            while process.poll() is None and archive.calls() < calls:
                time.sleep(0.001)
            process.kill()
            assert process.wait() == -signal.SIGKILL
    assert command.run(*given).code == 0
    assert sorted(face.sha256 for face in archive.box.faces("staff")) == sorted(wanted(bucket))
    assert archive.tokens_agree()


def test_every_command_takes_photos_and_lists_from_a_bucket_and_keeps_its_keys_to_itself(
    archive: Archive, command: Command, bucket: StubBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, group = archive.folder, ("--group-id", "staff")
    said: list[Done] = []

    def go(*given: object, code: int = 0, has: str = "") -> None:
        done = command(*given)
        said.append(done)
        assert done.code == code, (given, done)
        assert has in done.out, (given, done.out)

    logs = ("--log-file", "run.log", "--log-format", "json", "--stats", "1", "--summary", "s.json")
    go("plan", LIST, *group, has="Photos    s3://staff\nRequests  a run reads due photos")
    bucket.requests.clear()
    go("plan", LIST, *group, "--full")
    assert bucket.counts["GET"] == 40 + 1  # and the list
    assert said[-1].told == (
        "Photos that are due are read from s3://staff: a request (GET) each, for at most 40 rows.\n"
    )
    go("run", LIST, *group, "--limit", "30", *logs, code=ExitCode.ENDED_EARLY)
    assert folder.joinpath("staff.results.csv").exists()
    (folder / "enroll.toml").write_text(f'images = "{PHOTOS}"\ngroup_id = "staff"\n')
    go("run", "staff.csv", *logs)
    folder.joinpath("enroll.toml").unlink()
    command.environ["ENROLL_IMAGES"] = "s3://staff"
    go("run", LIST, *group, has="nothing to do")
    del command.environ["ENROLL_IMAGES"]
    go("sync", LIST, *group, "--differences", "differences.csv", has="nothing to do")
    (folder / "ids.csv").write_text(f"user_id\n{archive.rows[3][0]}\nnobody\n")
    photo = "photos/{user_id}.jpg"
    bucket.objects[f"photos/{archive.rows[3][0]}.jpg"] = picture(3)
    go(
        "plan",
        "ids.csv",
        "--images",
        "s3://staff",
        *group,
        "--photo",
        photo,
        has="PHOTO_MISSING  1",
    )
    go("plan", LIST, *group, "--orphans", "orphans.csv", "--duplicates", "twice.csv")
    assert archive.rows[3][0] in (folder / "orphans.csv").read_text()
    go("report", "report.html", "--manifest", LIST, *group)
    go("verify", *group, has="No difference")
    go("audit", *group, has="with the photos of 40 of 40")
    go("who", f"{PHOTOS}/5.jpg", *group, has=archive.rows[5][0])
    go("match", LIST, PHOTOS, "--output", "matched.csv", has="Photos    s3://staff/photos")
    go("adopt", LIST, *group, "--ledger", "other.sqlite", "--dry-run", has="s3://staff")
    go(
        "run",
        PHOTOS,
        "--id-from",
        "{user_id}",
        *group,
        "--limit",
        "1",
        "--results",
        "r.csv",
        code=6,
    )
    go("forget", "--user-id", archive.rows[5][0], "--yes", *group)
    bucket.fault = lambda kind, key: Fault(403, "SignatureDoesNotMatch")
    go("run", LIST, *group, *logs, code=ExitCode.USAGE)
    bucket.fault = lambda kind, key: None

    def bug(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(objects.ObjectStore, "check", bug)
        go("run", LIST, *group, *logs, code=ExitCode.BUG)

    written = [path for path in folder.parent.rglob("*") if path.is_file()]
    assert len(written) > 12
    texts = [path.read_bytes() for path in written]
    texts += [f"{done.out}{done.err}".encode() for done in said]
    texts.append(pickle.dumps(open_store(PHOTOS)))
    for secret in (SECRET, KEY):
        assert not any(secret.encode() in text for text in texts)


def test_a_signal_ends_a_command_whose_store_does_not_answer(
    archive: Archive, command: Command, bucket: StubBucket
) -> None:
    bucket.fault = lambda kind, key: Fault(stall=bucket.released.wait(60)) if key else None
    for given in (("run", LIST), ("run", "staff.csv", "--images", PHOTOS)):
        bucket.requests.clear()
        with command.started(*given, "--group-id", "staff") as process:
            while process.poll() is None and not bucket.requests:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            process.wait()
        assert len(bucket.requests) == 1, given


REFUSED = {
    ("run", "staff.csv", "--ledger", "s3://staff/ledger.sqlite"): "has to be a file here",
    ("run", "staff.csv", "--results", "s3://staff/results.csv"): "has to be a file here",
    ("run", "staff.csv", "--images", "s3://staff/none"): "There is nothing below",
    ("run", "staff.csv", "--images", "s3://none"): "bucket s3://none does not exist",
    ("run", "staff.csv", "--images", "s3://staff/photos.zip"): "is a ZIP archive in a bucket",
    ("run", "s3://staff/none", "--id-from", "{user_id}"): "There is nothing below s3://staff/none",
    ("run", "s3://staff/photos.zip"): "is a ZIP archive in a bucket",
    ("run", "s3://staff/none.csv"): "There is no manifest at s3://staff/none.csv",
    ("run", "s3://none/staff.csv"): "There is no bucket s3://none",
    ("run", "https://staff/staff.csv"): "Write s3://BUCKET/PREFIX",
    ("plan", "staff.csv", "--images", "gcs://staff"): "Write s3://BUCKET/PREFIX",
    ("plan", "staff.csv", "--images", f"s3://{KEY}:{SECRET}@staff"): "a bucket and a prefix only",
    ("plan", "urls.csv"): "Name the bucket: --images s3://staff",
}
"""What cannot be, and what is said to it."""


def test_what_cannot_be_in_a_bucket_is_refused_before_anything_happens(
    archive: Archive, command: Command, bucket: StubBucket
) -> None:
    (archive.folder / "urls.csv").write_text("user_id,image\np1,s3://staff/photos/1.jpg\n")
    before = sorted(archive.folder.iterdir())
    for given, says in REFUSED.items():
        done = command(*given, "--group-id", "staff")
        assert (done.code, done.out) == (2, ""), (given, done)
        assert says in done.err, (given, done.err)
        assert SECRET not in done.err
    assert sorted(archive.folder.iterdir()) == before
    assert archive.box.faces("staff") == []


def test_programs_name_buckets_too(archive: Archive, bucket: StubBucket, tmp_path: Path) -> None:
    account: dict[str, Any] = {
        "ledger": str(tmp_path / "ledger.sqlite"),
        "group_id": archive.group_id,
        "endpoint": archive.box.endpoint,
        "credentials": archive.credentials,
    }
    rows = [enroll.Row("p1", photo="1.jpg"), enroll.Row("p2", photo=f"{PHOTOS}/2.jpg")]
    done = enroll.run(rows, images=PHOTOS, **account)
    assert [row.status for row in done.rows()] == [enroll.Status.ENROLLED] * 2
    assert enroll.who(f"{PHOTOS}/1.jpg", **account).result[0].user_id == "p1"
    with pytest.raises(enroll.UsageError, match="images='s3://BUCKET'"):
        enroll.run(rows[1:], **account)


def test_forget_says_that_a_list_in_a_bucket_has_to_be_looked_at(bucket: StubBucket) -> None:
    (trace,) = find_traces({named_path(LIST): MANIFEST}, ["p1"])
    assert (str(trace.path), trace.because) == (LIST, "it is in a bucket")


def test_the_rehearsal_in_the_docs_works(archive: Archive, command: Command) -> None:
    text = (DOCS / "rehearsing.md").read_text(encoding="utf-8").partition("## From a bucket")[2]
    install, *lines = text.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert install.startswith("pip install")
    demo = archive.folder / "demo"
    demo.mkdir()
    for number in range(2):
        (demo / f"{number}.jpg").write_bytes(picture(number))
    (demo / "staff.csv").write_text("user_id,image\np0,0.jpg\np1,1.jpg\n")
    port = str(free_port())
    said: list[str] = []
    with ExitStack() as stack:
        for line in lines:
            program, *words = shlex.split(line.replace("9000", port).removesuffix(" &"))
            if program == "rclone":
                serve = [str(RCLONE), *words]
                server = subprocess.Popen(serve, cwd=archive.folder, stderr=subprocess.DEVNULL)
                stack.enter_context(server)
                stack.callback(server.kill)
                wait_for(int(port))
            elif program == "export":
                command.environ.update(word.split("=", 1) for word in words)  # type: ignore[misc]
            else:
                done = command(*words)
                assert done.code == 0, (line, done)
                said.append(done.out)
    assert "enrolled  2" in said[1]
    assert "nothing to do; no photo was read" in said[2]
