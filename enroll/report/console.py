"""Shows a run on the terminal: where it goes, then a progress bar or a line now and then."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from enroll import clock
from enroll.commands.run import Screen
from enroll.commands.run_opening import Destination
from enroll.ledger import RunPace
from enroll.limiter.waiting import WaitReason
from enroll.model import Candidate, Fault, Status
from enroll.session.tally import BAD, Tally
from enroll.settings import RunSettings
from enroll.text.logs import LastingStream, log, log_run, mask
from enroll.text.remedies import sentence
from enroll.text.wording import account_lines, as_shown, duration, facts, pace_words
from enroll.visible import path_text, visible

SHOWN_OF_A_CODE = 3
"""Rows per error code that are shown on the terminal; the results and the log have all of them."""

BAR = (
    "{desc}{percentage:.0f}%|{bar}| {n_fmt}/{total_fmt} "
    "[{remaining} left, {rate_noinv_fmt}{postfix}]"
)

WAITING_BAR = "{desc}{percentage:.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
"""The bar while the service is away, or only faces in doubt are left: without a rate and a time
left, because those would be the earlier ones."""

DOUBTFUL = "doubtful"
"""The log's word for a photo that is sent although its face looks doubtful; not a row's status."""

READING = "Reading the manifest, at most "


class _Bar(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """A bar without tqdm's own thread: every tick redraws it anyway."""

    monitor_interval = 0

    def __str__(self) -> str:
        """What fits the terminal: remarks at the end are left out rather than cut off."""
        values = self.format_dict
        remarks = values["postfix"].split(", ") if values["postfix"] else []
        while remarks and values["ncols"]:
            whole = self.format_meter(**{**values, "ncols": None, "postfix": ", ".join(remarks)})
            if len(whole) <= values["ncols"]:
                break
            remarks.pop()
        return self.format_meter(**{**values, "postfix": ", ".join(remarks)})


class Console(Screen):
    """Shows a run on stderr: with a bar on a terminal, else with a line every `stats` seconds."""

    def __init__(
        self,
        settings: RunSettings,
        stream: LastingStream,
        *,
        progress: bool | None = None,
        stats: float = 60.0,
        quiet: bool = False,
        as_json: bool = False,
        show_user_ids: bool = False,
        on_opened: Callable[[Callable[[int], None]], None] = lambda interrupt: None,
    ) -> None:
        """`progress` None shows a bar if `stream` is a terminal; `on_opened` is given the function
        that interrupts the run."""
        self._settings = settings
        self._stream = stream
        self.attended = stream.isatty()
        self._silent = quiet or as_json  # but for warnings, which the log shows
        self._with_bar = (self.attended if progress is None else progress) and not self._silent
        self._stats = stats
        self._as_json = as_json
        self._show_user_ids = show_user_ids
        self._on_opened = on_opened
        self._bar: tqdm[Any] | None = None
        self._shown: Counter[str] = Counter()
        self._began = self._told_at = clock.monotonic()
        self._failed = self._in_doubt = 0
        self._settling = 0  # faces in doubt that are being looked for
        self._only_doubts = False
        self._pace: RunPace | None = None
        self._reading = True  # the manifest: there may be more rows
        self._away: float | None = None  # seconds without the service, None while it is there

    def connecting(self, endpoint: str, credentials: str) -> None:
        log(
            "connecting",
            f"calling {endpoint} with {credentials}",
            {"endpoint": endpoint, "credentials": credentials},
        )
        if not self._silent:
            self._write(account_lines(endpoint, self._origin("endpoint"), credentials))

    def opened(self, destination: Destination, interrupt: Callable[[int], None]) -> None:
        self._on_opened(interrupt)
        log_run(destination.run)
        log(
            "run_started",
            f"run {destination.run} of library {destination.library.group_id} "
            f"at {destination.endpoint}",
            {
                "endpoint": destination.endpoint,
                "group_id": destination.library.group_id,
                "ledger": path_text(destination.ledger),
                "manifest": path_text(self._settings.manifest),
            },
        )
        if not self._silent:
            self._tell_destination(destination)
        self._tell_notes(destination)
        self._began = self._told_at = clock.monotonic()
        if self._with_bar:
            self._bar = _Bar(
                total=0,
                desc=READING,
                unit="",
                file=self._stream,
                dynamic_ncols=True,
                bar_format=BAR,
                smoothing=0.05,
            )

    def _tell_destination(self, destination: Destination) -> None:
        library, new = destination.library, "new, " if destination.new_ledger else ""
        photos = destination.photos_by or self._origin("images")
        name = f" “{library.group_name}”" if library.group_name else ""
        created = f"created {library.add_time} ({self._origin('group_id')})"
        told = [
            ("Library", f"{library.group_id}{name}, {created}"),
            ("Ledger", f"{destination.ledger} ({new}{self._origin('ledger')})"),
            ("Photos", f"{destination.store.root} ({photos})"),
        ]
        # Aligned with what was shown before the first call.
        self._write(facts(told, least=len("Endpoint")))

    def _origin(self, name: str) -> str:
        return self._settings.origins.get(name, "default")

    def _tell_notes(self, destination: Destination) -> None:
        """Every note goes into the log; with --quiet only urgent ones are shown."""
        for note in destination.notes:
            urgent = note in destination.urgent
            level = logging.WARNING if urgent else logging.INFO
            log("note", note, {}, level=level, aside=not (self._as_json or urgent))
            if not (self._silent or urgent):  # logging a warning shows it
                self._write([f"Note: {note}"])

    def scanned(self, tally: Tally) -> None:
        self._reading = not tally.scanned
        if self._bar is not None:
            self._bar.total = tally.expected
            if tally.scanned and self._away is None:
                self._bar.set_description_str("", refresh=False)

    def finished(self, row: Candidate, status: Status, code: str, message: str) -> None:
        if self._bar is not None and status is not Status.IN_DOUBT:
            self._bar.update(row.lines)
        if status not in BAD and status is not Status.IN_DOUBT:
            return
        if status is Status.IN_DOUBT:
            self._in_doubt += row.lines
            self._settling = max(self._settling - 1, 0)  # until the next tick says how many
        else:
            self._failed += row.lines
        self._set_postfix()
        self._tell_row(row, status.value, code, message)

    def warned(self, row: Candidate, fault: Fault) -> None:
        self._tell_row(row, DOUBTFUL, fault.code, fault.message)

    def suspected(self, note: str) -> None:
        text = f"Warning: {note}"
        log("suspects", text, {}, level=logging.WARNING, aside=True)
        if not self._silent:
            self._print(text)

    def _set_postfix(self) -> None:
        if self._bar is None:
            return
        counts = {"failed": self._failed, "in doubt": self._in_doubt + self._settling}
        shown = [f"{count:,} {name}" for name, count in counts.items() if count]
        if self._only_doubts:
            shown.append(f"waits: {WaitReason.DOUBTS}")
        elif self._pace is not None:
            shown.append(pace_words(self._pace, brief=True))
        self._bar.set_postfix_str(visible(", ".join(shown)), refresh=False)

    def _tell_row(self, row: Candidate, became: str, code: str, message: str) -> None:
        self._shown[code] += 1
        user_id = row.row.user_id if self._show_user_ids else mask(row.row.user_id)
        fields = {
            "line": row.row.line or None,
            "user_id": user_id,
            "status": became,
            "code": str(code),
        }
        # Rows that the ledger knew to be due are sent before their lines are known.
        line = f"Line {row.row.line:,}, " if row.row.line else ""
        text = f"{line}{user_id}: {became}, {code}"
        if self._show_user_ids:
            message = sentence(code, became, message)
            fields["image"] = row.row.path
            fields["detail"] = message
            text += f": {message}"
        event = DOUBTFUL if became == DOUBTFUL else "row"
        log(event, text, fields, level=logging.WARNING, aside=True)
        if self._silent:
            return
        if self._shown[code] <= SHOWN_OF_A_CODE:
            self._print(text)
        elif self._shown[code] == SHOWN_OF_A_CODE + 1:
            where = "the log has" if became == DOUBTFUL else "the results have"
            self._print(f"Further rows with {code} are not shown here; {where} all of them.")

    def ticked(self, tally: Tally) -> None:
        self._pace, self._settling = tally.pace, tally.in_doubt_now
        # While the manifest is read: at most. Faces that are found in the library end rows, too.
        due = max(tally.expected, tally.done)
        self._only_doubts = 0 < due - tally.done <= self._settling
        self._set_postfix()
        if self._bar is not None:
            self._bar.total = due
            waiting = self._only_doubts or self._away is not None
            self._bar.bar_format = WAITING_BAR if waiting else BAR
            self._bar.refresh()
            return
        now = clock.monotonic()
        if now - self._told_at < self._stats:
            return
        self._told_at = now
        # Rows in doubt are not done, whether their faces are still looked for or not: the next run
        # has them to do.
        done = tally.done - self._in_doubt
        rate = done / (now - self._began)
        left = f"{duration((due - done) / rate)} left" if rate else "unknown how long"
        if self._only_doubts:
            left = "the rest is being searched for in the library"
        share = 100 * done / due if due else 0.0
        at_most = "" if tally.scanned else "at most "
        text = (
            f"{done:,} of {at_most}{due:,} rows done ({share:.0f} %), "
            f"{self._failed:,} failed, {self._in_doubt + self._settling:,} in doubt, "
            f"{rate:.1f} rows/s, {left}"
        )
        if self._pace is not None:
            text += f"; {pace_words(self._pace)}"
        if self._away is not None:
            text += f"; the service has been away for {duration(self._away)}"
        fields = {
            "done": done,
            "due": due,
            "failed": self._failed,
            "in_doubt": self._in_doubt + self._settling,
            "rate": round(rate, 3),
            **({} if self._pace is None else asdict(self._pace)),
        }
        self._tell("progress", text, fields)

    def waits(self, what: str) -> None:
        self._tell("waiting", f"Waiting for {what}.", {"for": what})

    def unreached(self, seconds: float, code: str, because: str) -> None:
        begins, self._away = self._away is None, seconds
        if self._bar is not None:
            self._bar.bar_format = WAITING_BAR
            self._bar.set_description_str(
                visible(f"Service away for {duration(seconds)} ({code}): "), refresh=False
            )
        if begins:
            text = (
                f"The service has been away for {duration(seconds)}: {because.rstrip('.')}. Rows "
                "wait and are sent again."
            )
            self._tell(
                "unreached", text, {"seconds": round(seconds, 3), "code": code, "because": because}
            )

    def reached(self) -> None:
        seconds, self._away = self._away or 0.0, None
        if self._bar is not None:
            self._bar.bar_format = BAR
            self._bar.set_description_str(READING if self._reading else "", refresh=False)
        text = f"The service is back, after {duration(seconds)}."
        self._tell("reached", text, {"seconds": round(seconds, 3)})

    def _tell(self, event: str, text: str, fields: Mapping[str, Any]) -> None:
        log(event, text, fields)
        if not self._silent:
            self._print(text)

    def closed(self) -> None:
        if self._bar is not None:
            self._bar.leave = bool(self._bar.total)
            self._bar.close()
            self._bar = None

    def _print(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(as_shown([line], self._stream).rstrip("\n"), file=self._stream)
        else:
            self._write([line])

    def _write(self, lines: list[str]) -> None:
        self._stream.write(as_shown(lines, self._stream))
        self._stream.flush()
