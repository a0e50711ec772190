"""Photos of the user's own table, whose scenes nobody tells: what a model may learn from.

A part of them is never learned from. How probable a model finds that part decides whether what it
learned from the others is kept.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inference.build import AnyPosterior
from inference.elbo import elbo_terms
from inference.images import Decoder, ImageError
from inference.likelihood import Likelihood
from inference.network import InferenceNetwork
from inference.posterior import Posterior
from inference.prior import StepPrior
from renderer.scene import Scene

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
LEAST_PHOTOS = 10
HELD_OUT_SHARE = 5  # one in so many is held out
DRAWS = 16  # scenes for each photo that is held out
CHUNK = 8  # photos a pass
BLUR = 0.5  # px, of what is compared: a camera's edge is never as sharp as a renderer's
STD_RANGE = (0.02, 0.3)  # grey levels of 1; a perfect picture still has noise


@dataclass(frozen=True)
class Photos:
    """A folder of photos, as the network takes them.

    Which are held out depends on their content alone: the same ones, wherever the folder lies.
    """

    learned: Tensor  # [N, 3, H, W] uint8
    held_out: Tensor  # [M, 3, H, W] uint8
    sha256: str  # of all files

    @staticmethod
    def load(folder: Path, *, height: int, width: int) -> Photos:
        """Reads every PNG, JPEG and WebP file of a folder.

        Args:
            folder: of the photos; its own folders are not looked into.
            height: of the network's input, px.
            width: of the network's input, px.

        Raises:
            ValueError: there are too few, or one cannot be read.
        """
        if not folder.is_dir():
            raise ValueError(f"--images {folder}: no such folder; give one that holds photos")
        paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
        if len(paths) < LEAST_PHOTOS:
            raise ValueError(
                f"--images {folder}: holds {len(paths)} PNG, JPEG or WebP files; give at least "
                f"{LEAST_PHOTOS}, of which one in {HELD_OUT_SHARE} is held out"
            )
        decoder = Decoder(height, width)
        found: dict[str, Tensor] = {}  # by hash: who is there twice is not learned and held out
        for path in paths:
            try:
                picture = decoder.decode(path.read_bytes())
            except ImageError as error:
                raise ValueError(f"--images {path}: {error}") from None
            found[picture.sha256] = (255 * picture.pixels).round().to(torch.uint8)
        names = sorted(found)
        count = math.ceil(len(names) / HELD_OUT_SHARE)
        return Photos(
            torch.stack([found[name] for name in names[count:]]),
            torch.stack([found[name] for name in names[:count]]),
            hashlib.sha256("".join(names).encode()).hexdigest(),
        )

    def batch(self, size: int, generator: torch.Generator) -> Tensor:
        """Any `size` of those to learn from: `[size, 3, H, W]` in [0, 1]."""
        rows = torch.randint(len(self.learned), (size,), generator=generator)
        return as_float(self.learned[rows])


def as_float(photos: Tensor) -> Tensor:
    """Bytes as grey levels in [0, 1]."""
    return photos.float().div(255.0)


@torch.no_grad()
def matched_std(
    posterior: AnyPosterior,
    photos: Tensor,
    decoder: Callable[[Scene], Tensor],
    shrink: int,
) -> float:
    """How far photos are from what a model makes of them: grey levels, the median photo's.

    A likelihood narrower than that would explain the renderer's faults by objects.

    Args:
        posterior: the model.
        photos: `[N, 3, H, W]` uint8.
        decoder: renders scenes, `shrink` times smaller than the photos.
        shrink: by how much photos are scaled down before they are compared.
    """
    posterior.eval()
    blur = Likelihood(1.0, BLUR)
    errors = []
    for part in photos.split(CHUNK):
        image = as_float(part)
        picture = decoder(posterior.infer(image).scene)
        errors.append(blur.mean_square(functional.avg_pool2d(image, shrink), picture))
    posterior.train()
    least, greatest = STD_RANGE
    return min(max(float(torch.cat(errors).sqrt().median()), least), greatest)


class Keeper:
    """Keeps the best model so far by the bound of photos that are held out.

    A model takes the place of the one before only if it finds them more probable by more than
    chance: the mean gain, photo by photo, exceeds its standard error.

    Args:
        posterior: the model at the start, which is the best so far.
        photos: `[M, 3, H, W]` uint8, held out.
        decoder: renders scenes, `shrink` times smaller than the photos.
        shrink: by how much photos are scaled down before they are compared.
        std: of the likelihood, grey levels of 1.
    """

    def __init__(
        self,
        posterior: AnyPosterior,
        photos: Tensor,
        decoder: Callable[[Scene], Tensor],
        shrink: int,
        std: float,
    ) -> None:
        self._start = copy.deepcopy(posterior).eval()
        self.best = copy.deepcopy(posterior).eval()
        self.best_step = 0
        self._photos, self._shrink = photos, shrink
        self._prior = StepPrior.of(posterior.spec, wrapped=isinstance(posterior, Posterior))
        self.judge_by(decoder, std)

    def judge_by(self, decoder: Callable[[Scene], Tensor], std: float) -> None:
        """Another renderer, or likelihood, from here on; the best stays only if it still is."""
        self._decoder, self._likelihood = decoder, Likelihood(std, BLUR)
        best, step = self.best, self.best_step
        self.first = self.bounds = self.measure(self._start)  # [M] nats
        self.best, self.best_step = copy.deepcopy(self._start), 0
        if step:
            self.offer(best, step)

    @torch.no_grad()
    def measure(self, posterior: InferenceNetwork[Any]) -> Tensor:
        """The importance-weighted bound of each photo, nats: `[M]`; each time the same draws."""
        trained = posterior.training
        posterior.eval()
        generator = torch.Generator().manual_seed(0)
        bounds = []
        for part in self._photos.split(CHUNK):
            image = as_float(part)
            trace = posterior.trace(posterior.encode(image), DRAWS, generator=generator)
            target = functional.avg_pool2d(image, self._shrink)
            terms = elbo_terms(trace, target, self._decoder, self._likelihood, self._prior)
            bounds.append(terms.total.unflatten(0, (-1, DRAWS)).logsumexp(1) - math.log(DRAWS))
        posterior.train(trained)
        return torch.cat(bounds)

    def offer(self, posterior: AnyPosterior, step: int) -> Tensor:
        """The bounds `[M]` of a model, which is kept if they are better."""
        bounds = self.measure(posterior)
        gain = bounds - self.bounds
        error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
        if float(gain.mean()) > error:
            self.best.load_state_dict(posterior.state_dict())
            self.best.spec = posterior.spec
            self.bounds, self.best_step = bounds, step
        return bounds

    def goes_on(self, best: AnyPosterior, step: int) -> None:
        """Takes up what an interrupted run had kept."""
        self.best.load_state_dict(best.state_dict())
        self.bounds, self.best_step = self.measure(best), step

    def __str__(self) -> str:
        before, after = float(self.first.mean()), float(self.bounds.mean())
        if self.best_step == 0:
            return (
                f"{len(self.first)} held-out photos: nothing that was learned explains them better "
                f"than the model at the start ({before:.1f} nats a photo), which is kept"
            )
        return (
            f"{len(self.first)} held-out photos: {before:.1f} nats a photo at the start, "
            f"{after:.1f} of the model of step {self.best_step}, which is kept"
        )
