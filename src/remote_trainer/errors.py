"""The errors of this program, each with its exit code."""

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_FAILED = 1
EXIT_USER_INPUT = 2
EXIT_GUARD = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


@dataclass(frozen=True)
class Problem:
    """One problem that the user can fix: location, what was found and what to write instead."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class RemoteTrainerError(Exception):
    """Base class of the errors of this program; the command ends with ``exit_code``."""

    exit_code = EXIT_FAILED


class UserInputError(RemoteTrainerError, ValueError):
    """Config, data or arguments are wrong. Holds every problem found, not only the first."""

    exit_code = EXIT_USER_INPUT

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    @classmethod
    def at(cls, where: str, message: str) -> "UserInputError":
        """An error with a single problem."""
        return cls([Problem(where, message)])


class NonFiniteRewardError(RemoteTrainerError):
    """A reward is NaN or infinite; training on it would silently ruin the weights."""


class RewardFunctionError(RemoteTrainerError):
    """A custom reward function was not found, raised an error, or returned no numbers."""


class NonFiniteLossError(RemoteTrainerError):
    """Loss or gradient is NaN or infinite; raised before the optimizer can use it."""


class EngineError(RemoteTrainerError):
    """An engine differs from the config, or returns an unexpected result."""


class DownloadError(RemoteTrainerError):
    """A package or model could not be downloaded, or is not the expected one."""


class ExportError(RemoteTrainerError):
    """A model could not be written in a format; the message gives the reason."""


class OutOfMemoryError(RemoteTrainerError):
    """Memory does not suffice, even for the fewest tokens at once."""

    @classmethod
    def with_advice(cls, phase: str, why: str) -> "OutOfMemoryError":
        """``phase`` is what was done, ``why`` the allocator's text."""
        return cls(
            f"out of memory in: {phase} ({why[:200]}). Three settings help: a lower "
            "training.max_completion_length, a lower training.num_generations, and "
            "training.gradient_checkpointing: true. Change them and run the same command with "
            "--allow-changed; it goes on from the last checkpoint"
        )


GOES_ON = (
    "{} and run the same command again: everything up to the last checkpoint is kept, and it goes "
    "on from there"
)


class StorageError(RemoteTrainerError):
    """A disk is full, read-only or gone."""

    @classmethod
    def full(cls, path: str, free: int, needed: int | None = None) -> "StorageError":
        """``needed`` bytes, if known, do not fit where ``free`` ones are free."""
        missing = "" if needed is None else f", {max(0, needed - free)} bytes are missing"
        does = GOES_ON.format("Free space")
        return cls(f"{path}: the disk is full: {free} bytes are free{missing}. {does}")


class RunInterrupted(RemoteTrainerError):
    """The run was stopped by a signal after writing a checkpoint."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
