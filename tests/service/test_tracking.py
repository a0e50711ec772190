"""Ids that objects keep from frame to frame."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cameras.tracking import GATE, keep_ids
from service.schemas import (
    Angle,
    Box2D,
    Box3D,
    DetectedObject,
    Pose,
    Quaternion,
    Symmetry,
    Vector3,
)


def thing(class_id: str, x: float, y: float, id: int = 0) -> DetectedObject:
    pose = Pose(
        position=Vector3(x=x, y=y, z=0.0), orientation=Quaternion(x=0.0, y=0.0, z=0.0, w=1.0)
    )
    return DetectedObject(
        id=id,
        class_id=class_id,
        score=1.0,
        hypotheses=[],
        pose=pose,
        yaw=Angle(value=0.0, std=0.0),
        covariance=[0.0] * 36,
        symmetry=Symmetry(kind="none", order=1),
        bbox2d=Box2D(x=0, y=0, width=1, height=1),
        bbox3d=Box3D(center=pose, size=Vector3(x=1.0, y=1.0, z=1.0)),
    )


def ids(objects: list[DetectedObject]) -> list[int]:
    return [item.id for item in objects]


def test_a_life_at_a_table() -> None:
    first, free = keep_ids([], [thing("cup", 0.0, 0.0), thing("pan", 0.3, 0.0)], 0)
    assert (ids(first), free) == ([0, 1], 2)
    # Moved a little, listed in another order, and a plate is put beside.
    second, free = keep_ids(
        first, [thing("plate", -0.3, 0.0), thing("pan", 0.31, 0.01), thing("cup", 0.01, 0.0)], free
    )
    assert (ids(second), free) == ([2, 1, 0], 3)
    # The cup goes; another one that comes later is another one.
    third, free = keep_ids(second, [item for item in second if item.class_id != "cup"], free)
    assert (ids(third), free) == ([2, 1], 3)
    fourth, free = keep_ids(third, [*third, thing("cup", 0.01, 0.0)], free)
    assert (ids(fourth), free) == ([2, 1, 3], 4)
    empty, free = keep_ids(fourth, [], free)
    assert (empty, free) == ([], 4)


def test_another_class_at_the_same_place_is_another_object() -> None:
    found, free = keep_ids([thing("cup", 0.0, 0.0, 7)], [thing("pan", 0.0, 0.0)], 8)
    assert (ids(found), free) == ([8], 9)


def test_what_moved_too_far_is_another_object() -> None:
    near, _ = keep_ids([thing("cup", 0.0, 0.0, 7)], [thing("cup", 0.99 * GATE, 0.0)], 8)
    far, _ = keep_ids([thing("cup", 0.0, 0.0, 7)], [thing("cup", 1.01 * GATE, 0.0)], 8)
    assert (ids(near), ids(far)) == ([7], [8])


def test_two_cups_that_move_alike_are_not_mistaken_for_each_other() -> None:
    """The nearest one is not always the same one: the second cup is where the first one was."""
    before = [thing("cup", 0.0, 0.0, 4), thing("cup", 0.1, 0.0, 5)]
    after = [thing("cup", 0.1, 0.0), thing("cup", 0.2, 0.0)]
    assert ids(keep_ids(before, after, 6)[0]) == [4, 5]


places = st.lists(
    st.tuples(st.sampled_from(["cup", "pan"]), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    max_size=4,
)


@given(places, places)
def test_matches_as_trying_all_assignments_does(
    one: list[tuple[str, float, float]], other: list[tuple[str, float, float]]
) -> None:
    before = [thing(*values, id=10 + i) for i, values in enumerate(one)]
    after = [thing(*values) for values in other]
    found, free = keep_ids(before, after, 20)
    kept = {(item.id, j) for j, item in enumerate(found) if item.id < 20}
    assert len(set(ids(found))) == len(found)
    assert free == 20 + len(found) - len(kept)

    def cost(pairs: set[tuple[int, int]]) -> tuple[int, float]:
        lengths = [
            np.hypot(one[i - 10][1] - other[j][1], one[i - 10][2] - other[j][2]) for i, j in pairs
        ]
        return -len(pairs), float(sum(lengths))

    def allowed(i: int, j: int) -> bool:
        (a, x, y), (b, u, v) = one[i - 10], other[j]
        return a == b and np.hypot(x - u, y - v) <= GATE

    assignments = (
        set(zip(left, right, strict=True))
        for n in range(min(len(one), len(other)) + 1)
        for left in itertools.combinations(range(10, 10 + len(one)), n)
        for right in itertools.permutations(range(len(other)), n)
    )
    best = min(cost(pairs) for pairs in assignments if all(allowed(*pair) for pair in pairs))
    assert all(allowed(i, j) for i, j in kept)
    assert cost(kept)[0] == best[0]
    assert cost(kept)[1] == pytest.approx(best[1], abs=1e-6)
