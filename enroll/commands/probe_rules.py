"""The rules of the service that `enroll probe` breaks, one call each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enroll.commands.probe_calls import RawCall, Signing, as_gif, padded, probe_photo, resized
from enroll.facesearch.answers import LIBRARY_CODES
from enroll.model import CallKind
from enroll.settings import DEFAULT_MAX_SIDE

LONGEST_ID = 48
LONGEST_TEXT = 128
USER, OTHER = "probe-%41@#&_1", "P" * LONGEST_ID
"""Every kind of character that a user_id may have, and the most bytes."""
TEXT = "é" * LONGEST_TEXT
"""Twice as many bytes as characters."""
CHARACTERS = " \t\"'\\<&%41;\r\n漢字 🙂 e\u0301 \u05d0 "
"""What texts of people's lists hold: blanks at the ends, tab and line break, quotes, markup, and
characters of up to four bytes."""
NO_TOKEN = "0" * 32

SMALLEST_SIDE = 48
"""Pixels, as the vendor's other products have it; `DEFAULT_MAX_SIDE` is the largest."""
NARROW_SIDE = 64
"""The other side of pictures with a long one: pixels cost time."""
DOCUMENTED_REQUEST_BYTES = 2 * 1024 * 1024
TOO_MANY_BYTES = DOCUMENTED_REQUEST_BYTES + 4096
TOO_LARGE = 413

BAD, MISSING, DENIED = "BAD_ARGUMENTS", "MISSING_ARGUMENTS", "AUTHORIZATION_ERROR"
WRONG_SIZE = "INVALID_IMAGE_SIZE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Photos:
    """JPEGs of two faces, or twice of one; a smaller face; and a picture without a face."""

    one: bytes
    other: bytes
    small: bytes
    nobody: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A call that breaks a rule, and the codes with which the service is to refuse it: first the
    documented one.

    `any_code`: none is documented. `with_face`: the service may look for a face first.
    """

    name: str
    call: RawCall
    codes: Sequence[str] = (BAD,)
    status: int = 400
    any_code: bool = False
    with_face: bool = False

    @property
    def documented(self) -> str:
        """What is documented, in words."""
        code = self.codes[0].removeprefix("HTTP_413") or "Request Entity Too Large"
        return "refused; not documented how" if self.any_code else f"{self.status} {code}"


def rules_of_calls(photos: Photos, user_id: str) -> Iterator[Rule]:
    """Signatures that must be refused, missing, wrong, and contradictory fields."""
    photo, user = probe_photo(photos.one), {"user_id": user_id}
    for name, signing in (
        ("wrong_signature", Signing.FORGED),
        ("expired_signature", Signing.EXPIRED),
    ):
        call = RawCall(kind=CallKind.ADD, fields=user, photo=photo, signing=signing)
        yield Rule(name=name, call=call, codes=[DENIED], status=403)
    nowhere = RawCall(kind=CallKind.GROUP_INFO, fields={}, elsewhere=True)
    yield Rule(name="unknown_call", call=nowhere, codes=["API_NOT_FOUND"], status=404)
    long_text = {**user, "user_data": "x" * (LONGEST_TEXT + 1)}
    for name, fields, codes in (
        ("user_id_missing", {}, [MISSING]),
        ("user_id_characters", {"user_id": "probe 1"}, [BAD]),
        ("user_id_too_long", {"user_id": "P" * (LONGEST_ID + 1)}, [BAD]),
        ("user_data_too_long", long_text, [BAD]),
        ("multi_oriented_detection", {**user, "multi_oriented_detection": "2"}, [BAD]),
    ):
        call = RawCall(kind=CallKind.ADD, fields=fields, photo=photo)
        yield Rule(name=name, call=call, codes=codes, with_face=True)
    alone = RawCall(kind=CallKind.ADD, fields=user)
    yield Rule(name="photo_missing", call=alone, codes=[MISSING])
    both = RawCall(kind=CallKind.ADD, fields=user, photo=photo, both=True)
    yield Rule(name="image_and_file", call=both, codes=["COEXISTENCE_ARGUMENTS"], with_face=True)
    no_library = {"group_id": "enroll-probe-%@#&_-no-such-library"}
    unknown = RawCall(kind=CallKind.GROUP_INFO, fields=no_library)
    codes = sorted(LIBRARY_CODES, reverse=True)
    yield Rule(name="unknown_library", call=unknown, codes=codes)
    for kind, field, number, sent in (
        (CallKind.LIST, "limit", 1001, None),
        (CallKind.LIST, "limit", 0, None),
        (CallKind.LIST, "start", 0, None),
        (CallKind.SEARCH, "limit", 101, photo),
        (CallKind.SEARCH, "limit", 0, photo),
    ):
        call = RawCall(kind=kind, fields={field: str(number)}, photo=sent)
        yield Rule(name=f"{kind}_{field}_{number}", call=call, with_face=sent is not None)


def rules_of_pictures(photos: Photos, user_id: str) -> Iterator[Rule]:
    """Pictures that are refused for their format or size."""
    user = {"user_id": user_id}
    small, large = SMALLEST_SIDE - 1, DEFAULT_MAX_SIDE + 1
    for name, content, codes in (
        ("format", as_gif(photos.one), ["IMAGE_ERROR_UNSUPPORTED_FORMAT"]),
        (f"side_{small}", resized(photos.nobody, (small, small)), [WRONG_SIZE]),
        (f"side_{large}", resized(photos.nobody, (large, NARROW_SIDE)), [WRONG_SIZE]),
    ):
        call = RawCall(kind=CallKind.ADD, fields=user, photo=probe_photo(content))
        yield Rule(name=name, call=call, codes=codes)
    large_photo = probe_photo(padded(photos.one, TOO_MANY_BYTES))
    call = RawCall(kind=CallKind.ADD, fields=user, photo=large_photo)
    codes = ["HTTP_413", "IMAGE_FILE_TOO_LARGE"]
    yield Rule(name="bytes_refused", call=call, codes=codes, status=TOO_LARGE)
