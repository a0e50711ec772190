from pathlib import Path

from benchmarks.drawing import draw


def test_draws_the_same_picture_again(tmp_path: Path) -> None:
    first = draw(tmp_path).read_bytes()
    assert draw(tmp_path).read_bytes() == first
    assert first.count(b"<image") == 3
