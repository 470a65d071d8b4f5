"""Payloads into values, and a sentence where the shape is not as documented."""

from __future__ import annotations

import pytest

from enroll.errors import ServiceError
from enroll.facesearch import FoundFace, candidates, face, faces, libraries, next_start
from enroll.model import Answer, Library, LibraryFace, Verdict

TOKEN = "0123456789abcdef0123456789abcdef"
FACE = {"face_token": TOKEN, "user_id": "u", "user_data": "d", "add_time": 17}


def applied(**payload: object) -> Answer:
    return Answer(verdict=Verdict.APPLIED, payload=payload)


def test_libraries_are_read_with_what_may_be_missing_empty() -> None:
    full = {
        "group_id": "g",
        "group_name": "n",
        "group_data": "d",
        "model_version": "s21",
        "add_time": "2024-01-01T00:00:00Z",
        "more": 1,
    }
    assert libraries(applied(group_infos=[full, {"group_id": "h", "group_data": None}])) == [
        Library(
            group_id="g",
            group_name="n",
            group_data="d",
            model_version="s21",
            add_time="2024-01-01T00:00:00Z",
        ),
        Library(group_id="h"),
    ]


def test_faces_are_read_in_their_order() -> None:
    second = {**FACE, "user_id": "v", "user_data": None}
    assert faces(applied(face_tokens=[FACE, second])) == [
        LibraryFace(face_token=TOKEN, user_id="u", user_data="d", add_time=17),
        LibraryFace(face_token=TOKEN, user_id="v", user_data="", add_time=17),
    ]


def test_the_face_of_face_info_is_read() -> None:
    assert face(applied(info=FACE)).user_id == "u"


@pytest.mark.parametrize(("following", "start"), [(None, None), (101, 101), ("101", 101)])
def test_the_next_page_is_where_the_service_says(following: object, start: int | None) -> None:
    assert next_start(applied(face_tokens=[], next=following)) == start


def test_without_next_there_is_no_next_page() -> None:
    assert next_start(applied(face_tokens=[])) is None


@pytest.mark.parametrize("name", ["confidence", "score"])
def test_a_score_is_read_under_either_name(name: str) -> None:
    item = {"face_token": TOKEN, "user_id": "u", "user_data": "d", name: 97.5}
    assert candidates(applied(results=[item])) == [
        FoundFace(face_token=TOKEN, user_id="u", user_data="d", score=97.5)
    ]


def test_a_found_face_keeps_its_time_where_the_service_says_it() -> None:
    assert candidates(applied(results=[{**FACE, "score": 1}]))[0].add_time == 17


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"results": None},
        {"results": {}},
        {"results": [7]},
        {"results": [{}]},
        {"results": [FACE]},
        {"results": [{**FACE, "score": "97"}]},
        {"results": [{**FACE, "score": True}]},
        {"results": [{**FACE, "score": 101}]},
        {"results": [{**FACE, "score": float("inf")}]},
        {"results": [{**FACE, "score": 1, "user_id": 7}]},
        {"results": [{**FACE, "score": 1, "user_data": 7}]},
    ],
)
def test_search_results_of_another_shape_are_the_services_error(payload: dict[str, object]) -> None:
    with pytest.raises(ServiceError, match="as documented"):
        candidates(applied(**payload))


@pytest.mark.parametrize("add_time", [None, "17", 1.5, -1, 2**63, True])
def test_a_time_that_no_ledger_can_hold_is_the_services_error(add_time: object) -> None:
    with pytest.raises(ServiceError, match="add_time"):
        faces(applied(face_tokens=[{**FACE, "add_time": add_time}]))


@pytest.mark.parametrize("following", [0, -1, "x", 1.5, True, [], "٣"])
def test_a_next_that_is_no_place_is_the_services_error(following: object) -> None:
    with pytest.raises(ServiceError, match="next"):
        next_start(applied(face_tokens=[], next=following))


def test_an_answer_that_was_not_applied_cannot_be_read() -> None:
    answer = Answer(verdict=Verdict.FATAL, code="AUTHORIZATION_ERROR", message="no")
    with pytest.raises(ServiceError, match="AUTHORIZATION_ERROR"):
        libraries(answer)
