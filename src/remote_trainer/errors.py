"""How we say no: one family of errors, each with the exit code a shell sees."""

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_FAILED = 1
EXIT_USER_INPUT = 2
EXIT_GUARD = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


@dataclass(frozen=True)
class Problem:
    """One thing the user can mend: where it stands, what was found and what to write instead."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class RemoteTrainerError(Exception):
    """Base of every error this program raises on purpose; ends the command with ``exit_code``."""

    exit_code = EXIT_FAILED


class UserInputError(RemoteTrainerError, ValueError):
    """Config, data or arguments are wrong. Holds every problem found, not only the first."""

    exit_code = EXIT_USER_INPUT

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def at(cls, where: str, message: str) -> "UserInputError":
        """The common case of a single problem."""
        return cls([Problem(where, message)])


class NonFiniteRewardError(RemoteTrainerError):
    """A reward is NaN or infinite; training on it would ruin the weights without a sign."""


class RewardFunctionError(RemoteTrainerError):
    """A reward function of the user's own cannot be found, raised, or returned no numbers."""


class NonFiniteLossError(RemoteTrainerError):
    """Loss or gradient is NaN or infinite; raised before the optimizer can use it."""


class EngineError(RemoteTrainerError):
    """An engine is not what the config asked for, or answers with something else than asked."""


class DownloadError(RemoteTrainerError):
    """A package or model could not be fetched, or what arrived is not what was expected."""


class ExportError(RemoteTrainerError):
    """A model could not be written in a format; the message tells what stood in the way."""


class RunInterrupted(RemoteTrainerError):
    """The run was asked to stop by a signal, and did so after writing a checkpoint."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
