"""Which credentials a call leaves with, and whether others have taken their place since.

Somebody may exchange an account's credentials while calls are under way. Several of these are
refused then, and the new ones are read only once: whoever hears of it later than the first just
tries again, because the credentials that the call was refused with are no longer the present ones.
"""

from __future__ import annotations

from typing import Protocol

from enroll.model import Credentials


class CredentialRefresh(Protocol):
    """The credentials of a service; `enroll.session.account.Connection` offers them.

    Credentials are told apart by identity: those that were read again are others only if they
    were found to differ.
    """

    @property
    def credentials(self) -> Credentials:
        """Those that calls are signed with at present."""

    def others_than(self, refused: Credentials | None) -> bool:
        """Whether there are other credentials than those that a call was refused with; they are
        read once more where these are the present ones."""


class Unchanging:
    """Credentials that nobody exchanges."""

    credentials = Credentials("", "")

    def others_than(self, refused: Credentials | None) -> bool:
        return False
