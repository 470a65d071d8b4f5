"""A ledger that was put back to an earlier state: what the library holds no more is due again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from enroll.errors import ServiceError
from enroll.ledger import Ledger
from enroll.ledger.files import audit_ledger
from enroll.ledger.lock import LedgerLock
from enroll.session.caller import Caller
from enroll.session.command_record import COMMAND, command_record
from enroll.session.library_listing import read_library
from enroll.session.requeue import requeue_missing
from enroll.text.wording import amount

_PUT_BACK = "The ledger was put back to an earlier state"
_REMEDY = (
    "`enroll verify --deep --requeue-missing` finds it, and `enroll adopt` takes in what was added."
)


def requeue_deleted(
    path: Path,
    ledger: Ledger,
    lock: LedgerLock,
    caller: Caller,
    group_id: str,
    *,
    options: Mapping[str, Any],
) -> list[str]:
    """List the library, and make due again what was deleted since the ledger's copy was taken;
    sentences about it.

    The lock remembers it once all is known, so that it is done once for each time that a ledger is
    put back. Where the library does not show all, the ledger goes on as it is. `options` are those
    of the run for which it is done.
    """
    if lock.made_good:
        return []
    with closing(audit_ledger(path)) as audit:
        try:
            sighted = read_library(caller, group_id, audit.listing)
        except ServiceError as error:
            return [_unseen(str(error))]
        if not sighted.whole:
            return [_unseen(sighted.because)]
        audit.refresh()
        audit.all_was_listed(before=sighted.began)
        try:
            with command_record(
                ledger, options={**options, COMMAND: "verify"}, tally=caller.tally
            ) as work:
                requeued = requeue_missing(
                    audit, caller=caller, ledger=ledger, work=work, group_id=group_id
                )
        except ServiceError as error:
            return [_unseen(str(error))]
    again = amount(requeued.due, "face")
    said = [
        f"{_PUT_BACK}. The library was listed: {again} that it took for enrolled "
        f"{'is' if requeued.due == 1 else 'are'} not there any more, and due again."
    ]
    if requeued.kept:
        kept = amount(requeued.kept, "face")
        said.append(f"Of {kept} it is not known yet: the next run asks again.")
    else:
        lock.is_made_good()
    return said


def _unseen(because: str) -> str:
    return (
        f"{_PUT_BACK}, and what was deleted since counts as enrolled, as the library does not show "
        f"all: {because} {_REMEDY}"
    )
