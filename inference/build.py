"""Which networks there are: from a configuration to the network that it describes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from inference.plain import PlainConfig, PlainPosterior
from inference.posterior import Posterior, PosteriorConfig
from inference.slots import SlotPosterior, SlotsConfig
from renderer.spec import SceneSpec


def _kind(value: Any) -> Any:
    """The tag of plain data or of a configuration; checkpoints older than the tag have cells."""
    if isinstance(value, dict):
        return value.get("kind", "cells")
    return getattr(value, "kind", None)


NetworkConfig = Annotated[
    Annotated[PosteriorConfig, Tag("cells")]
    | Annotated[PlainConfig, Tag("plain")]
    | Annotated[SlotsConfig, Tag("slots")],
    Discriminator(
        _kind,
        custom_error_type="network_kind",
        custom_error_message="must be a mapping whose `kind` is `cells`, `plain` or `slots`",
    ),
]
"""The configuration of any network, told apart by its `kind`."""

AnyPosterior = Posterior | PlainPosterior


def build_posterior(spec: SceneSpec, config: PosteriorConfig | PlainConfig) -> AnyPosterior:
    """The network that a configuration describes, with fresh weights.

    Raises:
        ValueError: the pictures of the network and of the camera differ in aspect.
    """
    if isinstance(config, SlotsConfig):
        return SlotPosterior(spec, config)
    if isinstance(config, PlainConfig):
        return PlainPosterior(spec, config)
    return Posterior(spec, config)
