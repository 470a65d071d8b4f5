"""The ledger against its library: `enroll verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from enroll.ledger.lock import holder_of
from enroll.model import Credentials, LibraryFace
from enroll.repair.mending import mend
from enroll.repair.verified import Verified, left_lines, verified_lines, write_differences
from enroll.session.library_listing import Sighted, look_up, read_library
from enroll.session.session import Prompt, Session, VerifySettings, open_session
from enroll.text.wording import amount


def verify(
    settings: VerifySettings, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Verified:
    """Compare a ledger with its library, tell the differences, and mend what is asked for.

    The ledger's lock is taken only to change something. Raises EnrollError.
    """
    with open_session(settings, read_credentials, prompt) as session:
        sighted = _read(session)
        found = _compared(session, sighted)
        if settings.differences is not None:
            differences = session.audit.differences(under_way=_under_way(session))
            write_differences(differences, settings.differences)
        prompt.say(*verified_lines(found))
        if mend(session, found.differences):
            session.audit.refresh()
            found = _compared(session, sighted)
            prompt.say(*left_lines(found))
        return found


def _read(session: Session[VerifySettings]) -> Sighted:
    """See as much of the library as is asked for."""
    prompt, audit = session.prompt, session.audit
    holder = holder_of(session.settings.ledger)
    if holder is not None:
        prompt.say(f"A run is going on{holder}. What it adds meanwhile is left out.")
    sighted = read_library(
        session.caller,
        session.group_id,
        audit.listing,
        heard=lambda count: prompt.progress(count, "faces listed"),
    )
    audit.refresh()
    asked = session.settings.deep and _ask_for_the_rest(session, sighted)
    if sighted.whole and not asked:
        audit.all_was_listed(before=sighted.began)
    return sighted


def _ask_for_the_rest(session: Session[VerifySettings], sighted: Sighted) -> bool:
    """Ask for each face of the ledger that `list` did not show, if that is agreed to."""
    audit, before = session.audit, sighted.began
    count = audit.unseen_count(before=before)
    if count and not session.prompt.confirm(
        f"`list` did not show {amount(count, 'face')} of the ledger. Ask for each, with "
        f"{amount(count, 'call')} of face_info?"
    ):
        return False
    after, done = "", 0
    while batch := audit.unseen(before=before, after=after):
        after = batch[-1]
        there, absent = [], []
        for token, found in look_up(session.caller, session.group_id, batch):
            if isinstance(found, LibraryFace):
                there.append(found)
            elif found is None:
                absent.append(token)
            done += 1
            session.prompt.progress(done, f"of {amount(count, 'face')} asked for")
        audit.listing.take(there)
        audit.absent(absent)
    return True


def _under_way(session: Session[VerifySettings]) -> bool:
    return holder_of(session.settings.ledger) is not None


def _compared(session: Session[VerifySettings], sighted: Sighted) -> Verified:
    audit = session.audit
    differences = audit.differences(under_way=_under_way(session))
    return Verified(
        ledger=session.settings.ledger,
        endpoint=session.endpoint,
        group_id=session.group_id,
        sighted=sighted,
        seen=audit.listing.count(),
        counts=audit.status(runs=0).counts,
        differences=Counter(one.kind for one in differences),
        unchecked=audit.unseen_count(before=sighted.began),
        calls=session.caller.tally.calls,
        written_to=session.settings.differences,
    )
