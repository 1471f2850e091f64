"""What workers and driver tell each other, the token file, and what a worker gets."""

import logging
import os
from pathlib import Path

import pytest

from remote_trainer.errors import (
    EXIT_INTERRUPTED,
    NonFiniteLossError,
    Problem,
    RunInterrupted,
    UserInputError,
)
from remote_trainer.remote.channel import Channel, WarningsToDriver, as_error, as_message, watch_of
from remote_trainer.remote.token import find_token, require_token
from remote_trainer.remote.workers import resources_of


def test_messages_come_once_and_in_order() -> None:
    channel = Channel()
    watch = watch_of(channel.tell, channel.stop_code)
    watch.stage("loading")
    watch.line({"step": 1}, 4)
    watch.progress(1, 2)
    assert watch.stop_code() is None
    expected = [
        ("stage", ("loading",)),
        ("line", ({"step": 1}, 4)),
        ("progress", (1, 2)),
        ("trains", ()),
    ]
    assert channel.take() == expected
    assert channel.take() == []
    channel.stop(EXIT_INTERRUPTED)
    assert watch.stop_code() == EXIT_INTERRUPTED


def test_a_later_attempt_knows_whether_the_folder_was_opened() -> None:
    channel = Channel()
    watch = watch_of(channel.tell, channel.stop_code)
    assert channel.begin() == (1, False)
    watch.stage("loading")
    assert channel.begin() == (2, False)
    watch.saved()
    assert channel.begin() == (3, True)


def test_warnings_reach_the_driver() -> None:
    told: list[tuple[object, ...]] = []
    logger = logging.Logger("apart")
    logger.addHandler(WarningsToDriver(lambda *values: told.append(values)))
    logger.info("nothing")
    logger.warning("%d rows", 3)
    assert told == [("warning", logging.WARNING, "3 rows")]


def test_errors_keep_their_problems_and_exit_codes() -> None:
    problems = [Problem("data.train", "is missing"), Problem("", "other")]
    error = as_error(as_message(UserInputError(problems)))
    assert isinstance(error, UserInputError)
    assert list(error.problems) == problems
    for original in (RunInterrupted("stopped", 143), NonFiniteLossError("a gradient")):
        error = as_error(as_message(original))
        assert (str(error), error.exit_code) == (str(original), original.exit_code)


def test_the_token_is_for_the_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "token"
    environment = {"RAY_AUTH_TOKEN_PATH": str(file)}
    assert find_token(environment) is None
    require_token(environment)
    token = find_token(environment)
    assert token is not None
    assert len(token) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    os.chmod(file, 0o644)  # as Ray writes it
    require_token(environment)
    assert file.stat().st_mode & 0o777 == 0o600
    assert find_token(environment) == token
    assert find_token({**environment, "RAY_AUTH_TOKEN": " given\n"}) == "given"


@pytest.mark.parametrize(
    ("nodes", "workers", "found"),
    [
        ([{"CPU": 8.0}], 2, {"CPU": 4}),
        ([{"CPU": 8.0}, {"CPU": 8.0}], 3, {"CPU": 4}),  # 5 would fit once a machine
        ([{"CPU": 2.0}], 2, {"CPU": 1}),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}], 2, {"CPU": 8, "GPU": 1}),
        ([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 3.0}], 4, {"CPU": 1, "GPU": 1}),
    ],
)
def test_a_worker_gets_what_fits(
    nodes: list[dict[str, float]], workers: int, found: dict[str, float]
) -> None:
    assert resources_of(nodes, workers) == found


def test_too_many_workers_are_refused() -> None:
    with pytest.raises(UserInputError, match=r"has 3 CPUs; write at most 3"):
        resources_of([{"CPU": 1.0}, {"CPU": 2.0}], 4)
    with pytest.raises(UserInputError, match=r"has 1 GPUs; write at most 1"):
        resources_of([{"CPU": 8.0, "GPU": 1.0}], 2)
