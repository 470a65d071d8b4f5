"""A photo's bytes and what was seen of them; and of a truncated one how much is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import ImageFile

from enroll.model import Fault
from enroll.photos import decision
from enroll.photos.bounds import decoders, decoding_limit
from enroll.photos.decision import Seen
from enroll.photos.decode import BrokenError, decoding_bytes, open_picture, share_missing
from enroll.photos.form import Form
from enroll.photos.jpeg import BEHIND, Jpeg
from enroll.photos.strip import Pieces
from enroll.settings import Preparation

COMPLETABLE = frozenset({Form.JPEG, Form.PNG, Form.BMP, Form.GIF, Form.TIFF})
"""Formats of which decoders give what there is; of the others they give all or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A photo without its metadata, and what was seen of it.

    Of a truncated one so many bytes are missing, 0 where that is not known; a truncated JPEG has
    no end. `crop` (left, top, right, bottom) is what is shown of it when it is decoded, before it
    is turned.
    """

    content: bytes = field(repr=False)
    seen: Seen
    missing_bytes: int = 0
    jpeg: Jpeg | None = None
    crop: tuple[int, int, int, int] | None = None


def why_cut_off(source: Source, preparation: Preparation) -> Fault:
    """Why a truncated photo is not sent, with how much of it is missing, where that can be told."""
    completable = source.seen.form in COMPLETABLE
    if source.missing_bytes:
        some = "1 byte" if source.missing_bytes == 1 else f"{source.missing_bytes:,} bytes"
        verb = "is" if source.missing_bytes == 1 else "are"
        return decision.cut_off(f"The last {some} of the file {verb}", completable=completable)
    if not completable:
        return decision.cut_off(completable=False)
    try:
        share = _share_missing(source, decoding_limit(preparation.max_pixels))
    except BrokenError:
        return decision.ONLY_A_STUB
    if share is None:
        return decision.cut_off()
    percent = round(100 * share)
    if percent == 0:
        return decision.cut_off("The end of the file, though hardly any of the picture, is")
    return decision.cut_off(f"The last {percent} % of the picture is")


def _share_missing(source: Source, limit: int) -> float | None:
    """How much of the height the decoder does not come to, 0 to 1; None: cannot be told."""
    jpeg = source.jpeg
    content = source.content if jpeg is None else Pieces([source.content, BEHIND])
    picture = open_picture(content, source.seen.form)
    if jpeg is not None:
        picture.draft("L", (1, 1))
    need = 2 * decoding_bytes(picture, source.seen.form, jpeg)
    in_passes = _interlaced(picture) if jpeg is None else not jpeg.sequential
    if need > limit or in_passes:  # then some of each part is missing
        return None
    return decoders().run(lambda _: share_missing(picture), need=need, limit=limit)


def _interlaced(picture: ImageFile.ImageFile) -> bool:
    """Whether lines do not stand in their order. Pillow says it of a GIF only to its decoder."""
    if picture.format == "GIF":
        return any(isinstance(tile.args, tuple) and tile.args[1] for tile in picture.tile)
    return bool(picture.info.get("interlace"))
