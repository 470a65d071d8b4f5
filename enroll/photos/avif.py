"""AVIF: a file of one picture, written anew."""

from __future__ import annotations

from struct import pack

from enroll.photos.boxes import Picture, framed

_FILE_TYPE = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"

_HANDLER = b"\0\0\0\0pict" + bytes(12) + b"\0"


def alone(picture: Picture, content: bytes) -> bytes:
    """A file of this picture of `content`, and of nothing else."""
    data: list[memoryview] = []
    places, at = [], len(_FILE_TYPE) + 8
    for item in picture.items.values():
        parts = [memoryview(content)[begin : begin + length] for begin, length in item.parts]
        size = sum(len(part) for part in parts)
        places.append((at, size))
        data += parts
        at += size
    mdat = pack(">I", 8 + sum(len(part) for part in data)) + b"mdat"
    return b"".join([_FILE_TYPE, mdat, *data, _table(picture, places)])


def _table(picture: Picture, places: list[tuple[int, int]]) -> bytes:
    numbers = {one: number for number, one in enumerate(picture.items, start=1)}
    infos, located, owned = [], b"", b""
    for number, (item, place) in enumerate(zip(picture.items.values(), places, strict=True), 1):
        infos.append(framed(b"infe", pack(">IHH", 2 << 24, number, 0) + item.kind + b"\0"))
        located += pack(">HHHII", number, 0, 1, *place)
        owned += pack(">HB", number, len(item.properties))
        owned += b"".join(pack(">H", which | must << 15) for which, must in item.properties)
    references = b"".join(
        framed(kind, pack(f">HH{len(to)}H", numbers[one], len(to), *(numbers[each] for each in to)))
        for kind, one, to in picture.references
    )
    count = len(picture.items)
    properties = framed(b"ipco", b"".join(picture.properties))
    parts = [
        framed(b"hdlr", bytes(4) + _HANDLER),
        framed(b"pitm", pack(">IH", 0, 1)),
        framed(b"iloc", pack(">IHH", 0, 0x4400, count) + located),
        framed(b"iinf", pack(">IH", 0, count) + b"".join(infos)),
        framed(b"iref", bytes(4) + references) if references else b"",
        framed(b"iprp", properties + framed(b"ipma", pack(">II", 1, count) + owned)),
    ]
    return framed(b"meta", bytes(4) + b"".join(parts))
