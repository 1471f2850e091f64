"""What ``package.module:name`` names: a user's reward function, found, described and blamed."""

import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

from remote_trainer.errors import RewardFunctionError

COMPLETIONS = ("prompts", "completions", "completion_ids")
FROM_TRAINER = ("trainer_state", "log_extra", "log_metric")
MOST_SAID = 300


@dataclass(frozen=True)
class NamedFunction:
    """A function, an object that can be called, or a class of such objects."""

    name: str
    target: Callable[..., Any]

    @property
    def place(self) -> str:
        """``file:line`` of its code; of its module where it has none in Python."""
        code = _code(self.target)
        if code is not None:
            return _shown(code.co_filename, code.co_firstlineno)
        module = sys.modules.get(self.name.partition(":")[0])
        return _shown(getattr(module, "__file__", None) or "built in", None)

    def call(self, given: dict[str, Any]) -> Any:
        """What it returns (an awaitable, if it is asynchronous) for what it takes of ``given``.

        Raises RewardFunctionError with the place in the user's file.
        """
        if lacking := [name for name in self.needs() if name not in given]:
            raise self.fault(f"asks for {', '.join(lacking)}, and no row has a key of that name")
        takes = self._takes()
        taken = given if takes is None else {k: v for k, v in given.items() if k in takes}
        try:
            return self._callable()(**taken)
        except Exception as error:
            raise self.raised(error) from error

    def needs(self) -> list[str]:
        """Parameters that must be given, beside what every call gives."""
        given = (*COMPLETIONS, *FROM_TRAINER)
        return [
            parameter.name
            for parameter in self._parameters() or ()
            if parameter.default is inspect.Parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in given
        ]

    def problem(self) -> str | None:
        """What shows without a call."""
        by_place = [p.name for p in self._parameters() or () if p.kind is p.POSITIONAL_ONLY]
        if by_place:
            return self.says(f"takes {', '.join(by_place)} by place alone; {_BY_NAME}")
        if inspect.isclass(self.target) and (wanted := _to_be_made(self.target)):
            return self.says(
                f"is a class that is made from {', '.join(wanted)}; name an object of it instead"
            )
        takes = self._takes()
        if takes is not None and takes.isdisjoint(COMPLETIONS):
            return self.says(
                f"takes none of {', '.join(COMPLETIONS)}; {_BY_NAME}. If it makes a reward "
                "function, name what it made"
            )
        return None

    def says(self, what: str, place: str | None = None) -> str:
        """A sentence about it, with the place."""
        return f"{self.name} {what} ({place or self.place})"

    def fault(self, what: str) -> RewardFunctionError:
        """An error that is the function's."""
        return RewardFunctionError(self.says(what))

    def raised(self, error: BaseException) -> RewardFunctionError:
        """What it raised, at the last line of its own file that took part."""
        code = _code(self.target)
        own = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if code is not None and frame.filename == code.co_filename
        ]
        place = _shown(own[-1].filename, own[-1].lineno) if own else None
        what = f"raised {type(error).__name__}: {one_line(str(error))}"
        return RewardFunctionError(self.says(what, place))

    def _callable(self) -> Callable[..., Any]:
        target: Any = self.target
        of_class = inspect.isclass(self.target)
        found: Callable[..., Any] = _made(target) if of_class else target
        return found

    def _takes(self) -> frozenset[str] | None:
        """Names of what it can be given; None where it takes whatever comes."""
        parameters = self._parameters()
        if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
            return None
        return frozenset(p.name for p in parameters)

    def _parameters(self) -> list[inspect.Parameter] | None:
        """None where Python cannot tell. A decorator counts as it is, not as what it wraps."""
        of_class = inspect.isclass(self.target)
        target: Any = self.target
        called = target.__call__ if of_class else target
        try:
            signature = inspect.signature(called, follow_wrapped=False)
        except (TypeError, ValueError):
            return None
        return list(signature.parameters.values())[1 if of_class else 0 :]


_BY_NAME = "a reward function is given prompts, completions and completion_ids by name"


def find_function(name: str) -> NamedFunction:
    """Import what ``package.module:name`` names; modules of the working directory count, too.

    Raises RewardFunctionError that says what stood in the way, and where.
    """
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        why = f"{name} cannot be found: {one_line(str(error))}{_import_place(error)}"
        raise RewardFunctionError(why) from error
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {one_line(str(error))}"
        why = f"{name} cannot be imported: {said}{_import_place(error)}"
        raise RewardFunctionError(why) from error
    if not callable(target):
        raise RewardFunctionError(f"{name} is a {type(target).__name__}, not callable")
    if inspect.isclass(target) and not any("__call__" in vars(kind) for kind in target.__mro__):
        raise RewardFunctionError(f"{name} is a class whose objects cannot be called")
    return NamedFunction(name, target)


def one_line(text: str) -> str:
    """A message without its line ends, shortened."""
    text = " ".join(text.split())
    return text if len(text) <= MOST_SAID else text[:MOST_SAID] + "..."


@functools.cache
def _made(kind: Any) -> Any:
    """The one object that a class stands for in this process."""
    return kind()


def _to_be_made(kind: type) -> list[str]:
    """What an object of the class cannot be made without."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    empty = inspect.Parameter.empty
    return [p.name for p in parameters if p.default is empty and p.kind not in variable]


def _code(target: Any) -> CodeType | None:
    """The Python code of what is called."""
    while isinstance(target, functools.partial):
        target = target.func
    target = inspect.unwrap(target)
    if not hasattr(target, "__code__"):
        target = (target if inspect.isclass(target) else type(target)).__call__
    code = getattr(target, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _import_place(error: BaseException) -> str:
    """`` (file:line)`` of the user's line that an import failed at; nothing where there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_shown(error.filename, error.lineno)})"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    return f" ({_shown(theirs[-1].filename, theirs[-1].lineno)})" if theirs else ""


def _shown(file: str, line: int | None) -> str:
    """``file:line``, the file as seen from the working directory where it lies below."""
    path, here = Path(file), Path.cwd()
    if path.is_absolute() and path.is_relative_to(here):
        path = path.relative_to(here)
    return str(path) if line is None else f"{path}:{line}"
