"""Kinds of inputs: which files a seed changes, and the command that reads them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from mutators import BYTES, any_value, changed_bytes, changed_json, changed_lines, changed_yaml
from tables import strange_table
from world import COMPLETIONS, CONFIGS, ROWS

Place = Callable[[Path], None]
CHECK = ("check", "run.yaml", "--set", "output_dir=new")
REPORT = ("report", "run", "--output", "x.html")
STEP = "run/checkpoints/step-000006"


@dataclass(frozen=True)
class Input:
    """Files to write into ``home``, and the command that reads them."""

    files: Mapping[str, bytes]
    command: Sequence[str]
    special: Mapping[str, Place] = field(default_factory=dict)
    """Files that are not plain: how each is made."""


@dataclass(frozen=True)
class Kind:
    """A kind of input."""

    make: Callable[[Random, Path], Input]
    torch: bool = False
    """Whether the command may import torch, up to the moment at which it would load a model."""
    codes: frozenset[int] = frozenset({0, 2})
    """Exit codes that are right."""


def _config(rng: Random, home: Path) -> Input:
    given = [(home / "run.yaml").read_text(), *(f.read_text() for f in sorted(CONFIGS.iterdir()))]
    return Input({"c.yaml": changed_yaml(rng, rng.choice(given))}, ("check", "c.yaml"))


def _override(rng: Random, home: Path) -> Input:
    keys = ("training.seed", "reward", "reward.0.type", "data.train", "model.name", "a.b", "lora.r")
    text = changed_bytes(rng, rng.choice((b"training.seed=1", b"reward={type: inverse_loss}")))
    if rng.random() < 0.5:
        text = f"{rng.choice(keys)}={json.dumps(any_value(rng))[:2000]}".encode()
    given = text.replace(b"\x00", b"").decode("utf-8", "surrogateescape")
    return Input({}, ("check", "run.yaml", "--set", given))


def _jsonl(rng: Random, home: Path) -> Input:
    data = changed_lines(rng, ROWS)
    if rng.random() < 0.4:
        data = changed_bytes(rng, (home / "train.jsonl").read_bytes())
    name = rng.choice(("train", "train", "eval"))
    return Input({f"{name}.jsonl": data}, CHECK)


def _csv(rng: Random, home: Path) -> Input:
    data = changed_bytes(rng, (home / "train.csv").read_bytes())
    return Input({"train.csv": data}, (*CHECK, "--set", "data.train=train.csv"))


def _parquet(rng: Random, home: Path) -> Input:
    kind = rng.random()
    if kind < 0.02:
        data = (home / rng.choice(("rows.bomb", "long.bomb"))).read_bytes()
    elif kind < 0.5:
        data = changed_bytes(rng, (home / "train.parquet").read_bytes())
    else:
        data = strange_table(rng)
    return Input({"train.parquet": data}, (*CHECK, "--set", "data.train=train.parquet"))


def _adapter(rng: Random, home: Path) -> Input:
    name = rng.choice(("adapter_config.json",) * 3 + ("adapter_model.safetensors",))
    folder = rng.choice(("start", "run/adapter"))
    changed = _changed_file(rng, home, f"{folder}/{name}")
    return Input(changed, (*CHECK, "--set", f"model.adapter={folder}"))


def _weights(rng: Random, home: Path) -> Input:
    if rng.random() < 0.3:
        changed = changed_json(rng, json.loads((home / "index.json").read_bytes()))
        return Input({"model/model.safetensors.index.json": changed}, CHECK)
    return Input(_changed_file(rng, home, "model/model.safetensors"), CHECK)


def _tokenizer(rng: Random, home: Path) -> Input:
    names = ("tokenizer.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    name = rng.choice(names)
    if name == "chat_template.jinja" and rng.random() < 0.5:
        return Input({f"model/{name}": rng.choice(_TEMPLATES)}, CHECK)
    return Input(_changed_file(rng, home, f"model/{name}"), CHECK)


_TEMPLATES = (
    b"{{ lipsum.__globals__['os'].system('touch ../outside/mark') }}",
    b"{{ cycler.__init__.__globals__.os.popen('touch ../outside/mark').read() }}",
    b"{{ ''.__class__.__mro__[1].__subclasses__() }}",
    b"{{ messages.append(1) }}",
    b"{% include '/etc/passwd' %}",
    b"{% for i in range(10 ** 9) %}x{% endfor %}",
    b"{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    b"{{ messages[0].content.__class__ }}",
    b"{{ raise_exception('no') }}",
    b"{{ strftime_now('%') }}{{ strftime_now(1) }}",
    b"{% set x = namespace() %}{% set x.__class__ = 1 %}{{ x }}",
)


def _model_config(rng: Random, home: Path) -> Input:
    name = rng.choice(("config.json", "config.json", "generation_config.json"))
    return Input(_changed_file(rng, home, f"model/{name}"), CHECK)


def _checkpoint(rng: Random, home: Path) -> Input:
    """As the adapter that is trained further."""
    name = rng.choice(("manifest.json", "manifest.json", "adapter.safetensors", "state.json"))
    changed = _changed_file(rng, home, f"{STEP}/{name}")
    return Input(changed, (*CHECK, "--set", f"model.adapter={STEP}"))


_OF_RUN = (
    *("eval.json", "guard.json", "data_report.json", "environment.json", "metrics.jsonl"),
    *("answers.jsonl", "completions/step-000006.jsonl", "adapter/proof.json", "heartbeat.json"),
    *("config.resolved.yaml", "base.json", "eval.json", "metrics.jsonl"),
)


def _run_file(rng: Random, home: Path) -> Mapping[str, bytes]:
    name = rng.choice(_OF_RUN)
    if name == "base.json":
        return {"run/base.json": changed_json(rng, json.loads((home / name).read_bytes()))}
    return _changed_file(rng, home, f"run/{name}")


def _report(rng: Random, home: Path) -> Input:
    return Input(_run_file(rng, home), REPORT)


def _folder(rng: Random, home: Path) -> Input:
    """Of a run, as check and doctor find it."""
    return Input(_run_file(rng, home), ("check", "run.yaml"))


def _resumed(rng: Random, home: Path) -> Input:
    """What training reads of a run before it loads a model."""
    name = rng.choice((*("manifest.json",) * 2, "state.json", "adapter.safetensors"))
    of_checkpoint = _changed_file(rng, home, f"{STEP}/{name}")
    files = rng.choice((_run_file(rng, home), of_checkpoint))
    files = {name.replace("run/", "stopped/"): data for name, data in files.items()}
    more = rng.choice(((), (), (), ("--resume", f"{STEP.replace('run', 'stopped')}")))
    command = ("train", "run.yaml", "--quiet", "--set", "output_dir=stopped", "--allow-changed")
    return Input(files, (*command, *more))


def _finished(rng: Random, home: Path) -> Input:
    """What the same command says of a run that is finished."""
    return Input(_run_file(rng, home), ("train", "run.yaml", "--allow-changed"))


def _exported(rng: Random, home: Path) -> Input:
    target = rng.choice(("run", STEP))
    files = rng.choice((_run_file(rng, home), _changed_file(rng, home, f"{STEP}/manifest.json")))
    return Input(files, ("export", target, "--output", "out"))


def _evaluated(rng: Random, home: Path) -> Input:
    files = _run_file(rng, home)
    if rng.random() < 0.6:
        files = {"eval.jsonl": changed_lines(rng, [row for row in ROWS if "messages" not in row])}
    return Input(files, ("eval", "run", "--data", "eval.jsonl"))


def _scored(rng: Random, home: Path) -> Input:
    data = changed_lines(rng, COMPLETIONS)
    if rng.random() < 0.3:
        data = changed_bytes(rng, data)
    command = ("score", "run.yaml", "--input", "completions.jsonl", "--output", "out.jsonl")
    return Input({"completions.jsonl": data}, command)


_OF_MODEL = (
    *("config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"),
    *("tokenizer_config.json", "generation_config.json", "model.safetensors.index.json"),
)


def _special(rng: Random, home: Path) -> Input:
    """A folder, a pipe that nobody writes to, a device or a link in the place of a file."""
    of_model = [f"model/{name}" for name in _OF_MODEL]
    of_run = [f"run/{name}" for name in _OF_RUN if name != "base.json"]
    of_start = ["start/adapter_config.json", "start/adapter_model.safetensors"]
    name = rng.choice([*of_model, *of_run, *of_start, "train.jsonl", f"{STEP}/manifest.json"])
    ways: list[Place] = [Path.mkdir, _endless, _looped, _dangling, _sparse]
    if name != "train.jsonl":  # data may come from a pipe
        ways.append(_pipe)
    command: Sequence[str] = CHECK if name.startswith(("model", "train")) else REPORT
    if name.startswith("start"):
        command = (*CHECK, "--set", "model.adapter=start")
    if name.startswith(STEP):
        command = (*CHECK, "--set", f"model.adapter={STEP}")
    return Input({}, command, {name: rng.choice(ways)})


def _pipe(path: Path) -> None:
    import os

    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _looped(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("../outside/nothing")


def _sparse(path: Path) -> None:
    """Ten gigabytes, of which the first eight bytes are the length of a safetensors header."""
    size = 10 * 2**30
    with path.open("wb") as file:
        file.write((size - 8).to_bytes(8, "little"))
        file.truncate(size)


def _changed_file(rng: Random, home: Path, name: str) -> dict[str, bytes]:
    """A file of ``home`` with changes that its format allows, or with any."""
    data = (home / name).read_bytes()
    if rng.random() < 0.3:
        return {name: changed_bytes(rng, data)}
    if name.endswith(".json"):
        return {name: changed_json(rng, json.loads(data))}
    if name.endswith(".jsonl"):
        return {name: changed_lines(rng, [json.loads(line) for line in data.splitlines()])}
    if name.endswith(".safetensors"):
        return {name: _changed_header(rng, data)}
    if name.endswith(".yaml"):
        return {name: changed_yaml(rng, data.decode())}
    return {name: changed_bytes(rng, data)}


def _changed_header(rng: Random, data: bytes) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.8:
        header = changed_json(rng, json.loads(header))
    else:
        header = header[: rng.randint(0, length)] + rng.choice(BYTES)
    length = len(header)
    if rng.random() < 0.15:
        length = rng.choice((0, 1, length - 1, length + 1, 2**31, 2**63, 2**64 - 1, 10**10))
    return max(0, length).to_bytes(8, "little") + header + rest


KINDS: Mapping[str, Kind] = {
    "config": Kind(_config),
    "override": Kind(_override),
    "jsonl": Kind(_jsonl),
    "csv": Kind(_csv),
    "parquet": Kind(_parquet),
    "adapter": Kind(_adapter),
    "weights": Kind(_weights),
    "tokenizer": Kind(_tokenizer),
    "model config": Kind(_model_config),
    "checkpoint": Kind(_checkpoint),
    "report": Kind(_report),
    "folder": Kind(_folder),
    "special": Kind(_special),
    "resumed": Kind(_resumed, torch=True, codes=frozenset({0, 1, 2})),
    "finished": Kind(_finished, torch=True, codes=frozenset({0, 1, 2})),
    "exported": Kind(_exported, torch=True, codes=frozenset({0, 1, 2})),
    "evaluated": Kind(_evaluated, torch=True),
    "scored": Kind(_scored, torch=True),
}
