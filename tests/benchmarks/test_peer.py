"""Two learners take turns; one of them from a repository that somebody else has."""

import sys
import textwrap
from pathlib import Path

import pytest
import torch

import benchmarks.peer
from benchmarks.part import Settings
from benchmarks.peer import OURS, PYRO, Peer, PyroAir
from training.pictures import Pictures

# As much of the two modules as the peer's adapter touches.
AIR = """
    import torch
    class AIR:
        def __init__(self, **settings): self.settings = settings
        def model(self, image, batch_size, z_pres_prior_p): raise NotImplementedError
        def guide(self, image, batch_size):
            shown = (image.amax((1, 2)) > 0).float()[:, None]
            return [], [shown, torch.zeros_like(shown)]
"""
PYRO_MODULE = """
    def clear_param_store(): pass
"""
INFER = """
    class TraceGraph_ELBO: pass
    class SVI:
        def __init__(self, model, guide, optim, loss): self.steps = 0
        def step(self, image, batch_size): self.steps += 1; assert image.shape == (64, 50, 50)
"""
OPTIM = """
    class Adam:
        def __init__(self, arguments): assert arguments("bl_rnn")["lr"] > arguments("rnn")["lr"]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "examples/air/air.py": AIR,
        "pyro/__init__.py": PYRO_MODULE,
        "pyro/infer.py": INFER,
        "pyro/optim.py": OPTIM,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    for name in ("pyro", "pyro.infer", "pyro.optim", "air"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Pictures:
    """Images that are black or white, of none or one."""
    count = torch.arange(20) % 2
    image = (255 * count[:, None, None, None]).expand(20, 1, 50, 50).byte()
    pictures = Pictures(image, count)
    monkeypatch.setattr(benchmarks.peer, "load_pictures", lambda *_: pictures)
    return pictures


def test_learners_take_turns_on_the_same_images(repository: Path, images: Pictures) -> None:
    before = list(sys.path)
    part = Peer(pyro=str(repository), seconds=0.2, turn=0.1)
    figures = part.measure(Settings(), lambda _: None)
    assert sys.path == before
    assert not figures.skipped
    names = [row["learner"] for row in figures.rows]
    assert names[:2] == [PYRO, OURS]
    assert all(row["steps"] > 0 and row["cpu_seconds"] >= 0.1 for row in figures.rows)
    assert figures.rows[0]["count_accuracy"] == 1.0  # the stub looks whether there is anything
    rows = part.tables(figures)["peer"].rows
    assert [row[0] for row in rows] == [PYRO, OURS]


def test_ours_may_have_less_time(repository: Path, images: Pictures) -> None:
    part = Peer(pyro=str(repository), seconds=0.3, turn=0.1, ours=0.1)
    names = [row["learner"] for row in part.measure(Settings(), lambda _: None).rows]
    assert names.count(OURS) == 1
    assert names.count(PYRO) > 1


def test_without_a_copy_of_the_repository_nothing_is_measured(
    tmp_path: Path, images: Pictures
) -> None:
    for name in ("pyro", "air"):
        sys.modules.pop(name, None)
    for peer, reason in (
        (Peer(), "--peer.pyro DIR"),
        (Peer(pyro=str(tmp_path)), "No module named"),
    ):
        figures = peer.measure(Settings(), lambda _: None)
        assert not figures.rows
        assert reason in figures.skipped[PYRO]


def test_pyros_prior_is_ours(repository: Path) -> None:
    presence = [PyroAir._presence(step) for step in range(3)]
    weights = torch.tensor([1.0, 0.01, 1e-4, 1e-6])
    at_least = weights.flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(torch.tensor(presence), at_least[1:] / at_least[:-1])
