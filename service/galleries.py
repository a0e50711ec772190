"""Pictures that lie beside a model: photos to try, and what was drawn about its training."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from service.settings import Settings, default_checkpoint, shipped

# By the suffix alone: nothing else of a folder is handed out.
PHOTOS = {".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
DRAWINGS = PHOTOS | {".gif": "image/gif", ".svg": "image/svg+xml"}

CAPTIONS = "captions.json"

logger = logging.getLogger("airscene")


@dataclass(frozen=True)
class Gallery:
    """The pictures in a folder, which may change while the server runs.

    What `captions.json` in the folder, an object from file names to sentences, does not tell of is
    called by the file's name.
    """

    folder: Path | None  # none: an empty gallery
    media_types: dict[str, str]  # of the suffixes that are shown

    def pictures(self) -> dict[str, str]:
        """Caption of each picture, by the file's name, in the order of the names."""
        captions = self._captions()
        return {
            name: captions.get(name) or Path(name).stem.replace("-", " ").replace("_", " ")
            for name in self._names()
        }

    def find(self, name: str) -> tuple[Path, str] | None:
        """The file and the media type of a picture, when there is one of that name."""
        if self.folder is None or name not in self._names():
            return None
        file = self.folder / name
        return file, self.media_types[file.suffix.lower()]

    def _names(self) -> list[str]:
        if self.folder is None or not self.folder.is_dir():
            return []
        return sorted(
            file.name
            for file in self.folder.iterdir()
            if file.suffix.lower() in self.media_types
            and file.is_file()
            and not file.name.startswith(".")
        )

    def _captions(self) -> dict[str, str]:
        file = self.folder / CAPTIONS if self.folder is not None else None
        if file is None or not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            logger.warning("%s: cannot be read (%s); give a JSON object", file, error)
            return {}
        if not isinstance(content, dict):
            logger.warning("%s: is no JSON object of file names and sentences", file)
            return {}
        return {str(name): str(caption) for name, caption in content.items()}


def examples(settings: Settings) -> Gallery:
    """Photos to try the model with."""
    return Gallery(_folder(settings, settings.examples, "examples", "examples/photos"), PHOTOS)


def figures(settings: Settings) -> Gallery:
    """What was drawn about the model and its training."""
    return Gallery(_folder(settings, settings.figures, "figures", "docs/images"), DRAWINGS)


def _folder(settings: Settings, given: Path | None, beside: str, ours: str) -> Path | None:
    """The folder that was set, else the one in the checkpoint's, else that of the shipped model."""
    if given is not None:
        return given
    folder = settings.checkpoint / beside
    if folder.is_dir():
        return folder
    is_ours = settings.checkpoint.resolve() == default_checkpoint().resolve()
    return shipped(ours) if is_ours else None
