"""The diff of a whole manifest and a ledger, which a sync makes before it calls anything.

All of it is in temporary tables, which SQLite keeps in a file of its own. Two tables of the ledger
keep, from sync to sync, who is absent from the manifest and which faces are to be deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    Select,
    String,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)

from enroll.errors import ExitCode
from enroll.ledger import schema as s
from enroll.ledger.blocklist import BlockList
from enroll.ledger.diff_queries import (
    ADD_ROWS,
    MARK_NEW,
    MARK_RENEWALS,
    MATCH_FACES,
    MATCH_FACES_BY_ROW,
    QUEUE_RENEWALS,
    SAME_FACE,
    SAME_ROW,
    TO_RENEW,
    dropped,
    find_unlisted,
    find_unmatched,
    has_a_face,
    has_an_open_face,
    holds_a_token,
    is_a_sync,
    is_compared,
    is_held_back,
    is_listed,
    is_still_to_be_added,
    leads_nowhere,
    leads_to_face,
    looked_like_by_held,
    photo_is_missing,
)
from enroll.ledger.diff_records import (
    Diagnosis,
    DiffCounts,
    ReadFile,
    RowDiff,
    RowDiffKind,
    UnreadFile,
)
from enroll.ledger.diff_settled import note_unsettled, people_to_compare
from enroll.ledger.diff_state import (
    CORRECT_MARKS,
    FORGET_FACES_TO_DELETE,
    FORGET_FRESH,
    FORGET_RETURNED,
    FORGET_WITHHELD,
    REMEMBER_ABSENCES,
    REMEMBER_FACES_TO_DELETE,
    REMEMBER_ROWS,
    ROW_DIFFS,
    find_reasons,
    other_manifest,
    suspected_manifest,
)
from enroll.ledger.records import shown_path
from enroll.ledger.statements import Bulk, scan_tuples
from enroll.model import ScannedRow, Status

_INSERT_COMPARED = Bulk(insert(s.compared_person))
_FIND = {
    True: (find_unmatched(), find_unlisted()),
    False: (find_unmatched(is_compared()), find_unlisted(is_compared())),
}
"""By whether everybody is compared."""

# No row of the manifest has the photo of a held face any more: that is no reason for anything. If
# one has it again, the library is searched again.
_FORGET_HELD = (
    update(s.face)
    .where(
        s.face.c.status == Status.HELD.value,
        s.face.c.status != literal(Status.ENROLLED.value, literal_execute=True),  # as its index is
        ~leads_to_face(),
    )
    .values(status=Status.PENDING.value, code="", message="")
)


_COMPLETED_SYNC = (
    select(s.run.c.run)
    .where(
        is_a_sync(),
        s.run.c.exit_code.in_([ExitCode.DONE, ExitCode.SOME_ROWS_FAILED, ExitCode.IN_DOUBT]),
    )
    .limit(1)
)
_COMPARED_PEOPLE = select(s.compared_scan.c.people)


@cache
def _unread(most: int) -> Select[str, str]:
    """The next files that have to be read, behind the `file` of a `person`."""
    user_id, path = s.manifest_row.c.user_id, s.manifest_row.c.path
    person, file = bindparam("person", type_=String), bindparam("file", type_=String)
    return (
        select(user_id, path)
        .where(
            user_id >= person,
            or_(user_id > person, and_(user_id == person, path > file)),
            s.manifest_row.c.size.is_not(None),
            or_(s.manifest_row.c.sha256.is_(None), leads_nowhere()),
            or_(has_a_face(user_id), has_an_open_face(user_id)),
        )
        .order_by(user_id, path)
        .limit(most)
    )


@cache
def _counts(everybody: bool) -> dict[str, Select[Any]]:
    """What counts each figure of `DiffCounts`, with the `cutoff` of the grace."""
    w, gone = s.manifest_row.c, s.unlisted_person.c
    changed = {
        kind: select(func.count()).where(w.change == kind.value)
        for kind in (RowDiffKind.JOINER, RowDiffKind.PHOTO, RowDiffKind.USER_DATA)
    }
    people = select(func.count(s.face.c.user_id.distinct())).where(holds_a_token())
    if not everybody:
        people = people.where(is_compared())
    past_grace = gone.since <= bindparam("cutoff")
    awaited = gone.user_id.in_(looked_like_by_held())
    overdue = and_(past_grace, not_(awaited))
    of_one = select(func.count().label("people")).where(overdue).group_by(gone.run)
    return {
        "rows": select(func.sum(w.lines)),
        "missing": select(func.sum(w.lines)).where(photo_is_missing()),
        "listed": select(func.count(w.user_id.distinct())),
        "people": people,
        "joiners": changed[RowDiffKind.JOINER],
        "joining": select(func.count(w.user_id.distinct())).where(
            w.change == RowDiffKind.JOINER.value
        ),
        "photos": changed[RowDiffKind.PHOTO],
        "user_data": changed[RowDiffKind.USER_DATA],
        "accepted": select(func.count()).where(is_still_to_be_added()),
        "emptied": changed[RowDiffKind.USER_DATA].where(w.user_data == ""),
        "held_back": select(func.count()).where(is_held_back()),
        "dropped": dropped(),
        "superseded": select(func.count()).where(
            s.unmatched_face.c.superseded, s.unmatched_face.c.fresh
        ),
        "newly_gone": select(func.count()).where(gone.fresh),
        "waiting": select(func.count()).where(not_(overdue)),
        "leaving": select(func.count()).where(overdue),
        "awaited": select(func.count()).where(past_grace, awaited),
        "together": select(func.max(of_one.subquery().c.people)),
    }


class SqlManifestDiff:
    """Reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cutoff = 0
        self._everybody = True

    @property
    def has_completed(self) -> bool:
        """See `enroll.ledger.ManifestDiff`; so for every method."""
        return self._connection.scalar(_COMPLETED_SYNC) is not None

    def people_to_compare(self, *, most: int) -> set[str] | None:
        return people_to_compare(self._connection, most=most)

    def clear(self) -> None:
        self._do(delete(s.manifest_row))

    def add_rows(self, rows: Sequence[ScannedRow]) -> None:
        ADD_ROWS.execute(
            self._connection, [(*one, None, None, False, "") for one in scan_tuples(rows)]
        )

    def match_photos(self, *, reread: bool) -> None:
        same = and_(
            s.photo.c.path == s.manifest_row.c.path,
            s.photo.c.size == s.manifest_row.c.size,
            s.photo.c.mtime_ns == s.manifest_row.c.mtime_ns,
            s.photo.c.ctime_ns == s.manifest_row.c.ctime_ns,
        )
        # A subquery looks photos up by their paths. Of a join, PostgreSQL may begin with the photos
        # and read the whole manifest for each.
        known = select(s.photo.c.sha256).where(same).scalar_subquery()
        self._analyze(s.manifest_row)
        if not reread:
            self._do(update(s.manifest_row).values(sha256=known))

    def _analyze(self, table: Table) -> None:
        """Tell the planner about a table that has just been filled. SQLite's does without."""

    def unread(self, *, after: tuple[str, str], most: int) -> list[UnreadFile]:
        values = {"person": after[0], "file": after[1]}
        found = self._connection.execute(_unread(most), values)
        return [UnreadFile(one.user_id, one.path) for one in found]

    def store_read(self, files: Iterable[ReadFile]) -> None:
        statement = (
            update(s.manifest_row)
            .where(
                s.manifest_row.c.user_id == bindparam("who"),
                s.manifest_row.c.path == bindparam("where"),
            )
            .values(
                sha256=bindparam("content"),
                face_id=bindparam("face"),
                unusable=bindparam("bad"),
            )
        )
        parameters = [
            {
                "who": one.user_id,
                "where": one.path,
                "content": one.sha256,
                "face": one.face_id,
                "bad": one.unusable,
            }
            for one in files
        ]
        if parameters:
            self._connection.execute(statement, parameters)

    def store_same_faces(self, files: Iterable[ReadFile]) -> None:
        parameters = [
            {"who": one.user_id, "where": one.path, "content": one.sha256, "face": one.face_id}
            for one in files
            if one.face_id is not None
        ]
        if parameters:
            self._connection.execute(SAME_FACE, parameters)

    def compare(
        self, *, now: int, cutoff: int, withheld: BlockList, people: Set[str] | None = None
    ) -> None:
        for table in (s.unlisted_person, s.unmatched_face, s.renewal, s.compared_person):
            self._do(delete(table))
        self._everybody = people is None
        _INSERT_COMPARED.execute(self._connection, [(one,) for one in people or ()])
        self._analyze(s.compared_person)
        find_unmatched, find_unlisted = _FIND[self._everybody]
        for statement in (
            MATCH_FACES,
            MATCH_FACES_BY_ROW,
            MARK_NEW,
            MARK_RENEWALS,
            QUEUE_RENEWALS,
            find_unmatched,
        ):
            self._do(statement)
        self._do(find_unlisted, {"now": now})
        self._spare(withheld)
        self._cutoff = cutoff

    def _spare(self, withheld: BlockList) -> None:
        """Drop withheld people from the absent; known by hashes only, each has to be tested."""
        if not withheld:
            return
        people = self._connection.scalars(select(s.unlisted_person.c.user_id)).all()
        found = [{"who": one} for one in people if withheld.holds(one)]
        if found:
            spared = delete(s.unlisted_person).where(
                s.unlisted_person.c.user_id == bindparam("who")
            )
            self._connection.execute(spared, found)

    def counts(self) -> DiffCounts:
        cutoff = {"cutoff": self._cutoff}
        found = {
            name: self._number(query, cutoff) for name, query in _counts(self._everybody).items()
        }
        settled = 0
        if not self._everybody:
            settled = self._number(_COMPARED_PEOPLE) - found["listed"]
        found["listed"] += settled
        found["people"] += settled
        return DiffCounts(first=not self.has_completed, **found)

    def row_diffs(
        self, kinds: Sequence[RowDiffKind] = tuple(RowDiffKind), *, photo_root: str
    ) -> Iterator[RowDiff]:
        for kind in kinds:
            query = ROW_DIFFS[kind].execution_options(yield_per=1000)
            for found in self._connection.execute(query):
                yield RowDiff(
                    kind=kind,
                    user_id=found.user_id,
                    user_data=found.user_data,
                    image=shown_path(found.path or "", photo_root),
                    face_token=found.face_token or "",
                    since=found.since,
                    line=found.line,
                )

    def accept(self, run: int) -> None:
        """Record who is absent, and what to delete and add, which this sync is to do."""
        note_unsettled(self._connection, everybody=self._everybody)
        forget_held = _FORGET_HELD if self._everybody else _FORGET_HELD.where(is_compared())
        for statement, values in (
            (forget_held, {}),
            (FORGET_RETURNED, {}),
            (FORGET_WITHHELD, {}),
            (FORGET_FRESH, {}),
            (REMEMBER_ABSENCES, {"run": run}),
            (CORRECT_MARKS, {}),
            (FORGET_FACES_TO_DELETE, {}),
            (REMEMBER_FACES_TO_DELETE, {"run": run}),
            (REMEMBER_ROWS, {"run": run}),
        ):
            self._do(statement, values)

    def count_returned(self) -> int:
        return self._number(
            select(func.count()).where(is_listed(s.absence.c.user_id)).select_from(s.absence)
        )

    def forget_returned(self) -> None:
        self._do(FORGET_RETURNED)

    def forget_done(self) -> None:
        self._do(FORGET_RETURNED)
        self._do(FORGET_FACES_TO_DELETE)

    def count_outdated(self) -> int:
        query = select(func.count(s.face.c.user_id.distinct())).join_from(
            s.face_to_delete, s.face, s.face.c.face_id == s.face_to_delete.c.face_id
        )
        return self._number(query.where(is_listed(s.face.c.user_id), ~leads_to_face()))

    def count_held_back(self) -> int:
        other, of_other = s.manifest_row.alias("other"), s.row.alias("of_other")
        has_text = exists(
            select(literal(1))
            .select_from(
                other.join(
                    of_other,
                    and_(of_other.c.user_id == other.c.user_id, of_other.c.path == other.c.path),
                )
            )
            .where(
                other.c.user_id == s.face.c.user_id,
                of_other.c.face_id == s.face.c.face_id,
                other.c.user_data == s.face.c.user_data,
            )
        )
        query = (
            select(func.count(s.manifest_row.c.user_id.distinct()))
            .select_from(
                s.renewal.join(s.manifest_row, TO_RENEW)
                .join(s.row, SAME_ROW)
                .join(s.face, s.face.c.face_id == s.row.c.face_id)
            )
            .where(
                s.face.c.status == Status.ENROLLED.value,
                # With a code, the service or a rule does not let it be renewed.
                s.face.c.code == "",
                s.row.c.code == "",
                s.manifest_row.c.size.is_not(None),
                ~s.manifest_row.c.unusable,
                ~has_text,
            )
        )
        return self._number(query)

    def diagnose(self, *, manifest: str) -> Diagnosis:
        return find_reasons(self._connection, manifest=manifest)

    def changed_people(self) -> set[str]:
        w = s.manifest_row.c
        renewed = select(s.renewal.c.user_id)
        return set(self._connection.scalars(select(w.user_id).where(w.change != "").union(renewed)))

    def suspected_manifest(self, manifest: str) -> str:
        return suspected_manifest(self._connection, manifest=manifest)

    def other_manifest(self, manifest: str) -> str:
        return other_manifest(self._connection, manifest=manifest)

    def _number(self, query: Select[Any], values: dict[str, Any] | None = None) -> int:
        return int(self._connection.scalar(query, values) or 0)

    def _do(self, statement: Executable, values: dict[str, Any] | None = None) -> None:
        self._connection.execute(statement, values or {})
