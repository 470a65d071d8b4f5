"""How the stand-in tells people apart: by the crop of a face, by a face recognition network, or by
a model of the scores that the vendor's thresholds stand for."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Protocol

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .made_up import who_is_shown

Likeness = NDArray[np.float32]
"""What a matcher keeps of a face: a vector of its `length`."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a face in a picture."""


class Matcher(Protocol):
    """Describes faces, and scores how alike they are. Safe to share between threads."""

    @property
    def name(self) -> str:
        """What it is called, and stored as: likenesses of two matchers cannot be compared."""

    @property
    def length(self) -> int:
        """Numbers of a likeness."""

    @property
    def of_faces(self) -> bool:
        """Whether a detector has to find a face first; else the middle of the picture is one."""

    def describe(self, picture: Image.Image, box: Box) -> Likeness | None:
        """The likeness of a face in a grey picture; None for one that it takes for no face."""

    def scores(self, known: NDArray[np.float32], likeness: Likeness) -> NDArray[np.float64]:
        """How alike the likeness is to each row of `known`, 0 to 100; 100 is the same picture."""

    def __hash__(self) -> int:
        """Those that compare alike share what they have found."""


class CropMatcher:
    """Compares the grey crops themselves: the same photo is found again, however it was encoded,
    but a person in another photo is not."""

    name = "crop"
    of_faces = True
    side = 16
    length = side * side

    spread = 12
    """Grey crops of any two upright faces are alike to begin with. The power spreads the scores so
    that different people mostly stay below the vendor's recommended thresholds of 75 to 90."""

    def describe(self, picture: Image.Image, box: Box) -> Likeness:
        """A unit vector."""
        crop = picture.resize((self.side, self.side), Image.Resampling.BOX, box=box)
        values = np.asarray(crop, dtype=np.float32).reshape(-1)
        values = values - values.mean()
        length = float(np.linalg.norm(values))
        if length == 0.0:  # one flat colour, which only detect=False lets through
            values = np.zeros(self.length, dtype=np.float32)
            values[0] = length = 1.0
        likeness: Likeness = values / np.float32(length)
        return likeness

    def scores(self, known: NDArray[np.float32], likeness: Likeness) -> NDArray[np.float64]:
        """By the dot product of the vectors."""
        cosines = np.clip(known @ likeness, 0.0, 1.0).astype(np.float64)
        scores: NDArray[np.float64] = 100.0 * cosines**self.spread
        return scores


CROP = CropMatcher()

_SCORES = (100.0, 90.0, 85.0, 80.0, 75.0, 0.0)
_DISTANCES = (0.0, 0.45, 0.49, 0.54, 0.60, 1.40)
"""Distances that get these scores; others lie on the lines between them. The vendor's 75, 80, 85
and 90 stand for false accept rates of 1e-3 to 1e-6. These are where a normal distribution has those
rates that fits the distances of 96 pairs of photos of different people (mean 0.872, standard
deviation 0.089). Nine pairs of photos of one person were at 0.25 to 0.42."""


_SAME = 2e-3
"""Distances of single precision below which two descriptors are the same."""


class DlibMatcher:
    """dlib's face recognition network, which knows a person in another photo. 180 ms a photo."""

    name = "dlib"
    of_faces = True
    length = 128

    def describe(self, picture: Image.Image, box: Box) -> Likeness:
        """The network's descriptor, of the face turned upright by its eyes and nose."""
        landmarks, network = _networks()
        pixels = np.asarray(picture.convert("RGB"))
        found = landmarks(pixels, dlib.rectangle(box[0], box[1], box[2] - 1, box[3] - 1))
        return np.asarray(network.compute_face_descriptor(pixels, found), dtype=np.float32)

    def scores(self, known: NDArray[np.float32], likeness: Likeness) -> NDArray[np.float64]:
        """By where the Euclidean distances lie among _DISTANCES."""
        squares = np.einsum("ij,ij->i", known, known) - 2 * (known @ likeness)
        distances = np.sqrt(np.maximum(squares + likeness @ likeness, 0.0)).astype(np.float64)
        distances[distances < _SAME] = 0.0
        scores: NDArray[np.float64] = np.interp(distances, _DISTANCES, _SCORES)
        return scores


DLIB = DlibMatcher()

_PACKAGE = "face_recognition_models"
_MINE = threading.local()
"""The networks of each thread: threads must not share them."""


def _networks() -> tuple[Any, Any]:
    if not hasattr(_MINE, "networks"):
        models = _models()
        landmarks = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        network = dlib.face_recognition_model_v1(
            str(models / "dlib_face_recognition_resnet_model_v1.dat")
        )
        _MINE.networks = landmarks, network
    networks: tuple[Any, Any] = _MINE.networks
    return networks


@cache
def _models() -> Path:
    """The folder of the networks' weights. Raises ImportError where they are not installed.

    The package is not imported: it looks for its files with a module that Python no longer has.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
    return Path(found.submodule_search_locations[0]) / "models"


_RATES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
_THRESHOLDS = (75.0, 80.0, 85.0, 90.0, 99.9)
"""The vendor's thresholds, and how often two people get that score or more. The vendor calls it the
false accept rate in a library of up to 100,000 faces; the model takes it for that of each
comparison, which is the worse case. The last pair continues the line."""

_OTHERS = NormalDist(mu=50.43, sigma=7.951)
"""Scores of different people below 75, of which the vendor says nothing: the normal distribution
that has the rates of 75 and 80. One in nine is 60 or more, about as with dlib's
network."""

_SAME_PERSON = {0.0: 40.0, 0.0005: 60.0, 0.001: 75.0, 0.003: 85.0, 0.01: 90.0, 1.0: 99.0}
"""How often two photos of one person get less than these scores: three in a thousand less than 85.
An assumption, as the vendor gives no rate: NIST's tests of face recognition (FRTE 1:1) have such
rates for good algorithms and portraits when one comparison in 100,000 is accepted falsely."""


def _scores_of_others() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates in ascending order, and the scores that have them, to draw lines between."""
    rare = np.geomspace(_RATES[-1], _RATES[0], 250)
    exponents = np.log10(_RATES[::-1])
    rare_scores = np.interp(np.log10(rare), exponents, _THRESHOLDS[::-1])
    usual = np.linspace(2 * _RATES[0], 1 - _RATES[0], 500)
    usual_scores = [_OTHERS.inv_cdf(1 - rate) for rate in usual]
    rates = np.concatenate([[0.0], rare, usual, [1.0]])
    return rates, np.concatenate([_THRESHOLDS[-1:], rare_scores, usual_scores, [0.0]])


_SCORES_OF_OTHERS = _scores_of_others()
_STEPS = 4096
_ROUGHLY = np.interp((np.arange(_STEPS) + 0.5) / _STEPS, *_SCORES_OF_OTHERS)
"""The same as a table, in a fifth of the time. It is right to 0.01, but not for rare scores."""
_RARE = 0.01


@dataclass(frozen=True, slots=True)
class ModelMatcher:
    """Knows made-up photos alone, and draws how alike they are at the rates above.

    A score follows from the seed and the two photos, whichever is asked for first. It takes 0.5 ms
    to compare a photo with 20,000.
    """

    name: ClassVar = "model"
    of_faces: ClassVar = False
    length: ClassVar = 2

    seed: int = 0

    def describe(self, picture: Image.Image, box: Box) -> Likeness | None:
        """Person and shot, which are small enough to be exact."""
        found = who_is_shown(picture)
        return None if found is None else np.array(found, dtype=np.float32)

    def scores(self, known: NDArray[np.float32], likeness: Likeness) -> NDArray[np.float64]:
        """By a draw for each pair of photos."""
        draws = self._draws(_photos(known), _photos(likeness[np.newaxis]))
        scores: NDArray[np.float64] = _ROUGHLY[(draws * _STEPS).astype(np.intp)]
        rare = draws < _RARE
        scores[rare] = np.interp(draws[rare], *_SCORES_OF_OTHERS)
        person = known[:, 0] == likeness[0]
        drawn = np.interp(draws[person], [*_SAME_PERSON], [*_SAME_PERSON.values()])
        scores[person] = np.where(known[person, 1] == likeness[1], 100.0, drawn)
        return scores

    def _draws(self, known: NDArray[np.uint64], photo: NDArray[np.uint64]) -> NDArray[np.float64]:
        """A number from 0 to below 1 for each pair of photos."""
        start = np.uint64(self.seed & 0xFFFFFFFFFFFFFFFF)
        low = _mixed(np.minimum(known, photo) ^ start)
        return (_mixed(low + np.maximum(known, photo)) >> np.uint64(11)) / 2.0**53


def _photos(likenesses: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A number for each photo."""
    person, shot = likenesses.astype(np.uint64).T
    numbers: NDArray[np.uint64] = (person << np.uint64(16)) | shot
    return numbers


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number with its bits mixed, as SplitMix64 does (Steele, Lea and Flood, 2014)."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))


MATCHERS = (CROP.name, DLIB.name, ModelMatcher.name)
"""The names, the usual one first."""


def matcher_named(name: str, *, seed: int = 0) -> Matcher:
    """The matcher of this name; only the model of scores has a seed. Raises ImportError where what
    it needs is not installed."""
    if name == CROP.name:
        return CROP
    if name == ModelMatcher.name:
        return ModelMatcher(seed)
    _models()
    return DLIB
