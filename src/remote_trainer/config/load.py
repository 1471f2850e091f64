"""YAML file and overrides -> RunConfig, or one error that lists every problem."""

import difflib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from remote_trainer.config.older import CONFIG_FORMAT, FORMAT_KEY, fill_in, format_of
from remote_trainer.config.schema import RunConfig
from remote_trainer.config.section import section_of
from remote_trainer.config.yaml_file import (
    Path,
    YamlFile,
    dotted,
    dump_yaml,
    parse_scalar,
    parse_yaml,
)
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.paths import expand
from remote_trainer.rewards import REWARDS

_MOST_BYTES = 2**20
"""More than any config; from a device, reading would never end."""
_NO_SECTION = ("model_type", "model_attributes_type", "dict_type")


def load_config(path: FilePath | str, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a file, with ``a.b=c`` overrides applied.

    Raises UserInputError with every problem of the file and the overrides, each with its line.
    """
    return parse_config(_read(path), str(path), overrides)


def load_resolved(path: FilePath, overrides: Sequence[str] = ()) -> RunConfig:
    """`load_config` for the config.resolved.yaml of a run, possibly of an older version: missing
    settings get the behaviour of that version."""
    return parse_config(_read(path), str(path), overrides, resolved=True)


def _read(path: FilePath | str) -> str:
    try:
        path = FilePath(expand(str(path)))
    except ValueError as error:
        raise UserInputError.at(str(path), str(error)) from None
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserInputError.at(str(path), f"has more than {_MOST_BYTES} bytes; write a config")
        return io.StringIO(content.decode("utf-8"), newline=None).read()
    except FileNotFoundError:
        raise UserInputError.at(str(path), "no such file; write the path of a config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError.at(str(path), f"cannot be read as UTF-8 text: {error}") from None


def parse_config(
    text: str, name: str, overrides: Sequence[str] = (), resolved: bool = False
) -> RunConfig:
    """`load_config` for text that is in memory, or `load_resolved`."""
    file = parse_yaml(text, name)
    problems = list(file.problems)
    if not isinstance(file.value, dict):
        problems.append(Problem(name, "a config must be a list of `key: value` lines"))
        raise UserInputError(problems)
    value = _copy(file.value)
    if resolved or FORMAT_KEY in value:
        fill_in(value, format_of(value))
    value.pop(FORMAT_KEY, None)
    overridden: dict[Path, str] = {}
    for override in overrides:
        problem = _apply(value, override, overridden)
        if problem:
            problems.append(problem)
    try:
        config = _validate(value, overridden)
    except ValidationError as error:
        problems += [_problem(details, file, overridden) for details in error.errors()]
    if problems:
        raise UserInputError(problems)
    return config


def dump_config(config: RunConfig, written: int = CONFIG_FORMAT) -> str:
    """Every value in force, as YAML that `load_config` accepts; ``written`` is the format that the
    run began with."""
    return dump_yaml({FORMAT_KEY: written, **config.model_dump(mode="json")})


def dump_given(config: RunConfig) -> str:
    """Only the values that were set: what is left to the defaults stays so."""
    given = config.model_dump(mode="json", exclude_unset=True)
    return dump_yaml({FORMAT_KEY: CONFIG_FORMAT, **given})


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _validate(value: dict[str, Any], overridden: Mapping[Path, str]) -> RunConfig:
    """The config, after fixing ``--set`` values and empty sections in ``value``.

    Raises ValidationError.
    """
    try:
        return RunConfig.model_validate(value)
    except ValidationError as error:
        fixed = [_fix(value, details, overridden) for details in error.errors()]
        if not any(fixed):
            raise
    return RunConfig.model_validate(value)


def _fix(value: dict[str, Any], details: Any, overridden: Mapping[Path, str]) -> bool:
    """Fix one error if possible: ``--set key=null`` and a section without keys mean the default,
    and ``--set revision=1e5`` is a string if the key is one. Returns whether it was fixed."""
    path = _as_written(_without_tag(details["loc"]), value)
    holder: Any = value
    for part in path[:-1]:
        exists = isinstance(holder, dict) and part in holder
        holder = holder[part] if exists or _has_index(holder, part) else None
    if not path or not isinstance(holder, dict) or path[-1] not in holder:
        return False
    text, last = overridden.get(path), path[-1]
    empty = text is not None or details["type"] in _NO_SECTION
    if holder[last] is None and empty and details["type"] != "extra_forbidden":
        del holder[last]
    elif text is not None and details["type"] == "string_type":
        holder[last] = text.strip()
    else:
        return False
    return True


def _as_written(path: Path, value: Mapping[str, Any]) -> Path:
    """A single reward may be written without a list."""
    alone = path[:2] == ("reward", 0) and isinstance(value.get("reward"), dict)
    return ("reward", *path[2:]) if alone else path


def _apply(value: dict[str, Any], override: str, overridden: dict[Path, str]) -> Problem | None:
    """Set one ``a.b=c`` in ``value``; the problem if that cannot be done."""
    where = f"--set {override}"
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        return Problem(where, "write --set key=value, for instance training.max_steps=10")
    parts = key.strip().split(".")
    path: Path = tuple(int(p) if p.isdecimal() and len(p) < 9 else p for p in parts)
    target: Any = value
    for part in path[:-1]:
        target = _inner(target, part)
    if not isinstance(target, dict) and not _has_index(target, path[-1]):
        return Problem(where, f"{key} is not a valid key: a part of it is not a section")
    try:
        target[path[-1]] = parse_scalar(text)
    except YAMLError:
        return Problem(where, f"{text!r} is not valid YAML")
    overridden[path] = text
    return None


def _inner(target: Any, part: str | int) -> Any:
    """The value at ``part``; creates a missing or empty section."""
    if isinstance(target, dict):
        if target.get(part) is None:
            target[part] = {}
        return target[part]
    return target[part] if _has_index(target, part) else None


def _has_index(target: Any, part: str | int) -> bool:
    return isinstance(target, list) and isinstance(part, int) and part < len(target)


def _problem(details: Any, file: YamlFile, overridden: Mapping[Path, str]) -> Problem:
    path = _without_tag(details["loc"])
    override = next((p for p in overridden if _related(p, path)), None)
    where = f"--set {dotted(override)}" if override is not None else file.where(path)
    message = _message(details, path)
    return Problem(where, f"{dotted(path)}: {message}" if path else message)


def _related(override: Path, path: Path) -> bool:
    """Whether an override set ``path``, a parent or a child of it."""
    shorter = min(len(override), len(path))
    return shorter > 0 and override[:shorter] == path[:shorter]


def _without_tag(loc: Path) -> Path:
    """pydantic inserts the type of a reward into the path after its index; remove it."""
    return (*loc[:2], *loc[3:]) if _reward_of(loc) else loc


def _reward_of(loc: Path) -> str | None:
    """The type of the reward that contains ``loc``; None outside of rewards."""
    tagged = len(loc) > 2 and loc[0] == "reward" and loc[2] in REWARDS
    return str(loc[2]) if tagged else None


def _message(details: Any, path: Path) -> str:
    kind, found = details["type"], details["input"]
    if kind == "extra_forbidden":
        reward = _reward_of(details["loc"])
        return _not_of(reward, path) if reward else f"no such key{_suggestion(path)}"
    if kind == "missing":
        return "this key is required"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        wanted = found.get("type") if isinstance(found, dict) else found
        return f"unknown reward {wanted!r}{_closest(str(wanted), list(REWARDS))}"
    if kind == "value_error":
        return str(details["ctx"]["error"])
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"found {found!r}; write a section of `key: value` lines here"
    return f"found {found!r}; {_wanted(details)}"


def _wanted(details: Any) -> str:
    """What to write instead, from pydantic's error."""
    kind, context = details["type"], details.get("ctx", {})
    if kind.startswith(("float", "finite")):
        return "write a number such as 5.0e-6"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        sign = {"greater_than": ">", "less_than": "<", "greater_than_equal": ">="}.get(kind, "<=")
        return f"write a number {sign} {next(iter(context.values()))}"
    if kind.startswith("int"):
        return "write an integer"
    if kind == "literal_error":
        return f"write {context['expected']}".replace("True", "true").replace("False", "false")
    if kind.startswith("bool"):
        return "write true or false"
    if kind.startswith("string"):
        return "write a string"
    if kind in ("tuple_type", "list_type"):
        return "write a list, for instance [a, b]"
    if kind == "too_short":
        return "write at least one entry"
    return str(details["msg"])


def _not_of(reward: str, path: Path) -> str:
    """The message for an unknown key of a reward, which may belong to another reward."""
    own = REWARDS[reward].model_fields
    keys = sorted({key for kind in REWARDS.values() for key in kind.model_fields})
    close = difflib.get_close_matches(str(path[-1]), keys, n=1)
    if close and close[0] not in own:
        theirs = ", ".join(n for n, kind in REWARDS.items() if close[0] in kind.model_fields)
        there = ", ".join(sorted(own))
        return f"{reward} has no such key ({close[0]!r} belongs to {theirs}); its keys: {there}"
    return f"no such key{_closest(str(path[-1]), list(own))}"


def _suggestion(path: Path) -> str:
    elsewhere = [key for key in _all_keys(RunConfig) if key.rpartition(".")[2] == path[-1]]
    if elsewhere and path[0] != "reward":
        return f"; did you mean {' or '.join(map(repr, elsewhere))}?"
    return _closest(str(path[-1]), _keys_beside(path))


def _all_keys(model: Any, prefix: str = "") -> Iterator[str]:
    """Every key outside of rewards, as ``section.key``."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield from _all_keys(section, f"{prefix}{name}.")
        else:
            yield prefix + name


def _closest(word: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed: {', '.join(sorted(candidates))}" if candidates else ""


def _keys_beside(path: Path) -> list[str]:
    """The valid keys next to an unknown key."""
    section: type[BaseModel] | None = RunConfig
    for part in path[:-1]:
        field = section.model_fields.get(str(part)) if section else None
        section = section_of(field.annotation) if field else None
    return sorted(section.model_fields) if section else []
