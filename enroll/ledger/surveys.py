"""The survey of a manifest, kept in a SQLite ledger."""

from __future__ import annotations

from sqlalchemy import Connection, Executable, delete, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.ledger import schema as s
from enroll.ledger.reading import translate_db_errors
from enroll.ledger.survey import Part, PartCounts, SurveyRecord


class SqliteSurveys:
    """Reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def survey(self) -> SurveyRecord | None:
        """The survey on record, if there is a whole one."""
        with translate_db_errors(self._path):
            found = self._connection.execute(select(s.survey)).one_or_none()
        if found is None:
            return None
        results = None
        if found.results_path is not None:
            results = (found.results_path, found.results_size, found.results_mtime_ns)
        return SurveyRecord(
            fingerprint=found.fingerprint,
            manifest=found.manifest,
            parts=found.parts,
            results=results,
        )

    def survey_part(self, number: int) -> Part | None:
        """A part of it, counted from 0."""
        with translate_db_errors(self._path):
            found = self._connection.execute(
                select(s.survey_part).where(s.survey_part.c.number == number)
            ).one_or_none()
        if found is None:
            return None
        return Part(
            number=number,
            rows=found.rows,
            digest=found.digest,
            counts=None if found.counts is None else PartCounts.of(found.counts),
        )

    def keep_part(self, part: Part) -> None:
        """Record a part with the next commit, in the place of the one of its number."""
        statement = upsert(s.survey_part).values(number=part.number, rows=part.rows)
        self._do(
            statement.on_conflict_do_update(
                index_elements=["number"], set_={"rows": part.rows, "digest": None, "counts": None}
            )
        )

    def settle_part(self, number: int, digest: bytes, counts: PartCounts) -> None:
        """Record that every row of a part is settled."""
        self._do(
            update(s.survey_part)
            .where(s.survey_part.c.number == number)
            .values(digest=digest, counts=counts.text())
        )

    def keep_survey(self, record: SurveyRecord) -> None:
        """Record that the survey is whole."""
        path, size, mtime_ns = record.results or (None, None, None)
        values = {
            "fingerprint": record.fingerprint,
            "manifest": record.manifest,
            "parts": record.parts,
            "results_path": path,
            "results_size": size,
            "results_mtime_ns": mtime_ns,
        }
        self._do(
            upsert(s.survey)
            .values(only=1, **values)
            .on_conflict_do_update(index_elements=["only"], set_=values)
        )

    def drop_survey(self) -> None:
        """Forget the survey and its parts."""
        self._do(delete(s.survey))
        self._do(delete(s.survey_part))

    def _do(self, statement: Executable) -> None:
        with translate_db_errors(self._path):
            self._connection.execute(statement)
