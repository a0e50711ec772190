"""Puts photos beside what the model inferred from them, drawn again by the renderer.

python examples/compare.py examples/photos/table-06.png --out comparison.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image, ImageDraw

from inference import CheckpointError, load_checkpoint
from inference.images import Decoder, ImageError
from renderer import open_renderer
from service.settings import default_checkpoint
from training.photos import to_image

GAP = 8  # px between pictures
CAPTION = 22  # px below each


def main(
    photos: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    *,
    out: Path,
    checkpoint: Path | None = None,
    size: int = 320,
    columns: int = 2,
) -> None:
    """Draw photos beside the scenes inferred from them.

    Args:
        photos: image files.
        out: the picture to write.
        checkpoint: folder of the model; the shipped one when not given.
        size: height of each picture in pixels.
        columns: pairs in a row.
    """
    model = load_checkpoint(checkpoint or default_checkpoint())
    spec, network = model.spec, model.config.network
    decoder = Decoder(network.height, network.width, spec.background, 2**26, 2**26)
    width = round(size * spec.camera.aspect)
    renderer = open_renderer(spec, height=size, width=width, supersample=2)
    pair = (2 * width + GAP, size + CAPTION)
    columns = min(columns, len(photos))
    rows = -(-len(photos) // columns)
    sheet = Image.new(
        "RGB", (columns * (pair[0] + 3 * GAP), rows * (pair[1] + GAP)), (255, 255, 255)
    )
    for index, path in enumerate(photos):
        picture = decoder.decode(path.read_bytes())
        estimate = model.posterior.infer(picture.pixels[None])
        row, column = divmod(index, columns)
        left, top = column * (pair[0] + 3 * GAP) + GAP, row * (pair[1] + GAP)
        with Image.open(path) as photo:
            sheet.paste(photo.convert("RGB").resize((width, size)), (left, top))
        drawn = to_image(renderer.render_bytes(estimate.scene)[0])
        sheet.paste(drawn, (left + width + GAP, top))
        caption = ImageDraw.Draw(sheet)
        caption.text((left, top + size + 4), f"photo {path.name}", fill=(60, 60, 60))
        caption.text(
            (left + width + GAP, top + size + 4),
            f"inferred: {describe(estimate.scene.identity[0], estimate.scene.presence[0], spec)}",
            fill=(60, 60, 60),
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)


def describe(identity: torch.Tensor, presence: torch.Tensor, spec: object) -> str:
    names = [spec.class_names[i] for i in identity[presence].tolist()]  # type: ignore[attr-defined]
    return ", ".join(names) or "nothing"


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except (CheckpointError, ImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
