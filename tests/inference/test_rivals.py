"""The models that AIR is held against: their bound, what DRAW sees and draws, their checkpoints."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from inference.checkpoint import load_checkpoint
from inference.checkpoint_rival import load_rival, save_rival
from inference.draw import SIDES, Draw, DrawConfig, _window
from inference.folder import CheckpointError
from inference.rivals import AnyRival, build_rival
from inference.vae import Vae, VaeConfig

DRAW = DrawConfig(side=12, window=5, steps=3, what=2, hidden=8)
VAE = VaeConfig(side=12, what=3, encoder=(8, 8), decoder=(8,))
BOTH = pytest.mark.parametrize("config", [DRAW, VAE], ids=["draw", "vae"])


def make(config: DrawConfig | VaeConfig) -> AnyRival:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_rival(config).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)  # so that it says something
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def image() -> Tensor:
    """Images of noise."""
    return torch.rand(5, 1, 12, 12, dtype=torch.float64, generator=seeded(1))


@BOTH
def test_the_bound_is_pixels_less_divergence(config: DrawConfig | VaeConfig, image: Tensor) -> None:
    model = make(config)
    picture, divergence = model.explain(image, noise=seeded())
    assert (divergence > 0).all() and ((picture > 0) & (picture < 1)).all()
    pixels = Normal(picture, config.std).log_prob(image).sum((1, 2, 3))
    torch.testing.assert_close(model.bound(image, generator=seeded()), pixels - divergence)
    cheap = model.bound(image, code_weight=0.25, generator=seeded())
    torch.testing.assert_close(cheap, pixels - divergence / 4)


def test_the_autoencoder_pays_what_its_code_says(image: Tensor) -> None:
    model = make(VAE)
    assert isinstance(model, Vae)
    mean, log_std = model.encoder(image.flatten(1)).chunk(2, 1)
    paid = kl_divergence(Normal(mean, log_std.exp()), Normal(torch.zeros_like(mean), 1.0)).sum(1)
    torch.testing.assert_close(model.explain(image)[1], paid)


def test_draw_adds_a_patch_a_step_inside_its_window() -> None:
    model = make(DRAW)
    assert isinstance(model, Draw)
    with torch.no_grad():
        model.place.weight.zero_()
        model.place.bias.copy_(torch.tensor([-9.0, 0.5, -0.3]))  # small, to the right, up
        model.first.zero_()
        before = model.first.sigmoid()
        after = model.explain(torch.zeros(1, 1, 12, 12, dtype=torch.float64), noise="none")[0]
    changed = (after[0] != before).nonzero()[:, 1:].double()
    where = _window(model.place.bias[None])[0]
    centre = (where[[2, 1]] + 1) * 6 - 0.5  # row and column, px
    reach = where[0].exp() * 12 / 2 + where[0].exp() * 12 / DRAW.window
    assert len(changed) > 1
    assert ((changed - centre).abs() <= reach + 1e-9).all()


def test_windows_of_draw_never_leave_the_canvas_nor_vanish() -> None:
    said = 100 * torch.randn(200, 3, generator=seeded())
    side, x, y = _window(said).unbind(1)
    assert (torch.stack([x, y]).abs() <= 1).all()
    assert ((side.exp() >= SIDES[0] - 1e-6) & (side.exp() <= SIDES[1] + 1e-6)).all()


def test_draw_looks_at_what_is_still_wrong(image: Tensor) -> None:
    model = make(DRAW)
    told: list[Tensor] = []
    assert isinstance(model, Draw)
    model.encoder.register_forward_hook(lambda module, given, said: told.append(given[0]))
    model.explain(image, noise="none")
    assert len(told) == DRAW.steps
    pixels = DRAW.window**2
    assert not torch.allclose(told[0][:, :pixels], told[0][:, pixels : 2 * pixels])
    # While all is still missing, image and error are the same, read through the same window.
    with torch.no_grad():
        model.first.fill_(-40.0)
    told.clear()
    model.explain(image, noise="none")
    torch.testing.assert_close(told[0][:, :pixels], told[0][:, pixels : 2 * pixels])


@BOTH
def test_learning_raises_the_bound(config: DrawConfig | VaeConfig) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_rival(config)
        image = torch.zeros(8, 1, 12, 12)
        for i in range(8):
            image[i, 0, 2:6, 1 + i // 2 : 5 + i // 2] = 1.0
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        bounds = []
        for _ in range(60):
            bound = model.bound(image).mean()
            optimizer.zero_grad()
            (-bound).backward()
            optimizer.step()
            bounds.append(float(bound.detach()))
    assert bounds[-1] > bounds[0] + 30  # nats
    assert (model.reconstruct(image) - image).square().mean() < image.var() / 2


@BOTH
def test_what_is_made_up_are_images(config: DrawConfig | VaeConfig) -> None:
    model = make(config).float()
    first, again = (model.imagine(4, generator=seeded()) for _ in range(2))
    assert first.shape == (4, 1, 12, 12) and torch.equal(first, again)
    assert first.std(0).max() > 0


@BOTH
def test_a_checkpoint_gives_back_the_model(
    config: DrawConfig | VaeConfig, image: Tensor, tmp_path: Path
) -> None:
    model = make(config).float()
    save_rival(tmp_path, model, name="tiny", training={"seed": 3})
    found = load_rival(tmp_path)
    assert (found.config.name, found.config.training, found.model.config) == (
        "tiny",
        {"seed": 3},
        config,
    )
    given = image.float()
    assert torch.equal(found.model.reconstruct(given), model.reconstruct(given))
    with pytest.raises(CheckpointError, match="knows no objects"):
        load_checkpoint(tmp_path)


def test_what_holds_no_rival_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"network": {"kind": "glimpses"}}')
    with pytest.raises(CheckpointError, match="holds none of the models that AIR is held against"):
        load_rival(tmp_path)


@BOTH
def test_images_of_another_shape_are_refused(config: DrawConfig | VaeConfig) -> None:
    model = make(config)
    with pytest.raises(ValueError, match=r"\(3, 12, 12\), expected \(1, 12, 12\)"):
        model.bound(torch.zeros(1, 3, 12, 12, dtype=torch.float64))
