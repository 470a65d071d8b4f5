"""The ledger against its library: `enroll verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from enroll.ledger.lock import holder_of
from enroll.model import Credentials, LibraryFace
from enroll.repair.mending import mend
from enroll.repair.verified import Verified, left_lines, verified_lines, write_differences
from enroll.session.library_listing import Sighted, look_up, read_library
from enroll.session.session import Bench, Talk, VerifySettings, open_bench
from enroll.text.wording import amount


def verify(
    settings: VerifySettings, read_credentials: Callable[[], Credentials], talk: Talk
) -> Verified:
    """Compare a ledger with its library, tell the differences, and mend what is asked for.

    The ledger's lock is taken only to change something. Raises EnrollError.
    """
    with open_bench(settings, read_credentials, talk) as bench:
        sighted = _read(bench)
        found = _compared(bench, sighted)
        if settings.differences is not None:
            differences = bench.audit.differences(under_way=_under_way(bench))
            write_differences(differences, settings.differences)
        talk.say(*verified_lines(found))
        if mend(bench, found.differences):
            bench.audit.refresh()
            found = _compared(bench, sighted)
            talk.say(*left_lines(found))
        return found


def _read(bench: Bench[VerifySettings]) -> Sighted:
    """See as much of the library as is asked for."""
    talk, audit = bench.talk, bench.audit
    holder = holder_of(bench.settings.ledger)
    if holder is not None:
        talk.say(f"A run is going on{holder}. What it adds meanwhile is left out.")
    sighted = read_library(
        bench.asking,
        bench.group_id,
        audit.listing,
        heard=lambda count: talk.progress(count, "faces listed"),
    )
    audit.refresh()
    asked = bench.settings.deep and _ask_for_the_rest(bench, sighted)
    if sighted.whole and not asked:
        audit.all_was_listed(before=sighted.began)
    return sighted


def _ask_for_the_rest(bench: Bench[VerifySettings], sighted: Sighted) -> bool:
    """Ask for each face of the ledger that `list` did not show, if that is agreed to."""
    audit, before = bench.audit, sighted.began
    count = audit.unseen_count(before=before)
    if count and not bench.talk.confirm(
        f"`list` did not show {amount(count, 'face')} of the ledger. Ask for each, with "
        f"{amount(count, 'call')} of face_info?"
    ):
        return False
    after, done = "", 0
    while batch := audit.unseen(before=before, after=after):
        after = batch[-1]
        there, absent = [], []
        for token, found in look_up(bench.asking, bench.group_id, batch):
            if isinstance(found, LibraryFace):
                there.append(found)
            elif found is None:
                absent.append(token)
            done += 1
            bench.talk.progress(done, f"of {amount(count, 'face')} asked for")
        audit.listing.take(there)
        audit.absent(absent)
    return True


def _under_way(bench: Bench[VerifySettings]) -> bool:
    return holder_of(bench.settings.ledger) is not None


def _compared(bench: Bench[VerifySettings], sighted: Sighted) -> Verified:
    audit = bench.audit
    differences = audit.differences(under_way=_under_way(bench))
    return Verified(
        ledger=bench.settings.ledger,
        endpoint=bench.endpoint,
        group_id=bench.group_id,
        sighted=sighted,
        seen=audit.listing.count(),
        counts=audit.status(runs=0).counts,
        differences=Counter(one.kind for one in differences),
        unchecked=audit.unseen_count(before=sighted.began),
        calls=bench.asking.tally.calls,
        written_to=bench.settings.differences,
    )
