import itertools
import math

import pytest
import torch

from inference.orders import orders_of, permutations


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_permutations_are_all_orders_of_the_present_slots(count: int) -> None:
    found = permutations(count, 4).tolist()
    rest = tuple(range(count, 4))
    assert sorted(map(tuple, found)) == [p + rest for p in itertools.permutations(range(count))]


def test_every_order_of_every_picture_has_a_row() -> None:
    rows = orders_of(torch.tensor([2, 0, 3]), 3, limit=24)
    assert rows.picture.tolist() == [0] * 2 + [1] + [2] * 6
    assert rows.order[:3].tolist() == [[0, 1, 2], [1, 0, 2], [0, 1, 2]]
    assert rows.log_weight.tolist() == [0.0] * 9


def test_logsumexp_against_a_loop() -> None:
    rows = orders_of(torch.tensor([2, 0, 3, 1]), 3, limit=3)
    values = torch.randn(len(rows.picture), dtype=torch.float64, requires_grad=True)
    found = rows.logsumexp(values, 4)
    sums = [0.0] * 4
    for picture, value, weight in zip(
        rows.picture.tolist(), values.tolist(), rows.log_weight.tolist(), strict=True
    ):
        sums[picture] += math.exp(value + weight)
    assert found.tolist() == pytest.approx([math.log(s) for s in sums])
    (gradient,) = torch.autograd.grad(found.sum(), values)
    share = (values + rows.log_weight - found[rows.picture]).exp()
    torch.testing.assert_close(gradient, share.detach())


def test_a_random_subset_of_orders_estimates_the_sum_without_bias() -> None:
    # Any number for each order; their sum over all 120 is known.
    value = {p: (17 * i % 23) / 23 for i, p in enumerate(itertools.permutations(range(5)))}
    exact = sum(value.values())
    generator = torch.Generator().manual_seed(3)
    counts = torch.full((4000,), 5)
    rows = orders_of(counts, 6, limit=4, generator=generator)
    assert len(rows.picture) == 4 * 4000
    assert (rows.order[:, 5] == 5).all()
    values = torch.tensor([value[tuple(order[:5])] for order in rows.order.tolist()])
    estimates = rows.logsumexp(values.log(), 4000).exp()
    error = estimates.mean() - exact
    assert abs(error) < 4 * estimates.std() / math.sqrt(4000)
    assert estimates.std() / math.sqrt(4000) < 0.01 * exact
