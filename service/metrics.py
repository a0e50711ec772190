"""What the service counts and measures, for Prometheus."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from inference.checkpoint import Checkpoint, code_version
from service.engine import Answer

disable_created_metrics()  # the moment at which each counter began, twice as many lines

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64)
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH")


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.requests = Counter(
            "airscene_requests",
            "Requests that were answered; status 499: the client went away before.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "airscene_request_seconds",
            "From a request's header to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.rejected = Counter(
            "airscene_rejected",
            "Requests, and pictures of batches, that ended in a problem, by its name.",
            ("problem",),
            registry=registry,
        )
        self._stages = Histogram(
            "airscene_stage_seconds",
            "What a picture's answer takes: decode and queue each picture, infer and render "
            "each batch.",
            ("stage",),
            buckets=SECONDS,
            registry=registry,
        )
        self._decode, self._queue, self._infer, self._render = (
            self._stages.labels(stage) for stage in ("decode", "queue", "infer", "render")
        )
        self._batch = Histogram(
            "airscene_batch_size",
            "Pictures that were inferred at once.",
            buckets=SIZES,
            registry=registry,
        )
        self._counts = Counter(
            "airscene_pictures",
            "Pictures that were answered, by how many objects were seen.",
            ("count",),
            registry=registry,
        )
        self._objects = Counter(
            "airscene_objects", "Objects that were seen.", ("class_id",), registry=registry
        )
        self._foreign = Counter(
            "airscene_out_of_distribution",
            "Pictures that were unlike those that the model knows.",
            registry=registry,
        )
        self._model = Gauge(
            "airscene_model_info",
            "The model that answers.",
            ("name", "version", "sha256"),
            registry=registry,
        )
        self.reloads = Counter(
            "airscene_reloads", "Reloads of the model.", ("result",), registry=registry
        )
        build = Gauge(
            "airscene_build_info", "The software.", ("version", "python"), registry=registry
        )
        build.labels(code_version(), platform.python_version()).set(1)

    def watch(
        self, waiting: Callable[[], float], uploads: Callable[[], float], ready: Callable[[], float]
    ) -> None:
        """Reads gauges from the runtime whenever they are asked for."""
        for name, words, value in (
            ("airscene_queue_depth", "Pictures that wait, are decoded or are inferred.", waiting),
            ("airscene_uploads", "Requests with bodies, from header to answer.", uploads),
            ("airscene_ready", "1 when /readyz says yes.", ready),
        ):
            Gauge(name, words, registry=self.registry).set_function(value)

    def served(self, checkpoint: Checkpoint) -> None:
        """Another checkpoint answers from now on."""
        self._model.clear()
        self._model.labels(checkpoint.name, checkpoint.version, checkpoint.sha256).set(1)

    def waited(self, seconds: Sequence[float]) -> None:
        """A batch begins whose pictures waited for so long."""
        self._batch.observe(len(seconds))
        for each in seconds:
            self._queue.observe(each)

    def worked(self, answers: Sequence[Answer | Exception]) -> None:
        """A batch is done."""
        usable = [answer for answer in answers if isinstance(answer, Answer)]
        if usable:
            self._infer.observe(usable[0].timing.infer / 1e3)
            self._render.observe(usable[0].timing.render / 1e3)
        for answer in usable:
            self._decode.observe(answer.picture.decode_ms / 1e3)
            scene, names = answer.estimate.scene, answer.checkpoint.spec.class_names
            identities = scene.identity[scene.presence].tolist()
            self._counts.labels(str(len(identities))).inc()
            for identity in identities:
                self._objects.labels(names[identity]).inc()
            if not answer.quality.in_distribution:
                self._foreign.inc()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request is done."""
        known = method if method in METHODS else "other"  # anybody may invent methods
        self.requests.labels(route, known, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
