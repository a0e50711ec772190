"""Characters: read, put on the canvas, and measured for complexity by themselves."""

from pathlib import Path

import numpy as np
import pytest

from training.complexity import measure_complexity, thin
from training.digits import DataError
from training.omniglot import choose, on_canvas, read_drawings


def canvas(*lines: tuple[slice | int, slice | int]) -> np.ndarray:
    """A drawing of strokes three pixels wide."""
    ink = np.zeros((1, 40, 40), dtype=bool)
    for rows, columns in lines:
        ink[0, rows, columns] = True
    return ink


LINE = (slice(19, 22), slice(5, 35))
UP = (slice(5, 20), slice(19, 22))
DOWN = (slice(20, 35), slice(19, 22))


@pytest.mark.parametrize(
    ("strokes", "nodes"),
    [((LINE,), 2), ((LINE, UP), 4), ((LINE, UP, DOWN), 5), ((), 0)],
    ids=["line", "tee", "cross", "empty"],
)
def test_ends_and_crossings_are_counted(strokes: tuple, nodes: int) -> None:
    found = measure_complexity(canvas(*strokes))
    # Where strokes of some width cross, thinning may leave two meeting points side by side.
    assert abs(int(found.nodes[0]) - nodes) <= (len(strokes) == 3)
    assert abs(int(found.length[0]) - (30, 45, 60, 0)[len(strokes) - 1]) <= 3 * len(strokes)


def test_a_ring_has_no_ends_and_stays_a_ring() -> None:
    y, x = np.mgrid[:60, :60] - 30
    radius = np.hypot(x, y)
    ring = ((radius > 17) & (radius < 22))[None]
    assert measure_complexity(ring).nodes[0] == 0
    lines = thin(ring)[0]
    assert (np.abs(radius[lines] - 19.5) < 2).all()
    angle = np.arctan2(y, x)[lines]
    assert np.diff(np.sort(angle)).max() < 0.12  # no gap


def test_complexity_does_not_depend_on_how_many_are_measured_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawings = np.concatenate([canvas(LINE), canvas(LINE, UP), canvas(UP)])
    whole = measure_complexity(drawings)
    monkeypatch.setattr("training.complexity.CHUNK", 2)
    parts = measure_complexity(drawings)
    np.testing.assert_array_equal(whole.length, parts.length)
    np.testing.assert_array_equal(whole.nodes, parts.nodes)


def test_drawings_fill_the_canvas_white_on_black() -> None:
    ink = np.zeros((1, 105, 105), dtype=bool)
    ink[0, :21] = True  # the upper fifth
    image = on_canvas(ink)[0]
    assert image.shape == (50, 50)
    assert (image[:9] == 255).all() and (image[11:] == 0).all()


def test_drawings_are_chosen_once_each() -> None:
    drawings = np.eye(30, dtype=bool)[:, None]
    first, again, other = (choose(drawings, 20, np.random.default_rng(s)) for s in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (first.sum((0, 1)) <= 1).all()
    with pytest.raises(DataError, match="there are 30 drawings"):
        choose(drawings, 31, np.random.default_rng(0))


def test_drawings_that_cannot_be_read_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = np.ones((2, 3, 6, 6), dtype=bool)
    paper[1, 2, 4, 5] = False
    np.savez(tmp_path / "images_background.npz", images=paper)
    ink = read_drawings("train", tmp_path)
    assert ink.shape == (6, 6, 6) and np.argwhere(ink).tolist() == [[5, 4, 5]]
    with pytest.raises(DataError, match="put Omniglot's images_evaluation"):
        read_drawings("test", tmp_path)
    np.savez(tmp_path / "images_evaluation.npz", images=paper.astype(float))
    with pytest.raises(DataError, match=r"holds float64 \[2, 3, 6, 6\], expected images"):
        read_drawings("test", tmp_path)
    (tmp_path / "images_evaluation.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="cannot be read"):
        read_drawings("test", tmp_path)
    monkeypatch.delenv("AIR_DATA", raising=False)
    with pytest.raises(DataError, match="AIR_DATA is not set"):
        read_drawings("test")
