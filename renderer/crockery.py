"""The built-in crockery, generated: a cup, a frying pan and a plate.

Every mesh is in metres and stands upright on the table: z up, lowest point at z = 0, the axis of
the body of revolution at x = y = 0, the handle (if any) pointing to +x. The yaw of a standing
object is therefore the direction of its handle.

A handle is a closed shell of its own whose end is buried in the body's wall. Two closed shells
that overlap are one watertight mesh for every purpose here (rendering, sampling the surface), and
need no boolean engine; only the volume counts the small overlap twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import trimesh
from numpy.typing import NDArray

from renderer.meshes import corner_normals

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]

AROUND = 40  # segments of a body of revolution; a multiple of 4 keeps the extents exact


def _arc(
    centre: tuple[float, float],
    radii: tuple[float, float],
    start_deg: float,
    stop_deg: float,
    points: int,
) -> list[tuple[float, float]]:
    """Points on an ellipse's arc in a plane, both ends included."""
    angles = np.radians(np.linspace(start_deg, stop_deg, points))
    return [
        (centre[0] + radii[0] * float(np.cos(a)), centre[1] + radii[1] * float(np.sin(a)))
        for a in angles
    ]


def _revolve(profile: Sequence[tuple[float, float]]) -> tuple[Floats, Faces]:
    """Turn a profile of (radius, z) about the z axis into a closed shell.

    The profile runs from the axis under the body, round the outside, over the rim and down the
    inside back to the axis, so its first and last radius are 0 and faces wind outwards.
    """
    ring = np.asarray(profile[1:-1])  # [R, 2] m, all off the axis
    turn = 2 * np.pi * np.arange(AROUND) / AROUND
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)  # [N, 2]
    rings = np.concatenate(
        [ring[:, None, :1] * circle, np.broadcast_to(ring[:, None, 1:], (len(ring), AROUND, 1))],
        axis=-1,
    ).reshape(-1, 3)
    poles = np.array([[0.0, 0.0, profile[0][1]], [0.0, 0.0, profile[-1][1]]])
    vertices = np.concatenate([rings, poles])
    return vertices, _tube_faces(len(ring), AROUND, first_pole=len(rings))


def _tube_faces(rings: int, around: int, first_pole: int) -> Faces:
    """Faces of a tube of rings whose two ends are closed by fans to two pole vertices."""
    here = np.arange(around)
    there = (here + 1) % around
    faces = [np.stack([np.full(around, first_pole), there, here], axis=-1)]
    for k in range(rings - 1):
        a, b = k * around + here, k * around + there
        c, d = b + around, a + around
        faces += [np.stack([a, b, c], axis=-1), np.stack([a, c, d], axis=-1)]
    last = (rings - 1) * around
    faces.append(np.stack([np.full(around, first_pole + 1), last + here, last + there], axis=-1))
    return np.concatenate(faces).astype(np.int64)


def _sweep(
    path: Floats, half_width: Floats, half_depth: Floats, around: int, power: float = 2.0
) -> tuple[Floats, Faces]:
    """Sweep a superellipse along a path in the x-z plane into a closed shell.

    path [P, 2] m holds (x, z); half_width [P] m is the section's half extent along y, half_depth
    [P] m across the path in the x-z plane. power 2 is an ellipse, more is boxier.
    """
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = np.stack([-tangent[:, 1], tangent[:, 0]], axis=-1)  # [P, 2], left of the path
    turn = 2 * np.pi * np.arange(around) / around
    wide = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** (2 / power)
    deep = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** (2 / power)
    in_plane = path[:, None, :] + (half_depth[:, None] * deep)[..., None] * across[:, None, :]
    rings = np.stack([in_plane[..., 0], half_width[:, None] * wide, in_plane[..., 1]], axis=-1)
    poles = np.stack([path[[0, -1], 0], np.zeros(2), path[[0, -1], 1]], axis=-1)
    vertices = np.concatenate([rings.reshape(-1, 3), poles])
    faces = _tube_faces(len(path), around, first_pole=len(path) * around)
    return vertices, faces


def _assemble(*shells: tuple[Floats, Faces]) -> trimesh.Trimesh:
    """One mesh of closed shells, each turned to face outwards, standing on z = 0."""
    parts = []
    for vertices, faces in shells:
        shell = trimesh.Trimesh(vertices, faces, process=False)
        if shell.volume < 0:
            shell.invert()
        parts.append(shell)
    vertices = np.concatenate([part.vertices for part in parts])
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    faces = np.concatenate([p.faces + o for p, o in zip(parts, offsets, strict=True)])
    vertices[:, 2] -= vertices[:, 2].min()
    return trimesh.Trimesh(vertices, faces, process=False)


def cup() -> trimesh.Trimesh:
    """A mug [m]: 0.09 across, 0.10 high, open, 5 mm walls; handle reaching 0.045 out along +x."""
    body = _revolve(
        [
            (0.0, 0.003),
            (0.031, 0.003),
            (0.033, 0.0),
            *_arc((0.037, 0.010), (0.008, 0.010), -90, 0, 4),
            *_arc((0.0425, 0.0975), (0.0025, 0.0025), 0, 180, 5),
            *_arc((0.030, 0.018), (0.010, 0.010), 0, -90, 4),
            (0.0, 0.008),
        ]
    )
    # A "C" lying against the wall: its two ends stop inside the wall, 2 mm short of the inside.
    # It starts high up, so that some of it shows over the rim when it is behind the cup.
    curve = np.array(
        [(0.0425, 0.0895), *_arc((0.055, 0.0545), (0.029, 0.035), 90, -90, 12), (0.0425, 0.0195)]
    )
    handle = _sweep(curve, np.full(14, 0.007), np.full(14, 0.006), around=12)
    return _assemble(body, handle)


def pan() -> trimesh.Trimesh:
    """A frying pan [m]: 0.22 across at its flared rim, 0.045 deep; handle 0.17 long along +x."""
    body = _revolve(
        [
            (0.0, 0.0),
            *_arc((0.084, 0.008), (0.008, 0.008), -90, -10, 4),
            *_arc((0.108, 0.043), (0.002, 0.002), 0, 180, 5),
            *_arc((0.081, 0.012), (0.008, 0.0075), -10, -90, 4),
            (0.0, 0.0045),
        ]
    )
    along = np.array([0.0, 0.012, 0.03, 0.06, 0.10, 0.135, 0.155, 0.166, 0.172, 0.174])
    path = np.stack([0.104 + along, 0.031 + 0.020 * np.sin(along / 0.174 * np.pi / 2)], axis=-1)
    half_width = np.array([12, 11, 10, 11.5, 13.5, 15, 15, 12, 7, 3]) / 1000
    half_depth = np.array([7, 6.5, 6, 6, 6, 6, 6, 5.5, 4, 2]) / 1000
    return _assemble(body, _sweep(path, half_width, half_depth, around=16, power=2.6))


def plate() -> trimesh.Trimesh:
    """A dinner plate [m]: 0.24 across, 0.025 high, broad rim, sunken centre, foot ring."""
    return _assemble(
        _revolve(
            [
                (0.0, 0.003),
                (0.062, 0.003),
                (0.064, 0.0),
                (0.069, 0.0),
                (0.073, 0.004),
                (0.084, 0.0135),
                *_arc((0.1182, 0.0232), (0.0018, 0.0018), -90, 90, 5),
                (0.090, 0.0185),
                (0.084, 0.0160),
                (0.078, 0.0110),
                (0.073, 0.0085),
                (0.067, 0.0080),
                (0.0, 0.0080),
            ]
        )
    )


CROCKERY: Mapping[str, Callable[[], trimesh.Trimesh]] = MappingProxyType(
    {"cup": cup, "pan": pan, "plate": plate}
)


def obj_text(mesh: trimesh.Trimesh) -> str:
    """The mesh as Wavefront OBJ text: shared positions, one normal for each face corner.

    Positions are shared (`v`) so that a reader finds the mesh watertight; normals (`vn`) have
    indices of their own so that a rim stays sharp and a wall round in any viewer.
    """
    positions = [
        " ".join(f"{x:.6f}" for x in vertex) for vertex in np.round(mesh.vertices, 6) + 0.0
    ]
    normals, index = corner_normals(mesh)
    directions = [" ".join(f"{x:.4f}" for x in normal) for normal in np.round(normals, 4) + 0.0]
    corners = [
        " ".join(f"{v + 1}//{n + 1}" for v, n in zip(face, normal, strict=True))
        for face, normal in zip(mesh.faces, index, strict=True)
    ]
    lines = [f"v {p}" for p in positions] + [f"vn {d}" for d in directions]
    lines += [f"f {c}" for c in corners]
    return "\n".join(lines) + "\n"


def write_crockery(folder: Path) -> list[Path]:
    """Write every built-in mesh to `folder` as NAME.obj; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in CROCKERY.items():
        path = folder / f"{name}.obj"
        path.write_text(obj_text(make()), encoding="ascii")
        paths.append(path)
    return paths
