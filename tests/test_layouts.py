r"""Archives as other tools export them, enrolled with the commands of docs/other-tools.md.

Where the layouts come from:

- FindFace: "Batch photo upload", FindFace Security and FindFace Multi user guides; names of files
  are taken for names of people.
- Suprema: "Batch Enroll Faces", BioStar X, and "Visual Face Import", BioStar 2 (names of files
  match user ids; up to two faces for each user).
- Verkada: "Upload Bulk Images" (names are email addresses, user ids or external ids) and "Import
  Access Control Users - CSV" (its columns).
- HiBob: "Importing profile pictures to create employee avatars" (a ZIP of photos called by an
  identifier).
- Namely: "How can I import profile photos?" (file names in a CSV, and a ZIP of the files).
- Plumm: "Import Profile Pictures" (a ZIP; the name of a file contains what is matched).
- Genetec: "About the Import tool" and "Importing cardholders and credentials", Security Center
  Administrator Guide (start at line, delimiters, path of a picture).
- AxxonSoft: "Storage modes for face images, vectors and metadata", Face PSIM (faces below
  `Bmp\Person`).
- Synology: "Face Database", Surveillance Station, and the `@eaDir` of DSM's indexing.
- LDAP: RFC 2798 (`jpegPhoto`), and RFC 2849 (binary values as Base64) as CSV converters take them
  over.
"""

from __future__ import annotations

import re
import shlex
import zipfile
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from archive import picture
from real_command import Command, account_of

from enroll.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("moved_clock")

PAGE = Path(__file__).parent.parent / "docs" / "other-tools.md"

Files = Mapping[str, int | bytes]
"""Files by name: a number stands for the `picture`."""

Face = tuple[str, str, int]
"""A user_id, a user_data, and the number of a picture."""


@dataclass(frozen=True)
class Layout:
    """`files` lie in the folder, or in archives by the archives' names; `faces` are to be in the
    library."""

    tool: str
    faces: Sequence[Face]
    files: Files = field(default_factory=dict)
    archives: Mapping[str, Files] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The command that the page gives."""
        page = PAGE.read_text(encoding="utf-8")
        found = re.search(rf"^## {self.tool}$.*?^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        assert found is not None
        return shlex.split(found[1].replace("\\\n", ""))

    def write(self, folder: Path) -> None:
        for name, what in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(what))
        for name, members in self.archives.items():
            with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as packed:
                for member, what in members.items():
                    packed.writestr(member, content(what))


def content(what: int | bytes) -> bytes:
    return picture(what) if isinstance(what, int) else what


def text(*lines: str, encoding: str = "utf-8", end: str = "\n") -> bytes:
    return "".join(line + end for line in lines).encode(encoding)


def in_base64(number: int, *, line: int = 10_000) -> str:
    """A picture in lines of so many characters, the further ones with a blank before them."""
    whole = b64encode(picture(number)).decode()
    return "\n ".join(whole[at : at + line] for at in range(0, len(whole), line))


LAYOUTS = (
    Layout(
        "FindFace",
        files={
            "photos/00017.jpg": 1,
            "photos/17.jpg": 2,
            "photos/A-17.JPG": 3,
            "photos/Thumbs.db": b"x",
        },
        faces=[("00017", "", 1), ("17", "", 2), ("A-17", "", 3)],
    ),
    Layout(
        "Suprema BioStar",
        files={
            "photos/1001.jpg": 1,
            "photos/1001_2.jpg": 2,
            "photos/100.jpg": 3,
            "photos/A_1.jpeg": 4,
            "photos/A_1_2.png": 5,
        },
        faces=[("1001", "", 1), ("1001", "", 2), ("100", "", 3), ("A_1", "", 4), ("A_1", "", 5)],
    ),
    Layout(
        "Verkada",
        archives={
            "verkada.zip": {
                "users.csv": text(
                    "userId,externalId,firstName,lastName,email,cardNumber",
                    "5f0c,E-1,Jan,Novák,jan@example.com,00012",
                    "5f0d,E-2,Anjan,Rao,anjan@example.com,00013",
                    "5f0e,E-12,Jan,Bos,jan@example.com.au,00014",
                    encoding="utf-8-sig",
                ),
                "jan@example.com.jpg": 1,
                "anjan@example.com.JPG": 2,
                "jan@example.com.au.png": 3,
                "__MACOSX/._users.csv": b"x",
            }
        },
        faces=[("E-1", "Jan Novák", 1), ("E-2", "Anjan Rao", 2), ("E-12", "Jan Bos", 3)],
    ),
    Layout(
        "HiBob",
        archives={
            "hibob.zip": {
                "employees.csv": text(
                    "Employee ID,Display name,Email",
                    "1042,Zoë Ek,z@example.com",
                    "104,Al Ek,",
                    end="\r\n",
                ),
                "photos/1042.png": 1,
                "photos/104.jpeg": 2,
                "photos/10.jpg": 3,  # of somebody who is not on the list
                ".DS_Store": b"x",
            }
        },
        faces=[("1042", "Zoë Ek", 1), ("104", "Al Ek", 2)],
    ),
    Layout(
        "Namely",
        files={
            "namely.csv": text(
                "Employee Number,First Name,Last Name,Profile Image",
                '007,Joe,"Roe, Jr.",joesphoto.jpg',
                "7,Ann,Poe,IMG 2.jpg",
            )
        },
        archives={"photos.zip": {"joesphoto.jpg": 1, "IMG 2.jpg": 2, "IMG 3.jpg": 3}},
        faces=[("007", "Roe, Jr., Joe", 1), ("7", "Poe, Ann", 2)],
    ),
    Layout(
        "Plumm",
        files={
            "staff.csv": text(
                "Employee ID,First name,Last name",
                "EMP1,Anna,Schmidt",
                "EMP12,Ann,Schmidt",
                "EMP3,Jörg,Groß",
            )
        },
        archives={
            "plumm.zip": {
                "profile Anna Schmidt 2026.jpg": 1,
                "ANN SCHMIDT.png": 2,
                "2 - Jo\u0308rg Groß.JPG": 3,
            }
        },
        faces=[("EMP1", "Anna Schmidt", 1), ("EMP12", "Ann Schmidt", 2), ("EMP3", "Jörg Groß", 3)],
    ),
    Layout(
        "Genetec Security Center",
        files={
            "cardholders.csv": text(
                "# Exported by Config Tool; do not edit",
                "First name;Last name;Card number;Picture",
                r"Björn;Åberg;0042;D:\Cardholders\Pictures\0042.jpg",
                r"Eva;Ek;42;D:\Cardholders\Pictures\visitors\42.jpg",
                encoding="cp1252",
                end="\r\n",
            ),
            "Pictures/0042.jpg": 1,
            "Pictures/visitors/42.jpg": 2,
            "Pictures/42.jpg": 3,  # of somebody else
        },
        faces=[("0042", "Björn Åberg", 1), ("42", "Eva Ek", 2)],
    ),
    Layout(
        "AxxonSoft",
        files={
            "persons.csv": text(
                "ID|Name|Photo", r"7|Иванов И.|Bmp\Person\7.bmp", r"77|Петров|Bmp\Person\new\77.bmp"
            ),
            "Bmp/Person/7.bmp": 1,
            "Bmp/Person/new/77.bmp": 2,
        },
        faces=[("7", "Иванов И.", 1), ("77", "Петров", 2)],
    ),
    Layout(
        "Synology",
        files={
            "people/1001 Anna Schmidt/IMG_0001.jpg": 1,
            "people/1001 Anna Schmidt/IMG_0002.jpg": 2,
            "people/1001 Anna Schmidt/@eaDir/IMG_0001.jpg/SYNOPHOTO_THUMB_M.jpg": 9,
            "people/100 Ben van Dyk/IMG_0001.jpg": 3,
            "people/#recycle/7 Gone/IMG_0001.jpg": 8,
        },
        faces=[
            ("1001", "Anna Schmidt", 1),
            ("1001", "Anna Schmidt", 2),
            ("100", "Ben van Dyk", 3),
        ],
    ),
    Layout(
        "LDAP",
        files={
            "people.csv": text(
                "dn,uid,cn,mail,jpegPhoto",
                f'"uid=0007,ou=people,dc=example",0007,Zoë Ek,z@example.com,{in_base64(1)}',
                f'"uid=7,ou=people,dc=example",7,"Poe, Al",,"{in_base64(2, line=76)}"',
            )
        },
        faces=[("0007", "Zoë Ek", 1), ("7", "Poe, Al", 2)],
    ),
)


def problems(layout: Layout, box: Sandbox, command: Command, library: str) -> list[str]:
    """What is wrong with an archive after its command; nothing, if all is well."""
    layout.write(command.folder)
    box.create_library(library)
    words = [library if word == "staff" else word for word in layout.words[1:]]
    done = command(*words)
    wanted = Counter((who, said, sha256(picture(n)).hexdigest()) for who, said, n in layout.faces)
    faces = box.faces(library)
    held = Counter((face.user_id, face.user_data, face.sha256) for face in faces)
    found = [f"missing: {face}" for face in wanted - held]
    found += [f"not wanted: {face}" for face in held - wanted]
    found += [f"code {done.code}: {done.out} {done.err}"] if done.code else []
    calls = box.count("add")
    again = command(*words)
    if again.code or box.count("add") != calls:
        found.append(f"sent again: {again}")
    return found


def test_archives_of_other_tools_enroll_with_options_alone_and_only_once(
    faceless_box: Sandbox, tmp_path: Path
) -> None:
    wrong = []
    for number, layout in enumerate(LAYOUTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = Command(tmp_path / f"home{number}", folder, account_of(faceless_box))
        library = f"library-{number}" if number else "staff"  # an account may have ten
        found = problems(layout, faceless_box, command, library)
        wrong += [f"{layout.tool}: {one}" for one in found]
    assert not wrong, "\n".join(wrong)


def test_every_layout_of_the_page_is_enrolled_here() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == [layout.tool for layout in LAYOUTS]
