"""The rules of the service that `enroll probe` breaks, one call each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enroll.commands.probe_calls import RawCall, as_gif, probe_photo, resized
from enroll.facesearch.answers import LIBRARY_CODES
from enroll.model import CallKind, Photo

LONGEST_ID = 48
LONGEST_TEXT = 128
USER, OTHER = "probe-%@#&_1", "P" * LONGEST_ID
"""Every sign that a user_id may have, and the most bytes."""
TEXT = "é" * LONGEST_TEXT
"""Twice as many bytes as characters."""
NO_TOKEN = "0" * 32


EXPIRED_SECONDS = 5
"""For how long the expired signature has been expired: a service that accepted it would allow calls
to be carried out after enroll takes them for lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photos:
    """JPEGs of two faces, or twice of one, and a picture without a face."""

    one: bytes
    other: bytes
    nobody: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A call that breaks a rule, and the codes with which the service is to refuse it.

    `instead` is how the stand-in refuses it: code and detail.
    """

    name: str
    call: RawCall
    codes: Sequence[str]
    status: int = 400
    instead: str = ""
    with_face: bool = False


def signature_rules(group_id: str) -> Iterator[Rule]:
    """Signatures that must be refused."""
    info = {"group_id": group_id}
    denied = "AUTHORIZATION_ERROR"
    forged = RawCall(kind=CallKind.GROUP_INFO, fields=info, forged=True)
    yield Rule(name="wrong_signature", call=forged, codes=[denied], status=403)
    expired = RawCall(kind=CallKind.GROUP_INFO, fields=info, expired=EXPIRED_SECONDS)
    yield Rule(name="expired_signature", call=expired, codes=[denied], status=403)


def argument_rules(photo: Photo) -> Iterator[Rule]:
    """Missing, wrong, and contradictory fields."""
    bad = ["BAD_ARGUMENTS"]
    missing = ["MISSING_ARGUMENTS"]
    user = {"user_id": USER}
    switch = {**user, "multi_oriented_detection": "2"}
    for name, fields, codes, detail in (
        ("user_id_missing", {}, missing, "user_id"),
        ("user_id_characters", {"user_id": "probe 1"}, bad, "user_id"),
        ("user_id_too_long", {"user_id": "P" * (LONGEST_ID + 1)}, bad, "user_id"),
        ("user_data_too_long", {**user, "user_data": "x" * (LONGEST_TEXT + 1)}, bad, "user_data"),
        ("multi_oriented_detection", switch, bad, "multi_oriented_detection"),
    ):
        yield Rule(
            name=name,
            call=RawCall(kind=CallKind.ADD, fields=fields, photo=photo),
            codes=codes,
            instead=f"{codes[0]}: {detail}",
            with_face=True,
        )
    yield Rule(
        name="photo_missing",
        call=RawCall(kind=CallKind.ADD, fields=user),
        codes=missing,
        instead="MISSING_ARGUMENTS: file",
    )
    yield Rule(
        name="image_and_file",
        call=RawCall(kind=CallKind.ADD, fields=user, photo=photo, both=True),
        codes=["COEXISTENCE_ARGUMENTS"],
        with_face=True,
    )
    yield Rule(
        name="unknown_token",
        call=RawCall(kind=CallKind.FACE_INFO, fields={"face_token": NO_TOKEN}),
        codes=["INVALID_FACE_TOKEN"],
    )


def number_rules() -> Iterator[Rule]:
    """An unknown library, and numbers out of their range."""
    yield Rule(
        name="unknown_library",
        call=RawCall(kind=CallKind.GROUP_INFO, fields={"group_id": "enroll-probe-no-such-library"}),
        codes=sorted(LIBRARY_CODES, reverse=True),
        instead="INVALID_OUTER_ID",
    )
    for name, field_name, value in (
        ("list_limit_1001", "limit", "1001"),
        ("list_start_0", "start", "0"),
    ):
        yield Rule(
            name=name,
            call=RawCall(kind=CallKind.LIST, fields={field_name: value}),
            codes=["BAD_ARGUMENTS"],
            instead=f"BAD_ARGUMENTS: {field_name}",
        )


def picture_rules(photos: Photos) -> Iterator[Rule]:
    """Pictures that are refused for their format or size."""
    for name, content, code in (
        ("format", as_gif(photos.one), "IMAGE_ERROR_UNSUPPORTED_FORMAT"),
        ("side_47", resized(photos.nobody, (47, 47)), "INVALID_IMAGE_SIZE"),
        ("side_4097", resized(photos.nobody, (4097, 512)), "INVALID_IMAGE_SIZE"),
    ):
        call = RawCall(kind=CallKind.ADD, fields={"user_id": USER}, photo=probe_photo(content))
        yield Rule(name=name, call=call, codes=[code])
