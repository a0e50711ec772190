"""The peak of a mixture over proposals, by one product, is what its parts give one by one."""

import math

import torch

from inference.cell import CellMap, Proposals
from inference.distributions import PlaneGaussian, VonMises, resultant_std
from inference.estimate import Peaks

ORDERS = torch.tensor([1, 4, 0])


def proposals(generator: torch.Generator, batch: int, cells: int) -> Proposals:
    """Sharp ones, to fractions of a millimetre and of a degree, a third of a metre away."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, cells, *shape, generator=generator)

    mean = 0.3 + 1e-3 * normal(2)
    spread = torch.stack([5e-4 + 1e-4 * normal().abs(), 1e-4 * normal(), 6e-4 + 0 * normal()], -1)
    concentration = 1e5 * (1 + normal(3).abs())
    turned = VonMises(0.5 + 1e-3 * normal(3), torch.where(ORDERS == 0, 0.0, concentration))
    return Proposals(
        CellMap(normal(), normal(4), mean), normal(3), PlaneGaussian(mean, spread), turned
    )


def test_peaks_are_the_averages_written_out(generator: torch.Generator) -> None:
    given, batch = proposals(generator, 5, 12), 5
    log_weights = torch.randn(batch, 12, generator=generator).log_softmax(1)
    found = Peaks(given, ORDERS).find(log_weights)
    for b in range(batch):
        centre = given.position.mean[b, log_weights[b].argmax()]
        density = PlaneGaussian(*(value[b] for value in given.position)).log_prob(centre)
        weight = (log_weights[b] + density).double().softmax(0)
        mean = sum(w * m for w, m in zip(weight, given.position.mean[b].double(), strict=True))
        covariance = torch.zeros(2, 2, dtype=torch.float64)
        within = given.position.covariance()[b].double()
        for w, m, spread in zip(weight, given.position.mean[b].double(), within, strict=True):
            covariance += w * (spread + torch.outer(m - mean, m - mean))
        classes = (weight[:, None] * given.class_logits[b].softmax(-1)).sum(0)
        identity = int(classes.argmax())
        assert int(found.objects.identity[b]) == identity
        torch.testing.assert_close(found.objects.position[b], mean.float())
        torch.testing.assert_close(found.covariance[b], covariance.float())
        torch.testing.assert_close(found.classes[b], classes.float())
        order = int(ORDERS[identity])
        if order == 0:
            assert float(found.objects.yaw[b]) == 0.0
            assert float(found.yaw_std[b]) == math.inf
            continue
        turned = VonMises(*(value[b, :, identity].double() for value in given.turned))
        length = weight * turned.resultant()
        x, y = (length * turned.loc.cos()).sum(), (length * turned.loc.sin()).sum()
        torch.testing.assert_close(found.objects.yaw[b], (torch.atan2(y, x) / order).float())
        std = resultant_std(torch.hypot(x, y)) / order
        torch.testing.assert_close(found.yaw_std[b], std.float())
