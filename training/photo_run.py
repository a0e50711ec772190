"""A run that goes on with a model on photos of a user's own table, and never for the worse."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from inference.build import AnyPosterior
from inference.checkpoint import load_checkpoint
from renderer.backend import Renderer, open_renderer
from renderer.spec import SceneSpec
from training.dreams import generator_for
from training.experiments import Experiment
from training.look import LOOKED_AT, Look, dreamt, fit_look, stage_of
from training.objectives import Batch, Wake, WakeSleep
from training.run import HeldOut, RunOptions
from training.scene_run import SceneRun
from training.state import read_meta
from training.unlabelled import BLUR, Keeper, Photos, matched_std


class PhotoRun(SceneRun):
    """One run on photos whose scenes nobody tells.

    At the start, and again at each stage of the run, the colours of the world are fitted to the
    photos: both what is dreamt of and what photos are compared with then look like them.

    Args:
        experiment: what to learn.
        options: how, on this machine; with a model to start with, and photos.

    Raises:
        StateError: the folder holds a run of another experiment, seed, code, model or photos.
        ValueError: there is no model to begin with, the objective has no use for photos, or the
            photos cannot be used.
    """

    def __init__(self, experiment: Experiment, options: RunOptions) -> None:
        assert options.images is not None  # else it is a SceneRun
        if options.start is None:
            raise ValueError(
                f"--images {options.images}: there is no model to begin with; train one without "
                "photos first, and give its folder by --start"
            )
        if options.team.together:
            raise ValueError("--images: photos are learned from in one process; leave torchrun out")
        network = experiment.network
        self.folder = options.images
        self.photos = Photos.load(options.images, height=network.height, width=network.width)
        super().__init__(experiment, options)
        if not isinstance(self.objective, Wake | WakeSleep):
            raise ValueError(
                f"the objective {experiment.objective!r} does not learn from photos; with --images "
                "choose --objective wake-sleep, or elbo"
            )
        self.wake = self.objective if isinstance(self.objective, Wake) else self.objective.wake
        self.workers = 0  # what is dreamt of changes on the way, and is drawn here
        self.decoder: Renderer | None = None
        start = load_checkpoint(options.start).posterior.to(options.device)
        if self.resumes:
            meta = read_meta(self.state_path)
            self.look = Look.model_validate(meta["look"])
            self._compare()
            self.keeper = self._keep(start)
            kept = load_checkpoint(options.out).posterior.to(options.device)
            self.keeper.goes_on(kept, meta["best_step"])
        else:
            self._fit(start)
            self.keeper = self._keep(start)

    def _fit(self, known: AnyPosterior) -> None:
        """Looks what the photos look like, to a model that knows how to see."""
        spec = fit_look(known, self.photos.learned, self._open_drawing)
        decoder = self._open_decoder(spec)
        shown = self.photos.learned[:LOOKED_AT]
        std = matched_std(known, shown, decoder.render, self.experiment.wake.shrink)
        decoder.close()
        self.look = Look.of(spec, stage=stage_of(self._part()), std=std)
        self._compare()

    def _open_drawing(self, spec: SceneSpec) -> Renderer:
        return open_renderer(spec, **self._format(), backend=self.backend, device=self.draws_on)

    def _compare(self) -> None:
        """Dreams, and compares photos with, what they look like."""
        spec = self.look.paint(self.spec)
        self.posterior.spec = spec
        self.dreams = self._dreams_of(dreamt(spec, self.look.stage))
        if self.decoder is not None:
            self.decoder.close()
        self.decoder = self._open_decoder(spec)
        std, wake = self.look.std, self.experiment.wake
        self.wake.compare_with(
            self.decoder, wake.model_copy(update={"std": (std, std), "blur": (BLUR, BLUR)})
        )

    def _keep(self, start: AnyPosterior) -> Keeper:
        assert self.decoder is not None
        shrink = self.experiment.wake.shrink
        return Keeper(start, self.photos.held_out, self.decoder.render, shrink, self.look.std)

    def batches(self, first: int, last: int) -> Generator[Batch, None, None]:
        """See `Run.batches`."""
        for number in range(first, last):
            if stage_of(self._part()) != self.look.stage:
                self._fit(self.posterior)
                assert self.decoder is not None
                self.keeper.judge_by(self.decoder.render, self.look.std)
            generator = generator_for(self.options.seed, "photos", number)
            photos = self.photos.batch(self.experiment.batch, generator)
            for batch in super().batches(number, number + 1):
                yield batch._replace(image=photos.to(self.options.device))

    def _measure(self) -> HeldOut:
        found = super()._measure()
        bound = float(self.keeper.offer(self.posterior, self.step).mean())
        return found._replace(figures={**found.figures, "bound": bound})

    def _kept(self) -> AnyPosterior:
        return self.keeper.best

    def _finish(self) -> None:
        self._calibrate(self.photos.held_out)
        print(self.keeper)

    def _identity(self) -> dict[str, Any]:
        return {**super()._identity(), "images": self.photos.sha256}

    def _progress(self) -> dict[str, Any]:
        return {
            **super()._progress(),
            "look": self.look.model_dump(),
            "best_step": self.keeper.best_step,
        }

    def _origin(self) -> dict[str, Any]:
        photos = {
            "folder": self.folder.resolve().name,
            "learned": len(self.photos.learned),
            "held_out": len(self.photos.held_out),
            "bound_at_the_start": float(self.keeper.first.mean()),
            "bound": float(self.keeper.bounds.mean()),
            "kept_step": self.keeper.best_step,
            "look": self.look.model_dump(),
        }
        return {**super()._origin(), "photos": photos}
