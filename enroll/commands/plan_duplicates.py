"""`enroll plan --duplicates`: every group of rows with the same photo.

Rows and what is seen of their photos lie in a temporary database, in a file of SQLite's own that is
deleted with the connection: a million rows take no memory.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

from enroll.errors import LocalError
from enroll.ledger import BlockList, LedgerReader
from enroll.manifest.rules import image_fault, user_id_fault
from enroll.model import Fault, ScannedRow, Status
from enroll.photos import Glance, Outline, PhotoStore, Picture, outline, read_picture, read_top
from enroll.settings import Preparation
from enroll.text.tables import Cell, free_text, new_table
from enroll.text.wording import amount
from enroll.threads import Threads

DUPLICATE_COLUMNS = (
    *("group", "kind", "people", "line"),
    *("user_id", "user_data", "image", "sha256", "status"),
)
"""The columns of `--duplicates`; `status` is the row's in the ledger."""

_RULES = {"user_id": user_id_fault, "user_data": free_text, "image": image_fault}

CONTENT, PIXELS = "content", "pixels"
SEVERAL, ONE = "several people", "same person"

_PHOTOS_AT_ONCE = 500
_ROWS_AT_ONCE = 2_000
_CACHE_KB = 8_000

_TABLES = """
CREATE TABLE photo (
    photo INTEGER PRIMARY KEY, path BLOB UNIQUE,
    content INTEGER, picture INTEGER, size INTEGER, kin INTEGER, coding INTEGER,
    sha256 BLOB, same BLOB, top BLOB, decoded INTEGER DEFAULT 0
);
CREATE TABLE line (
    photo INTEGER, line INTEGER, user_id BLOB, user_data BLOB, image BLOB, withheld INTEGER
);
CREATE VIEW seen AS
    SELECT photo, size, kin, coding, decoded, top, coalesce(same, picture) AS known
    FROM photo WHERE size > 0;
CREATE VIEW mixed AS
    SELECT size FROM seen GROUP BY size HAVING count(DISTINCT known) > 1 AND min(kin) = 0;
"""
"""`photo` has what is known of each so far (see `enroll.photos.Outline` and `Picture`); `mixed` are
the sizes of several pictures, at least one of them in a format without loss."""

_ADD_PHOTO = "INSERT OR IGNORE INTO photo (path) VALUES (?)"
_ADD_LINE = "INSERT INTO line SELECT photo, ?, ?, ?, ?, ? FROM photo WHERE path = ?"
_OUTLINED = """
UPDATE photo SET content = ?, picture = ?, size = ?, kin = ?, coding = ? WHERE path = ?
"""
_COMPARED = "UPDATE photo SET sha256 = ?, same = ?, top = ?, decoded = ? WHERE path = ?"
_HAS_TOP = "UPDATE photo SET top = ? WHERE path = ?"

_INDEXES = """
CREATE INDEX by_content ON photo (content);
CREATE INDEX by_picture ON photo (picture);
CREATE INDEX by_size ON photo (size, kin, coding);
CREATE INDEX by_photo ON line (photo);
"""

# The photos that seem to have the same content as others but for metadata, or are in several rows.
_LIKELY = """
SELECT photo FROM photo WHERE content IN
    (SELECT content FROM photo WHERE content IS NOT NULL GROUP BY content HAVING count(*) > 1)
UNION SELECT photo FROM photo WHERE picture IN
    (SELECT picture FROM photo WHERE content IS NOT NULL GROUP BY picture HAVING count(*) > 1)
UNION SELECT photo FROM line JOIN photo USING (photo)
    WHERE content IS NOT NULL GROUP BY photo HAVING count(*) > 1
"""

# The photos whose pixels decide: those without loss that may be the decoded picture of others, and
# those of the same kin in different codings.
_IN_PIXELS = """
SELECT photo FROM seen JOIN mixed USING (size) WHERE kin = 0
UNION SELECT photo FROM seen JOIN
    (SELECT size, kin FROM seen WHERE kin <> 0 GROUP BY size, kin HAVING count(DISTINCT coding) > 1)
    USING (size, kin)
"""

# The others of these sizes. Few have the first lines of one without loss, and can be the same.
_OTHERS = """
SELECT photo FROM seen JOIN mixed USING (size) WHERE NOT decoded
"""
_WITH_SAME_TOP = """
SELECT photo FROM seen JOIN mixed USING (size)
WHERE NOT decoded AND
    (top IS NULL OR (size, top) IN (SELECT size, top FROM seen WHERE kin = 0))
"""

_GROUPS = """
CREATE TABLE found AS
SELECT
    same,
    count(DISTINCT user_id) > 1 AS several,
    count(DISTINCT sha256) > 1 AS differ,
    row_number() OVER (ORDER BY count(DISTINCT user_id) = 1, min(line)) AS number
FROM photo JOIN line USING (photo)
WHERE same IS NOT NULL
GROUP BY same HAVING count(*) > 1;
CREATE INDEX by_same ON photo (same);
"""

_ROWS = """
SELECT number, differ, several, line, user_id, user_data, image, sha256, withheld, path
FROM found JOIN photo USING (same) JOIN line USING (photo)
ORDER BY number, line
"""

_PEOPLE = """
SELECT count(DISTINCT user_id) FROM found JOIN photo USING (same) JOIN line USING (photo)
WHERE several
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateCounts:
    """How many groups there are: `shared` by several people, `people` in all, and `repeated` by one
    person. `unread` photos could not be compared."""

    shared: int
    people: int
    repeated: int
    unread: int

    @property
    def words(self) -> str:
        """In a few words."""
        parts = []
        if self.shared:
            people = amount(self.people, "person", "people")
            parts.append(f"{amount(self.shared, 'photo')} of several people ({people})")
        if self.repeated:
            parts.append(f"{amount(self.repeated, 'photo')} repeated for one person")
        return ", ".join(parts) or "none"


class Duplicates:
    """Finds rows with the same photo, among all that it is given."""

    def __init__(
        self, path: Path, store: PhotoStore, preparation: Preparation, ledger: LedgerReader
    ) -> None:
        """`path` is the table to write."""
        self.path = path
        self._store = store
        self._preparation = preparation
        self._ledger = ledger
        with _local_errors():
            self._database = sqlite3.connect("", isolation_level=None)
            self._database.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.executescript(_TABLES)

    def close(self) -> None:
        """Delete the temporary database."""
        self._database.close()

    def add(self, rows: Sequence[ScannedRow], forgotten: BlockList) -> None:
        """Add rows of the manifest, in its order."""
        named = [row for row in rows if row.path]
        with _local_errors(), self._at_once():
            self._database.executemany(_ADD_PHOTO, [(_packed(row.path),) for row in named])
            self._database.executemany(
                _ADD_LINE,
                [
                    (
                        row.line,
                        _packed(row.user_id),
                        _packed(row.user_data),
                        _packed(row.image),
                        forgotten.holds(row.user_id),
                        _packed(row.path),
                    )
                    for row in named
                ],
            )

    def looked(self, paths: Iterable[str], looks: Iterable[Glance | Fault]) -> None:
        """Use what the plan's own looks at photos have shown, so that each is opened once."""
        self._save_outlines(
            (path, look.outline)
            for path, look in zip(paths, looks, strict=True)
            if isinstance(look, Glance) and look.outline is not None
        )

    def write(self, readers: Threads) -> DuplicateCounts:
        """Compare the photos, and write the groups. Raises LocalError and ShortageError."""
        with _local_errors():
            self._look(readers)
            self._database.executescript(_INDEXES)
            self._compare(_LIKELY, readers, decodes=False)
            self._compare(_IN_PIXELS, readers, decodes=True)
            self._look_at_tops(readers)
            self._compare(_WITH_SAME_TOP, readers, decodes=True)
            self._database.executescript(_GROUPS)
            with new_table(
                self.path, DUPLICATE_COLUMNS, rules=_RULES, numbers={"group", "line"}
            ) as table:
                table.write(self._cells())
            return self._counts()

    # What is seen of photos

    def _look(self, readers: Threads) -> None:
        look = partial(outline, store=self._store)
        for paths in self._paths("SELECT photo FROM photo WHERE content IS NULL"):
            looks = zip(paths, readers.map(look, paths), strict=True)
            self._save_outlines((path, one) for path, one in looks if isinstance(one, Outline))

    def _save_outlines(self, outlines: Iterable[tuple[str, Outline]]) -> None:
        with _local_errors(), self._at_once():
            self._database.executemany(
                _OUTLINED, [(*astuple(found), _packed(path)) for path, found in outlines]
            )

    def _compare(self, wanted: str, readers: Threads, *, decodes: bool) -> None:
        read = partial(
            read_picture, store=self._store, preparation=self._preparation, decodes=decodes
        )
        for paths in self._paths(wanted):
            pictures = zip(paths, readers.map(read, paths), strict=True)
            compared = [
                (one.sha256, one.same, one.top, decodes, _packed(path))
                for path, one in pictures
                if isinstance(one, Picture)
            ]
            with self._at_once():
                self._database.executemany(_COMPARED, compared)

    def _look_at_tops(self, readers: Threads) -> None:
        read = partial(read_top, store=self._store, preparation=self._preparation)
        for paths in self._paths(_OTHERS):
            tops = zip(paths, readers.map(read, paths), strict=True)
            found = [(top, _packed(path)) for path, top in tops if isinstance(top, bytes)]
            with self._at_once():
                self._database.executemany(_HAS_TOP, found)

    def _paths(self, wanted: str) -> Iterator[list[str]]:
        """The paths of wanted photos, some at a time; what is wanted is decided before the first
        of them."""
        photos = array("q", (photo for (photo,) in self._database.execute(wanted)))
        path_of = "SELECT path FROM photo WHERE photo = ?"
        for start in range(0, len(photos), _PHOTOS_AT_ONCE):
            some = photos[start : start + _PHOTOS_AT_ONCE]
            yield [_text(*self._database.execute(path_of, (one,)).fetchone()) for one in some]

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Changes in one transaction: each by itself would take several times as long."""
        self._database.execute("BEGIN")
        yield
        self._database.execute("COMMIT")

    # What is written

    def _cells(self) -> Iterator[Sequence[Cell]]:
        found = self._database.execute(_ROWS)
        while rows := found.fetchmany(_ROWS_AT_ONCE):
            keys = [(_text(user_id), _text(path)) for *_, user_id, _, _, _, _, path in rows]
            entries = self._ledger.entries_of(keys)
            for row, entry in zip(rows, entries, strict=True):
                number, differ, several, line, user_id, user_data, image, sha256, withheld, _ = row
                status = Status.WITHHELD.value if withheld else entry.status.value if entry else ""
                yield (
                    *(number, PIXELS if differ else CONTENT, SEVERAL if several else ONE, line),
                    *(_text(user_id), _text(user_data), _text(image), sha256.hex(), status),
                )

    def _counts(self) -> DuplicateCounts:
        def count(query: str) -> int:
            (found,) = self._database.execute(query).fetchone()
            return int(found)

        return DuplicateCounts(
            shared=count("SELECT count(*) FROM found WHERE several"),
            people=count(_PEOPLE),
            repeated=count("SELECT count(*) FROM found WHERE NOT several"),
            unread=count("SELECT count(*) FROM photo WHERE content IS NULL"),
        )


def _packed(text: str) -> bytes:
    # A cell or a path can contain half a surrogate pair.
    return text.encode("utf-8", "surrogatepass")


def _text(packed: bytes) -> str:
    return packed.decode("utf-8", "surrogatepass")


@contextmanager
def _local_errors() -> Iterator[None]:
    """Raise LocalError where the temporary file cannot be written."""
    try:
        yield
    except sqlite3.Error as error:
        raise LocalError(
            f"The photos cannot be compared: SQLite's temporary file failed ({error}). Make room "
            "in the folder for temporary files, or set SQLITE_TMPDIR to another one."
        ) from error
