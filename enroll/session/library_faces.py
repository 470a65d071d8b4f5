"""What a library holds: page by page with `list`, face by face with `face_info`, and most like a
photo with `search`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enroll import clock
from enroll.errors import ServiceError, UnreachedError
from enroll.facesearch import (
    LIST_PAGE,
    Call,
    FaceSearch,
    FoundFace,
    candidates,
    face,
    faces,
    next_start,
)
from enroll.ledger import Ledger, Listing
from enroll.model import (
    Answer,
    CallKind,
    FaceRecord,
    LibraryFace,
    Photo,
    SendAs,
    Verdict,
    same_face,
)
from enroll.photos import PhotoSource, read_photo
from enroll.session.caller import Caller
from enroll.settings import SEARCH_PREPARATION
from enroll.text.wording import amount

MOST_FACES = 5_000_000
"""What an account can hold, by the service's documentation; a `list` that shows more has no end."""

MOST_PAGES = MOST_FACES // 100
"""In how many pages that is shown at most: 100 faces are a page of `list` by default."""

NO_SUCH_FACE = "INVALID_FACE_TOKEN"
"""What `face_info` answers for a token that the library does not hold."""


SEARCH_LIMIT = 100
"""How many results to request from `search`: its maximum."""

SEARCH_THRESHOLD = 50.0
"""The score below which `search` need not return results. The service recommends 75 or more to
tell people apart; a photo's own face scores far higher."""

SCORE_SLACK = 0.1
"""How far a photo's score for its own face may be below another photo's: room for rounding, and
much less than the difference between two photos of the same person."""

CALIBRATION_FACES = 5
"""How many enrolled faces are searched for to learn the score of own faces, newest first."""

NO_FACE_FOUND = "NO_FACE_FOUND"
"""What `search` answers for a photo in which the service sees no face: it cannot have added one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLibrary:
    """How much of a library `list` has shown.

    `began` is when it was first asked (UNIX ms, by our clock); `because` says why it showed not
    all, and is empty where it did. `stop` is the error if the service was away or refused the
    credentials, None if `list` itself shows no more.
    """

    faces: int
    began: int
    because: str = ""
    stop: ServiceError | None = None

    @property
    def whole(self) -> bool:
        """Whether every face of the library was shown."""
        return not self.because


@dataclass(frozen=True, slots=True)
class SeenFace:
    """A face of the library that a look has shown; `score` is None where it came from `list`."""

    face_token: str
    add_time: int | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What one look has shown: the person's faces that the ledger does not know.

    `cut_at` is the score of the last result if there may be more results after it, else None. `at`
    is when the look was made, or 0 if nothing may be concluded from a face that it does not show.
    `own` is whether it shows the face's own token, None if the face has none.
    """

    unknown_faces: tuple[SeenFace, ...]
    cut_at: float | None = None
    at: float = 0.0
    own: bool | None = None


# Listing


class _ListEndError(ServiceError):
    """The service refuses a page of `list`, as it may beyond the first 1,000 faces."""


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
    began, start, seen, stop = clock.now_ms(), 1, 0, None
    because = f"`list` continues beyond the {MOST_FACES:,} faces that an account can hold."
    for _ in range(MOST_PAGES):
        try:
            page, following = _page(caller, start)
        except ServiceError as error:
            if start == 1:
                raise
            because = str(error)
            stop = None if isinstance(error, _ListEndError) else error
            break
        new = listing.add_faces(page)
        seen += new
        on_progress(seen)
        if following is None:
            because = ""
            break
        if seen > MOST_FACES:
            break
        if following <= start or not new:
            because = f"The page from {start:,} on leads back to faces already listed."
            break
        start = following
    return ListedLibrary(faces=seen, began=began, because=because, stop=stop)


def faces_seen(count: int, *, whole: bool) -> str:
    """How many faces of a library were seen, and whether that is the `whole` library."""
    which = "only " if not whole else "all " if count > 1 else ""
    return f"{which}{amount(count, 'face')} seen"


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
        raise _ListEndError(f"The service does not list the faces from {start:,} on: {said}.")
    return faces(answer), next_start(answer)


# Looking up


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


# Searching


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSearch:
    """How a library is searched: where its photos are, how they are sent, and the score below which
    no face is asked for."""

    group_id: str
    store: PhotoSource
    send_as: SendAs
    threshold: float = SEARCH_THRESHOLD

    def search(
        self, service: FaceSearch, photo: Photo, *, multi_oriented_detection: bool
    ) -> Answer:
        """Make one call for the faces most like a photo's, as many as there are to be had."""
        call = Call.search(
            group_id=self.group_id,
            send_as=self.send_as,
            limit=SEARCH_LIMIT,
            threshold=self.threshold,
            multi_oriented_detection=multi_oriented_detection,
        )
        return service.make(call, photo)

    def each(
        self, caller: Caller, faces: Iterable[FaceRecord], paths: Mapping[int, Sequence[str]]
    ) -> Iterator[tuple[FaceRecord, Answer | None]]:
        """Search with the photo of each face, which lies at one of its `paths` (by number); None
        where the photo is gone. Raises ServiceError as `Caller.each`."""

        def search(service: FaceSearch, face: FaceRecord) -> Answer | None:
            photo = self._read(face, paths[face.face_id])
            if photo is None:
                return None
            return self.search(
                service, photo, multi_oriented_detection=face.multi_oriented_detection
            )

        return caller.each(CallKind.SEARCH, faces, search, answer_of=lambda answer: answer)

    def _read(self, face: FaceRecord, paths: Sequence[str]) -> Photo | None:
        """A face's photo from the first of the paths that still has it, even with different
        metadata; None if no file has its content."""
        for path in paths:
            photo = read_photo(path, self.store, SEARCH_PREPARATION)
            if isinstance(photo, Photo) and same_face([face], photo) is not None:
                return photo
        return None

    def own_score(self, caller: Caller, ledger: Ledger) -> float | None:
        """The score that a photo gets for its own face, learned from a face whose token the ledger
        knows; None if no search shows it. Raises ServiceError like `Caller.each`."""
        known = ledger.newest_enrolled(CALIBRATION_FACES)
        paths = ledger.paths_of([face.face_id for face in known])
        for one in known:  # one after the other: the first is usually enough
            for _, answer in self.each(caller, [one], paths):
                score = score_of(one, found_faces(answer) or [])
                if score is not None:
                    return score
        return None


def found_faces(answer: Answer | None) -> list[FoundFace] | None:
    """The faces that a search has shown, best first; None where it has shown nothing reliable."""
    if answer is None:
        return None
    if answer.code == NO_FACE_FOUND:
        return []
    try:
        return candidates(answer)
    except ServiceError:
        return None


def score_of(face: FaceRecord, found: Iterable[FoundFace]) -> float | None:
    """The score of the face itself among the faces found; None if it is not there."""
    return next((one.score for one in found if one.face_token == face.face_token), None)


def cut_at(found: Collection[FoundFace]) -> float | None:
    """The lowest score if `search` returned as many faces as it can, so there may be more; else
    None."""
    return min(one.score for one in found) if len(found) >= SEARCH_LIMIT else None
