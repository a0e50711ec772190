"""Foreign worlds are foreign in the way that they say, and told from the model's own."""

from pathlib import Path

import pytest
import torch
import trimesh

from renderer.spec import SceneSpec
from training.dreams import generator_for
from training.foreign import ForeignWorlds, crowded, with_foreign_objects
from training.novelty import roc_area

SIZE = {"height": 32, "width": 32, "backend": "raycast", "supersample": 1}


@pytest.fixture(scope="module")
def spec() -> SceneSpec:
    return SceneSpec.load("tabletop")


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meshes")
    trimesh.creation.box((40.0, 20.0, 30.0)).export(folder / "brick.obj")
    return folder


def test_meshes_become_classes_as_large_as_the_known_ones(spec: SceneSpec, meshes: Path) -> None:
    foreign = with_foreign_objects(spec, meshes)
    assert foreign.class_names == (*spec.class_names, "brick")
    radii = [geometry.radius for geometry in foreign.geometries]
    assert min(radii[:-1]) <= radii[-1] <= max(radii[:-1])
    with pytest.raises(ValueError, match=r"holds no .*\.obj"):
        with_foreign_objects(spec, meshes / "nothing")


def test_crowded_scenes_have_one_object_more(spec: SceneSpec) -> None:
    assert crowded(spec, 4).count.distribution == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_every_kind_is_drawn_as_the_seed_says(spec: SceneSpec, meshes: Path) -> None:
    worlds = ForeignWorlds(spec, meshes=meshes, **SIZE)  # type: ignore[arg-type]
    assert next(iter(worlds.kinds)) == "foreign objects"
    for kind, draw in worlds.kinds.items():
        first, again = (draw(6, generator_for("foreign", kind)) for _ in range(2))
        assert first.shape == (6, 32, 32, 3) and first.dtype == torch.uint8
        assert torch.equal(first, again), kind
        assert not torch.equal(first, draw(6, generator_for("foreign", "another seed")))
    worlds.close()


def test_without_meshes_there_are_no_foreign_objects(
    spec: SceneSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIR_DATA", raising=False)
    worlds = ForeignWorlds(spec, **SIZE)  # type: ignore[arg-type]
    assert "foreign objects" not in worlds.kinds
    worlds.close()


def test_another_table_is_another_one(spec: SceneSpec) -> None:
    worlds = ForeignWorlds(spec, **SIZE)  # type: ignore[arg-type]
    pictures = worlds.kinds["another table"](24, generator_for("tables")).float() / 255
    worlds.close()
    corner = pictures[:, 20:24, 14:18].mean((1, 2))  # table, mostly
    assert float(corner.std(0).min()) > 0.1


def test_area_under_roc() -> None:
    known, foreign = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0])
    assert roc_area(known, foreign) == pytest.approx((1.5 + 3) / 6)
    assert roc_area(known, known) == 0.5
