"""A user's reward function, named ``package.module:name``: import, checks, call, errors."""

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
MAX_MESSAGE_CHARACTERS = 300


@dataclass(frozen=True)
class NamedFunction:
    """A function, a callable object, or a class with callable instances."""

    name: str
    target: Callable[..., Any]

    @property
    def place(self) -> str:
        """``file:line`` of its Python code; without any, the file of its module."""
        code = _code(self.target)
        if code is not None:
            return _location(code.co_filename, code.co_firstlineno)
        module = sys.modules.get(self.name.partition(":")[0])
        return _location(getattr(module, "__file__", None) or "built in", None)

    def call(self, given: dict[str, Any]) -> Any:
        """Call it with those arguments of ``given`` that it takes. Coroutines are not awaited.

        Raises RewardFunctionError with the ``file:line`` of the user's code.
        """
        if missing := [name for name in self.needs() if name not in given]:
            raise self.fault(f"needs {', '.join(missing)}, but no row has a key of that name")
        takes = self._takes()
        arguments = given if takes is None else {k: v for k, v in given.items() if k in takes}
        try:
            return self._callable()(**arguments)
        except Exception as error:
            raise self.raised(error) from error

    def needs(self) -> list[str]:
        """Required parameters, apart from those that every call passes."""
        given = (*COMPLETIONS, *FROM_TRAINER)
        return [
            parameter.name
            for parameter in self._parameters() or ()
            if parameter.default is inspect.Parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in given
        ]

    def problem(self) -> str | None:
        """Why it cannot be used as a reward function, found without a call; None if it can."""
        unnamed = [p.name for p in self._parameters() or () if p.kind is p.POSITIONAL_ONLY]
        if unnamed:
            return self.says(f"has positional-only parameters: {', '.join(unnamed)}; {_BY_NAME}")
        if inspect.isclass(self.target) and (needed := _constructor_needs(self.target)):
            return self.says(
                f"is a class whose constructor needs {', '.join(needed)}; name an instance instead"
            )
        takes = self._takes()
        if takes is not None and takes.isdisjoint(COMPLETIONS):
            return self.says(
                f"takes none of {', '.join(COMPLETIONS)}; {_BY_NAME}. If it returns a reward "
                "function, name the returned function"
            )
        return None

    def says(self, what: str, place: str | None = None) -> str:
        """A message about the function, with its ``file:line``."""
        return f"{self.name} {what} ({place or self.place})"

    def fault(self, what: str) -> RewardFunctionError:
        """The error for a fault of the function."""
        return RewardFunctionError(self.says(what))

    def raised(self, error: BaseException) -> RewardFunctionError:
        """The error for what it raised, at the last line of the traceback in its own file."""
        code = _code(self.target)
        own = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if code is not None and frame.filename == code.co_filename
        ]
        place = _location(own[-1].filename, own[-1].lineno) if own else None
        what = f"raised {type(error).__name__}: {one_line(str(error))}"
        return RewardFunctionError(self.says(what, place))

    def _callable(self) -> Callable[..., Any]:
        target: Any = self.target
        is_class = inspect.isclass(self.target)
        found: Callable[..., Any] = _instance(target) if is_class else target
        return found

    def _takes(self) -> frozenset[str] | None:
        """Names of its parameters; None if it takes any keyword."""
        parameters = self._parameters()
        if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
            return None
        return frozenset(p.name for p in parameters)

    def _parameters(self) -> list[inspect.Parameter] | None:
        """None if Python cannot tell. A decorated function has the parameters of its wrapper."""
        is_class = inspect.isclass(self.target)
        target: Any = self.target
        called = target.__call__ if is_class else target
        try:
            signature = inspect.signature(called, follow_wrapped=False)
        except (TypeError, ValueError):
            return None
        return list(signature.parameters.values())[1 if is_class else 0 :]


_BY_NAME = "a reward function gets prompts, completions and completion_ids as keywords"


def find_function(name: str) -> NamedFunction:
    """Import ``package.module:name``, also from the working directory.

    Raises RewardFunctionError with the cause and its ``file:line``.
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
        cause = f"{type(error).__name__}: {one_line(str(error))}"
        why = f"{name} cannot be imported: {cause}{_import_place(error)}"
        raise RewardFunctionError(why) from error
    if not callable(target):
        raise RewardFunctionError(f"{name} is a {type(target).__name__}, not callable")
    if inspect.isclass(target) and not any("__call__" in vars(kind) for kind in target.__mro__):
        raise RewardFunctionError(f"{name} is a class whose instances are not callable")
    return NamedFunction(name, target)


def one_line(text: str) -> str:
    """``text`` on one line, shortened."""
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else text[:MAX_MESSAGE_CHARACTERS] + "..."


@functools.cache
def _instance(kind: Any) -> Any:
    """The only instance of a class in this process."""
    return kind()


def _constructor_needs(kind: type) -> list[str]:
    """Constructor parameters without a default."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    empty = inspect.Parameter.empty
    return [p.name for p in parameters if p.default is empty and p.kind not in variable]


def _code(target: Any) -> CodeType | None:
    """The Python code that a call runs; None if there is none."""
    while isinstance(target, functools.partial):
        target = target.func
    target = inspect.unwrap(target)
    if not hasattr(target, "__code__"):
        target = (target if inspect.isclass(target) else type(target)).__call__
    code = getattr(target, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _import_place(error: BaseException) -> str:
    """`` (file:line)`` of the user's line where an import failed; empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_location(error.filename, error.lineno)})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    return f" ({_location(own[-1].filename, own[-1].lineno)})" if own else ""


def _location(file: str, line: int | None) -> str:
    """``file:line``; the path is relative if it is inside the working directory."""
    path, here = Path(file), Path.cwd()
    if path.is_absolute() and path.is_relative_to(here):
        path = path.relative_to(here)
    return str(path) if line is None else f"{path}:{line}"
