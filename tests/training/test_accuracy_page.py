"""The page of a model that is a little off: its numbers, its pictures, its worst cases."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from inference.estimate import Estimate
from inference.novelty import Limits
from inference.posterior import Posterior, PosteriorConfig
from renderer import Scene, SceneSpec, open_renderer
from renderer.prior import sample
from training.accuracy import Elsewhere, Measured, evaluation
from training.accuracy_page import DATA, write_page
from training.dreams import generator_for
from training.evaluate import figures_of
from training.inferred import Inferred
from training.mistakes import worst_cases
from training.novelty import KNOWN, Scores
from training.occlusion import distances

N = 48


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("checkpoint")
    config = PosteriorConfig(
        height=32, width=32, channels=8, summary=16, hidden=16, keys=8, blocks=1
    )
    posterior = Posterior(SceneSpec.load("tabletop"), config)
    save_checkpoint(folder, posterior, name="tiny", novelty=Limits(block=0.01, doubt=0.7))
    return load_checkpoint(folder)


def inferred(spec: SceneSpec, true: Scene, off: float, pictures: torch.Tensor) -> Inferred:
    """Every position off by `off` m; the first scene's objects are missed."""
    presence = true.presence.clone()
    presence[0] = False
    scene = replace(true, presence=presence, position=true.position + off / 2**0.5)
    covariance = (off**2 * torch.eye(2)).expand(N, 3, 2, 2)
    estimate = Estimate(
        scene,
        torch.nn.functional.one_hot(scene.count, 4).float(),
        presence.float(),
        torch.nn.functional.one_hot(true.identity, 3).float(),
        covariance,
        torch.full((N, 3), 0.02),
        torch.full((N,), 0.001),
    )
    zeros = torch.zeros(N)
    return Inferred(true, estimate, zeros, zeros, zeros + 1, 1.0, pictures)


def test_the_page_shows_what_was_measured(checkpoint: Checkpoint, tmp_path: Path) -> None:
    spec = checkpoint.spec
    true = sample(spec, N, generator=generator_for("page"))
    true = true[true.count.argsort(descending=True)]
    renderer = open_renderer(spec, height=32, width=32, backend="raycast", supersample=1)
    pictures = renderer.render_bytes(true)
    own = replace(
        inferred(spec, true, 0.004, pictures),
        refined=inferred(spec, true, 0.001, pictures),
        refine_milliseconds=torch.full((N, 2), 70.0),
    )
    shares = torch.where(true.presence, 1.0, torch.nan)
    cases = worst_cases(spec, own, shares, renderer)
    renderer.close()
    score = Scores(torch.linspace(0, 2, 8), torch.linspace(0, 1, 8), pictures[:8])
    higher = replace(score, novelty=score.novelty + 3)
    measured = Measured(
        own=own,
        elsewhere=[Elsewhere("with noise", "--nuisance", own)],
        scores={KNOWN: score, "noise": higher},
        shares=shares,
        distances=distances(spec, true),
        cases=cases,
        backend="raycast",
        scenes=N,
        seed=7,
        steps=5,
    )
    page = write_page(checkpoint, measured, tmp_path)
    text = page.read_text()
    pictures_named = re.findall(r"\]\((images/[a-z-]+\.png)\)", text)
    assert len(set(pictures_named)) == 9
    assert all((tmp_path / name).stat().st_size > 1000 for name in pictures_named)
    assert "| single pass |" in text and "4.00 mm" in text and "1.00 mm" in text
    data = json.loads((tmp_path / DATA).read_text())
    expected = json.loads(json.dumps(figures_of(checkpoint, own, 7)))
    assert data["measured"]["single pass"] == expected
    assert data["novelty"]["noise"]["roc_area"] == 1.0
    assert data["novelty"]["noise"]["told_novel"] == 1.0
    assert data["novelty"][KNOWN]["told_novel"] == 0.5
    assert cases[0].scene == 0 and cases[0].says.count("missed") == 2 * int(true.count[0])
    report = evaluation(checkpoint, measured)
    assert report["novelty"] == data["novelty"]
    assert report["refined"]["recall"] == report["recall"] < 1.0
