from collections.abc import Callable

import torch
from torch import Generator

from inference.posterior import Posterior
from inference.wakesleep import sleep_loss
from renderer.prior import sample


def test_sleep_loss_is_minus_the_mean_log_density(tiny: Callable[..., Posterior]) -> None:
    posterior = tiny("tabletop")
    image = torch.rand(6, 3, 64, 64, generator=Generator().manual_seed(0))
    scene = sample(posterior.spec, 6, generator=Generator().manual_seed(1))
    log_prob = posterior.log_prob(image, scene)
    loss = sleep_loss(posterior, image, scene)
    torch.testing.assert_close(loss.loss, -log_prob.total.mean())
    torch.testing.assert_close(loss.azimuth, -log_prob.azimuth.mean())
    torch.testing.assert_close(loss.objects, -log_prob.objects.mean())


def test_a_small_network_learns_a_few_scenes_by_heart(tiny: Callable[..., Posterior]) -> None:
    posterior = tiny("tabletop", gain=1.0).train()
    scene = sample(posterior.spec, 8, generator=Generator().manual_seed(3))
    # Any picture tells which of 8 scenes it is.
    image = torch.rand(8, 3, 8, 8, generator=Generator().manual_seed(4))
    image = torch.nn.functional.interpolate(image, size=(64, 64))
    optimizer = torch.optim.Adam(posterior.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss = sleep_loss(posterior, image, scene).loss
        optimizer.zero_grad()
        loss.backward()
        gradients = [p.grad for p in posterior.parameters() if p.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert len(gradients) == len(list(posterior.parameters()))  # nothing is left untrained
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 3

    estimate = posterior.eval().infer(image)
    assert (estimate.scene.count == scene.count).float().mean() >= 0.75
