"""Which package may import which, and where heavy libraries may be imported.

import-linter can say these layers, libraries and cycles, too, with a contract for each library.
What is here needs no other package, refuses relative imports and names that say nothing, says where
a library belongs, and shows on samples that it catches what it forbids.
"""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "remote_trainer"

# Lowest layer first. A package imports packages of lower layers, never its neighbours or those
# above. Rewards stand under config because each reward declares its own options.
LAYERS = [
    "errors",
    "faults final_answer json_files paths",
    "activity cache_folder environment eos_ids export_formats fallback field_paths onednn openmp"
    " packages processes progress records references",
    "means stop_signals telemetry text_statistics",
    "metrics run_dir",
    "mirror models tokenization trackers",
    "cpu engine llama_cpp supervision",
    "inference",
    "engines",
    "guard rewards",
    "config",
    "data docs_pages evaluation export planning report",
    "checks starter trainer ui",
    "pipeline",
    "remote",
    "doctor forecast",
    "cli",
]
LAYER_OF = {package: level for level, row in enumerate(LAYERS) for package in row.split()}

# Heavy libraries stay in the packages named here, so that the rest imports fast.
ALLOWED_IN = {
    "torch": {
        "fallback",
        "processes",
        "models",
        "cpu",
        "inference",
        "engines",
        "llama_cpp",
        "trainer",
        "environment",
        "export",
    },
    "accelerate": {"processes"},
    "ray": {"remote"},
    "fsspec": {"mirror"},
    "transformers": {"models", "cpu", "inference", "engines", "llama_cpp", "trainer", "export"},
    "peft": {"models", "cpu", "engines", "trainer", "export"},
    "xllamacpp": {"llama_cpp"},
    "safetensors": {"trainer"},
    "trl": {"trainer"},
    "trackio": {"trackers"},
    "wandb": {"trackers"},
    "tensorboard": {"trackers"},
    "unsloth": {"engines"},
    "vllm": {"engines"},
    "datasets": {"data", "trainer"},
    "pyarrow": {"data"},
    "gguf": {"llama_cpp", "models"},
    "psutil": {"cpu"},
    "huggingface_hub": {"models", "export"},
    "tokenizers": {"models", "tokenization"},
    "yaml": {"config", "export"},
    "pydantic": {"config", "docs_pages", "rewards", "starter"},
    "sacrebleu": {"rewards"},
    "plotly": {"report", "ui"},
    "jinja2": {"docs_pages", "report", "tokenization", "ui"},
    "packaging": {"packages"},
    "regex": {"text_statistics"},
    "typer": {"cli"},
    "rich": {"cli"},
}


def package_of(path: Path) -> str:
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


def faults_of(package: str, source: str, name: str) -> list[str]:
    """What the layers forbid in one module of ``package``."""
    faults = []
    for line, target in imports_of(source, name):
        library = target.split(".")[0]
        if library == "remote_trainer" and "." in target:
            there = target.split(".")[1]
            if there != package and LAYER_OF.get(there, -1) >= LAYER_OF[package]:
                faults.append(f"{name}:{line}: {package} may not import {there}")
        elif library in ALLOWED_IN and package not in ALLOWED_IN[library]:
            faults.append(f"{name}:{line}: {library} belongs in {sorted(ALLOWED_IN[library])}")
    return faults


def test_every_package_has_a_layer() -> None:
    assert {package_of(path) for path in modules()} == set(LAYER_OF)


def test_imports_go_down_and_libraries_stay_where_they_are_allowed() -> None:
    faults = [
        fault
        for path in modules()
        for fault in faults_of(package_of(path), path.read_text(), str(path.relative_to(SRC)))
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
def test_the_test_catches_what_it_forbids(source: str) -> None:
    assert len(faults_of("data", source, "data/x.py")) == 1


def test_no_module_imports_itself_by_way_of_others() -> None:
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


def test_no_module_is_named_for_nothing() -> None:
    vague = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path in modules() if path.stem in vague]
