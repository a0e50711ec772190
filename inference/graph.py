"""The single pass as one graph, run by ONNX Runtime: the same answers in less time.

PyTorch runs a network operation by operation, and for one picture most of its thousand small ones
take longer to call than to do. As a graph they follow one another without Python between them, and
convolutions find their weights packed. Calibration, as small operations again, is a part of it.

The file holds the operations and what is constant in them. Weights stay where they are, in the
checkpoint, all but small ones that are folded into constants. To draw a graph up takes seconds, so
it is done once, after training.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import fields
from typing import Any

import onnx
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as states
from torch import Tensor, nn

from inference.calibrate import Calibration, grain_of
from inference.estimate import Estimate
from inference.folder import WEIGHTS
from inference.network import InferenceNetwork
from renderer.scene import Scene

PREFIX = "single_pass.network."  # of the names of weights in a graph
MADE_FOR = "made_for"  # in a graph's metadata: what `fingerprint` gives
BATCH = 64  # pictures at most while the graph is drawn up; it runs on any number
ERRORS = (
    *(states.Fail, states.InvalidArgument, states.InvalidGraph, states.InvalidProtobuf),
    *(states.NotImplemented, RuntimeError),
)


class GraphError(ValueError):
    """A graph that cannot be written or run; the message says what is wrong."""


class SinglePass(nn.Module):
    """From pictures to the most probable scenes, and how sure each part of them is, calibrated.

    What it does has to go into a graph: the batch's size is `x.shape[0]` there, as `len(x)` is the
    number at hand, and there are no hypot, cumprod, searchsorted and Bessel functions.

    Args:
        network: that infers.
        calibration: of it; None leaves what the network says as it is.
    """

    def __init__(self, network: InferenceNetwork[Any], calibration: Calibration | None) -> None:
        super().__init__()
        self.network, self.calibration = network, calibration

    def forward(self, image: Tensor, grain: Tensor) -> Estimate:
        """Of pictures `[B, 3, H, W]` in [0, 1] with `grain` `[B]` (see `grain_of`)."""
        estimate = self.network.infer(image)
        if self.calibration is None:
            return estimate
        return self.calibration.of_single(estimate, self.network.orders, grain)


class Graph:
    """A single pass, drawn up, ready to run on the CPU.

    It may be sent to another process, and takes as many threads as torch has in it.

    Args:
        model: the file's content.
        single_pass: whose graph it is.

    Raises:
        GraphError: it is no graph of this network.
    """

    def __init__(self, model: bytes, single_pass: SinglePass) -> None:
        self._model = model
        self._weights = {
            PREFIX + name: value
            for name, value in single_pass.network.state_dict().items()
            if _place(name).encode() in model
        }
        self._session: onnxruntime.InferenceSession | None = None
        try:
            session = self._begin()
        except ERRORS as error:
            raise GraphError(str(error).splitlines()[0]) from None
        self._inputs = {given.name for given in session.get_inputs()}
        self.made_for = session.get_modelmeta().custom_metadata_map.get(MADE_FOR)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def infer(self, image: Tensor) -> Estimate:
        """What the single pass gives for pictures `[B, 3, H, W]` in [0, 1]."""
        session = self._session
        if session is None or torch.get_num_threads() != self._threads:
            session = self._begin()
        given = {"image": image.contiguous(), "grain": grain_of(image)}
        values = session.run(None, {name: given[name].numpy() for name in self._inputs})
        tensors = [torch.from_numpy(value) for value in values]
        parts = len(fields(Scene))
        return Estimate(Scene(*tensors[:parts]), *tensors[parts:])

    def _begin(self) -> onnxruntime.InferenceSession:
        self._threads = torch.get_num_threads()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        # A thread that waits must not keep others from the processor.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_external_initializers(
            list(self._weights),
            [onnxruntime.OrtValue.ortvalue_from_numpy(w.numpy()) for w in self._weights.values()],
        )
        self._session = onnxruntime.InferenceSession(
            self._model, options, providers=["CPUExecutionProvider"]
        )
        return self._session


def fingerprint(sha256: str, calibration: Calibration | None) -> str:
    """What tells for which model a graph was made.

    Args:
        sha256: hash of its weights.
        calibration: of it.
    """
    said = "" if calibration is None else calibration.model_dump_json()
    return hashlib.sha256(f"{sha256} {said}".encode()).hexdigest()


class _Flat(nn.Module):
    """A single pass from tensors to tensors."""

    def __init__(self, single_pass: SinglePass) -> None:
        super().__init__()
        self.single_pass = single_pass

    def forward(self, image: Tensor, grain: Tensor) -> tuple[Tensor, ...]:
        return _tensors(self.single_pass(image, grain))


def graph_of(single_pass: SinglePass, made_for: str) -> bytes:
    """The graph of a single pass, as the content of a file.

    Args:
        single_pass: on the CPU.
        made_for: see `fingerprint`.

    Raises:
        GraphError: the network does what a graph cannot.
    """
    network = single_pass.network
    given = (torch.zeros(2, 3, network.config.height, network.config.width), torch.zeros(2))
    batch = torch.export.Dim("batch", min=1, max=BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own exporter, and of what is optional
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            exported = torch.export.export(
                *(_Flat(single_pass).eval(), given),
                dynamic_shapes=({0: batch}, {0: batch}),
                strict=False,
            )
            program = torch.onnx.export(exported, dynamo=True, verbose=False)
        except (torch._dynamo.exc.UserError, torch.onnx.OnnxExporterError) as error:
            raise GraphError(f"the network does what a graph cannot: {error}") from error
    assert program is not None  # it would be with a file to write to
    model = program.model_proto
    weights = {PREFIX + name: name for name in network.state_dict()}
    for constant in model.graph.initializer:
        if constant.name in weights:
            constant.ClearField("raw_data")
            constant.data_location = onnx.TensorProto.EXTERNAL
            constant.external_data.add(key="location", value=_place(weights[constant.name]))
    for node in model.graph.node:  # where in which file each operation came from
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.output, *model.graph.input):
        del value.metadata_props[:]
    model.metadata_props.add(key=MADE_FOR, value=made_for)
    content: bytes = model.SerializeToString()
    return content


def _place(name: str) -> str:
    """Where a graph says that a weight lies; nothing else in it reads like that."""
    return f"{WEIGHTS}[{name}]"


def difference(one: Estimate, other: Estimate) -> float:
    """By how much two estimates differ in any number, at most; NaN where one of them has it."""
    gaps = [
        (a.double() - b.double()).where(a != b, 0.0).abs().max()
        for a, b in zip(_tensors(one), _tensors(other), strict=True)
        if a.numel()
    ]
    return float(torch.stack(gaps).max())


def _tensors(estimate: Estimate) -> tuple[Tensor, ...]:
    """All of an estimate: its scene, and then the rest."""
    later = (getattr(estimate, field.name) for field in fields(estimate)[1:])
    return (*estimate.scene.tensors(), *later)
