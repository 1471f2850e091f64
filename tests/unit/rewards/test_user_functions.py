"""Reward functions of the user's own: called as TRL calls them, and blamed by file and line."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_text_rewards import sample, values
from test_trainer import load, rows_for

from remote_trainer.config import parse_config
from remote_trainer.errors import RewardFunctionError, UserInputError
from remote_trainer.pipeline.check import column_problems, reward_problems
from remote_trainer.pipeline.score import score_file
from remote_trainer.records import EncodedRow, Row
from remote_trainer.rewards import RewardFunction, create_reward_function
from remote_trainer.rewards.function_log import FunctionLog
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer.loop import train

Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write own_rewards.py into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def _write(code: str) -> None:
        (tmp_path / "own_rewards.py").write_text(code)

    yield _write
    sys.modules.pop("own_rewards", None)


def said(*texts: str, **options: Any) -> list[float | None]:
    return values([sample(text) for text in texts], function="own_rewards:f", **options)


@pytest.mark.parametrize(
    "code",
    [
        "async def f(completions, **_):\n    return [len(c) for c in completions]",
        "import asyncio\nasync def f(completions, **_):\n"
        "    await asyncio.sleep(0.01)\n    return [len(c) for c in completions]",
        "def f(completions): return [len(c) for c in completions]",
        "def f(completions, **_):\n    for c in completions: yield len(c)",
        "import torch\ndef f(completions, **_):\n"
        "    return torch.tensor([len(c) for c in completions])",
        "import torch\ndef f(completions, **_): return [torch.tensor(len(c)) for c in completions]",
        "import torch\ndef f(completions, **_):\n"
        "    return torch.tensor([[len(c)] for c in completions])",
        "import torch\ndef f(completions, **_):\n"
        "    return torch.tensor([float(len(c)) for c in completions], requires_grad=True)",
        "import numpy as np\ndef f(completions, **_):\n"
        "    return np.array([len(c) for c in completions])",
        "import numpy as np\n"
        "def f(completions, **_): return [np.float32(len(c)) for c in completions]",
        "from fractions import Fraction\n"
        "def f(completions, **_): return tuple(Fraction(len(c)) for c in completions)",
        "class f:\n    def __call__(self, completions, **_): return [len(c) for c in completions]",
        "class Judge:\n    def __init__(self, n): self.n = n\n"
        "    async def __call__(self, completions, **_):\n"
        "        return [len(c) * self.n for c in completions]\nf = Judge(1)",
        "from functools import partial\ndef times(n, completions, **_):\n"
        "    return [n * len(c) for c in completions]\nf = partial(times, 1)",
        "from functools import partial, wraps\n"
        "def times(completions, n, **_): return [n * len(c) for c in completions]\n"
        "@wraps(times)\ndef f(*args, **more): return times(*args, n=1, **more)",
        "f = lambda completions, **_: [len(c) for c in completions]",
    ],
)
def test_every_form_of_function_and_of_list(write: Write, code: str) -> None:
    write(code)
    assert said("a", "bcd") == [1.0, 3.0]


def test_none_is_no_judgement_and_yes_is_one(write: Write) -> None:
    write("import numpy as np\ndef f(completions, **_): return [None, True, np.bool_(False)]")
    assert said("a", "b", "c") == [None, 1.0, 0.0]


def test_asynchronous_functions_run_together(write: Write, llama: Any) -> None:
    """Each waits for the other; one after the other they would wait for ever."""
    write(
        "import asyncio\n"
        "met = {}\n"
        "async def meet(mine, other, completions):\n"
        "    met.setdefault(mine, asyncio.Event()).set()\n"
        "    await asyncio.wait_for(met.setdefault(other, asyncio.Event()).wait(), 20)\n"
        "    return [float(len(c)) for c in completions]\n"
        "async def f(completions, **_): return await meet('f', 'g', completions)\n"
        "async def g(completions, **_): return await meet('g', 'f', completions)\n"
    )
    config = parse_config("reward: [{function: 'own_rewards:f'}, {function: 'own_rewards:g'}]", "c")
    reward = RewardFunction(llama, config.reward)
    samples = reward.samples([Row("Q", {}, "")], ["abc"])

    async def notebook() -> Any:
        return reward.judge(samples)

    assert [j.reward for j in asyncio.run(notebook())] == [6.0]


def test_a_client_keeps_its_loop_between_calls(write: Write) -> None:
    write(
        "import asyncio\nloops = set()\n"
        "async def f(completions, **_):\n"
        "    loops.add(asyncio.get_running_loop())\n"
        "    return [len(loops) for _ in completions]\n"
    )
    assert [said("a"), said("b")] == [[1.0], [1.0]]


def test_what_is_handed_over(write: Write, llama: Any) -> None:
    write(
        "seen = []\n"
        "def f(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, **kw):\n"
        "    seen.append((trainer_state, kw))\n"
        "    prompts[0].append('changed')\n"
        "    kw['tags'][0].clear()\n"
        "    return [trainer_state.global_step / trainer_state.max_steps] * len(prompts)\n"
    )
    config = parse_config("reward: {function: 'own_rewards:f'}", "c")
    reward = RewardFunction(llama, config.reward, updates=7)
    chat = [{"role": "user", "content": "Hi"}]
    row = {"tags": [1, 2], "prompt": "a column", "prompts": "another", "answer": "x"}
    [judged] = reward.judge(reward.samples([Row(chat, row, "")], ["text"]))
    import own_rewards  # type: ignore[import-not-found]

    state, columns = own_rewards.seen[0]
    assert (state.global_step, state.max_steps, state.epoch) == (0, 7, 0.0)
    assert columns == {"tags": [[]], "answer": ["x"]}
    assert judged.reward == 0.0
    assert (chat, row["tags"]) == ([{"role": "user", "content": "Hi"}], [1, 2])


LOGS = (
    "import torch\n"
    "def f(completions, trainer_state, log_extra, log_metric, **_):\n"
    "    if not isinstance(completions[0], str):\n"
    "        completions = [c[0]['content'] for c in completions]\n"
    "    log_metric('mean_length', torch.tensor(float(sum(map(len, completions)))))\n"
    "    log_metric(name='kl', value=trainer_state.global_step)\n"
    "    for c in completions: log_extra(column='length', values=[torch.tensor(len(c))])\n"
    "    return [trainer_state.global_step + len(c) for c in completions]\n"
)


def test_logs_by_hand(write: Write, llama: Any) -> None:
    write(LOGS)
    config = parse_config("reward: [{function: 'own_rewards:f'}, {function: 'own_rewards:f'}]", "c")
    log = FunctionLog()
    reward = RewardFunction(llama, config.reward)
    reward.judge(reward.samples([Row("Q", {}, "")] * 2, ["a", "bcd"]), log=log)
    assert log.means() == {"mean_length": 4.0, "kl": 0.0}
    assert log.rows(2) == [
        {"length": 1, "own_rewards:f/length": 1},
        {"length": 3, "own_rewards:f/length": 3},
    ]
    odd = FunctionLog()
    odd.log_metric("x", float("nan"))
    odd.log_extra("column", [float("inf"), {"a": (1, b"x")}])
    assert odd.means() == {"x": None}
    assert odd.rows(2) == [{"column": None}, {"column": {"a": [1, "b'x'"]}}]


def test_stock_trl_gets_the_logs(write: Write, llama: Any) -> None:
    write(LOGS)
    reward = create_reward_function(
        llama.model, llama.prompt_tokenizer.tokenizer, function="own_rewards:f"
    )
    told: list[Any] = []

    class State:
        global_step = 5

    found = reward(
        prompts=["Q", "Q"], completions=["a", "bcd"], trainer_state=State(),
        log_metric=lambda name, value: told.append((name, value)),
        log_extra=lambda column, values: told.append((column, [int(v) for v in values])),
    )  # fmt: skip
    assert found == [6.0, 8.0]
    assert told == [("mean_length", 4.0), ("kl", 5.0), ("length", [1, 3])]


def test_training_hands_over_its_state_and_keeps_the_logs(
    write: Write, llama_folder: Path, tmp_path: Path
) -> None:
    write(LOGS)
    settings = {
        "num_generations": 4, "gradient_accumulation_steps": 2, "max_prompt_length": 40,
        "max_completion_length": 6, "max_steps": 2, "group_filter": {"min_std": 0},
    }  # fmt: skip
    text = {"data": {"train": "-"}, "reward": {"function": "own_rewards:f"}, "training": settings}
    config = parse_config(json.dumps({**text, "guard": {"action": "off"}}), "c")
    backend = load(llama_folder)
    folder = RunDir(tmp_path / "run")
    train(backend, RewardFunction(backend, config.reward, 6), rows_for(backend), config, folder)
    lines = read_jsonl(folder.metrics)
    assert lines[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    for line in lines:
        rows = read_jsonl(folder.completions_file(line["step"]))
        lengths = [row["logged"]["length"] for row in rows]
        assert len(lengths) == 8
        step = line["step"] - 1  # updates done, as the trainer counts
        assert [row["reward"] for row in rows] == [step + length for length in lengths]
        assert line["logged"] == {"mean_length": sum(lengths), "kl": step}


def test_score_writes_what_was_logged(write: Write, llama_folder: Path, tmp_path: Path) -> None:
    write("def f(completions, length, log_extra, **_):\n"
          "    log_extra('seen', [c[0]['content'] for c in completions])\n"
          "    return [n if n else None for n in length]\n")  # fmt: skip
    lines = [{"prompt": "Q", "completion": text, "length": len(text)} for text in ("", "ab")]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = json.dumps(
        {"model": {"name": str(llama_folder)}, "reward": {"function": "own_rewards:f"}}
    )
    assert score_file(parse_config(text, "c"), tmp_path / "in.jsonl", tmp_path / "out.jsonl") == 2
    written = read_jsonl(tmp_path / "out.jsonl")
    assert [(row["reward"], row["logged"]) for row in written] == [
        (None, {"seen": ""}),
        (2.0, {"seen": "ab"}),
    ]


FIRST = "import json\n\n"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(**_): return 1.0", r"returned 1\.0, which is not a list; return a list .*:3\)"),
        ("def f(**_): pass", r"returned None, which is not a list; .* \(own_rewards\.py:3\)"),
        ("def f(**_): return 'ab'", r"returned 'ab', which is not a list"),
        ("def f(**_): return {'a': 1, 'b': 2}", r"returned \{'a': 1, 'b': 2\}, which is not a l"),
        ("import torch\ndef f(**_): return torch.tensor(1.0)", r"returned tensor\(1\.\), .*py:4\)"),
        ("async def f(**_): return 1.0", r"returned 1\.0, which is not a list"),
        ("async def f(**_): yield 1.0", r"returned <async_genera.*, which is not a list"),
        ("def f(**_): return [1.0]", r"returned 1 value for 2 completions; .*own_rewards\.py:3\)"),
        ("def f(**_): return ['1', 2]", r"returned '1' in its list; .* \(own_rewards\.py:3\)"),
        ("def f(**_): return [1j, 2]", r"returned 1j in its list"),
        ("import torch\ndef f(**_): return torch.ones(2, 2)", r"returned tensor\(.* in its list"),
        ("def f(**_): return [float('nan'), 1]", r"returned nan for 'a'; return None if it"),
        ("def f(**_): return [1, float('-inf')]", r"returned -inf for 'b'; .* \(own_rewards"),
        ("def f(**_):\n    x = 1\n    return json.loads('{')", r"raised JSONDecodeError: .*:5\)"),
        ("async def f(**_):\n    return [1 / 0]", r"raised ZeroDivisionError: .*\.py:4\)"),
        ("def f(**_):\n    yield 1\n    yield 1 / 0", r"raised ZeroDivisionError: .*\.py:5\)"),
        ("def f(**_): raise ValueError('two\\n\\nlines')", r"raised ValueError: two lines \("),
        (
            "def f(completions, log_extra, **_):\n    log_extra('a', [1])\n    return [1, 2]",
            r"passed 1 values of 'a' to log_extra for 2 completions; pass one for each \(own_rew",
        ),
        (
            "def f(log_metric, **_):\n    log_metric('a', 'b')\n    return [1, 2]",
            r"raised TypeError: 'b' is not a number \(own_rewards\.py:4\)",
        ),
        ("def f(completions, gold): return [1, 2]", r"needs gold, but no row has a key of that"),
        ("class f:\n    def __call__(self, **_): return 1", r"returned 1, .*own_rewards\.py:4\)"),
        ("class f:\n    def __init__(self): 1 / 0\n    def __call__(self, **_): pass",
         r"raised ZeroDivisionError: .*own_rewards\.py:4\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_as_the_users_in_one_line(
    write: Write, code: str, message: str
) -> None:
    write(FIRST + code)
    with pytest.raises(RewardFunctionError, match=r"^own_rewards:f " + message) as caught:
        said("a", "b")
    assert "\n" not in str(caught.value)
    assert "function_call.py" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(completions, /): pass", r"has positional-only parameters: completions; .*py:1\)"),
        ("def f(n=3): return lambda **_: 1", r"takes none of prompts, completions.* If it ret"),
        ("def f(): pass", r"takes none of prompts, completions"),
        ("class f:\n    def __init__(self, a, b=1): pass\n    def __call__(self, **_): pass",
         r"is a class whose constructor needs a; name an instance instead \(own_rewards\.py:3\)"),
        ("class f: pass", r"is a class whose instances are not callable"),
        ("f = 3", r"is a int, not callable"),
        ("import nowhere_at_all", r"cannot be found: No module named .* \(own_rewards\.py:1\)"),
        ("x = 1\nx = 1 / 0", r"cannot be imported: ZeroDivisionError: .* \(own_rewards\.py:2\)"),
        ("x = 1\ndef f(:", r"cannot be imported: SyntaxError: .* \(own_rewards\.py:2\)"),
        ("import sys\nsys.exit('no')", r"cannot be imported: SystemExit: no \(own_rewards\.py:2\)"),
    ],
)  # fmt: skip
def test_check_finds_what_shows_without_a_call(write: Write, code: str, message: str) -> None:
    write(code)
    config = parse_config("reward: {function: 'own_rewards:f'}", "c")
    [problem] = reward_problems(config)
    assert problem.where == "reward.0"
    with pytest.raises(UserInputError, match=r"reward\.0: own_rewards:f " + message):
        raise UserInputError([problem])


def test_check_finds_a_column_that_no_row_has(write: Write) -> None:
    write("def f(completions, answer, gold, hint=None): return answer")
    config = parse_config("reward: [{type: inverse_loss}, {function: 'own_rewards:f'}]", "c")
    rows = [Row("Q", {"answer": "a"}, "t:1"), Row("Q", {"answer": "a"}, "t:2")]
    assert reward_problems(config) == []
    [problem] = column_problems(config, rows)
    assert str(problem) == (
        "reward.1: own_rewards:f needs the key 'gold', but no row has it (own_rewards.py:1)"
    )
    assert column_problems(config, rows, [Row("Q", {"gold": 1}, "e:1")]) == []


def test_functions_that_trl_ships(write: Write, llama: Any) -> None:
    write(
        "from trl.rewards import get_repetition_penalty_reward, get_soft_overlong_punishment\n"
        "repetition = get_repetition_penalty_reward(ngram_size=2)\n"
        "overlong = get_soft_overlong_punishment(max_completion_len=4, soft_punish_cache=2)\n"
    )
    names = ["trl.rewards:think_format_reward", "own_rewards:repetition", "own_rewards:overlong"]
    config = parse_config(json.dumps({"reward": [{"function": name} for name in names]}), "c")
    assert reward_problems(config) == []
    reward = RewardFunction(llama, config.reward)
    chat = [{"role": "user", "content": "Hi"}]
    row = EncodedRow(Row(chat, {}, ""), (1, 20), "Hi")
    drawn = [reward.sample(row, ids) for ids in ((5, 6, 7), (5, 5, 5, 5, 5))]
    texts = ["<think>\nso\n</think>\nyes", "no"]
    given = reward.samples([Row(chat, {}, "")] * 2, texts)
    assert [j.rewards["function"] for j in reward.judge(given)] == [1.0, 0.0]
    judged = reward.judge(drawn)
    # bigrams: 2 of 2 differ, 1 of 4; 3 tokens are one over 2 of 2, 5 are beyond 4
    assert [j.rewards["function_2"] for j in judged] == [0.0, pytest.approx(-3 / 4)]
    assert [j.rewards["function_3"] for j in judged] == [pytest.approx(-1 / 2), -1.0]
    [problem] = reward_problems(
        parse_config("reward: {function: 'trl.rewards:get_soft_overlong_punishment'}", "c")
    )
    assert "takes none of prompts, completions, completion_ids" in problem.message
