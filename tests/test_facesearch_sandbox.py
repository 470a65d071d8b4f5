"""The client against the stand-in service, which shares no code with it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import pytest
from PIL import Image

from enroll.facesearch import (
    Call,
    FaceSearch,
    candidates,
    face,
    faces,
    libraries,
    library,
    next_start,
)
from enroll.model import Answer, Credentials, FileTimes, Photo, SendAs, Verdict

pytest.importorskip("werkzeug")
from enroll.sandbox import Sandbox


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(detect=False) as started:
        started.create_library("g")
        yield started


@pytest.fixture
def client(box: Sandbox) -> Iterator[FaceSearch]:
    credentials = Credentials(box.api_key, box.api_secret)
    made = FaceSearch(box.endpoint, credentials, timeout=20)
    yield made
    made.close()


def photo(seed: int) -> Photo:
    picture = Image.effect_noise((96, 96), 20 + seed * 40).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    content = buffer.getvalue()
    return Photo(
        times=FileTimes(len(content), 0, 0),
        sha256=hashlib.sha256(content).digest(),
        content=content,
        media_type="image/jpeg",
    )


def add(client: FaceSearch, user_id: str, portrait: Photo, send_as: SendAs) -> Answer:
    call = Call.add(
        group_id="g",
        user_id=user_id,
        user_data="Zoë",
        send_as=send_as,
        multi_oriented_detection=False,
    )
    return client.make(call, portrait)


@pytest.mark.parametrize("send_as", SendAs)
def test_a_face_is_added_found_listed_and_deleted(
    client: FaceSearch, box: Sandbox, send_as: SendAs
) -> None:
    portrait = photo(1)
    added = add(client, "u1", portrait, send_as)
    assert added.verdict is Verdict.APPLIED
    found = candidates(client.make(Call.search(group_id="g", send_as=send_as, limit=100), portrait))
    assert [each.user_id for each in found if each.face_token == added.face_token] == ["u1"]
    page = client.make(Call.list(group_id="g"))
    assert [(each.user_id, each.user_data) for each in faces(page)] == [("u1", "Zoë")]
    assert next_start(page) is None
    info = client.make(Call.face_info(group_id="g", face_token=added.face_token))
    assert face(info).face_token == added.face_token
    gone = client.make(Call.delete(group_id="g", face_tokens=[added.face_token]))
    assert (gone.verdict, gone.payload["face_removed"]) == (Verdict.APPLIED, 1)
    assert box.faces("g") == []


def test_a_library_is_created_shown_and_freed(client: FaceSearch) -> None:
    assert client.make(Call.create(group_id="h", group_name="Halle")).verdict is Verdict.APPLIED
    shown = {each.group_id: each.group_name for each in libraries(client.make(Call.group_list()))}
    assert shown["h"] == "Halle"
    assert library(client.make(Call.group_info(group_id="h"))) in libraries(
        client.make(Call.group_list())
    )
    assert client.make(Call.free(group_id="h")).verdict is Verdict.APPLIED
    assert [each.group_id for each in libraries(client.make(Call.group_list()))] == ["g"]


def test_wrong_credentials_are_fatal(box: Sandbox) -> None:
    client = FaceSearch(box.endpoint, Credentials(box.api_key, "wrong"), timeout=20)
    assert client.make(Call.group_list()).verdict is Verdict.FATAL
    client.close()


def test_the_call_after_a_wrong_clock_was_noticed_is_accepted(
    client: FaceSearch, box: Sandbox
) -> None:
    box.clock_skew = 600.0
    assert client.make(Call.group_list()).verdict is Verdict.FATAL
    assert client.clock.offset == pytest.approx(600, abs=5)
    assert client.make(Call.group_list()).verdict is Verdict.APPLIED


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ("500-after", Verdict.UNKNOWN),
        ("502", Verdict.UNKNOWN),
        ("reset-after", Verdict.UNKNOWN),
        ("cut-after", Verdict.UNKNOWN),
        ("not-json", Verdict.UNKNOWN),
        ("no-token-after", Verdict.UNKNOWN),
        ("endless", Verdict.UNKNOWN),
        ("refused", Verdict.REFUSED),
        ("429", Verdict.REFUSED),
        ("unknown-code", Verdict.FAILED),
        ("html-403", Verdict.FAILED),
        ("redirect", Verdict.FATAL),
        ("auth", Verdict.FATAL),
    ],
)
def test_each_trouble_has_the_verdict_of_the_design(
    client: FaceSearch, box: Sandbox, fault: str, verdict: Verdict
) -> None:
    box.script([fault])
    answer = add(client, "u1", photo(1), SendAs.FILE)
    assert (answer.verdict, box.count("add")) == (verdict, 1)


def test_a_connection_that_the_service_dropped_while_it_rested_loses_no_call(
    client: FaceSearch, box: Sandbox
) -> None:
    box.script(["stale"] * 10)
    verdicts = [add(client, f"u{n}", photo(n), SendAs.FILE).verdict for n in range(10)]
    assert verdicts.count(Verdict.APPLIED) == len(box.faces("g"))
    assert Verdict.APPLIED in verdicts
