"""The engine port: where photos are read and prepared, and signed calls are made.

The bytes of a photo stay with the engine; a run has its hashes, its size and a handle. It signs the
calls, so no secret gets here. Another adapter has to pass `tests/test_engine.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from enroll.errors import EnrollError
from enroll.facesearch import SignedCall
from enroll.model import Answer, SeenPhoto, Unusable
from enroll.settings import Preparation


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPhoto(SeenPhoto):
    """A photo that an engine has prepared and holds under this `handle`: `size` bytes."""

    handle: int
    size: int


Read = tuple[Sequence[HeldPhoto | Unusable], bool]
"""What reading some photos has come to: of the first of them, in their order, and whether reading
was quick enough for one reader to be given several."""


class Engine(Protocol):
    """Carries out what a run hands to it, each once and beside the others.

    A future has the value, or the exception that a bug has raised; whoever waits for it is not
    kept waiting for more than a call's own time.
    """

    @property
    def readers(self) -> int:
        """How many photos can be read at a time now; 0 while there is no memory for more."""

    def read(self, paths: Sequence[str], preparation: Preparation) -> Future[Read]:
        """Read and prepare at least the first of these photos, and hold what can be sent.

        The future raises ShortageError where this machine could open no file: nothing was read.
        """

    def call(self, call: SignedCall, photo: HeldPhoto | None = None) -> Future[Answer]:
        """Make a call, with a photo where it needs one, exactly once and while it may be made.

        Raises ShortageError where it could not begin at once: then it is not made.
        """

    @property
    def fault(self) -> EnrollError | None:
        """Why nothing can be read or called any more; what is asked for then is not carried out."""

    def drop(self, photo: HeldPhoto) -> None:
        """Let go of a photo, once or more often; a call under way keeps its own."""
