"""Photos in a bucket: what is asked of the store, what its refusals mean, and whose keys are used.

`test_photo_store.py` has what every store of photos does, against a real server.
"""

from __future__ import annotations

import pickle
from array import array
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from hashlib import md5
from itertools import count
from pathlib import Path

import pytest
from cases import cases
from moved_clock import StoppedClock
from object_servers import KEY, SECRET
from stub_bucket import SECOND, Fault, StubBucket, stub_bucket

from enroll.errors import EnrollError, LocalError, ManifestError, UsageError
from enroll.manifest import scan
from enroll.model import FileContent, FileTimes, Photo, Row, Unusable
from enroll.photos import LEAST_TOGETHER, PhotoStore, objects, open_store, read_photo
from enroll.photos import object_account as account
from enroll.photos.object_listing import Listing
from enroll.photos.store import NO_PHOTO, UNREADABLE, UnusableError

ROOT = "s3://staff/photos"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubBucket]:
    with stub_bucket() as running:
        for name, value in running.environ.items():
            monkeypatch.setenv(name, value)
        running.fill(40)
        yield running


def known(store: PhotoStore, *names: str) -> list[tuple[int, ...]]:
    numbers = list(store.stat([store.locate(name) for name in names]))
    return [tuple(numbers[at : at + 3]) for at in range(0, len(numbers), 3)]


def read(name: str = "7.jpg") -> Photo | Unusable:
    store = open_store(ROOT)
    return read_photo(store.locate(name), store)


def code_of(found: Photo | Unusable) -> str:
    return str(found.fault.code) if isinstance(found, Unusable) else ""


def first(requests: int, fault: Fault) -> Callable[[str, str], Fault | None]:
    """Have that many GETs of an object go wrong."""
    numbers = count()
    return lambda kind, key: fault if kind == "GET" and next(numbers) < requests else None


# What is asked of the store


def test_a_photo_is_known_alike_whether_listed_asked_for_or_read(bucket: StubBucket) -> None:
    names = [f"{number}.jpg" for number in range(40)]
    listed = known(open_store(ROOT), *names)
    assert bucket.counts == {"LIST": 1}
    asked = [one for name in names for one in known(open_store(ROOT), name)]
    assert bucket.counts == {"LIST": 1, "HEAD": 40}
    assert listed == asked
    assert {mtime for _, mtime, _ in listed} == {SECOND * 10**9}
    found = read("7.jpg")
    assert isinstance(found, Unusable)  # no picture, but it was read
    assert isinstance(found.content, FileContent)
    assert found.content.times == FileTimes(*listed[7])
    assert bucket.counts["GET"] == 1


def test_a_photo_of_the_same_size_and_second_is_known_as_another_one(bucket: StubBucket) -> None:
    (before,) = known(open_store(ROOT), "7.jpg")
    bucket.objects["photos/7.jpg"] = bucket.objects["photos/7.jpg"][::-1]
    (after,) = known(open_store(ROOT), "7.jpg")
    assert before[:2] == after[:2]
    assert before != after


def test_few_photos_among_many_others_are_asked_for_and_many_are_listed(bucket: StubBucket) -> None:
    bucket.fill(30, name="photos/z{}.jpg")
    bucket.fill(100_000, name="photos/others/{}.jpg")
    few = [f"z{number}.jpg" for number in range(30)]
    assert NO_PHOTO not in known(open_store(ROOT), *few)
    assert bucket.counts["HEAD"] == 30
    assert bucket.counts["LIST"] <= 2

    bucket.requests.clear()
    store = open_store(ROOT)
    many = sorted(f"others/{number}.jpg" for number in range(100_000))[:20_000]
    for at in range(0, len(many), 1000):
        assert NO_PHOTO not in known(store, *many[at : at + 1000])
    assert bucket.counts["HEAD"] == 0
    assert bucket.counts["LIST"] <= 45


def test_a_scan_looks_up_no_photo_by_itself(
    bucket: StubBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "SLOW_SECONDS", -1.0)
    store, asked = open_store(ROOT), list[int]()
    stat = store.stat

    def counted(paths: Sequence[str]) -> array[int]:
        asked.append(len(paths))
        return stat(paths)

    monkeypatch.setattr(store, "stat", counted)
    rows = [Row(line=n, user_id=f"p{n}", user_data="", image=f"{n}.jpg") for n in range(300)]
    looking = scan.Scan(iter([rows]), store, concurrency=32)
    found = looking.next_chunk()
    looking.close()
    assert [row.times is not None for row in found or ()] == [True] * 40 + [False] * 260
    assert sum(asked) == 300
    assert min(asked) >= LEAST_TOGETHER


def test_a_folder_is_not_listed_for_each_photo_that_is_missing(
    bucket: StubBucket, stopped_clock: StoppedClock
) -> None:
    store = open_store(ROOT)
    for number in range(40):
        assert not store.is_gone()
        assert store.empty_above(store.locate(f"none{number}.jpg")) == ""
        assert code_of(read_photo(store.locate(f"none{number}.jpg"), store)) == "PHOTO_MISSING"
    assert bucket.counts["LIST"] == 2  # of the store and of a folder
    stopped_clock.at += 2.0
    bucket.objects.clear()
    assert store.empty_above(store.locate("none.jpg")) == ROOT


def test_empty_objects_that_are_made_for_folders_are_nothing_in_a_store(bucket: StubBucket) -> None:
    bucket.objects = dict.fromkeys(["photos/", "photos/Team A/", "photos/Team B/"], b"")
    store = open_store(ROOT)
    assert store.is_empty()
    assert store.empty_above(store.locate("Team A/1.jpg")) == ROOT
    names = ["Team A - old/1.jpg", "Team A/2.jpg", "Team A/empty.jpg"]
    bucket.objects |= {f"photos/{name}": b"a photo" for name in names[:2]}
    bucket.objects[f"photos/{names[2]}"] = b""
    assert not store.is_empty()
    assert list(store.files()) == names
    others = [f"Team A/{number}.jpg" for number in range(100, 130)]
    found = known(store, *names, "Team A", *others)
    assert [size for size, *_ in found] == [7, 7, 0, -1, *[-1] * 30]
    assert bucket.counts["HEAD"] == 0


def test_a_name_like_a_missing_one_is_not_looked_for_among_millions(
    bucket: StubBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_MOST_LOOKED_AT", 3_000)
    bucket.fill(5_000)
    bucket.objects |= {"photos/00.JPG": b"near", "photos/zzz.JPG": b"far"}
    for name, says in (
        ("00.Jpg", "'00.JPG', which differs in case"),
        ("zzz.jpg", "Check the path"),
    ):
        bucket.requests.clear()
        found = read(name)
        assert isinstance(found, Unusable)
        assert says in found.fault.message
        assert bucket.counts["LIST"] <= 5


def test_of_a_large_photo_only_the_parts_that_are_asked_for_are_fetched(
    bucket: StubBucket,
) -> None:
    content = bucket.objects["photos/7.jpg"] = bytes(range(256)) * 20_000
    store = open_store(ROOT)
    with store.open(store.locate("7.jpg")) as photo:
        assert photo.part(0, 4096) == content[:4096]
        assert photo.part(len(content) - 4096, 4096) == content[-4096:]
        assert photo.part(len(content) - 9, 99) == content[-9:]
        assert photo.part(len(content), 9) == b""
        assert photo.part(2_000_000, 9) == content[2_000_000:2_000_009]
        assert bucket.counts["GET"] == 3
        assert photo.content() == content
    assert bucket.counts["GET"] == 3
    with store.open(store.locate("7.jpg")) as photo:
        bucket.objects["photos/7.jpg"] = content[::-1]
        with pytest.raises(UnusableError) as caught:
            photo.part(len(content) - 9, 9)
    assert caught.value.unusable.fault.code == "PHOTO_CHANGED"


def test_what_a_listing_cannot_keep_is_asked_for() -> None:
    odd = {"0": (2**40, 10**9, 1), "1": (7, -(10**9), 1), "2": (7, 10**9 * 2**40, 1)}
    usual = {f"{number:02}": (number, number * 10**9, 2**63 - 1) for number in range(30, 60)}

    def pages(after: str) -> Iterator[list[tuple[str, tuple[int, int, int]]]]:
        yield [*odd.items(), *usual.items()]

    found = Listing(pages).find([*usual, *odd, "99"])
    assert found == {**usual, **dict.fromkeys(odd), "99": NO_PHOTO}


# What its refusals mean


def test_a_store_that_is_slow_or_breaks_off_is_asked_again(
    bucket: StubBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "READ_SECONDS", 0.3)
    for fault, most in [
        (Fault(503, "SlowDown"), 3),
        (Fault(cut=True), 3),
        (Fault(stall=True), 2),
    ]:
        bucket.requests.clear()
        bucket.fault = first(most - 1, fault)
        assert code_of(read()) == "PHOTO_NOT_AN_IMAGE"
        assert bucket.counts == {"GET": most}


@cases("fault", [Fault(503, "SlowDown"), Fault(500, "InternalError"), Fault(cut=True)])
def test_a_store_that_does_not_recover_is_not_asked_forever(
    bucket: StubBucket, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(account, "RETRIES", 2)
    bucket.requests.clear()
    bucket.fault = first(1000, fault)
    found = read()
    assert isinstance(found, Unusable)
    assert (code_of(found), found.share_gone) == ("PHOTO_UNREADABLE", True)
    assert "http" not in found.fault.message
    assert bucket.counts["GET"] <= 6


@cases(("change", "code"), [("replace", "PHOTO_CHANGED"), ("remove", "PHOTO_MISSING")])
def test_a_photo_that_changes_between_two_halves_is_not_put_together_from_both(
    bucket: StubBucket, change: str, code: str
) -> None:
    bucket.fill(40)
    gets = count()

    def cut_then_change(kind: str, key: str) -> Fault | None:
        if kind == "GET" and next(gets) == 0:
            return Fault(cut=True)
        if change == "replace":
            bucket.objects[key] = b"another one"
        else:
            bucket.objects.pop(key, None)
        return None

    bucket.fault = cut_then_change
    assert code_of(read()) == code


def test_a_photo_that_may_not_be_read_is_unreadable_and_never_missing(bucket: StubBucket) -> None:
    bucket.fault = lambda kind, key: Fault(403, "AccessDenied") if kind != "LIST" else None
    assert known(open_store(ROOT), "7.jpg") == [UNREADABLE]
    found = read()
    assert isinstance(found, Unusable)
    assert (code_of(found), found.share_gone) == ("PHOTO_UNREADABLE", False)
    assert "403 Forbidden (AccessDenied" in found.fault.message


@cases(
    ("fault", "says"),
    [
        (Fault(403, "InvalidObjectState"), "It is archived: restore it"),
        (Fault(409, "BlobArchived"), "It is archived: restore it"),
        (Fault(400, "KMS.DisabledException"), "may decrypt"),
        (Fault(400, "InvalidRequest"), "Check the region"),
    ],
)
def test_an_object_that_is_not_given_is_no_store_that_is_gone(
    bucket: StubBucket, fault: Fault, says: str
) -> None:
    bucket.fault = lambda kind, key: fault if kind != "LIST" else None
    assert known(open_store(ROOT), "7.jpg") == [UNREADABLE]
    found = read()
    assert isinstance(found, Unusable)
    assert (code_of(found), found.share_gone) == ("PHOTO_UNREADABLE", False)
    assert says in found.fault.message


AWAY = [
    (Fault(403, "InvalidAccessKeyId"), ManifestError, "Check the credentials"),
    (Fault(400, "ExpiredToken"), LocalError, "The credentials have expired"),
    (Fault(301, "PermanentRedirect"), ManifestError, "Set AWS_REGION"),
    (Fault(400, "AuthorizationHeaderMalformed"), ManifestError, "Set AWS_REGION"),
    (Fault(403, "RequestTimeTooSkewed"), ManifestError, "clock"),
    (Fault(404, "NoSuchBucket"), LocalError, "bucket s3://staff does not exist"),
    (Fault(503, "SlowDown"), LocalError, "503 Service Unavailable (SlowDown"),
]
"""What a store may answer to everything, how a run that begins ends, and what is said."""


@cases(("fault", "ends", "says"), AWAY)
def test_a_store_that_answers_nothing_is_told_from_photos_that_are_missing(
    bucket: StubBucket, monkeypatch: pytest.MonkeyPatch, fault: Fault, ends: type, says: str
) -> None:
    monkeypatch.setattr(account, "RETRIES", 0)
    bucket.fault = lambda kind, key: fault
    store = open_store(ROOT)
    for raised, ask in [
        (ends, store.check),
        (LocalError, lambda: known(store, "7.jpg")),
        (LocalError, lambda: known(store, *(f"{number}.jpg" for number in range(40)))),
    ]:
        with pytest.raises(EnrollError, match=r"\w") as caught:
            ask()
        assert type(caught.value) is raised
        assert says in str(caught.value)
        assert "http" not in str(caught.value)
    found = read()
    assert isinstance(found, Unusable)
    assert (code_of(found), found.share_gone) == ("PHOTO_UNREADABLE", True)
    assert not store.is_reachable(store.locate("7.jpg"))


# Whose keys are used


def test_a_photo_of_a_bucket_that_was_just_there_and_is_gone_is_not_missing(
    bucket: StubBucket,
) -> None:
    store = open_store(ROOT)
    store.check()
    bucket.fault = lambda kind, key: Fault(404, "NoSuchBucket")
    found = read_photo(store.locate("7.jpg"), store)
    assert isinstance(found, Unusable)
    assert (code_of(found), found.share_gone) == ("PHOTO_UNREADABLE", True)


def test_google_cloud_storage_is_read_like_s3(
    bucket: StubBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.endpoint.removeprefix("http://"))
    store = open_store("gs://staff/photos")
    names = [f"{number}.jpg" for number in range(40)]
    assert known(store, *names) == known(open_store(ROOT), *names)
    with store.open(store.locate("7.jpg")) as photo:
        assert photo.content() == bucket.objects["photos/7.jpg"]
    assert open_store("gs://others").is_gone()


S3 = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": KEY}
CONNECTION = "DefaultEndpointsProtocol=http;AccountName=corp;AccountKey=a2V5;"

CONFIGS = [
    ("s3", S3, {"endpoint": "http://127.0.0.1:1", "region": "eu-west-1"}),
    (
        "s3",
        {},
        {"region": "eu-west-1", "access_key_id": "AKIDFILE", "secret_access_key": "of-file"},
    ),
    (
        "s3",
        {"AWS_PROFILE": "night", "AWS_REGION": "eu-north-1"},
        {
            "endpoint": "https://minio.example",
            "region": "eu-north-1",
            "access_key_id": "AKIDNIGHT",
            "secret_access_key": "of-night",
            "session_token": "of-the-session",
        },
    ),
    ("gs", {}, {}),
    (
        "gs",
        {"STORAGE_EMULATOR_HOST": "gcs:4443"},
        {"base_url": "http://gcs:4443", "skip_signature": True},
    ),
    (
        "az",
        {"AZURE_STORAGE_ACCOUNT": "corp", "AZURE_STORAGE_KEY": "a2V5"},
        {"account_name": "corp", "account_key": "a2V5"},
    ),
    (
        "az",
        {"AZURE_STORAGE_CONNECTION_STRING": f"{CONNECTION}EndpointSuffix=core.windows.net"},
        {
            "account_name": "corp",
            "account_key": "a2V5",
            "endpoint": "http://corp.blob.core.windows.net",
        },
    ),
    (
        "az",
        {
            "AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=http://10.0.0.1/corp/;"
            "SharedAccessSignature=sv=2024&sig=s%3D",
            "AZURE_STORAGE_ACCOUNT": "corp",
        },
        {
            "account_name": "corp",
            "sas_key": "sv=2024&sig=s%3D",
            "endpoint": "http://10.0.0.1/corp",
        },
    ),
    (
        "az",
        {"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"},
        {"use_emulator": True},
    ),
]
"""What the environment has, and what obstore is told besides."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with profiles."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(
        "[default]\nregion = eu-west-1\n"
        "[profile night]\nendpoint_url = https://minio.example\nregion = eu-west-3\n"
        "[profile role]\nrole_arn = arn:aws:iam::1:role/reader\nsource_profile = default\n"
        "[profile sso]\nsso_session = corp\n"
    )
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = AKIDFILE\naws_secret_access_key = of-file\n"
        "[night]\naws_access_key_id = AKIDNIGHT\naws_secret_access_key = of-night\n"
        "aws_session_token = of-the-session\n"
    )
    return tmp_path


@cases(("scheme", "environ", "expected"), CONFIGS)
def test_credentials_are_where_the_tools_of_the_cloud_have_them(
    home: Path, scheme: str, environ: dict[str, str], expected: dict[str, object]
) -> None:
    assert account.CONFIGS[scheme]({"HOME": str(home), **environ}) == expected


@cases(
    ("profile", "says"),
    [
        ("none", "There is no AWS profile 'none'"),
        ("role", "aws configure export-credentials --profile role"),
        ("sso", "aws configure export-credentials --profile sso"),
    ],
)
def test_a_profile_without_keys_says_how_to_get_them(home: Path, profile: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        account.CONFIGS["s3"]({"HOME": str(home), "AWS_PROFILE": profile})


def test_an_endpoint_without_tls_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    open_store(ROOT)


def test_the_keys_of_a_session_are_read_again_where_a_tool_renews_them(
    bucket: StubBucket, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "RENEWED_SECONDS", 0)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_PROFILE", "night")
    store = open_store(ROOT)
    known(store, "7.jpg")
    file = home / ".aws/credentials"
    text = file.read_text()
    for content in (text.replace("AKIDNIGHT", "AKIDNEXT"), "[half a li", text):
        file.write_text(content)
        known(store, "7.jpg")
    assert bucket.keys == ["AKIDNIGHT", "AKIDNEXT", "AKIDNEXT", "AKIDNIGHT"]


PAYER = {"x-amz-request-payer": "requester"}
OWN_KEY = b64encode(bytes(32)).decode()
ENCRYPTION = "x-amz-server-side-encryption"


@cases(
    ("environ", "of_objects", "of_lists"),
    [
        ({"AWS_REQUEST_PAYER": "true"}, PAYER, PAYER),
        (
            {"AWS_SERVER_SIDE_ENCRYPTION": "sse-c", "AWS_SSE_CUSTOMER_KEY_BASE64": OWN_KEY},
            {
                f"{ENCRYPTION}-customer-algorithm": "AES256",
                f"{ENCRYPTION}-customer-key": OWN_KEY,
                f"{ENCRYPTION}-customer-key-md5": b64encode(md5(bytes(32)).digest()).decode(),
            },
            {},
        ),
        ({"AWS_SERVER_SIDE_ENCRYPTION": "aws:kms", "AWS_SSE_KMS_KEY_ID": "a-key"}, {}, {}),
    ],
)
def test_who_pays_and_the_key_of_encrypted_objects_are_said_with_each_request(
    bucket: StubBucket,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    of_objects: dict[str, str],
    of_lists: dict[str, str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    bucket.requests.clear()
    bucket.headers.clear()
    store = open_store(ROOT)
    store.check()
    known(store, "7.jpg")
    read()
    wanted = {"LIST": of_lists, "HEAD": of_objects, "GET": of_objects}
    assert {request.partition(" ")[0] for request in bucket.requests} == set(wanted)
    for request, headers in zip(bucket.requests, bucket.headers, strict=True):
        for name in ("x-amz-date", "x-amz-content-sha256"):
            headers.pop(name, None)
        assert headers == wanted[request.partition(" ")[0]], request
    assert OWN_KEY not in repr(pickle.dumps(store))
    for name in environ:
        monkeypatch.delenv(name)


@cases(
    ("root", "environ", "says"),
    [
        ("az://staff", {}, "Account must be specified"),
        ("gs://staff", {"GOOGLE_APPLICATION_CREDENTIALS": "/none.json"}, "/none.json"),
        ("s3://staff", {"AWS_CA_BUNDLE": "/none.pem"}, "AWS_CA_BUNDLE names /none.pem"),
        ("s3://staff", {"AWS_ENDPOINT_URL": "http://minio:9000"}, "or set AWS_ALLOW_HTTP=true"),
        (
            "az://staff",
            {
                "AZURE_STORAGE_CONNECTION_STRING": f"{CONNECTION}BlobEndpoint=http://10.0.0.1/corp",
                "AWS_ALLOW_HTTP": "true",
            },
            "or set AZURE_ALLOW_HTTP=true",
        ),
        ("s3://staff", {"AWS_ENDPOINT_URL": f"http://{KEY}:{SECRET}@127.0.0.1"}, "is no address"),
        (f"s3://{KEY}:{SECRET}@staff", {}, "must hold a bucket and a prefix only"),
        ("s3://staff?versionId=1", {}, "must hold a bucket and a prefix only"),
    ],
)
def test_settings_that_cannot_work_are_named_before_anything_happens(
    root: str, environ: dict[str, str], says: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        with pytest.raises(UsageError, match=says) as caught:
            open_store(root)
        assert SECRET not in str(caught.value)
