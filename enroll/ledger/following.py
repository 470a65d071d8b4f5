"""A manifest that a sync follows: held whole against a SQLite ledger, before anything is called.

All of it lies in temporary tables, which SQLite keeps in a file of its own; two tables of the
ledger remember from sync to sync who has gone and which faces are to go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

from enroll.blocklist import BlockList
from enroll.errors import ExitCode
from enroll.ledger import Change, ChangeKind, Counted, ReadFile, UnreadFile
from enroll.ledger import schema as s
from enroll.ledger.columns import scan_tuples
from enroll.ledger.compiled import Bulk
from enroll.ledger.reading import sentences, shown_path
from enroll.model import EventKind, ScannedRow, Status

IN_THE_LIBRARY = (Status.ENROLLED.value, Status.SUPERSEDED.value)
OPEN = (Status.SENDING.value, Status.IN_DOUBT.value)
DUE = (Status.PENDING.value, Status.FAILED.value)

SAMPLE = 200
"""Rows that are looked at for what may be wrong with a manifest."""


class SqliteFollowing:
    """Reads and writes within the ledger's own transactions."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path
        with sentences(path):
            s.following_metadata.create_all(connection)

    @property
    def went_through(self) -> bool:
        """See `enroll.ledger.Following`; so for every method."""
        query = select(s.run.c.run).where(
            s.run.c.options["command"].as_string() == "sync",
            s.run.c.exit_code.in_(
                [ExitCode.DONE, ExitCode.SOME_ROWS_FAILED, ExitCode.IN_DOUBT],
            ),
        )
        with sentences(self._path):
            return self._connection.scalar(query.limit(1)) is not None

    def take(self, rows: Sequence[ScannedRow]) -> None:
        with sentences(self._path):
            _TAKE.execute(
                self._connection, [(*one, None, None, 0, "") for one in scan_tuples(rows)]
            )

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
                or_(s.wanted.c.sha256.is_(None), _leads_nowhere()),
                or_(_has_a_face(user_id), _has_an_open_face(user_id)),
            )
            .order_by(user_id, path)
            .limit(most)
        )
        with sentences(self._path):
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
            with sentences(self._path):
                self._connection.execute(statement, told)
                self._connection.execute(_SAME_FACE, told)

    def compare(self, *, now: int, cutoff: int, withheld: BlockList) -> None:
        for table in (s.gone, s.going, s.renewal):
            self._do(delete(table))
        for statement in (
            _KNOW_FACES,
            _KNOW_FACES_BY_ROW,
            _MARK_NEW,
            _MARK_RENEWALS,
            _QUEUE_RENEWALS,
            _FIND_GOING,
        ):
            self._do(statement)
        self._do(_FIND_GONE, {"now": now})
        self._spare(withheld)
        self._cutoff = cutoff

    def _spare(self, withheld: BlockList) -> None:
        """Take those who are withheld for not gone: known by hashes, they are found one by one."""
        if not withheld:
            return
        with sentences(self._path):
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
        people = select(func.count(s.face.c.user_id.distinct())).where(_holds_a_token())
        overdue = gone.since <= self._cutoff
        of_one = select(func.count().label("people")).where(overdue).group_by(gone.run)
        together = of_one.subquery()
        joiners = select(func.count(w.user_id.distinct())).where(
            w.change == ChangeKind.JOINER.value
        )
        return Counted(
            first=not self.went_through,
            rows=self._number(select(func.sum(w.lines))),
            missing=self._number(select(func.sum(w.lines)).where(_photo_is_missing())),
            listed=self._number(select(func.count(w.user_id.distinct()))),
            people=self._number(people),
            joiners=self._number(changed[ChangeKind.JOINER]),
            joining=self._number(joiners),
            photos=self._number(changed[ChangeKind.PHOTO]),
            user_data=self._number(changed[ChangeKind.USER_DATA]),
            dropped=self._number(_dropped()),
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
            with sentences(self._path):
                query = _CHANGES[kind].execution_options(yield_per=1000)
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
            (_FORGET_RETURNED, {}),
            (_FORGET_WITHHELD, {}),
            (_FORGET_FRESH, {}),
            (_REMEMBER_GONE, {"run": run}),
            (_CORRECT_MARKS, {}),
            (_FORGET_OUTGOING, {}),
            (_REMEMBER_GOING, {"run": run}),
            (_REMEMBER_ROWS, {"run": run}),
        ):
            self._do(statement, values)

    def unmark(self) -> int:
        returned = select(func.count()).where(_is_listed(s.leaver.c.user_id)).select_from(s.leaver)
        count = self._number(returned)
        self._do(_FORGET_RETURNED)
        return count

    def tidy(self) -> None:
        self._do(_FORGET_RETURNED)
        self._do(_FORGET_OUTGOING)

    def kept(self) -> int:
        query = select(func.count(s.face.c.user_id.distinct())).join_from(
            s.outgoing, s.face, s.face.c.face_id == s.outgoing.c.face_id
        )
        return self._number(query.where(_is_listed(s.face.c.user_id), ~wanted_now()))

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
        to_renew = and_(
            s.renewal.c.user_id == s.wanted.c.user_id, s.renewal.c.path == s.wanted.c.path
        )
        query = (
            select(func.count(s.wanted.c.user_id.distinct()))
            .select_from(
                s.renewal.join(s.wanted, to_renew)
                .join(s.row, _SAME_ROW)
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

    # What may be the reason of a difference that is too large

    def zeros_lost(self) -> int:
        """How many of those who are newly gone stand in the manifest with more or fewer zeros in
        front."""
        zero: ColumnElement[str] = literal_column(
            "'0'"
        )  # no parameter: SQLite would not see that the index fits
        stripped = func.ltrim(s.wanted.c.user_id, zero)
        with sentences(self._path):
            self._connection.exec_driver_sql(
                "CREATE INDEX IF NOT EXISTS temp.wanted_stripped ON wanted (ltrim(user_id, '0'))"
            )
        there = exists(select(literal(1)).where(stripped == func.ltrim(s.gone.c.user_id, zero)))
        return self._number(select(func.count()).select_from(s.gone).where(s.gone.c.fresh, there))

    def swapped(self) -> int:
        """In how many of a hundred rows that stand first the user id is what the ledger has as
        user data, or a photo's name."""
        first = select(s.wanted.c.user_id).order_by(s.wanted.c.line).limit(SAMPLE).subquery()
        total = self._number(select(func.count()).select_from(first))
        texts = (
            select(s.face.c.user_data)
            .where(s.face.c.user_data.in_(select(first.c.user_id)), s.face.c.user_data != "")
            .distinct()
        )
        with sentences(self._path):
            known = set(self._connection.scalars(texts))
            found = list(self._connection.scalars(select(first.c.user_id)))
        odd = sum(one in known or one.lower().endswith(_PHOTO_ENDINGS) for one in found)
        return 100 * odd // total if total else 0

    def emptied(self) -> int:
        """In how many rows the text has become empty."""
        return self._number(
            select(func.count()).where(
                s.wanted.c.change == ChangeKind.USER_DATA.value, s.wanted.c.user_data == ""
            )
        )

    def unlisted_behind(self) -> bool:
        """Whether those who are newly gone were enrolled behind those who are listed, but for some
        that calls side by side have brought out of order: the file may have ended too early."""
        held = _holds_a_token()
        listed = select(s.face.c.face_id).where(held, _is_listed(s.face.c.user_id))
        known = self._number(select(func.count()).select_from(listed.subquery()))
        most = listed.order_by(s.face.c.face_id).offset(known * 9 // 10).limit(1)
        theirs = s.face.c.user_id.in_(select(s.gone.c.user_id).where(s.gone.c.fresh))
        gone = select(func.count()).where(held, theirs)
        behind = self._number(gone.where(s.face.c.face_id > self._number(most)))
        return 10 * behind >= 9 * self._number(gone) > 0

    def _number(self, query: Select[Any]) -> int:
        with sentences(self._path):
            return int(self._connection.scalar(query) or 0)

    def _do(self, statement: Executable, values: dict[str, Any] | None = None) -> None:
        with sentences(self._path):
            self._connection.execute(statement, values or {})


_PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".heic", ".tif", ".tiff")

_LINES = upsert(s.wanted)
_TAKE = Bulk(
    _LINES.on_conflict_do_update(
        index_elements=["user_id", "path"],
        set_={"lines": s.wanted.c.lines + _LINES.excluded.lines},
    )
)


def _holds_a_token() -> ColumnElement[bool]:
    return or_(s.face.c.face_token.is_not(None), s.face.c.former_token.is_not(None))


def _may_go() -> ColumnElement[bool]:
    """Condition: the library holds the face, or that is being settled."""
    return or_(_holds_a_token(), s.face.c.status.in_(OPEN))


def _has_a_face(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Condition: the ledger knows a face of this person in the library."""
    known = s.face.alias("held")
    token = or_(known.c.face_token.is_not(None), known.c.former_token.is_not(None))
    return exists(select(literal(1)).where(known.c.user_id == user_id, token))


def _has_an_open_face(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Condition: a face of this person is being settled."""
    known = s.face.alias("opened")
    of_them = and_(known.c.user_id == user_id, known.c.status.in_(OPEN))
    return exists(select(literal(1)).where(of_them))


def _by_a_sync(run: ColumnElement[int]) -> ColumnElement[bool]:
    syncs = s.run.alias("of_sync")
    return exists(
        select(literal(1)).where(
            syncs.c.run == run, syncs.c.options["command"].as_string() == "sync"
        )
    )


def _is_listed(user_id: ColumnElement[str]) -> ColumnElement[bool]:
    listed = s.wanted.alias("listed_row")
    return exists(select(literal(1)).select_from(listed).where(listed.c.user_id == user_id))


def _photo_is_missing() -> ColumnElement[bool]:
    """Condition: there is no such photo; who has a face and names none now lacks it, too."""
    named = s.wanted.c.path != ""
    return and_(s.wanted.c.size.is_(None), or_(named, _has_a_face(s.wanted.c.user_id)))


_SAME_ROW = and_(s.row.c.user_id == s.wanted.c.user_id, s.row.c.path == s.wanted.c.path)

_KNOW_FACES = (
    update(s.wanted)
    .values(face_id=s.face.c.face_id)
    .where(
        s.face.c.user_id == s.wanted.c.user_id,
        s.face.c.sha256 == s.wanted.c.sha256,
        s.wanted.c.face_id.is_(None),
    )
)

# The same bytes may have been sent for another file; and a row whose photo cannot be seen keeps
# the face that it has.
_KNOW_FACES_BY_ROW = (
    update(s.wanted)
    .values(face_id=s.row.c.face_id)
    .where(
        _SAME_ROW,
        s.wanted.c.face_id.is_(None),
        or_(s.wanted.c.sha256.is_(None), s.wanted.c.sha256 == s.row.c.sha256),
    )
)


def _leads_nowhere() -> ColumnElement[bool]:
    """Condition: what the file holds is known, and not to which face that leads: it may be one
    for which the same bytes were sent. Rows that have a face and no code learn it by `_SAME_FACE`.
    """
    by_content = exists(
        select(literal(1)).where(
            s.face.c.user_id == s.wanted.c.user_id, s.face.c.sha256 == s.wanted.c.sha256
        )
    )
    known = and_(
        _SAME_ROW,
        or_(s.row.c.sha256 == s.wanted.c.sha256, s.row.c.face_id.is_(None), s.row.c.code == ""),
    )
    return and_(~by_content, ~exists(select(literal(1)).select_from(s.row).where(known)))


# What a run writes when it finds that a file with other bytes is the face of its row all the same.
_SAME_FACE = (
    update(s.row)
    .where(
        s.row.c.user_id == bindparam("who"),
        s.row.c.path == bindparam("where"),
        s.row.c.face_id == bindparam("face"),
        s.row.c.code == "",
    )
    .values(sha256=bindparam("content"))
)


def _stands(face_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Condition: the face is enrolled, or is being added anew."""
    known = s.face.alias("standing")
    return exists(
        select(literal(1)).where(
            known.c.face_id == face_id,
            or_(known.c.status.in_(IN_THE_LIBRARY), known.c.former_token.is_not(None)),
        )
    )


def _accepted_before() -> ColumnElement[bool]:
    """Condition: an earlier run was to enroll this row as it is, and has not come to it, or has
    found that it cannot be."""
    of_row = s.face.alias("of_row")
    open_yet = exists(
        select(literal(1)).where(
            of_row.c.face_id == s.row.c.face_id,
            of_row.c.status.not_in([*IN_THE_LIBRARY, Status.REMOVED.value]),
        )
    )
    unread = or_(s.wanted.c.sha256.is_(None), s.wanted.c.sha256 == s.row.c.sha256)
    # What a run has only seen was judged by nobody.
    judged = or_(s.row.c.status.not_in(DUE), _by_a_sync(s.row.c.run))
    known = or_(and_(s.row.c.face_id.is_(None), judged), and_(open_yet, unread))
    return exists(select(literal(1)).select_from(s.row).where(_SAME_ROW, known))


_MARK_NEW = (
    update(s.wanted)
    .values(
        change=case(
            (_has_a_face(s.wanted.c.user_id), ChangeKind.PHOTO.value),
            else_=ChangeKind.JOINER.value,
        )
    )
    .where(
        s.wanted.c.size.is_not(None),
        ~s.wanted.c.unusable,
        or_(s.wanted.c.face_id.is_(None), ~_stands(s.wanted.c.face_id)),
        ~_accepted_before(),
    )
)


def _renewals() -> ColumnElement[bool]:
    """Condition: the first row that leads to an enrolled face, whose text no such row has."""
    other = s.wanted.alias("other")
    same_face = and_(other.c.user_id == s.wanted.c.user_id, other.c.face_id == s.wanted.c.face_id)
    text = select(s.face.c.user_data).where(s.face.c.face_id == other.c.face_id)
    says_it = exists(
        select(literal(1)).where(same_face, other.c.user_data == text.scalar_subquery())
    )
    before = exists(select(literal(1)).where(same_face, other.c.line < s.wanted.c.line))
    there = and_(s.wanted.c.size.is_not(None), ~s.wanted.c.unusable)
    known = and_(s.wanted.c.face_id.is_not(None), _stands(s.wanted.c.face_id))
    return and_(there, known, ~says_it, ~before)


_MARK_RENEWALS = (
    update(s.wanted)
    .values(change=ChangeKind.USER_DATA.value)
    .where(s.wanted.c.change == "", _renewals())
)


def _may_be_left() -> ColumnElement[bool]:
    """Condition: the row's face was being added anew when a run ended, and may turn out not to have
    been: then it has the text of no row."""
    being = s.face.alias("being")
    other = s.wanted.alias("other")
    says_it = exists(
        select(literal(1)).where(
            other.c.user_id == being.c.user_id,
            other.c.face_id == being.c.face_id,
            other.c.user_data == being.c.former_user_data,
        )
    )
    return exists(
        select(literal(1)).where(
            being.c.face_id == s.wanted.c.face_id,
            being.c.former_token.is_not(None),
            being.c.status.not_in(IN_THE_LIBRARY),
            ~says_it,
        )
    )


_QUEUE_RENEWALS = insert(s.renewal).from_select(
    ["user_id", "path"],
    select(s.wanted.c.user_id, s.wanted.c.path).where(
        or_(s.wanted.c.change == ChangeKind.USER_DATA.value, _may_be_left())
    ),
)


def _face_is_wanted() -> ColumnElement[bool]:
    return exists(
        select(literal(1)).where(
            s.wanted.c.user_id == s.face.c.user_id, s.wanted.c.face_id == s.face.c.face_id
        )
    )


def wanted_now() -> ColumnElement[bool]:
    """Condition: a row of the manifest leads to the face, as the ledger stands now."""
    return exists(
        select(literal(1)).where(
            s.wanted.c.user_id == s.face.c.user_id,
            _SAME_ROW,
            s.row.c.face_id == s.face.c.face_id,
        )
    )


def all_rows_enrolled() -> ColumnElement[bool]:
    """Condition: every row of the face's person is enrolled with the photo and text that it has,
    and nothing was about to delete one of these faces."""
    of_row = s.face.alias("of_row")
    to_renew = exists(
        select(literal(1)).where(
            s.renewal.c.user_id == s.wanted.c.user_id, s.renewal.c.path == s.wanted.c.path
        )
    )
    being_deleted = exists(select(literal(1)).where(s.removal.c.face_token == of_row.c.face_token))
    rows = (
        select(literal(1))
        .select_from(
            s.wanted.outerjoin(s.row, _SAME_ROW).outerjoin(
                of_row, of_row.c.face_id == s.row.c.face_id
            )
        )
        .where(
            s.wanted.c.user_id == s.face.c.user_id,
            or_(
                func.coalesce(of_row.c.status, "") != Status.ENROLLED.value,
                being_deleted,
                and_(  # without its photo a row cannot be given its text
                    or_(to_renew, s.wanted.c.size.is_(None)),
                    of_row.c.user_data != s.wanted.c.user_data,
                ),
                and_(
                    s.wanted.c.sha256.is_not(None),
                    s.wanted.c.sha256 != func.coalesce(s.row.c.sha256, b""),
                ),
            ),
        )
    )
    return and_(_is_listed(s.face.c.user_id), ~exists(rows))


_FIND_GOING = insert(s.going).from_select(
    ["face_id", "user_id", "enrolled", "superseded", "fresh"],
    select(
        s.face.c.face_id,
        s.face.c.user_id,
        s.face.c.status == Status.ENROLLED.value,
        and_(s.face.c.status == Status.SUPERSEDED.value, ~_by_a_sync(s.face.c.run)),
        ~exists(select(literal(1)).where(s.outgoing.c.face_id == s.face.c.face_id)),
    ).where(_may_go(), _is_listed(s.face.c.user_id), ~_face_is_wanted()),
)


_ADDITIONS = (EventKind.ENROLLED.value, EventKind.ADOPTED.value, EventKind.RESTORED.value)


def _added_since() -> ColumnElement[bool]:
    """Condition: a run has enrolled the leaver after the sync that found them gone; so they were
    there, and what is known of their absence is about other faces."""
    known = s.face.alias("added")
    command = s.run.c.options["command"].as_string()
    return exists(
        select(literal(1)).where(
            known.c.user_id == s.leaver.c.user_id,
            known.c.run > s.leaver.c.run,
            exists(
                select(literal(1)).where(
                    s.event.c.face_id == known.c.face_id,
                    s.event.c.run > s.leaver.c.run,
                    s.event.c.kind.in_(_ADDITIONS),
                    s.run.c.run == s.event.c.run,
                    func.coalesce(command, "run").in_(["run", "adopt"]),
                )
            ),
        )
    )


_MARK_HOLDS = and_(s.leaver.c.user_id == s.face.c.user_id, ~_added_since())

_FIND_GONE = insert(s.gone).from_select(
    ["user_id", "since", "run", "fresh"],
    select(
        s.face.c.user_id,
        # A clock may have been ahead.
        func.min(func.coalesce(s.leaver.c.since, bindparam("now")), bindparam("now")),
        s.leaver.c.run,
        s.leaver.c.user_id.is_(None),
    )
    .select_from(s.face.outerjoin(s.leaver, _MARK_HOLDS))
    .where(_holds_a_token(), ~_is_listed(s.face.c.user_id))
    .group_by(s.face.c.user_id),
)


def _dropped() -> Select[Any]:
    """Faces of people in the manifest that go and for which none comes."""
    coming = (
        select(func.count())
        .where(
            s.wanted.c.user_id == s.going.c.user_id,
            or_(s.wanted.c.face_id.is_(None), ~_stands(s.wanted.c.face_id)),
        )
        .scalar_subquery()
    )
    each = (
        select((func.count() - coming).label("more"))
        .where(s.going.c.enrolled, s.going.c.fresh)
        .group_by(s.going.c.user_id)
        .subquery()
    )
    return select(func.sum(func.max(each.c.more, 0)))


_NOBODYS = ~_has_a_face(s.leaver.c.user_id)
_FORGET_RETURNED = delete(s.leaver).where(
    or_(_is_listed(s.leaver.c.user_id), and_(_NOBODYS, ~_has_an_open_face(s.leaver.c.user_id)))
)
_FORGET_WITHHELD = delete(s.leaver).where(
    ~_NOBODYS,
    ~exists(select(literal(1)).where(s.gone.c.user_id == s.leaver.c.user_id)),
)
_FORGET_FRESH = delete(s.leaver).where(  # marks that hold no more
    exists(select(literal(1)).where(s.gone.c.user_id == s.leaver.c.user_id, s.gone.c.fresh))
)
_REMEMBER_GONE = (
    upsert(s.leaver)
    .from_select(
        ["user_id", "since", "run"],
        select(s.gone.c.user_id, s.gone.c.since, bindparam("run")).where(s.gone.c.fresh),
    )
    .on_conflict_do_nothing()
)
_CORRECT_MARKS = (
    update(s.leaver)
    .values(since=s.gone.c.since)
    .where(s.gone.c.user_id == s.leaver.c.user_id, s.leaver.c.since > s.gone.c.since)
)
_FORGET_OUTGOING = delete(s.outgoing).where(
    ~exists(
        select(literal(1))
        .select_from(s.going.join(s.face, s.face.c.face_id == s.going.c.face_id))
        .where(s.going.c.face_id == s.outgoing.c.face_id, _may_go())
    )
)
_REMEMBER_GOING = (
    upsert(s.outgoing)
    .from_select(
        ["face_id", "run"],
        select(s.going.c.face_id, bindparam("run")).where(s.going.c.fresh),
    )
    .on_conflict_do_nothing()
)
_REMEMBER_ROWS = (
    upsert(s.row)
    .from_select(
        ["user_id", "path", "user_data", "status", "code", "message", "run"],
        select(
            s.wanted.c.user_id,
            s.wanted.c.path,
            s.wanted.c.user_data,
            literal(Status.PENDING.value),
            literal(""),
            literal(""),
            bindparam("run"),
        ).where(s.wanted.c.change.in_([ChangeKind.JOINER.value, ChangeKind.PHOTO.value])),
    )
    .on_conflict_do_update(
        index_elements=["user_id", "path"],
        set_={"run": bindparam("run")},
        where=and_(s.row.c.face_id.is_(None), s.row.c.status.in_(DUE)),
    )
)


def _of_rows(kind: ChangeKind) -> Select[Any]:
    """Rows of a kind, with the token of the face that each has so far."""
    token = (
        select(func.coalesce(s.face.c.face_token, s.face.c.former_token))
        .join_from(s.row, s.face, s.face.c.face_id == s.row.c.face_id)
        .where(_SAME_ROW)
        .scalar_subquery()
    )
    return (
        select(
            s.wanted.c.user_id,
            s.wanted.c.user_data,
            s.wanted.c.path,
            token.label("face_token"),
            literal(None).label("since"),
            s.wanted.c.line,
        )
        .where(s.wanted.c.change == kind.value)
        .order_by(s.wanted.c.line)
    )


def _path_of_face() -> Any:
    return (
        select(func.max(s.row.c.path))
        .where(s.row.c.user_id == s.face.c.user_id, s.row.c.face_id == s.face.c.face_id)
        .correlate(s.face)
        .scalar_subquery()
    )


def _of_faces(since: ColumnElement[Any]) -> Select[Any]:
    return select(
        s.face.c.user_id,
        s.face.c.user_data,
        _path_of_face().label("path"),
        func.coalesce(s.face.c.face_token, s.face.c.former_token).label("face_token"),
        since.label("since"),
        literal(0).label("line"),
    )


_CHANGES = {
    ChangeKind.JOINER: _of_rows(ChangeKind.JOINER),
    ChangeKind.PHOTO: _of_rows(ChangeKind.PHOTO),
    ChangeKind.USER_DATA: _of_rows(ChangeKind.USER_DATA),
    ChangeKind.OLD: _of_faces(literal(None))
    .join_from(s.face, s.going, s.going.c.face_id == s.face.c.face_id)
    .where(_holds_a_token())
    .order_by(s.face.c.face_id),
    ChangeKind.LEAVER: _of_faces(s.gone.c.since)
    .join_from(s.face, s.gone, s.gone.c.user_id == s.face.c.user_id)
    .where(_holds_a_token())
    .order_by(s.face.c.face_id),
    ChangeKind.MISSING: select(
        s.wanted.c.user_id,
        s.wanted.c.user_data,
        s.wanted.c.path,
        literal("").label("face_token"),
        literal(None).label("since"),
        s.wanted.c.line,
    )
    .where(_photo_is_missing())
    .order_by(s.wanted.c.line),
}
