"""Which rivals there are: from a configuration to the model that it describes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inference.draw import Draw, DrawConfig
from inference.vae import Vae, VaeConfig

AnyRivalConfig = Annotated[DrawConfig | VaeConfig, Field(discriminator="kind")]
"""The configuration of any rival, told apart by its `kind`."""

AnyRival = Draw | Vae

RIVALS = frozenset({"draw", "vae"})  # their kinds


def build_rival(config: DrawConfig | VaeConfig) -> AnyRival:
    """The model that a configuration describes, with fresh weights."""
    return Draw(config) if isinstance(config, DrawConfig) else Vae(config)
