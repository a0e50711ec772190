"""The usual light of every scene.

One soft lamp from the upper left of the table frame; the rest is ambient and a weak headlight,
which both backends compute alike. Nothing is specular: OpenGL lights vertices, rays light pixels.
"""

from __future__ import annotations

LIGHT_DIRECTION = (0.35, 0.45, -0.8)
LIGHT_DIFFUSE = 0.55
HEADLIGHT_DIFFUSE = 0.25
AMBIENT = 0.3
