"""Imports go one way: renderer <- inference <- training, and renderer, inference <- service."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each package may import of our own top-level packages.
ALLOWED = {
    "renderer": {"renderer"},
    "inference": {"inference", "renderer"},
    "training": {"training", "renderer", "inference"},
    "service": {"service", "renderer", "inference"},
}
OURS = {*ALLOWED, "benchmarks", "tests"}

# inference is handed its renderers as arguments; of the renderer package it knows the data only,
# and the geometry of the camera.
RENDERER_DATA_MODULES = {"renderer.scene", "renderer.spec", "renderer.prior", "renderer.camera"}
RENDERER_DATA = RENDERER_DATA_MODULES | {"renderer.Scene", "renderer.SceneSpec"}


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) of every import, also inside functions and `if TYPE_CHECKING`.

    `from a.b import c` gives `a.b.c`; `import a.b` without `as` gives `a`, the name that it binds,
    beside `a.b`. `package` is the dotted package of the file, for relative imports.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
                    if alias.asname is None and "." in alias.name:
                        yield node.lineno, alias.name.partition(".")[0]
            case ast.ImportFrom(module=module, names=names, level=level):
                parents = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*parents, *([module] if module else [])])
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def is_renderer_data(name: str) -> bool:
    return name in RENDERER_DATA or name.rpartition(".")[0] in RENDERER_DATA_MODULES


def violations(source: str, path: str) -> list[str]:
    """Returns one `file:line: what is wrong` for each import in `source` that goes the wrong way.

    `path` is relative to the repository root; its first part is the package.
    """
    parts = Path(path).parts
    importer = parts[0]
    found = []
    for line, name in imports(ast.parse(source, path), ".".join(parts[:-1])):
        top = name.partition(".")[0]
        if top in OURS - ALLOWED[importer]:
            found.append(f"{path}:{line}: {importer} must not import {name}")
        elif importer == "inference" and top == "renderer" and not is_renderer_data(name):
            found.append(f"{path}:{line}: inference takes renderer data types only, not {name}")
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ has no modules: was it moved?"
    wrong = [
        violation
        for file in files
        for violation in violations(
            file.read_text(encoding="utf-8"), file.relative_to(ROOT).as_posix()
        )
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("renderer/a.py", "import inference"),
        ("renderer/a.py", "from training.loop import train"),
        ("renderer/a.py", "from service import app"),
        ("renderer/a.py", "import numpy, inference.cell as cell"),
        ("inference/a.py", "import training"),
        ("inference/a.py", "from service.schemas import Answer"),
        ("inference/a.py", "import renderer"),
        ("inference/a.py", "import renderer.scene"),
        ("inference/a.py", "from renderer import Scene, open_renderer"),
        ("inference/a.py", "from renderer import *"),
        ("inference/a.py", "from renderer.opengl import OpenGLRenderer"),
        ("training/a.py", "import service"),
        ("training/deep/a.py", "def f():\n    from service.app import app"),
        ("service/a.py", "import training.loop"),
        ("service/a.py", "if TYPE_CHECKING:\n    from training import experiments"),
        ("service/a.py", "import importlib\nimportlib.import_module('training.loop')"),
        ("service/a.py", "__import__('training')"),
        ("service/a.py", "import benchmarks"),
        ("training/a.py", "from tests.helpers import scene"),
    ],
)
def test_checker_catches(path: str, source: str) -> None:
    found = violations(source, path)
    assert found
    line = source.count("\n") + 1  # the last line is the wrong one
    assert all(violation.startswith(f"{path}:{line}: ") for violation in found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("renderer/a.py", "import torch\nfrom renderer.scene import Scene\nfrom . import spec"),
        ("inference/a.py", "from renderer import Scene, SceneSpec, prior"),
        ("inference/a.py", "from renderer.scene import Scene\nfrom renderer.prior import sample"),
        ("inference/a.py", "import renderer.spec as spec\nfrom .cell import Cell"),
        ("training/a.py", "import renderer\nfrom inference import posterior\nimport training"),
        (
            "service/a.py",
            "from renderer import open_renderer\nfrom inference.checkpoint import load",
        ),
        ("service/a.py", "import training_wheels"),
        ("service/deep/a.py", "from .training import x\nfrom ..app import app"),
    ],
)
def test_checker_passes(path: str, source: str) -> None:
    assert violations(source, path) == []
