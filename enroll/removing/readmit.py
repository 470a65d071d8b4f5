"""`enroll forget --readmit`: somebody who was forgotten may be enrolled again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from enroll.clock import now_ms
from enroll.ledger.files import check_library, open_ledger, read_ledger
from enroll.ledger.lock import LedgerLock
from enroll.model import SendAs
from enroll.removing.forget import FORGET, ForgetSettings
from enroll.session.command_record import COMMAND, command_record
from enroll.session.session import Prompt
from enroll.settings import DEFAULT_ENDPOINT
from enroll.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmitted:
    """Who may be enrolled again, and who was not withheld."""

    people: Sequence[str]
    others: Sequence[str]


def readmit(settings: ForgetSettings, prompt: Prompt) -> Readmitted:
    """Take people off the block list; nothing is called. Raises EnrollError."""
    read_ledger(settings.ledger).close()  # that there is one, before anything is made beside it
    with ExitStack() as stack:
        stack.enter_context(LedgerLock(settings.ledger))
        reader = read_ledger(settings.ledger)
        identity = reader.identity()
        reader.close()
        wanted = replace(identity, group_id=settings.group_id or identity.group_id)
        check_library(settings.ledger, identity, wanted)
        ledger = open_ledger(settings.ledger, identity)
        stack.callback(ledger.close)
        last = next(iter(ledger.status(runs=1).runs), None)
        before: Mapping[str, Any] = {} if last is None else last.start.options
        options = {
            COMMAND: FORGET,
            "group_id": identity.group_id,
            "endpoint": before.get("endpoint") or DEFAULT_ENDPOINT,
            "timeout": settings.timeout,
            "send_as": before.get("send_as") or SendAs.FILE.value,
        }
        # The survey, which was taken without them, is dropped by it.
        work = stack.enter_context(command_record(ledger, options=options, tally=Tally()))
        holds = ledger.block_list.holds
        named = dict.fromkeys(one if holds(one) else one.strip() for one in settings.readmitted)
        lifted = [
            user_id
            for user_id in named
            if ledger.forgetting.readmit(user_id, at=now_ms(), run=work.run)
        ]
        ledger.commit()
    others = [user_id for user_id in named if user_id not in lifted]
    if lifted:
        prompt.say(f"Not withheld any more: {settings.several(lifted)}. The next run enrolls them.")
    if others:
        prompt.say(f"Not withheld before either: {settings.several(others)}.")
    return Readmitted(people=lifted, others=others)
