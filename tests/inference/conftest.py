from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch

from inference.posterior import Posterior, PosteriorConfig
from renderer.spec import SceneSpec

Tiny = Callable[..., Posterior]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors this small are only slowed down by sharing them out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def _load(name: str) -> SceneSpec:
    return SceneSpec.load(name)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """A function that makes a small network with random weights for a built-in or given spec.

    `gain` scales the weights of its heads, so that what they say differs from cell to cell and
    from picture to picture.
    """

    def make(spec: str | SceneSpec = "tabletop", *, seed: int = 0, gain: float = 3.0) -> Posterior:
        config = PosteriorConfig(
            height=64, width=64, channels=16, summary=32, hidden=32, keys=16, blocks=1
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            posterior = Posterior(_load(spec) if isinstance(spec, str) else spec, config)
        with torch.no_grad():
            for module in (posterior.proposals, posterior.camera, posterior.cell):
                for name, parameter in module.named_parameters():
                    if not name.startswith("log_"):
                        parameter.mul_(gain)
        return posterior.eval()

    return make


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20160812)
