"""A ledger that was put back to an earlier state: what the library holds no more is due again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from enroll.calling.asking import Asking
from enroll.calling.requeue import requeue_missing
from enroll.calling.sighting import Sighted, read_library
from enroll.calling.upkeep import COMMAND, upkeep
from enroll.errors import ServiceError
from enroll.expiry import DEFAULT_TIMEOUT
from enroll.ledger import Ledger
from enroll.ledger.files import audit_ledger
from enroll.output.texts import amount

RESTORED = "restored"
"""Among the options of a command on record: the run that a ledger lacked when it was put back."""

ALL_RUNS = 1_000_000
"""More than a ledger has."""


def requeue_deleted(
    path: Path, ledger: Ledger, asking: Asking, group_id: str, *, lacks: int
) -> list[str]:
    """List the library, and make due again what was deleted since the ledger's copy was taken;
    sentences about it.

    Once for each time that it is put back, which `lacks` tells: when the last run began that it
    does not know (UNIX ms). The ledger goes on as it is where the library cannot be listed whole.
    """
    runs = ledger.status(runs=ALL_RUNS).runs
    if any(run.start.options.get(RESTORED) == lacks for run in runs):
        return []
    options = {COMMAND: "verify", RESTORED: lacks, "timeout": DEFAULT_TIMEOUT}
    with closing(audit_ledger(path)) as audit:
        try:
            sighted = read_library(asking, group_id, audit.listing)
        except ServiceError as error:
            sighted = Sighted(faces=0, began=0, because=str(error))
        if not sighted.whole:
            return [
                "The ledger was put back to an earlier state, and the library cannot be listed to "
                f"its end: {sighted.because} What was deleted since counts as enrolled; `enroll "
                "verify --deep --requeue-missing` finds it."
            ]
        audit.refresh()
        audit.all_was_listed(before=sighted.began)
        with upkeep(ledger, options=options, tally=asking.tally) as work:
            requeued = requeue_missing(
                audit, asking=asking, ledger=ledger, work=work, group_id=group_id
            )
    again = amount(requeued.due, "face")
    return [
        "The ledger was put back to an earlier state. The library was listed: "
        f"{again} that it took for enrolled {'is' if requeued.due == 1 else 'are'} not there any "
        "more, and due again."
    ]
