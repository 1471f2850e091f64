"""Dockerfile and SkyPilot task, as far as they can be read without Docker, SkyPilot or a GPU."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from remote_trainer.config import load_config

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
TASK = (ROOT / "docker/sky.yaml").read_text(encoding="utf-8")

# https://docs.docker.com/reference/dockerfile
KNOWN = {
    *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}
# Keys at the top of a task that SkyPilot 0.14 takes.
TASK_KEYS = {
    *("name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts", "volumes"),
    *("service", "pool", "setup", "run", "config"),
}
SECRETS = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)
ADDRESS = re.compile(r"https?://|--(extra-)?index-url|--find-links|(UV|PIP)_\w*INDEX")


def faults_of(text: str) -> list[str]:
    """What is wrong with a Dockerfile that is built from the root of this repository."""
    lines = list(instructions(text))
    names = [name for name, _ in lines]
    faults = [f"{name} is no instruction" for name in names if name not in KNOWN]
    if not names or names[0] not in ("FROM", "ARG") or "FROM" not in names:
        faults.append("it does not begin with FROM or ARG")
    users = [rest for name, rest in lines if name == "USER"]
    if not users or users[-1].split(":")[0] in ("root", "0"):
        faults.append("it runs as root")
    for name, rest in lines:
        if name == "FROM":
            faults += base_faults(rest)
        elif name in ("COPY", "ADD"):
            faults += copy_faults(rest)
        elif name in ("ENV", "ARG") and SECRETS.search(rest):
            faults.append(f"{name} {rest} keeps a secret in the image")
        elif name in ("ENTRYPOINT", "CMD", "VOLUME") and not is_list(rest):
            faults.append(f"{name} {rest} is no JSON list")
        if ADDRESS.search(rest):
            faults.append(f"{name} names an address: {rest}")
    return faults


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(instruction, the rest), lines joined where one ends in a backslash; comments left out."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(kept).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name, " ".join(rest.split())


def base_faults(image: str) -> list[str]:
    name, _, tag = image.split()[0].partition(":")
    return [] if name and tag not in ("", "latest") else [f"FROM {image} is not pinned by a tag"]


def copy_faults(rest: str) -> list[str]:
    *sources, _ = [part for part in shlex.split(rest) if not part.startswith("--")]
    sent = (ROOT / "docker/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    faults = [f"there is no {each} to copy" for each in sources if not (ROOT / each).exists()]
    return faults + [f"{each} is ignored" for each in sources if f"!{each}" not in sent]


def is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except json.JSONDecodeError:
        return False


def test_the_dockerfile() -> None:
    assert faults_of(DOCKERFILE) == []
    steps = list(instructions(DOCKERFILE))
    assert [rest for name, rest in steps if name == "ENTRYPOINT"] == ['["remote-trainer"]']
    (install,) = (rest for _, rest in steps if "pip install" in rest)
    assert "--constraint constraints.txt '.[unsloth,gguf]'" in install
    # The user comes behind everything that needs root.
    names = [name for name, _ in steps]
    assert "RUN" not in names[names.index("USER") :]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("FROM python:3.12-slim-bookworm", "FROM python", "FROM python is not pinned by a tag"),
        ("FROM python:3.12-slim-bookworm", "FROM python:latest", "is not pinned by a tag"),
        ("FROM python:3.12-slim-bookworm", "WORKDIR /", "it does not begin with FROM or ARG"),
        ("USER trainer", "USER root", "it runs as root"),
        ("USER trainer\n", "", "it runs as root"),
        ("COPY src ./src", "COPY source ./src", "there is no source to copy"),
        ("COPY src ./src", "COPY tests ./tests", "tests is ignored"),
        ("RUN python", "RUM python", "RUM is no instruction"),
        ('ARG PIP_ARGS=""', "ARG HF_TOKEN", "ARG HF_TOKEN keeps a secret in the image"),
        ("${PIP_ARGS}", "--index-url http://mirror/simple", "RUN names an address"),
        ('CMD ["doctor"]', "CMD doctor", "CMD doctor is no JSON list"),
        ("    && rm -rf /var", "\n    && rm -rf /var", "&& is no instruction"),
    ],
)
def test_faults_are_found(old: str, new: str, fault: str) -> None:
    assert old in DOCKERFILE
    found = faults_of(DOCKERFILE.replace(old, new))
    assert any(fault in each for each in found), found


def test_the_image_is_the_python_that_is_supported() -> None:
    version = re.search(r"FROM python:(\d\.\d+)-", DOCKERFILE)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert version
    assert 'requires-python = ">=3.11,<3.15"' in project
    assert version[1] in ("3.11", "3.12", "3.13", "3.14")


def test_the_skypilot_task() -> None:
    task: dict[str, Any] = yaml.safe_load(TASK)
    assert task.keys() >= {"name", "resources", "workdir", "setup", "run"}
    assert task.keys() <= TASK_KEYS
    assert task["resources"]["accelerators"] == {"L4": 1, "A10G": 1, "L40S": 1, "A100": 1}
    assert (ROOT / task["workdir"] / "pyproject.toml").exists()
    assert "--constraint constraints.txt --editable '.[unsloth,gguf]'" in task["setup"]
    assert 'remote-trainer train "$CONFIG"' in task["run"]
    assert not ADDRESS.search(TASK)
    assert not SECRETS.search(TASK)
    # What is run by default is a config of this repository.
    assert load_config(ROOT / task["envs"]["CONFIG"]).data is not None


def test_both_shells_stop_at_the_first_error() -> None:
    task = yaml.safe_load(TASK)
    assert task["setup"].startswith("set -e\n")
    assert task["run"].startswith("set -e\n")
