"""Reads what a library holds: page by page with `list`, face by face with `face_info`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from enroll import clock
from enroll.errors import ServiceError, UnreachedError
from enroll.facesearch import LIST_PAGE, Call, face, faces, next_start
from enroll.ledger import Listing
from enroll.model import Answer, CallKind, LibraryFace, Verdict
from enroll.session.caller import Caller

MOST_FACES = 5_000_000
"""What an account can hold, by the service's documentation; a `list` that shows more has no end."""

MOST_PAGES = MOST_FACES // 100
"""In how many pages that is shown at most: 100 faces are a page of `list` by default."""

NO_SUCH_FACE = "INVALID_FACE_TOKEN"
"""What `face_info` answers for a token that the library does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLibrary:
    """How much of a library `list` has shown.

    `began` is when it was first asked (UNIX ms, by our clock); `because` says why it showed not
    all, and is empty where it did.
    """

    faces: int
    began: int
    because: str = ""

    @property
    def whole(self) -> bool:
        """Whether every face of the library was shown."""
        return not self.because


def read_library(
    caller: Caller,
    listing: Listing,
    *,
    on_progress: Callable[[int], None] = lambda count: None,
) -> ListedLibrary:
    """Read a library into `listing` as far as `list` shows it; `on_progress` is called with the
    number of faces so far.

    Raises ServiceError if the service shows nothing at all.
    """
    began, start, seen = clock.now_ms(), 1, 0
    for _ in range(MOST_PAGES):
        try:
            page, following = _page(caller, start)
        except ServiceError as error:
            if start == 1:
                raise
            return ListedLibrary(faces=seen, began=began, because=str(error))
        new = listing.add_faces(page)
        seen += new
        on_progress(seen)
        if following is None:
            return ListedLibrary(faces=seen, began=began)
        if seen > MOST_FACES:
            break
        if following <= start or not new:
            because = f"The page from {start:,} on leads back to faces already listed."
            return ListedLibrary(faces=seen, began=began, because=because)
        start = following
    because = f"`list` continues beyond the {MOST_FACES:,} faces that an account can hold."
    return ListedLibrary(faces=seen, began=began, because=because)


def list_small(caller: Caller) -> list[LibraryFace] | None:
    """Every face of a library that one call can list; None if one call cannot."""
    try:
        return listed_whole(_ask_for_page(caller, 1))
    except ServiceError:
        return None


def listed_whole(answer: Answer) -> list[LibraryFace] | None:
    """The faces of a library that one page of `list` shows whole; else None."""
    try:
        return faces(answer) if next_start(answer) is None else None
    except ServiceError:
        return None


def _ask_for_page(caller: Caller, start: int) -> Answer:
    return caller.ask(Call.list(group_id=caller.group_id, start=start, limit=LIST_PAGE))


def _page(caller: Caller, start: int) -> tuple[list[LibraryFace], int | None]:
    answer = _ask_for_page(caller, start)
    if answer.verdict is not Verdict.APPLIED:
        error = caller.connection.failed(answer)
        if isinstance(error, UnreachedError):
            raise error
        said = (answer.message or answer.code).rstrip(".")
        raise ServiceError(f"The service does not list the faces from {start:,} on: {said}.")
    return faces(answer), next_start(answer)


def look_up(
    caller: Caller, face_tokens: Iterable[str]
) -> Iterator[tuple[str, LibraryFace | ServiceError | None]]:
    """Ask the service for each face: the face, None where the library does not hold it, or the
    error that left it open."""
    asked = caller.each(
        CallKind.FACE_INFO,
        face_tokens,
        lambda service, token: service.make(
            Call.face_info(group_id=caller.group_id, face_token=token)
        ),
        answer_of=lambda answer: answer,
    )
    for token, answer in asked:
        yield token, _looked_up(caller, token, answer)


def _looked_up(caller: Caller, token: str, answer: Answer) -> LibraryFace | ServiceError | None:
    if answer.code == NO_SUCH_FACE and answer.verdict is Verdict.REJECTED:
        return None
    if answer.verdict is not Verdict.APPLIED:
        return caller.connection.failed(answer)
    try:
        found = face(answer)
    except ServiceError as error:
        return error
    if found.face_token != token:
        return ServiceError("The service answered with a different face from the one requested.")
    return found
