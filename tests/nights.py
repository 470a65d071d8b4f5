"""Nights of a scheduler: each run is a process of its own, a day after the one before, and leaves
metrics that Prometheus would have collected until the next. What its alerts make of them, promtool
says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from archive import Archive
from moved_clock import MovedClock
from prometheus_client.parser import text_string_to_metric_families
from real_command import Command, Done

from enroll.errors import ExitCode

RULES = Path(__file__).parent.parent / "docs" / "alerts" / "enroll.rules.yml"
PROMTOOL = shutil.which("promtool")

STEP_MINUTES = 30
"""How often metrics are collected and rules evaluated, instead of every minute or so."""

_TIMES = re.compile(r"enroll_(run_start|run_end|last_progress)_timestamp_seconds\b")
"""Metrics that are later after a night that has got on, but not through."""

Metrics = Mapping[str, float]
"""By series, as it is written in the metrics file: `name{label="…",…}`."""


@dataclass
class Nights:
    """`enroll sync` of an archive, whose runs are `days` apart by the clock in use."""

    place: Archive
    clock: MovedClock
    metrics_file: Path
    seen: list[tuple[float, Metrics]] = field(default_factory=list)
    """The metrics from an hour on, counted from the first night's beginning."""

    def __post_init__(self) -> None:
        self.began = self.clock.time()
        self.put_key()

    @property
    def state(self) -> Path:
        """The folder of ledger, results and summary, as on a pod's volume."""
        return self.place.ledger.parent

    @property
    def keys(self) -> Path:
        return self.place.folder / "keys"

    def put_key(self, secret: str = "") -> None:
        """Write key and secret, by default those that the service takes, into the file."""
        box = self.place.box
        self.keys.write_text(
            f'api_key = "{box.api_key}"\napi_secret = "{secret or box.api_secret}"\n'
        )
        self.keys.chmod(0o600)

    def join(self, *numbers: int) -> None:
        """People who are in the manifest from now on."""
        for number in numbers:
            self.place.row(f"p{number}", number)
        self.place.manifest()

    @property
    def command(self) -> Command:
        environ = {"ENROLL_ENDPOINT": self.place.box.endpoint}
        return Command(self.place.folder / "home", self.place.folder, environ)

    def sync(self, *more: object) -> list[object]:
        """The words of the command."""
        return [
            *("sync", "staff.csv", "--group-id", self.place.group_id, "--quiet"),
            *("--ledger", self.place.ledger, "--credentials", self.keys, "--grace", "0"),
            *("--results", self.state / "results.csv", "--summary", self.state / "staff.json"),
            *("--metrics-file", self.metrics_file, "--settle-after", "0", "--timeout", "20"),
            *more,
        ]

    # Nights

    def begin(self, day: float) -> None:
        """Move the clock to the beginning of a night."""
        self.clock.ahead += max(self.began + 86_400.0 * day - self.clock.time(), 0.0)

    def collect(self, day: float) -> Metrics:
        """Note what the metrics are from then on."""
        text = self.metrics_file.read_text(encoding="utf-8") if self.metrics_file.exists() else ""
        found = {}
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in one.labels.items())
                # Where promtool starts to count, too.
                since = self.began if one.name.endswith("_timestamp_seconds") else 0.0
                found[f"{one.name}{{{labels}}}"] = one.value - since
        self.seen.append((24.0 * day, found))
        return found

    def night(self, day: float, expected: ExitCode, *more: object) -> Done:
        """One night, whose exit code, summary and metrics agree."""
        self.begin(day)
        done = self.command.run(*self.sync(*more))
        return self.ended(day, expected, done)

    def ended(self, day: float, expected: ExitCode, done: Done) -> Done:
        """What is left by a night that has come to an end of its own."""
        assert done.code == expected, done
        summary = json.loads((self.state / "staff.json").read_text(encoding="utf-8"))
        assert (summary["exit_code"], summary["reason"]) == (expected, expected.name), done
        metrics = self.collect(day)
        assert self.of(metrics, "enroll_run_exit_code") == expected
        assert self.of(metrics, "enroll_run_in_progress") == 0
        return done

    def repeat(self, days: Iterable[int]) -> None:
        """Take it that the last night was followed by others like it."""
        last, metrics = self.seen[-1]
        for day in days:
            later = 24.0 * day - last
            moved = {
                series: value + 3600 * later if _TIMES.match(series) else value
                for series, value in metrics.items()
            }
            self.seen.append((24.0 * day, moved))

    def of(self, metrics: Metrics, name: str, **labels: str) -> float | None:
        """A metric of the library."""
        all_labels = {"group_id": self.place.group_id, "host": "127.0.0.1", **labels}
        wanted = {f'{label}="{value}"' for label, value in all_labels.items()}
        for series, value in metrics.items():
            found, _, rest = series.partition("{")
            if found == name and set(rest.rstrip("}").split(",")) == wanted:
                return value
        return None

    def whole(self) -> None:
        """Everybody in the manifest is in the library once, nobody else is, and the ledger knows
        it."""
        place = self.place
        assert (place.held() - place.wanted(), place.wanted() - place.held()) == ({}, {})
        assert {line["status"] for line in place.results(self.state / "results.csv")} == {
            "enrolled"
        }
        assert place.tokens_agree()

    # Alerts

    def assert_pages(self, days: int, *expected: tuple[str, float, float]) -> None:
        """Whether at each hour of so many days just these alerts fire: each from the one hour on
        and before the other. Skips the test where promtool is missing."""
        hours = 24 * days
        story = {
            "input_series": list(self._series(hours)),
            "interval": f"{STEP_MINUTES}m",
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{hour}h",
                    "exp_samples": [
                        {"labels": f'{{alertname="{name}"}}', "value": 1}
                        for name, since, until in expected
                        if since <= hour < until
                    ],
                }
                for hour in range(hours)
            ],
        }
        tests = {
            "rule_files": [str(RULES)],
            "evaluation_interval": f"{STEP_MINUTES}m",
            "tests": [story],
        }
        path = self.place.folder / "alerts.test.yml"
        path.write_text(json.dumps(tests), encoding="utf-8")  # JSON is YAML, too
        promtool("test", "rules", path)

    def _series(self, hours: int) -> Iterator[dict[str, str]]:
        """Each series with its value at every step."""
        ends = [at for at, _ in self.seen[1:]] + [hours]
        for series in sorted({name for _, metrics in self.seen for name in metrics}):
            values = [
                (metrics.get(series), round((end - at) * 60 / STEP_MINUTES))
                for (at, metrics), end in zip(self.seen, ends, strict=True)
            ]
            runs = (
                f"_x{steps}" if value is None else f"{value}+0x{steps - 1}"
                for value, steps in values
                if steps
            )
            yield {"series": series, "values": " ".join(runs)}


def promtool(*words: object) -> str:
    """What it says; fails the test if that is not that all is well. Without it the test ends here,
    as skipped."""
    if PROMTOOL is None:
        pytest.skip("promtool is not installed: what the alerts make of it was not tried")
    done = subprocess.run(
        [PROMTOOL, *map(str, words)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
