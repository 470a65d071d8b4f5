"""What a program from which commands are forked does first, so that no child has to: it loads
every module and has SQLAlchemy compile the statements, by giving each command once."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, event


class Statements(dict[Any, Any]):
    """SQL statements that were compiled, whichever ledger they were for: each has a dialect of its
    own, those of a database are alike, and a test opens several."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((key[0].name, *key[1:]), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__((key[0].name, *key[1:]), compiled)


_statements = Statements()


@event.listens_for(Engine, "engine_connect")
def _share_statements(connection: Connection) -> None:
    connection.execution_options(compiled_cache=_statements)


def warm_up() -> None:
    """Load everything that a command may need, and give each command that calls the service."""
    import enroll

    for module in pkgutil.walk_packages(enroll.__path__, "enroll."):
        if not module.name.startswith("enroll.__main__"):
            importlib.import_module(module.name)
    for name in ("sqlalchemy.dialects.sqlite", "pandas", "tqdm", "requests"):
        importlib.import_module(name)
    importlib.import_module("PIL.Image").init()
    with TemporaryDirectory() as folder:
        _give_each_command(Path(folder))
    for other in threading.enumerate():
        if other is not threading.current_thread():
            other.join(60)  # a fork has no other; they have been told to end
    assert threading.active_count() == 1
    gc.freeze()  # so that no child's collection touches, and copies, all of it


def _give_each_command(folder: Path) -> None:
    from archive import Archive

    from enroll.sandbox import Sandbox

    with Sandbox(detect=False) as box:
        archive = Archive.new(folder / "warm", box)
        archive.crowd(4)
        run = archive.arguments
        ledger = ("--ledger", archive.ledger)
        box.script(["500-after"])
        archive.command(*run)
        archive.rows = [(user_id, "another", image) for user_id, _, image in archive.rows[1:]]
        archive.manifest()
        archive.command("sync", *run[1:], "--grace", 0, "--max-removals", "100%")
        archive.command("verify", *ledger, "--remove-surplus", "--yes")
        (archive.folder / "ids.txt").write_text("warm-p1\n", encoding="utf-8")
        archive.command("remove", *ledger, "--user-ids", "ids.txt", "--yes")
        archive.command("forget", *ledger, "--user-id", "warm-p2", "--yes")
        archive.ledger.unlink()
        archive.command("adopt", *run[1:8])
