"""A DAG for Airflow: every night, make the library match the export of the HR system."""

from datetime import datetime, timedelta
from typing import Any

from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException

import enroll

NEEDS_A_PERSON = (
    enroll.ExitCode.SOME_ROWS_FAILED,  # with fail_on="new", only rows that are newly bad
    enroll.ExitCode.USAGE,
    enroll.ExitCode.SERVICE,
    enroll.ExitCode.GUARD,
)
"""Ends that another try does not change. After others (service away, ledger in use, disk full, a
kill), the same call continues."""


@dag(
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # one task at a time works with a ledger
)
def enroll_staff() -> None:
    @task(retries=3, retry_delay=timedelta(minutes=10))
    def match_library(manifest: str) -> dict[str, Any]:
        try:
            report = enroll.sync(
                manifest,
                settings=enroll.Settings.from_toml("enroll.toml"),
                fail_on="new",
                max_duration="4h",
            )
            report.raise_for_status()
        except enroll.EnrollError as error:
            if error.exit_code in NEEDS_A_PERSON:
                raise AirflowFailException(str(error)) from error
            raise
        return report.to_dict()  # for XCom: plain values, without anything that names a person

    @task
    def joined(figures: dict[str, Any]) -> int:
        return figures["enrolled_now"]

    joined(match_library("manifests/people.csv"))


enroll_staff()
