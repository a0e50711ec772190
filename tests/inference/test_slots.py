"""The baseline that has a presence in each slot: its density, its draws, what it infers."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from inference.checkpoint import load_checkpoint, save_checkpoint
from inference.plain import Described
from inference.slots import SlotPosterior, SlotsConfig, _count_probabilities
from inference.wakesleep import sleep_loss
from renderer.prior import sample
from renderer.scene import Scene
from renderer.spec import SceneSpec

SPEC = SceneSpec.load("tabletop-fixed")
SLOTS = SPEC.count.max


def make(gain: float = 4.0, **sizes: int) -> SlotPosterior:
    config = SlotsConfig(**({"channels": 8, "summary": 16, "hidden": 16, "blocks": 1} | sizes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        posterior = SlotPosterior(SPEC, config)
    with torch.no_grad():
        for part in (posterior.recur, posterior.head):
            for parameter in part.parameters():
                parameter.mul_(gain)
    return posterior.eval()


def pictures(n: int) -> Tensor:
    return torch.rand(n, 3, 32, 32, generator=Generator().manual_seed(5))


def dreams(n: int) -> Scene:
    return sample(SPEC, n, generator=Generator().manual_seed(11))


def log_density(posterior: SlotPosterior, image: Tensor, scene: Scene, slots: list[int]) -> float:
    """Of one scene whose objects lie in the given slots, written out slot by slot."""
    context = posterior.encode(image)
    filled: list[Described] = []
    for k in range(SLOTS):
        there = k in slots
        i = slots.index(k) if there else 0
        pose = torch.cat([scene.position[:, i], scene.yaw[:, i, None]], 1)
        filled.append(
            Described(scene.identity[:, i] if there else torch.tensor([-1]), pose * float(there))
        )
    said, _ = posterior._unroll(context, scene.azimuth, lambda k, _: filled[k])
    total = 0.0
    for k, known in enumerate(filled):
        p = float(torch.sigmoid(said.presence_logit[0, k]))
        total += math.log(p if k in slots else 1 - p)
        if k in slots:
            total += float(said.class_logits[0, k].log_softmax(0)[known.identity])
            where = torch.distributions.Normal(said.pose.mean[0, k], said.pose.std[0, k])
            total += float(where.log_prob(known.pose[0]).sum())
    return total


@torch.no_grad()
def test_the_density_is_that_of_the_objects_in_some_slots() -> None:
    posterior, image, scenes = make(), pictures(20), dreams(20)
    for count in range(SLOTS + 1):
        b = int((scenes.count == count).nonzero()[0])
        one = scenes[b : b + 1]
        possible = [
            log_density(posterior, image[b : b + 1], one, list(slots))
            for slots in itertools.permutations(range(SLOTS), count)
        ]
        seen = set()
        for seed in range(40):
            found = posterior.log_prob(
                image[b : b + 1], one, generator=Generator().manual_seed(seed)
            )
            value = float(found.objects)
            nearest = min(range(len(possible)), key=lambda i: abs(possible[i] - value))
            assert value == pytest.approx(possible[nearest], rel=1e-4, abs=1e-4)
            seen.add(nearest)
        assert len(seen) == len(possible)  # any slots, and any order in them


@torch.no_grad()
def test_draws_are_as_probable_as_they_say() -> None:
    posterior, image = make(gain=1.0), pictures(1)
    trace = posterior.trace(posterior.encode(image), 4000, generator=Generator().manual_seed(3))
    scene = trace.latents
    assert bool((scene.presence.int().diff(dim=1) <= 0).all())  # present objects first
    none = scene.count == 0
    assert none.sum() > 50
    expected = log_density(posterior, image, scene[none][:1], [])
    torch.testing.assert_close(
        trace.log_q.sum(1)[none], torch.full((int(none.sum()),), expected), rtol=1e-4, atol=1e-4
    )
    # How often nothing is drawn is how probable nothing is.
    share, p = float(none.float().mean()), math.exp(expected)
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 4000)
    all_filled = scene.count == SLOTS
    i = int(all_filled.nonzero()[0])
    expected = log_density(posterior, image, scene[i : i + 1], list(range(SLOTS)))
    assert float(trace.log_q[i].sum()) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_counts_are_those_of_slots_on_their_own() -> None:
    p = torch.rand(5, 3, generator=Generator().manual_seed(0))
    found = _count_probabilities(p)
    for n in range(4):
        expected = sum(
            torch.stack([p[:, k] if k in on else 1 - p[:, k] for k in range(3)]).prod(0)
            for on in itertools.combinations(range(3), n)
        )
        torch.testing.assert_close(found[:, n], expected)


def test_labels_teach_it_a_scene_by_heart(tmp_path: Path) -> None:
    posterior = make(gain=1.0, summary=64, hidden=64).train()
    scenes = dreams(64)
    one = scenes[(scenes.count == 1).nonzero()[0]]
    image = pictures(1)
    adam = torch.optim.Adam(posterior.parameters(), lr=3e-3)
    generator = Generator().manual_seed(0)
    for _ in range(250):
        loss = sleep_loss(posterior, image, one, generator=generator).loss
        adam.zero_grad()
        loss.backward()
        adam.step()
    found = posterior.eval().infer(image)
    assert found.scene.count.tolist() == [1]
    assert found.scene.identity[0, 0] == one.identity[0, 0]
    torch.testing.assert_close(found.scene.position[:, 0], one.position[:, 0], atol=0.02, rtol=0)
    torch.testing.assert_close(found.count_probabilities.sum(1), torch.ones(1))
    save_checkpoint(tmp_path, posterior, name="slots")
    again = load_checkpoint(tmp_path).posterior
    assert isinstance(again, SlotPosterior)
    torch.testing.assert_close(again.infer(image).scene.position, found.scene.position)
