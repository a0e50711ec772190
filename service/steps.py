"""How the model came to its answer, step by step."""

from __future__ import annotations

import torch

from service.engine import Answer
from service.schemas import AttentionMap, Box2D, Step

# Of an attention's weights: what is looked at with less than a millionth shows nowhere.
DIGITS = 6


@torch.inference_mode()
def walk(answer: Answer) -> list[Step] | None:
    """The steps that led to an answer; None when the model's network attends to no place.

    To be called on the engine's thread.

    Args:
        answer: to one picture.
    """
    scan = answer.checkpoint.posterior.scan(answer.picture.pixels[None])
    if scan is None:
        return None
    crop = answer.picture.crop
    region = Box2D(x=crop.x, y=crop.y, width=crop.width, height=crop.height)
    rows, columns = scan.attention.shape[-2:]
    return [
        Step(
            presence=presence,
            attention=AttentionMap(
                region=region,
                rows=rows,
                columns=columns,
                weights=[round(weight, DIGITS) for weight in weights],
            ),
        )
        for presence, weights in zip(
            scan.presence[0].tolist(), scan.attention[0].flatten(1).tolist(), strict=True
        )
    ]
