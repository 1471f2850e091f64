"""What is sent to a cluster: the config, its data, this program and the user's reward functions.

Only these files are sent, so neither checkpoints nor other files of the project can be among them.
"""

import hashlib
import io
import re
import shlex
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import remote_trainer
from remote_trainer.config import RunConfig
from remote_trainer.data.readers import READERS
from remote_trainer.data.readers.folder import shards_of
from remote_trainer.data.readers.hub import dataset_id
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.rewards.formulas.user_function import UserFunction

MOST_BYTES = 400 * 2**20
"""A cluster refuses packages over 500 MiB."""
SECRETS = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{30,})\b"
)
"""Tokens of Hugging Face, OpenAI and alike, AWS and GitHub."""
_TIME = (1980, 1, 1, 0, 0, 0)  # so that the same content has the same hash


@dataclass(frozen=True)
class Package:
    """The content of a job's working directory."""

    name: str
    content: bytes
    overrides: tuple[str, ...]
    """``key=value`` for `--set`: where things are in the package."""
    files: tuple[str, ...]


def pack(config_file: Path, config: RunConfig) -> Package:
    """Raises UserInputError that lists everything that cannot be sent."""
    problems: list[Problem] = []
    files: dict[str, bytes] = {"config.yaml": config_file.read_bytes()}
    overrides = _add_data(config, files, problems)
    _add_functions(config, files, problems)
    problems += _of_model(config)
    problems += [problem for name, content in files.items() for problem in _secrets(name, content)]
    _add_program(files)
    size = sum(map(len, files.values()))
    if size > MOST_BYTES:
        problems.append(
            Problem(
                "data.train",
                f"the package has {size // 2**20} MiB, at most {MOST_BYTES // 2**20} can be sent; "
                "copy the data to the machine and write its path there (it begins with / or ~)",
            )
        )
    if problems:
        raise UserInputError(problems)
    content = _zipped(files)
    name = f"_ray_pkg_{hashlib.sha256(content).hexdigest()[:32]}.zip"
    return Package(name, content, tuple(overrides), tuple(files))


def _add_data(config: RunConfig, files: dict[str, bytes], problems: list[Problem]) -> list[str]:
    if config.data is None:
        problems.append(Problem("data.train", "this key is missing; write the path of a file"))
        return []
    overrides = []
    for key, value in (("train", config.data.train), ("eval", config.data.eval)):
        path = Path(value or "none")
        if key == "eval" and value in (None, "auto", "none"):
            continue
        name = f"data/{key}/{path.resolve().name}"
        if path.is_file():
            files[name] = path.read_bytes()
        elif path.is_dir():
            files.update(_shards(path, name, problems))
        else:
            if not path.is_absolute() and not dataset_id(str(value)):
                problems.append(
                    Problem(
                        f"data.{key}",
                        f"no file or folder {value!r} here; a path of the other machine begins "
                        "with /, and a dataset of the hub is owner/name",
                    )
                )
            continue  # a path of the other machine, or a dataset of the hub
        overrides.append(f"data.{key}={name}")
    return overrides


def _shards(folder: Path, name: str, problems: list[Problem]) -> Iterator[tuple[str, bytes]]:
    """The files of a data folder that training reads, but not files that a link leads to."""
    try:
        files = shards_of(folder, list(READERS))
    except UserInputError as error:
        problems.extend(error.problems)
        return
    for file in files:
        if file.is_symlink():
            message = "is a link, and links are not sent; replace it with the file, or remove it"
            problems.append(Problem(str(file), message))
        else:
            yield f"{name}/{file.name}", file.read_bytes()


def _add_functions(config: RunConfig, files: dict[str, bytes], problems: list[Problem]) -> None:
    """The modules of the user's reward functions, if they are files of the working directory."""
    for reward in config.reward:
        if not isinstance(reward, UserFunction):
            continue
        top = str(reward.function).partition(":")[0].partition(".")[0]
        if Path(f"{top}.py").is_file():
            files[f"{top}.py"] = Path(f"{top}.py").read_bytes()
        for file in sorted(Path(top).rglob("*.py")):
            files[file.as_posix()] = file.read_bytes()


def _of_model(config: RunConfig) -> list[Problem]:
    """Models are not sent."""
    local = {"model.name": config.model.name, "model.adapter": config.model.adapter or ""}
    return [
        Problem(
            key,
            f"{value} is a folder of this machine, and models are not sent; copy it to the other "
            "machine and write its path there, or write a name of the hub",
        )
        for key, value in local.items()
        if value and Path(value).exists()
    ]


def _secrets(name: str, content: bytes) -> Iterator[Problem]:
    """Lines of configs and code with something that looks like a token; data may hold anything."""
    if name.startswith("data/"):
        return
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        if found := SECRETS.search(line):
            yield Problem(
                f"{name}:{number}",
                f"{found.group()[:6]}... looks like a secret, which everyone on the cluster could "
                "read; put it on the machine instead (environment of Ray, `hf auth login`)",
            )


def _add_program(files: dict[str, bytes]) -> None:
    root = Path(remote_trainer.__file__).parent
    for file in sorted(root.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            files[f"remote_trainer/{file.relative_to(root).as_posix()}"] = file.read_bytes()


def _zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def entrypoint(words: Sequence[str], on_done: str | None) -> str:
    """The shell command of a job; ``on_done`` runs at its end, however it ends, with the exit code
    in REMOTE_TRAINER_EXIT_CODE."""
    command = shlex.join(["python", "-m", "remote_trainer.cli", "train", *words])
    if on_done is None:
        return f"exec {command}"
    # The shell must outlive the signal that stops the run.
    return (
        f"trap : INT TERM; {command}; export REMOTE_TRAINER_EXIT_CODE=$?; "
        f"( {on_done} ); exit $REMOTE_TRAINER_EXIT_CODE"
    )
