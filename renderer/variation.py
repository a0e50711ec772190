"""The `nuisance:` of a SceneSpec: what varies between pictures without being part of the answer.

Domain randomisation (Tobin et al. 2017): a network that has learned to look past all this holds
where a picture is not drawn by its own renderer. Everything is off by default, and everything that
is a pair is drawn uniformly between its two values, anew for every picture.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from renderer.fields import Factors, Part, Positive, Range, UnitRange, ordered

# The usual light stands 54 degrees above the table: turned farther, it would shine from below it.
STEEPEST_TURN = 50.0  # degrees

BlurWidth = Annotated[float, Field(ge=0.0, le=8.0)]  # px
Lean = Annotated[float, Field(ge=-30.0, le=30.0)]  # degrees
Turn = Annotated[float, Field(ge=0.0, le=STEEPEST_TURN)]  # degrees
Quality = Annotated[int, Field(ge=1, le=100)]


class Light(Part):
    """How the table is lit: factors of the usual light, and how far that is turned."""

    turn_deg: Annotated[tuple[Turn, Turn], AfterValidator(ordered)] = (0.0, 0.0)  # to any side
    strength: Factors = (1.0, 1.0)  # of the one lamp that stands in the room
    headlight: Factors = (1.0, 1.0)  # of the light that comes from the camera
    ambient: Factors = (1.0, 1.0)  # of the light that comes from everywhere


class ColourSpread(Part):
    """How far a colour strays from its own in hue, saturation and value (HSV), to both sides.

    Each is drawn uniformly from what of that lies between 0 and 1. A grey has no hue of its own
    and counts as red: one that is to take on any tint has `hue_deg: 180`.
    """

    hue_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    saturation: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    value: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0


class ColourSpreads(Part):
    """Whose colours stray, and how far."""

    table: ColourSpread = ColourSpread()
    background: ColourSpread = ColourSpread()
    objects: ColourSpread = ColourSpread()  # each object by itself
    classes: dict[str, ColourSpread] = Field(default={})  # by name, instead of what `objects` says

    def of_class(self, name: str) -> ColourSpread:
        """The spread of a class of that name."""
        return self.classes.get(name, self.objects)


class CameraJitter(Part):
    """How far the camera is from where the spec puts it."""

    distance: Range = (0.0, 0.0)  # m, farther from the target
    elevation_deg: Range = (0.0, 0.0)  # higher above the table
    # Looks above its target.
    tilt_deg: Annotated[tuple[Lean, Lean], AfterValidator(ordered)] = (0.0, 0.0)
    # About its line of sight; what it sees turns clockwise.
    roll_deg: Annotated[tuple[Lean, Lean], AfterValidator(ordered)] = (0.0, 0.0)


class Noise(Part):
    """What happens to a picture between the lens and the file: exposure, blur, grain, JPEG."""

    sensor_std: UnitRange = (0.0, 0.0)  # of a pixel in [0, 1]
    blur_px: Annotated[tuple[BlurWidth, BlurWidth], AfterValidator(ordered)] = (0.0, 0.0)
    gain: Annotated[tuple[Positive, Positive], AfterValidator(ordered)] = (1.0, 1.0)  # exposure
    jpeg_quality: Annotated[tuple[Quality, Quality], AfterValidator(ordered)] | None = None


class Nuisance(Part):
    """What varies between pictures without being part of the answer. Off by default."""

    light: Light | None = None
    colour: ColourSpreads | None = None
    camera_jitter: CameraJitter | None = None
    noise: Noise | None = None

    @property
    def drawn(self) -> bool:
        """Whether the renderer has a part in it: light, colours and camera are drawn."""
        return any(part is not None for part in (self.light, self.colour, self.camera_jitter))
