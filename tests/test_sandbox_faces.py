"""What the stand-in finds in pictures, and how it compares."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sandbox_caller import face_photo, face_picture, jpeg, sample

from enroll.cli.rehearsal import portrait
from enroll.photos import open_store, read_photo
from enroll.sandbox import Sandbox
from enroll.sandbox.faces import FaceFinder, LikenessIndex, grey_picture
from enroll.sandbox.made_up import made_up_photo
from enroll.sandbox.matchers import CROP, DlibMatcher, Likeness, Matcher, ModelMatcher
from enroll.sandbox.messages import RefusalError


def find(photo: bytes, *, turn: bool = False) -> Likeness:
    return FaceFinder(detect=True).find(photo, field="file", turn=turn)[1]


def code(photo: bytes, *, turn: bool = False) -> str:
    with pytest.raises(RefusalError) as caught:
        find(photo, turn=turn)
    return caught.value.code


def likeness(one: Likeness, other: Likeness) -> float:
    index = LikenessIndex()
    index.add("other", other)
    ((_, score),) = index.search(one, now=0.0, limit=1, threshold=0.0)
    return score


def unit(seed: int) -> Likeness:
    values = np.random.default_rng(seed).normal(size=CROP.length).astype(np.float32)
    return values / np.float32(np.linalg.norm(values))


@pytest.mark.parametrize(
    "name", ["camera", "chelsea", "coffee", "coins", "moon", "page", "rocket", "text"]
)
def test_no_face_is_found_where_there_is_none_to_be_seen(name: str) -> None:
    # The cameraman of `camera` turns his face away.
    assert code(jpeg(sample(name))) == "NO_FACE_FOUND"


def test_the_largest_of_two_faces_is_used() -> None:
    five, small = (Image.open(io.BytesIO(portrait(number))) for number in (5, 2))
    large = five.resize((400, 500))
    both = Image.new("RGB", (640, 500), "white")
    both.paste(small, (0, 0))
    both.paste(large, (240, 0))
    found = find(jpeg(both))
    assert likeness(found, find(jpeg(large))) > 90 > likeness(found, find(jpeg(small)))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_face_is_found_only_when_asked_for(degrees: int) -> None:
    turned = jpeg(face_picture().rotate(degrees, expand=True))
    assert code(turned) == "NO_FACE_FOUND"
    assert likeness(find(turned, turn=True), find(face_photo())) > 95


def test_turning_finds_nothing_where_nothing_is() -> None:
    assert code(jpeg(sample("coins")), turn=True) == "NO_FACE_FOUND"


def test_the_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    face_picture().rotate(90, expand=True).save(buffer, "JPEG", exif=exif)
    assert code(buffer.getvalue()) == "NO_FACE_FOUND"


def test_a_small_face_in_a_small_picture_is_found() -> None:
    small = face_picture().crop((120, 0, 330, 260)).resize((105, 130))
    find(jpeg(small))


def test_the_same_picture_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    finder, looked = FaceFinder(detect=True), []
    look = finder._look

    def counted(content: bytes, *, field: str, turn: bool) -> Likeness | RefusalError:
        looked.append(turn)
        return look(content, field=field, turn=turn)

    monkeypatch.setattr(finder, "_look", counted)
    for photo in (face_photo(), face_photo(), jpeg(sample("coffee"))) * 2:
        try:
            finder.find(photo, field="file", turn=False)
        except RefusalError as refusal:
            assert refusal.code == "NO_FACE_FOUND"
    assert looked == [False, False]


def test_threads_share_a_finder_and_agree() -> None:
    finder = FaceFinder(detect=True)
    photos = [portrait(seed) for seed in range(12)]
    alone = [find(photo) for photo in photos]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda p: finder.find(p, field="file", turn=False)[1], photos))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)


def test_without_detection_any_picture_has_a_face_and_a_flat_one_too() -> None:
    finder = FaceFinder(detect=False)
    for picture in (sample("coffee"), Image.new("RGB", (60, 60), "red")):
        _, found = finder.find(jpeg(picture), field="file", turn=False)
        assert likeness(found, found) == 100.0


def test_a_sixteen_bit_png_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 64, dtype=np.uint16).reshape(64, 64)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    levels = np.asarray(grey_picture(buffer.getvalue(), field="file", around=64))
    assert (levels[0, 0], levels[-1, -1]) == (0, 255)
    assert 120 < levels.mean() < 135


def test_the_index_ranks_hides_and_forgets() -> None:
    index = LikenessIndex()
    vectors = [unit(seed) for seed in range(300)]
    for number, vector in enumerate(vectors):
        index.add(f"t{number}", vector, visible_from=50.0 if number == 7 else 0.0)
    assert index.search(vectors[5], now=0.0, limit=1, threshold=99.0) == [("t5", 100.0)]
    assert index.search(vectors[7], now=49.0, limit=1, threshold=99.0) == []
    assert index.search(vectors[7], now=50.0, limit=1, threshold=99.0) == [("t7", 100.0)]
    for number in (0, 299, 5):
        index.remove(f"t{number}")
    assert index.search(vectors[5], now=60.0, limit=1, threshold=99.0) == []
    for number in (1, 298, 150):
        found = index.search(vectors[number], now=60.0, limit=1, threshold=99.0)
        assert found == [(f"t{number}", 100.0)]
    assert len(index.search(vectors[1], now=60.0, limit=1000, threshold=0.0)) == 297


def test_a_hidden_face_stays_hidden_when_another_is_removed() -> None:
    index = LikenessIndex()
    index.add("first", unit(1))
    index.add("hidden", unit(2), visible_from=50.0)
    index.remove("first")
    assert index.search(unit(2), now=49.0, limit=1, threshold=99.0) == []
    assert index.search(unit(2), now=50.0, limit=1, threshold=99.0) == [("hidden", 100.0)]


# With a face recognition network


def scored(matcher: Matcher, one: bytes, other: bytes) -> float:
    finder, index = FaceFinder(matcher, detect=True), LikenessIndex(matcher)
    index.add("other", finder.find(other, field="file", turn=False)[1])
    looked_for = finder.find(one, field="file", turn=False)[1]
    ((_, score),) = index.search(looked_for, now=0.0, limit=1, threshold=0.0)
    return score


def test_a_person_is_known_in_another_photo_by_the_network_and_not_by_the_crop() -> None:
    photo, turned = face_picture(), ImageOps.mirror(face_picture()).rotate(8)
    network = DlibMatcher()
    assert scored(network, jpeg(photo), jpeg(photo)) == 100
    assert scored(network, jpeg(turned), jpeg(photo)) > 90
    assert scored(network, jpeg(turned), portrait(3)) < 85
    assert scored(CROP, jpeg(turned), jpeg(photo)) < 75


def test_distances_become_the_scores_of_their_false_accept_rates() -> None:
    near = np.zeros((5, 128), dtype=np.float32)
    near[:, 0] = (0.0, 0.45, 0.49, 0.54, 0.60)
    scores = DlibMatcher().scores(near, near[0])
    assert scores == pytest.approx([100, 90, 85, 80, 75], abs=0.01)


def test_a_store_is_refused_with_another_matcher_than_the_one_that_made_it(tmp_path: Path) -> None:
    store = tmp_path / "service.sqlite"
    with Sandbox(store=store):
        pass
    with pytest.raises(ValueError, match="by the matcher crop"):
        Sandbox(store=store, matcher="dlib")


# With a model of scores


def photos_of_model(people: range, *, shot: int = 0) -> Likeness:
    return np.array([(person, shot) for person in people], dtype=np.float32)


def test_scores_of_the_model_have_the_vendor_s_rates() -> None:
    # 6,000,000 pairs of different people: five standard deviations are allowed.
    matcher, known = ModelMatcher(seed=5), photos_of_model(range(300_000))
    thresholds = {60: 0.1145, 75: 1e-3, 80: 1e-4, 85: 1e-5, 90: 1e-6}
    counts, pairs = dict.fromkeys(thresholds, 0), 0
    for one in range(20):
        scores = matcher.scores(known[one + 1 :], known[one])
        pairs += len(scores)
        for threshold in thresholds:
            counts[threshold] += int((scores >= threshold).sum())
    for threshold, rate in thresholds.items():
        expected = rate * pairs
        assert counts[threshold] == pytest.approx(expected, abs=5 * expected**0.5), threshold


def test_the_model_knows_people_again_but_for_a_known_share_of_their_photos() -> None:
    matcher, count = ModelMatcher(seed=5), 2_000
    scores = np.concatenate(
        [
            matcher.scores(np.array([(person, 2)], np.float32), np.array([person, 1], np.float32))
            for person in range(count)
        ]
    )
    missed = int((scores < 85).sum())
    assert missed == pytest.approx(0.003 * count, abs=5 * (0.003 * count) ** 0.5)
    assert missed > 0
    assert 90 < float(np.median(scores)) < 99


def test_a_score_of_the_model_follows_from_the_seed_and_the_two_photos() -> None:
    known = photos_of_model(range(1000))
    scores = [
        ModelMatcher(seed).scores(known[other], known[one][0])[0]
        for seed in (1, 2)
        for one, other in (([7], [700]), ([700], [7]))
    ]
    assert scores[0] == scores[1]
    assert scores[2] == scores[3]
    assert scores[0] != scores[2]
    assert ModelMatcher(1).scores(known, known[7])[7] == 100.0
    other_shot = photos_of_model(range(8), shot=1)
    assert ModelMatcher(1).scores(known, other_shot[7])[7] < 100.0


def test_the_model_reads_who_is_shown_from_made_up_photos_alone(tmp_path: Path) -> None:
    finder = FaceFinder(ModelMatcher(), detect=True)
    photo = made_up_photo(0xABCDEF, 0x1234)
    again = Image.open(io.BytesIO(photo)).convert("RGB").resize((200, 200))
    for content in (photo, jpeg(again)):
        found = finder.find(content, field="file", turn=False)[1]
        assert found.tolist() == [0xABCDEF, 0x1234]
    (tmp_path / "1.jpg").write_bytes(photo)
    assert read_photo(str(tmp_path / "1.jpg"), open_store(tmp_path)).content == photo
    for other in (portrait(1), jpeg(again.rotate(90)), jpeg(sample("page"))):
        with pytest.raises(RefusalError, match="NO_FACE_FOUND"):
            finder.find(other, field="file", turn=False)


def test_people_of_the_model_are_found_in_a_store_that_is_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Sandbox(store=tmp_path / "service.sqlite", matcher="model") as box:
            box.create_library("staff")
            finder = FaceFinder(ModelMatcher(), detect=True)
            if not box.faces("staff"):
                for person in range(3):
                    picture = finder.find(made_up_photo(person), field="file", turn=False)
                    box.account.add("staff", user_id=f"p{person}", user_data="", picture=picture)
            _, likeness = finder.find(made_up_photo(1, 1), field="file", turn=False)
            found = box.account.search("staff", likeness, limit=100, threshold=85)
            assert [face.user_id for face, _ in found] == ["p1"]
    with pytest.raises(ValueError, match="by the matcher model"):
        Sandbox(store=tmp_path / "service.sqlite")
