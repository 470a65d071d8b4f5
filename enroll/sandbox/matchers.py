"""How the stand-in tells people apart: by the crop of a face, or by a face recognition model."""

from __future__ import annotations

import importlib.util
import threading
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import dlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

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

    def describe(self, picture: Image.Image, box: Box) -> Likeness:
        """The likeness of a face in a grey picture."""

    def scores(self, known: NDArray[np.float32], likeness: Likeness) -> NDArray[np.float64]:
        """How alike the likeness is to each row of `known`, 0 to 100; 100 is the same picture."""


class CropMatcher:
    """Compares the grey crops themselves: the same photo is found again, however it was encoded,
    but a person in another photo is not."""

    name = "crop"
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


MATCHERS = (CROP.name, DlibMatcher.name)
"""The names, the usual one first."""

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


def matcher_named(name: str) -> Matcher:
    """The matcher of this name. Raises ImportError where what it needs is not installed."""
    if name == CROP.name:
        return CROP
    _models()
    return DlibMatcher()
