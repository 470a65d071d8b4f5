"""`enroll plan --report`: a CSV that says for each row what would be done to its photo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enroll.manifest.results import escape
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.model import Candidate, Fault, Status
from enroll.photos import Glance
from enroll.text.files import new_csv
from enroll.text.remedies import sentence

COLUMNS = (
    *("line", "lines", "user_id", "image", "plan", "status", "error", "message"),
    *("bytes", "bytes_to_send", "width", "height"),
)

AS_IT_IS = "sent as it is"
REFUSED = "not sent"
COMPARED = "read and compared"


class PlanReport:
    """Collects what would become of each row, one line each."""

    def __init__(self, writer: Any) -> None:
        """`writer` is a csv.writer, or None to write nothing."""
        self._writer = writer
        self._lines: list[list[Any]] = []

    def put(self) -> None:
        """Write what was collected since the last time, in the manifest's order."""
        if self._writer is not None:
            self._writer.writerows(sorted(self._lines, key=lambda line: int(line[0])))
        self._lines.clear()

    def not_sent(
        self, row: Candidate, status: Status, fault: Fault, look: Glance | None = None
    ) -> None:
        """A row that would not be sent, and why; `look` if its photo could be read."""
        self._write(row, REFUSED, (status.value, fault), look)

    def compared(self, row: Candidate, look: Glance | None) -> None:
        """An enrolled row whose file was touched: it is read to see whether it changed."""
        self._write(row, COMPARED, None, look)

    def sent(self, row: Candidate, look: Glance) -> None:
        """A row that would be sent, perhaps with a doubt about the face in its photo."""
        amiss = None if look.precheck_fault is None else ("", look.precheck_fault)
        self._write(row, ", ".join(look.edits) or AS_IT_IS, amiss, look)

    def _write(
        self, row: Candidate, plan: str, amiss: tuple[str, Fault] | None, look: Glance | None
    ) -> None:
        if self._writer is None:
            return
        status, fault = ("", Fault(code="", message="")) if amiss is None else amiss
        times, pixels = row.row.times, look and look.pixels
        self._lines.append(
            [
                row.row.line,
                row.lines,
                escape(row.row.user_id, user_id_fault),
                escape(row.row.image, image_fault),
                plan,
                status,
                str(fault.code),
                escape(sentence(fault.code, status, fault.message)),
                "" if times is None else times.size,
                look.to_send if look is not None and plan not in (REFUSED, COMPARED) else "",
                *(pixels or ("", "")),
            ]
        )


@contextmanager
def open_plan_report(path: Path | None) -> Iterator[PlanReport]:
    """A report in a file that only its owner can read, complete or not there; for None, nowhere."""
    with new_csv(path, COLUMNS) as writer:
        yield PlanReport(writer)
