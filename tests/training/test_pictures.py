"""The images of the 2D experiments, made of digits that are simple enough to be told apart."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from training.digits import Bytes, DataError, read_digits, separate_digits, shrunk_digits
from training.pictures import PictureData, load_pictures
from training.sprites import LEVEL, RADIUS, sprites

LEVELS = {"train": 90, "test": 200}  # grey, of the digits of each split


def solid(levels: list[int]) -> Bytes:
    """A digit for each grey level: a rectangle of that level, none as large as another."""
    digits = np.zeros((len(levels), 28, 28), dtype=np.uint8)
    for i, level in enumerate(levels):
        digits[i, 4 : 14 + i, 6 : 20 - i] = level
    return digits


def idx(images: Bytes) -> bytes:
    return struct.pack(">4i", 2051, *images.shape) + images.tobytes()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with MNIST's files, and an empty cache."""
    for split, name in (("train", "train"), ("test", "t10k")):
        path = tmp_path / "mnist" / f"{name}-images-idx3-ubyte.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(idx(solid([LEVELS[split]] * 4))))
    monkeypatch.setenv("AIR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_digits_of_the_papers_form_do_not_overlap() -> None:
    levels = [50, 100, 150, 200]
    digits = solid(levels)
    inks = [int(digit.sum()) for digit in digits]
    images, count, placed = separate_digits(digits, (0, 1, 2, 3), 400, np.random.default_rng(0))
    for image, n, shown in zip(images, count, placed, strict=True):
        assert len(shown) == n
        for digit in shown:
            assert image[int(digit.y), int(digit.x)] == levels[digit.which]
        seen = 0
        for level, ink in zip(levels, inks, strict=True):
            of_level = int(image[image == level].sum())
            assert of_level % ink == 0  # whole ones only: nothing hides a part
            seen += of_level // ink
        assert seen == n
        assert np.isin(image, [0, *levels]).all()  # and nothing adds up
    shares = np.bincount(count) / 400
    np.testing.assert_allclose(shares, 0.25, atol=0.08)


def test_digits_of_pyros_form_are_shrunk_and_never_saturate() -> None:
    digits = solid([200])
    images, count, _ = shrunk_digits(digits, (1, 2), 300, np.random.default_rng(0))
    ones = images[count == 1].astype(float).sum((1, 2)) / digits[0].sum()
    # An area of 1 / 1.3^2, give or take a tenth in length.
    assert 0.5 < ones.mean() < 0.7
    assert 0.02 < ones.std() < 0.2
    # Two of 200 saturate wherever they overlap: as much light as two apart, none is lost.
    twos = images[count == 2].astype(float).sum((1, 2)) / digits[0].sum()
    assert abs(twos.mean() / ones.mean() - 2) < 0.1


def test_digits_without_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.digits.PATIENCE", 20)
    with pytest.raises(DataError, match="40 digits find no room on 50x50 px: ask for fewer"):
        separate_digits(solid([200]), (40,), 1, np.random.default_rng(0))


def test_held_out_images_show_test_digits_only(data: Path) -> None:
    for split, level in LEVELS.items():
        found = load_pictures(PictureData(form="separate-digits", images=20), split)
        assert found.image.unique().tolist() == [0, level]
        assert found.image.shape == (20, 1, 50, 50)
        assert found.count.shape == (20,)


def test_a_set_is_made_once_and_is_the_same_again(data: Path) -> None:
    sets = [PictureData(form="shrunk-digits", images=10, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (load_pictures(one, "train") for one in sets)
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
    for path in (data / "mnist").iterdir():
        path.unlink()
    kept = load_pictures(sets[0], "train")  # without the digits
    assert torch.equal(first.image, kept.image)
    for path in (data / "cache" / "airscene").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="put MNIST's train-images-idx3-ubyte"):
        load_pictures(sets[0], "train")


def test_digits_that_cannot_be_read_say_what_to_do(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(solid([9]))[:-5]))
    with pytest.raises(DataError, match="not a whole IDX file"):
        read_digits("train")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="cannot be read"):
        read_digits("train")
    monkeypatch.delenv("AIR_DATA")
    with pytest.raises(DataError, match="AIR_DATA is not set"):
        read_digits("train")


def test_sprites_add_up() -> None:
    images, count = sprites((0, 1, 2), 300, np.random.default_rng(0))
    light = images.astype(float).sum((2, 3)) / LEVEL  # [n, 3] px that are covered
    # Areas in units of the squared radius: of circle, square, diamond.
    for kind, area in enumerate((np.pi, 4.0, 2.0)):
        least, greatest = (area * radius**2 for radius in RADIUS)
        ones = light[(count == 1) & (light[:, kind] > 0), kind]
        assert len(ones) > 10
        assert (ones > 0.97 * least).all() and (ones < 1.03 * greatest).all()
        same = light[(count == 2) & ((light > 0).sum(1) == 1) & (light[:, kind] > 0), kind]
        assert (same > 1.94 * least).all() and (same < 2.06 * greatest).all()
    assert (images[count == 0] == 0).all()
    assert images.max() == 2 * LEVEL
    with pytest.raises(ValueError, match="would saturate"):
        sprites((3,), 1, np.random.default_rng(0))
