"""Faces in the library that the ledger does not know, found before the first photo is sent.

A ledger that was restored from a backup, or that shares its library with another, does not know
every face in it. Before a photo of a person with such a face is sent, the library is searched for
it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from enroll.errors import LedgerMismatchError, ServiceError
from enroll.facesearch import LIST_PAGE, faces, next_start
from enroll.model import Answer, LibraryFace
from enroll.runner.job import Trust
from enroll.runner.journal import Journal
from enroll.runner.lookups import Lookup, Lookups
from enroll.session.retry import RUN_FIRST_LIST

PAGES = 100
"""The most `list` pages to read: faces that the ledger lacks, and one page that it knows."""


class UnknownFaces:
    """Lists the end of the library, where the faces are that the ledger may have missed.

    `list` returns the oldest faces first, so those past the number that the ledger knows are new
    to it. Listing starts a page earlier, because some of the known ones may have been deleted.
    If that page shows no known face, more were deleted: the start is halved until one is seen.
    Faces beyond the point where the service stops listing cannot be seen.
    """

    def __init__(self, lookups: Lookups, journal: Journal, *, trust: Trust) -> None:
        """With `Trust.WHOLE` the service is not asked, and nobody has an unknown face."""
        self._lookups = lookups
        self._journal = journal
        self._tokens: dict[str, set[str]] = defaultdict(set)
        self._whole = False
        self._asked = False
        self._pages = 0
        self._met = False  # a face that the ledger knows: those after it may be new
        self._trust = trust
        self.complete = trust is Trust.WHOLE
        """Whether everything that can be seen has been."""
        self.stop: LedgerMismatchError | None = None
        """Why nothing may be sent: the ledger lacks faces and the library cannot be listed."""

    @property
    def being_learned(self) -> bool:
        """Whether the library is being listed."""
        return self._asked and not self.complete

    def learn(self) -> None:
        """Start listing the library, unless that is under way or done."""
        if not (self.complete or self._asked):
            self._asked = True
            held = self._journal.ledger.token_count()
            self._ask(max(held + 2 - LIST_PAGE, 1))

    def has(self, user_id: str) -> bool:
        """Whether the library holds a face of this person that the ledger does not know."""
        tokens = self._tokens.get(user_id, set())
        return len(self._journal.ledger.holders_of(list(tokens))) < len(tokens)

    def all_known(self) -> bool:
        """Whether the library was listed to its end, and the ledger knows all of it by now."""
        return self._whole and not any(map(self.has, self._tokens))

    def _ask(self, start: int) -> None:
        self._lookups.list_page(start, self._listed, policy=RUN_FIRST_LIST)

    def _listed(self, lookup: Lookup, answer: Answer) -> None:
        start = lookup.start
        try:
            page, following = faces(answer), next_start(answer)
        except ServiceError:  # also where the service stops listing
            self._ends(whole=False)
            return
        self._met = self._remember(page) or self._met or start == 1
        self._pages += 1
        if not self._met and self._pages < PAGES:
            self._ask(start // 2)
        elif following is None:
            self._ends(whole=True)
        elif following <= start or self._pages >= PAGES:
            self._ends(whole=False)
        else:
            self._ask(following)

    def _ends(self, *, whole: bool) -> None:
        self.complete, self._whole = True, whole
        if self._trust is Trust.LESS and not whole:
            self.stop = LedgerMismatchError(
                "The ledger ends before the last run that used it, as if it had been restored "
                "from a backup, and the service does not list the faces that are missing in it: "
                "enrolling now may add people twice. Adopt them with `enroll adopt`, with every "
                "manifest that was enrolled since, or add to the library anyway with "
                "--allow-nonempty."
            )

    def _remember(self, page: Sequence[LibraryFace]) -> bool:
        """Note the faces that the ledger does not know. Returns whether it knows any in `page`."""
        held = self._journal.ledger.holders_of([face.face_token for face in page])
        for face in page:
            if face.face_token not in held:
                self._tokens[face.user_id].add(face.face_token)
        return bool(held)
