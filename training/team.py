"""The processes that train one model together, each on its share of every batch.

`torchrun` starts them, on one machine or several, and tells each who it is by the environment.
Gradients are averaged by DistributedDataParallel, so that a step is the one that a single process
would take with the whole batch. One of them, the lead, measures, decides and writes.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

TIMEOUT = 900.0  # s to wait for the others; the lead measures on its own in between
AGAIN = "start again with the same command on all machines to go on from the last saved step"
SIGNS = ("gloo", "nccl", "connection", "timed out", "timeout", "socket", "broken pipe")


class TeamError(RuntimeError):
    """Processes that cannot, or can no longer, train together; the message names the mend."""


@dataclass(frozen=True)
class Team:
    """This process among those that train together; by default it is alone."""

    rank: int = 0
    size: int = 1
    local_size: int = 1  # processes on this machine, which share its cores

    @property
    def leads(self) -> bool:
        """Whether this process measures, decides and writes."""
        return self.rank == 0

    @property
    def together(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def alone(self) -> Team:
        """This process with its share of the cores, on its own."""
        return Team(local_size=self.local_size)

    def share_of(self, batch: int) -> int:
        """Of a batch, what each process learns from.

        Raises:
            TeamError: it cannot be shared evenly.
        """
        if batch % self.size:
            raise TeamError(
                f"{self.size} processes cannot share a batch of {batch} evenly; start a number of "
                "processes that divides it (torchrun --nproc-per-node, --nnodes)"
            )
        return batch // self.size

    def tell(self, value: T) -> T:
        """What the lead says, to everyone."""
        if not self.together:
            return value
        said = [value]
        with lost_workers():
            distributed.broadcast_object_list(said, src=0)
        return said[0]

    def any(self, flag: bool) -> bool:
        """Whether any of the processes says so."""
        if not self.together:
            return flag
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        votes = torch.tensor([float(flag)], device=device)
        with lost_workers():
            distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
        return bool(votes.item())

    def copy_of(self, path: Path) -> Path:
        """The lead's file: where it is, or a copy of it on another process, if there is one.

        Machines need not share a file system.
        """
        content = self.tell(path.read_bytes() if self.leads and path.exists() else None)
        if self.leads or content is None:
            return path
        folder = tempfile.mkdtemp(prefix="airscene-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        copy = Path(folder) / path.name
        copy.write_bytes(content)
        return copy

    def unite(self, module: nn.Module, *, uses_all: bool) -> nn.Module:
        """A module whose gradients are averaged over all processes, with the lead's weights.

        Args:
            module: whose forward pass returns what is to be minimised.
            uses_all: whether each of its parameters takes part in every step.
        """
        if not self.together:
            return module
        return DistributedDataParallel(
            module,
            forward_sync_buffers=False,  # they hold constants
            find_unused_parameters=not uses_all,
            gradient_as_bucket_view=True,  # a copy less
        )


ALONE = Team()


@contextmanager
def team_of_environment(device: str, *, timeout: float = TIMEOUT) -> Iterator[Team]:
    """The team that torchrun has put this process into; this process alone without one.

    Args:
        device: where the network runs, `cpu` (gloo) or `cuda` (nccl, a card for each process).
        timeout: s to wait for the others.

    Raises:
        TeamError: the others cannot be reached.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise TeamError(
                f"process {local} of this machine has no card of its own, there are "
                f"{torch.cuda.device_count()}; start as many processes as cards"
            )
        torch.cuda.set_device(local)
    # Imported while there is a group, which DistributedDataParallel would do, it keeps hold of it.
    importlib.import_module("torch._dynamo")
    with lost_workers():
        distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo", timeout=timedelta(seconds=timeout)
        )
    try:
        yield Team(rank, size, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        # The group's threads end with the last that refers to it. One that outlives Python aborts
        # the process.
        gc.collect()
        distributed.destroy_process_group()


@contextmanager
def lost_workers() -> Iterator[None]:
    """Turns what torch.distributed raises when a process is gone into a TeamError."""
    try:
        yield
    except RuntimeError as error:
        told = str(error).lower()
        if isinstance(error, TeamError) or not any(sign in told for sign in SIGNS):
            raise
        first = str(error).strip().splitlines()[0]
        raise TeamError(
            f"another process of this training is gone, or did not answer in time ({first}); "
            f"{AGAIN}"
        ) from error
