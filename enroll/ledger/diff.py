"""A manifest that a sync follows: held whole against a SQLite ledger, before anything is called.

All of it lies in temporary tables, which SQLite keeps in a file of its own; two tables of the
ledger remember from sync to sync who has gone and which faces are to go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    update,
)

from enroll.errors import ExitCode
from enroll.ledger import schema as s
from enroll.ledger.blocklist import BlockList
from enroll.ledger.connection import translate_db_errors
from enroll.ledger.diff_queries import (
    FIND_GOING,
    FIND_GONE,
    KNOW_FACES,
    KNOW_FACES_BY_ROW,
    MARK_NEW,
    MARK_RENEWALS,
    QUEUE_RENEWALS,
    SAME_FACE,
    SAME_ROW,
    TAKE,
    TO_RENEW,
    dropped,
    has_a_face,
    has_an_open_face,
    holds_a_token,
    is_a_sync,
    is_held_back,
    is_listed,
    leads_nowhere,
    photo_is_missing,
    wanted_now,
)
from enroll.ledger.diff_records import Change, ChangeKind, Counted, ReadFile, Signs, UnreadFile
from enroll.ledger.diff_state import (
    CHANGES,
    CORRECT_MARKS,
    FORGET_FRESH,
    FORGET_OUTGOING,
    FORGET_RETURNED,
    FORGET_WITHHELD,
    REMEMBER_GOING,
    REMEMBER_GONE,
    REMEMBER_ROWS,
    find_signs,
    other_manifest,
)
from enroll.ledger.records import shown_path
from enroll.ledger.statements import scan_tuples
from enroll.model import ScannedRow, Status


class SqliteFollowing:
    """Reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        self._cutoff = 0
        with translate_db_errors(path):
            s.following_metadata.create_all(connection)

    @property
    def went_through(self) -> bool:
        """See `enroll.ledger.Following`; so for every method."""
        query = select(s.run.c.run).where(
            is_a_sync(),
            s.run.c.exit_code.in_(
                [ExitCode.DONE, ExitCode.SOME_ROWS_FAILED, ExitCode.IN_DOUBT],
            ),
        )
        with translate_db_errors(self._path):
            return self._connection.scalar(query.limit(1)) is not None

    def take(self, rows: Sequence[ScannedRow]) -> None:
        with translate_db_errors(self._path):
            TAKE.execute(self._connection, [(*one, None, None, 0, "") for one in scan_tuples(rows)])

    def know_photos(self, *, reread: bool) -> None:
        same = and_(
            s.photo.c.path == s.wanted.c.path,
            s.photo.c.size == s.wanted.c.size,
            s.photo.c.mtime_ns == s.wanted.c.mtime_ns,
            s.photo.c.ctime_ns == s.wanted.c.ctime_ns,
        )
        if not reread:
            self._do(update(s.wanted).values(sha256=s.photo.c.sha256).where(same))

    def unread(self, *, after: tuple[str, str], most: int) -> list[UnreadFile]:
        user_id, path = s.wanted.c.user_id, s.wanted.c.path
        behind = or_(user_id > after[0], and_(user_id == after[0], path > after[1]))
        query = (
            select(user_id, path)
            .where(
                user_id >= after[0],
                behind,
                s.wanted.c.size.is_not(None),
                or_(s.wanted.c.sha256.is_(None), leads_nowhere()),
                or_(has_a_face(user_id), has_an_open_face(user_id)),
            )
            .order_by(user_id, path)
            .limit(most)
        )
        with translate_db_errors(self._path):
            return [UnreadFile(one.user_id, one.path) for one in self._connection.execute(query)]

    def read(self, files: Iterable[ReadFile]) -> None:
        statement = (
            update(s.wanted)
            .where(s.wanted.c.user_id == bindparam("who"), s.wanted.c.path == bindparam("where"))
            .values(
                sha256=bindparam("content"),
                face_id=bindparam("face"),
                unusable=bindparam("bad"),
            )
        )
        told = [
            {
                "who": one.user_id,
                "where": one.path,
                "content": one.sha256,
                "face": one.face_id,
                "bad": one.unusable,
            }
            for one in files
        ]
        if told:
            with translate_db_errors(self._path):
                self._connection.execute(statement, told)

    def keep(self, files: Iterable[ReadFile]) -> None:
        told = [
            {"who": one.user_id, "where": one.path, "content": one.sha256, "face": one.face_id}
            for one in files
            if one.face_id is not None
        ]
        if told:
            with translate_db_errors(self._path):
                self._connection.execute(SAME_FACE, told)

    def compare(self, *, now: int, cutoff: int, withheld: BlockList) -> None:
        for table in (s.gone, s.going, s.renewal):
            self._do(delete(table))
        for statement in (
            KNOW_FACES,
            KNOW_FACES_BY_ROW,
            MARK_NEW,
            MARK_RENEWALS,
            QUEUE_RENEWALS,
            FIND_GOING,
        ):
            self._do(statement)
        self._do(FIND_GONE, {"now": now})
        self._spare(withheld)
        self._cutoff = cutoff

    def _spare(self, withheld: BlockList) -> None:
        """Take those who are withheld for not gone: known by hashes, they are found one by one."""
        if not withheld:
            return
        with translate_db_errors(self._path):
            people = self._connection.scalars(select(s.gone.c.user_id)).all()
            found = [{"who": one} for one in people if withheld.holds(one)]
            if found:
                spared = delete(s.gone).where(s.gone.c.user_id == bindparam("who"))
                self._connection.execute(spared, found)

    def counted(self) -> Counted:
        w, gone = s.wanted.c, s.gone.c
        changed = {
            kind: select(func.count()).where(w.change == kind.value)
            for kind in (ChangeKind.JOINER, ChangeKind.PHOTO, ChangeKind.USER_DATA)
        }
        people = select(func.count(s.face.c.user_id.distinct())).where(holds_a_token())
        overdue = gone.since <= self._cutoff
        of_one = select(func.count().label("people")).where(overdue).group_by(gone.run)
        together = of_one.subquery()
        joiners = select(func.count(w.user_id.distinct())).where(
            w.change == ChangeKind.JOINER.value
        )
        return Counted(
            first=not self.went_through,
            rows=self._number(select(func.sum(w.lines))),
            missing=self._number(select(func.sum(w.lines)).where(photo_is_missing())),
            listed=self._number(select(func.count(w.user_id.distinct()))),
            people=self._number(people),
            joiners=self._number(changed[ChangeKind.JOINER]),
            joining=self._number(joiners),
            photos=self._number(changed[ChangeKind.PHOTO]),
            user_data=self._number(changed[ChangeKind.USER_DATA]),
            emptied=self._number(changed[ChangeKind.USER_DATA].where(w.user_data == "")),
            held_back=self._number(select(func.count()).where(is_held_back())),
            dropped=self._number(dropped()),
            superseded=self._number(
                select(func.count()).where(s.going.c.superseded, s.going.c.fresh)
            ),
            newly_gone=self._number(select(func.count()).where(gone.fresh)),
            waiting=self._number(select(func.count()).where(not_(overdue))),
            leaving=self._number(select(func.count()).where(overdue)),
            together=self._number(select(func.max(together.c.people))),
        )

    def changes(
        self, kinds: Sequence[ChangeKind] = tuple(ChangeKind), *, images: str
    ) -> Iterator[Change]:
        for kind in kinds:
            with translate_db_errors(self._path):
                query = CHANGES[kind].execution_options(yield_per=1000)
                for found in self._connection.execute(query):
                    yield Change(
                        kind=kind,
                        user_id=found.user_id,
                        user_data=found.user_data,
                        image=shown_path(found.path or "", images),
                        face_token=found.face_token or "",
                        since=found.since,
                        line=found.line,
                    )

    def accept(self, run: int) -> None:
        """Everything is to be done: remember who has gone, what is to go and what is to come."""
        for statement, values in (
            (FORGET_RETURNED, {}),
            (FORGET_WITHHELD, {}),
            (FORGET_FRESH, {}),
            (REMEMBER_GONE, {"run": run}),
            (CORRECT_MARKS, {}),
            (FORGET_OUTGOING, {}),
            (REMEMBER_GOING, {"run": run}),
            (REMEMBER_ROWS, {"run": run}),
        ):
            self._do(statement, values)

    def returned(self) -> int:
        return self._number(
            select(func.count()).where(is_listed(s.leaver.c.user_id)).select_from(s.leaver)
        )

    def unmark(self) -> None:
        self._do(FORGET_RETURNED)

    def tidy(self) -> None:
        self._do(FORGET_RETURNED)
        self._do(FORGET_OUTGOING)

    def kept(self) -> int:
        query = select(func.count(s.face.c.user_id.distinct())).join_from(
            s.outgoing, s.face, s.face.c.face_id == s.outgoing.c.face_id
        )
        return self._number(query.where(is_listed(s.face.c.user_id), ~wanted_now()))

    def behind(self) -> int:
        other, of_other = s.wanted.alias("other"), s.row.alias("of_other")
        says_it = exists(
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
            select(func.count(s.wanted.c.user_id.distinct()))
            .select_from(
                s.renewal.join(s.wanted, TO_RENEW)
                .join(s.row, SAME_ROW)
                .join(s.face, s.face.c.face_id == s.row.c.face_id)
            )
            .where(
                s.face.c.status == Status.ENROLLED.value,
                # else the service, or a rule, does not let it be renewed
                s.face.c.code == "",
                s.row.c.code == "",
                s.wanted.c.size.is_not(None),
                ~s.wanted.c.unusable,
                ~says_it,
            )
        )
        return self._number(query)

    def signs(self, *, manifest: str) -> Signs:
        with translate_db_errors(self._path):
            return find_signs(self._connection, manifest=manifest)

    def other_manifest(self, manifest: str) -> str:
        with translate_db_errors(self._path):
            return other_manifest(self._connection, manifest=manifest)

    def _number(self, query: Select[Any]) -> int:
        with translate_db_errors(self._path):
            return int(self._connection.scalar(query) or 0)

    def _do(self, statement: Executable, values: dict[str, Any] | None = None) -> None:
        with translate_db_errors(self._path):
            self._connection.execute(statement, values or {})
