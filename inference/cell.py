"""One step of Attend-Infer-Repeat: where to look next, whether anything is left, what was seen.

A step is a pure function from a state to a state (section 2.1, appendix H.4). The step attends
over the cells of the feature map. Each cell holds a proposal for the object that it shows; the
object's density is the mixture of the proposals, weighted by the attention. Cells whose proposal
earlier steps have explained are inhibited, and when more weight lies on "nothing" than on all
cells together, z_pres is more likely 0 than 1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.distributions import PlaneGaussian, VonMises, symmetric_yaw

LEAST_STD = 5e-4  # m
GREATEST_LOG_SHARPNESS = 9.0  # keeps the concentration of a yaw finite


class Objects(NamedTuple):
    """Objects in the view frame (the table frame turned with the camera)."""

    identity: Tensor  # [...] int64
    position: Tensor  # [..., 2] m
    yaw: Tensor  # [...] rad


class CellMap(NamedTuple):
    """What attention reads of each of the G cells."""

    salience: Tensor  # [B, G] logit that the cell shows an object
    key: Tensor  # [B, G, Q]
    centre: Tensor  # [B, G, 2] m, mean of the proposal's position

    def select(self, rows: Tensor) -> CellMap:
        """The cells of pictures `rows` `[R]`."""
        return CellMap(*(value[rows] for value in self))


class Proposals(NamedTuple):
    """For each cell, a density over the object that it shows, in the view frame."""

    map: CellMap
    class_logits: Tensor  # [B, G, C]
    position: PlaneGaussian  # [B, G, ...] m
    turned: VonMises  # [B, G, C], of order times yaw

    def select(self, rows: Tensor) -> Proposals:
        """The proposals of pictures `rows` `[R]`."""
        return Proposals(
            self.map.select(rows),
            self.class_logits[rows],
            PlaneGaussian(*(value[rows] for value in self.position)),
            VonMises(*(value[rows] for value in self.turned)),
        )


class State(NamedTuple):
    """What the recurrence carries from step to step."""

    hidden: Tensor  # [R, D]
    explained: Tensor  # [R, G] how much earlier steps inhibit each cell

    def select(self, rows: Tensor) -> State:
        """The states of `rows`."""
        return State(self.hidden[rows], self.explained[rows])


class Attention(NamedTuple):
    """What a step decides before it commits to an object."""

    presence_logit: Tensor  # [R]
    log_weights: Tensor  # [R, G] log mixture weights of the cells


class ProposalHead(nn.Module):
    """Reads a proposal from each cell's features.

    Args:
        anchors: `[G, 2]` m, the point of the table at the centre of each cell, view frame.
        spacing: typical distance between neighbouring anchors, m.
        orders: symmetry order of each class (1 none, n n-fold, 0 continuous).
        channels: D, features of a cell.
        keys: Q, features that attention compares.
    """

    anchors: Tensor
    orders: Tensor  # [C] int64

    def __init__(
        self, anchors: Tensor, spacing: float, orders: tuple[int, ...], channels: int, keys: int
    ) -> None:
        super().__init__()
        self.classes, self.keys, self.spacing = len(orders), keys, spacing
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("orders", torch.tensor(orders), persistent=False)
        outputs = 1 + keys + self.classes + 5 + 3 * self.classes
        self.body = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, outputs)
        )

    def forward(self, cells: Tensor, tolerance: float = 0.0) -> Proposals:
        """Features `[B, G, D]` to proposals whose positions are no sharper than `tolerance` m."""
        c = self.classes
        salience, key, classes, offset, scale, turn = self.body(cells).split(
            [1, self.keys, c, 2, 3, 3 * c], dim=-1
        )
        std = LEAST_STD + tolerance + 0.1 * torch.exp(scale[..., :2].clamp(-8.0, 3.0))
        shear = scale[..., 2] * std[..., 1]
        turn = turn.unflatten(-1, (c, 3))
        # Natural parameters: the gradient on the direction does not vanish where the concentration
        # does. With direction and log concentration apart, the network first learns that it does
        # not know the yaw, and then never learns the yaw.
        sharpness = nn.functional.softplus(turn[..., 2:]).clamp_max(GREATEST_LOG_SHARPNESS).exp()
        x, y = (turn[..., :2] * sharpness).unbind(-1)
        loc = torch.atan2(y, x + 1e-6)
        concentration = (x * x + y * y + 1e-6).sqrt()
        centre = self.anchors + self.spacing * offset
        return Proposals(
            CellMap(salience[..., 0], key, centre),
            classes,
            PlaneGaussian(centre, torch.stack([std[..., 0], shear, std[..., 1]], dim=-1)),
            symmetric_yaw(VonMises(loc, concentration), self.orders),
        )

    def log_density(self, proposals: Proposals, objects: Objects) -> Tensor:
        """Log density of K objects a picture under each cell's proposal: `[B, K, G]`."""
        identity = objects.identity[..., None]  # [B, K, 1]
        batch, slots = objects.identity.shape
        cells = proposals.class_logits.shape[1]
        log_class = proposals.class_logits.log_softmax(-1).transpose(1, 2)  # [B, C, G]
        pick = identity.expand(batch, slots, cells)
        position = PlaneGaussian(
            proposals.position.mean[:, None], proposals.position.scale_tril[:, None]
        )
        turned = VonMises(
            proposals.turned.loc.transpose(1, 2).gather(1, pick),
            proposals.turned.concentration.transpose(1, 2).gather(1, pick),
        )
        order = self.orders[objects.identity]
        return (
            log_class.gather(1, pick)
            + position.log_prob(objects.position[:, :, None])
            + turned.log_prob((order * objects.yaw)[..., None])
        )


class Cell(nn.Module):
    """The recurrent part of the inference network.

    Args:
        orders: symmetry order of each class (1 none, n n-fold, 0 continuous).
        summary: E, features of the whole picture.
        hidden: D, units of the recurrence.
        keys: Q, features that attention compares.
    """

    orders: Tensor  # [C] int64

    def __init__(self, orders: tuple[int, ...], summary: int, hidden: int, keys: int) -> None:
        super().__init__()
        self.classes = len(orders)
        self.register_buffer("orders", torch.tensor(orders), persistent=False)
        self.initial = nn.Linear(summary + 2, hidden)
        self.describe = nn.Sequential(nn.Linear(self.classes + 6, hidden), nn.SiLU())
        self.recur = nn.GRUCell(hidden, hidden)
        self.query = nn.Linear(hidden, keys)
        self.nothing = nn.Linear(hidden, 1)
        # How strongly, and how far around it (m), an explained object of each class inhibits.
        self.log_inhibition = nn.Parameter(torch.full((self.classes,), math.log(8.0)))
        self.log_reach = nn.Parameter(torch.full((self.classes,), math.log(0.05)))

    def start(self, summary: Tensor, azimuth: Tensor, cells: int) -> State:
        """The state before the first step.

        Args:
            summary: `[R, E]`.
            azimuth: `[R]` rad, of the camera; known from here on.
            cells: G.
        """
        angle = torch.stack([azimuth.cos(), azimuth.sin()], dim=-1)
        hidden = torch.tanh(self.initial(torch.cat([summary, angle], dim=-1)))
        return State(hidden, summary.new_zeros(summary.shape[0], cells))

    def attend(self, state: State, cells: CellMap) -> Attention:
        """Where the step looks, and whether it expects to find anything."""
        query = self.query(state.hidden)[:, :, None] / math.sqrt(cells.key.shape[-1])
        logits = cells.salience + (cells.key @ query)[..., 0] - state.explained
        total = logits.logsumexp(-1)
        return Attention(total - self.nothing(state.hidden)[:, 0], logits - total[:, None])

    def advance(self, state: State, cells: CellMap, found: Objects, azimuth: Tensor) -> State:
        """The state after object `found` `[R]` (view frame) was explained."""
        kind = nn.functional.one_hot(found.identity, self.classes).to(state.hidden.dtype)
        # Only what can be seen of the yaw: all turns that look alike are one to the recurrence.
        turned = self.orders[found.identity] * found.yaw
        angles = torch.stack([turned.cos(), turned.sin(), azimuth.cos(), azimuth.sin()], dim=-1)
        description = self.describe(torch.cat([kind, 4 * found.position, angles], dim=-1))
        hidden = self.recur(description, state.hidden)
        reach = self.log_reach.exp()[found.identity]
        distance = (cells.centre.detach() - found.position[:, None]).square().sum(-1)
        inhibition = self.log_inhibition.exp()[found.identity, None] * torch.exp(
            -0.5 * distance / reach[:, None].square()
        )
        return State(hidden, state.explained + inhibition)
