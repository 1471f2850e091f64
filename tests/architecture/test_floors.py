"""The building plan as a test: who may import whom, and which library lives in which room."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "remote_trainer"

# Ground floor first. A room imports rooms on lower floors, never its neighbours or those above.
# Rewards stand under config because each reward declares its own options.
FLOORS = [
    "errors",
    "paths",
    "records run_dir text_statistics environment packages memory_plan openmp references telemetry",
    "engine",
    "rewards guard",
    "config",
    "data evaluation export report",
    "trainer",
    "pipeline",
    "cli",
]
FLOOR_OF = {room: level for level, rooms in enumerate(FLOORS) for room in rooms.split()}

# Heavy libraries stay in the rooms named here, so that the rest imports fast.
FENCES = {
    "torch": {"engine", "trainer", "environment", "export"},
    "transformers": {"engine", "trainer", "export"},
    "peft": {"engine", "trainer", "export"},
    "xllamacpp": {"engine"},
    "safetensors": {"trainer"},
    "trl": {"trainer"},
    "unsloth": {"engine"},
    "vllm": {"engine"},
    "datasets": {"trainer"},
    "gguf": {"engine"},
    "psutil": {"engine"},
    "huggingface_hub": {"engine", "export"},
    "tokenizers": {"engine"},
    "yaml": {"config", "export"},
    "pydantic": {"config", "rewards"},
    "sacrebleu": {"rewards"},
    "plotly": {"report"},
    "jinja2": {"report", "engine"},
    "packaging": {"packages"},
    "regex": {"text_statistics"},
    "typer": {"cli"},
    "rich": {"cli"},
}


def room_of(path: Path) -> str:
    return path.relative_to(SRC).with_suffix("").parts[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(("remote_trainer", *parts)).removesuffix(".__init__")


def modules() -> list[Path]:
    return [path for path in sorted(SRC.rglob("*.py")) if path != SRC / "__init__.py"]


def imports_of(source: str, name: str) -> list[tuple[int, str]]:
    """(line, dotted name) of every import; inside functions and TYPE_CHECKING, too."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: write the full path"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def faults_of(room: str, source: str, name: str) -> list[str]:
    """What the plan forbids in one module of ``room``."""
    faults = []
    for line, target in imports_of(source, name):
        package = target.split(".")[0]
        if package == "remote_trainer" and "." in target:
            there = target.split(".")[1]
            if there != room and FLOOR_OF.get(there, -1) >= FLOOR_OF[room]:
                faults.append(f"{name}:{line}: {room} may not import {there}")
        elif package in FENCES and room not in FENCES[package]:
            faults.append(f"{name}:{line}: {package} belongs in {sorted(FENCES[package])}")
    return faults


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in modules()} == set(FLOOR_OF)


def test_imports_go_down_and_libraries_stay_behind_their_fence() -> None:
    faults = [
        fault
        for path in modules()
        for fault in faults_of(room_of(path), path.read_text(), str(path.relative_to(SRC)))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "source",
    [
        "from remote_trainer.trainer import grpo",  # upward
        "from remote_trainer.export.lora import export_lora",  # a neighbour
        "def f():\n    import remote_trainer.cli",  # upward, hidden in a function
        "if TYPE_CHECKING:\n    from remote_trainer.pipeline import train",
        "import trl",
        "import torch.nn",
    ],
)
def test_the_plan_catches_what_it_forbids(source: str) -> None:
    assert len(faults_of("data", source, "data/x.py")) == 1


def test_rooms_have_no_inner_cycles() -> None:
    names = {module_of(path): path for path in modules()}
    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        targets = {target for _, target in imports_of(path.read_text(), name)}
        targets |= {target.rpartition(".")[0] for target in targets}
        edges[name] = (targets & set(names)) - {name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in names:
        visit(name, ())


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path in modules() if path.stem in drawers]
