"""The offline report: what it shows of hand-made run folders, and what it must never do."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from remote_trainer.errors import UserInputError
from remote_trainer.metrics import SHARE, Metric, in_rows
from remote_trainer.report import has_report, write_report, write_unfinished_report
from remote_trainer.report.answers import answer_table
from remote_trainer.report.guard_signals import alarm_nearness
from remote_trainer.report.intervals import interval_scales
from remote_trainer.report.numbers import change, difference, number
from remote_trainer.report.run_view import latest_updates
from remote_trainer.report.samples import newest_step, sample_table, spaced
from remote_trainer.report.tables import start_and_end
from remote_trainer.report.texts import shown
from remote_trainer.run_dir import RunDir, read_jsonl

VERDICT = "Better: on 40 held-out rows the share of right sampled answers rose by 20 points."
ARROW = "\N{RIGHTWARDS ARROW}"
DASH = "\N{EN DASH}"
ENGINE = {
    "fast_path": "off in part, because ordered weights: they need more memory",
    "ways": {"packed rows, scoring": "on"},
}
LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}


class Page(HTMLParser):
    """The parts of a page that tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self._hidden = False
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        loads = [value or "" for name, value in attrs if name in LOADING]
        self.loads += [each for each in loads if not each.startswith(("#", "data:,"))]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self._hidden = tag in ("script", "style")
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th") and self.cells:
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        if tag == "tr":
            self.cells.append([])

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        self.text += data
        if self.cells and self.cells[-1]:
            self.cells[-1][-1] += data.strip()

    def charts(self) -> list[list[dict[str, Any]]]:
        """The data of the charts, one list for each place where some stand."""
        found = re.findall(r'<script type="application/json">(.*?)</script>', self.html)
        return [json.loads(each) for each in found]

    def rows(self, title: str) -> list[list[str]]:
        """Cells of every table row whose title begins with ``title``."""
        return [row[1:] for row in self.cells if row and row[0].startswith(title)]


def measured(greedy: float | None, sampled: float, logprob: float) -> dict[str, Any]:
    return {
        "rows": 40,
        "accuracy_greedy": greedy,
        "accuracy_sampled": sampled,
        "exact_match": None,
        "answer_logprob": logprob,
        "reward": 0.0625,
        "completion_tokens_mean": 12.3456,
        "distinct_3": None,
        "ci95": {"accuracy_sampled": [sampled - 0.1, sampled + 0.1], "reward": None},
        "by_kind": {"capital": {"rows": 8, "accuracy_greedy": 0.5, "accuracy_sampled": sampled}},
    }


def evaluation() -> dict[str, Any]:
    return {
        "before": measured(0.25, 0.3, -2.34567),
        "after": measured(0.375, 0.5, -1.5),
        "rows": 40,
        "verdict": {
            "word": "better",
            "metric": "accuracy_sampled",
            "change": 0.2,
            "ci95": [0.05, 0.351],
            "text": VERDICT,
        },
    }


def update(step: int, **values: Any) -> dict[str, Any]:
    return {**dict.fromkeys(metric.key for metric in in_rows()), "step": step, **values}


def completion(text: str, reward: float | None, **values: Any) -> dict[str, Any]:
    base = {"step": 12, "prompt": "What?", "answer": None, "rewards": {"a": reward}}
    return {**base, "completion": text, "reward": reward, "tokens": 3, "ended": True, **values}


def bare_run(root: Path) -> RunDir:
    root.mkdir(parents=True)
    folder = RunDir(root)
    folder.resolved_config.write_text("model: tiny # <b>as written</b>\n")
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def full_run(root: Path) -> RunDir:
    folder = bare_run(root)
    folder.environment.write_text(json.dumps({"torch": "2.9.1", "device": "cpu", "engine": ENGINE}))
    train = {
        "file": "train.jsonl",
        "sha256": "0123456789abcdef",
        "rows_read": 1203,
        "rows_kept": 1200,
        "rows_left_out": {"no reference answer": 3},
        "left_out": {"no reference answer": ["train.jsonl:4", "train.jsonl:9", "train.jsonl:11"]},
        "prompt_tokens": {"min": 5, "median": 21, "max": 88},
    }
    held_out = {**train, "rows_left_out": {}, "left_out": {}, "held_out_of_train": True}
    folder.data_report.write_text(json.dumps({"train": train, "eval": held_out}))
    seconds = {"seconds_generate": 4.0, "seconds_score": 1.0, "seconds_update": 2.0}
    write_lines(
        folder.metrics,
        [
            update(1, reward=0.125, clipped_share=0.5, rewards={"near": 0.75}, **seconds),
            update(2, reward=0.777, rewards={"near": 0.5}),
            update(2, reward=0.25, clipped_share=0.25, rewards={"near": 0.5}, seconds_step=7.5),
            update(
                3, reward=0.375, kl=0.01234, rewards={"near": 1.25}, **seconds, seconds_step=9.0
            ),
        ],
    )
    write_lines(folder.completions_file(12), [completion("Paris", 0.5), completion("Rome", None)])
    folder.eval.write_text(json.dumps(evaluation()))
    folder.adapter.mkdir()
    return folder


def report(*folders: RunDir) -> Page:
    output = folders[0].root.parent / "report.html"
    assert write_report(folders, output) == output
    return Page(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return report(full_run(tmp_path_factory.mktemp("runs") / "alpha"))


def test_the_verdict_comes_first_and_as_given(full: Page) -> None:
    assert full.text.count(VERDICT) == 1
    assert full.text.index(VERDICT) < full.text.index("Evaluation before and after")
    assert '<div class="verdict better">' in full.html


def test_before_after_and_change_stand_with_their_intervals(full: Page) -> None:
    assert full.rows("Accuracy, greedy") == [["25 %", "37.5 %", "+12.5 points"]]
    assert full.rows("Accuracy, sampled") == [
        ["30 % (20 % to 40 %)", "50 % (40 % to 60 %)", "+20 points (+5 to +35.1)"]
    ]
    assert full.rows("Log-probability of the reference") == [["-2.35", "-1.5", "+0.846"]]
    assert full.rows("Exact match") == []
    assert full.rows("capital") == [["8", "50 %", "50 %", "0 points", "30 %", "50 %", "+20 points"]]


def test_training_numbers_with_the_last_line_of_a_step(full: Page) -> None:
    assert "Updates logged: 3; the last is update 3." in full.text
    (charts,) = full.charts()
    assert charts[0]["lines"] == [{"name": "Reward", "x": [1, 2, 3], "y": [0.125, 0.25, 0.375]}]
    assert charts[0]["summary"] == "Reward: 0.125 at update 1, 0.375 at update 3"
    assert "0.777" not in full.html
    assert ["0.125", "0.375"] in full.rows("Reward")
    assert full.rows("Reward: near") == [["0.75", "1.25"]]
    assert full.rows("Truncated completions") == [["50 %", DASH]]


def test_curves_without_any_value_are_left_out(full: Page) -> None:
    (charts,) = full.charts()
    drawn = [(each["key"], each["title"], each["unit"], each["share"]) for each in charts]
    assert drawn == [
        ("reward", "Reward", "", False),
        ("distribution", "Distribution of the reward", "", False),
        ("kl", "KL to the reference model", "nats per token", False),
        ("clipped_share", "Truncated completions", "", True),
        ("seconds", "Time per update", "seconds", False),
    ]
    other = charts[-1]["lines"][-1]
    assert (other["name"], other["y"]) == ("other", [None, 7.5, 2.0])


def test_the_distribution_of_the_reward_has_its_quantiles(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "alpha")
    write_lines(folder.metrics, [update(1), update(2)])
    tens = [completion("x", float(reward), step=1) for reward in range(101)]
    write_lines(folder.completions_file(1), [*tens, completion("x", None, step=1)])
    write_lines(folder.completions_file(2), [completion("x", 0.5, step=2)])
    write_lines(folder.completions_file(3), [completion("x", None, step=3)])
    ((chart,),) = report(folder).charts()
    assert [(line["name"], line["x"], line["y"]) for line in chart["lines"]] == [
        ("lowest", [1, 2], [0, 0.5]),
        ("10 %", [1, 2], [10, 0.5]),
        ("25 %", [1, 2], [25, 0.5]),
        ("median", [1, 2], [50, 0.5]),
        ("75 %", [1, 2], [75, 0.5]),
        ("90 %", [1, 2], [90, 0.5]),
        ("highest", [1, 2], [100, 0.5]),
    ]


def test_many_updates_are_averaged(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "alpha")
    steps = range(1, 1001)
    write_lines(folder.metrics, [update(i, reward=None if i == 2 else i / 3) for i in steps])
    ((chart,),) = report(folder).charts()
    assert len(chart["lines"][0]["x"]) == 500
    assert chart["lines"][0]["x"][:2] == [2, 4]
    assert chart["lines"][0]["y"][:2] == [0.333333, 1.16667]
    assert chart["note"].endswith("; each point is the mean of 2 updates")


def test_data_environment_config_and_adapter(full: Page) -> None:
    assert full.rows("Rows read") == [["1,203", "1,203"]]
    assert full.rows("Rows dropped") == [
        ["no reference answer: 3 (train.jsonl:4, train.jsonl:9, train.jsonl:11)", "none"]
    ]
    assert full.rows("Prompt tokens") == [["5 / 21 / 88", "5 / 21 / 88"]]
    assert full.rows("Held out from the training file") == [[DASH, "yes"]]
    assert full.rows("SHA-256") == [["0123456789ab", "0123456789ab"]]
    assert full.rows("torch") == [["2.9.1"]]
    assert full.rows("engine: fast_path") == [[ENGINE["fast_path"]]]
    assert full.rows("engine: ways: packed rows, scoring") == [["on"]]
    assert "model: tiny # <b>as written</b>" in full.text
    assert 'PeftModel.from_pretrained(base, "adapter")' in full.text


def test_the_page_loads_nothing_and_holds_plotly_once(full: Page) -> None:
    assert full.loads == []
    assert full.html.count(get_plotlyjs()) == 1
    rest = full.html.replace(get_plotlyjs(), "")
    assert re.findall(r"https?://|url\(|@import", rest) == []
    assert "default-src 'none'" in rest
    assert 'name="viewport"' in rest


def test_missing_files_are_stated(tmp_path: Path) -> None:
    page = report(bare_run(tmp_path / "new"))
    for statement in (
        "Not evaluated: there is no eval.json in this folder",
        "No updates logged yet.",
        "No completions saved yet.",
        "No adapter: the run is not finished",
        "No data report.",
        "Versions and device were not recorded.",
    ):
        assert statement in page.text
    assert get_plotlyjs() not in page.html


def test_a_killed_run_shows_what_it_has(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "killed")
    line = json.dumps(update(1, reward=0.5))
    folder.metrics.write_text(f'{line}\n{{"step": 2, "rew')
    (folder.checkpoint(1)).mkdir(parents=True)
    (folder.checkpoint(1) / "manifest.json").write_text("{}")
    folder.completions.mkdir()
    folder.completions_file(2).write_text('{"step": 2, "pro')
    page = report(folder)
    assert "Updates logged: 1; the last is update 1." in page.text
    assert "its last checkpoint is step-000001." in page.text
    assert "No completions saved yet." in page.text


@pytest.mark.parametrize(
    ("absent", "statement"),
    [
        (["before"], "40 held-out rows. Not evaluated before training."),
        (["after"], "40 held-out rows. Not evaluated after training."),
        (["before", "after"], "40 held-out rows. Not evaluated before or after training."),
    ],
)
def test_half_an_evaluation_is_stated(tmp_path: Path, absent: list[str], statement: str) -> None:
    folder = bare_run(tmp_path / "half")
    unmeasured = {"word": "not measured", "metric": None, "change": None, "ci95": None}
    verdict = {**unmeasured, "text": "Not measured."}
    values = {**evaluation(), "verdict": verdict, **dict.fromkeys(absent)}
    folder.eval.write_text(json.dumps(values))
    page = report(folder)
    assert statement in page.text
    expected = ["25 %", "37.5 %"]
    for place, when in enumerate(("before", "after")):
        expected[place] = DASH if when in absent else expected[place]
    assert page.rows("Accuracy, greedy") == ([] if len(absent) == 2 else [[*expected, DASH]])


def test_text_of_models_and_data_stays_text(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "attacked")
    evil = "</div><script>alert('x')</script><img src=https://example.org/x.png>"
    rows = [
        completion(evil, 0.5, answer=evil, rewards={evil: 1.0, "b": None}),
        completion("", 0.25, prompt=[{"role": evil, "content": evil}], ended=False),
        completion("plain", 0.0, prompt=evil),
    ]
    write_lines(folder.completions_file(12), rows)
    write_lines(folder.metrics, [update(1, reward=0.5, rewards={evil: 0.5})])
    values = evaluation()
    values["verdict"] |= {"word": evil, "text": evil}
    values["before"]["by_kind"] = {evil: {"rows": 1}}
    folder.eval.write_text(json.dumps(values))
    folder.environment.write_text(json.dumps({evil: evil}))
    folder.resolved_config.write_text(evil)
    page = report(folder)
    assert evil not in page.html
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page.html
    assert page.text.count(evil) == 12
    assert page.loads == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 1 + 1 + 1  # data of the charts, plotly, our own


def guard(**values: Any) -> dict[str, Any]:
    return {"action": "stop", "stopped": False, "text": None, "findings": [], **values}


def test_the_guard_tells_what_it_stopped_and_when_it_warned(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "stopped")
    found = [
        {"step": 8, "alarm": "kl", "severity": "warn"},
        {"step": 9, "alarm": "kl", "severity": "warn"},
        {"step": 10, "alarm": "kl", "severity": "stop"},
        {"step": 10, "alarm": "loop_share", "severity": "warn"},
    ]
    text = "Stopped after update 10: it went too far."
    folder.guard.write_text(json.dumps(guard(stopped=True, text=text, findings=found)))
    page = report(folder)
    assert page.text.count(text) == 2  # beside the verdict, and in its own section
    assert page.rows("kl") == [["8 to 9", "10"]]
    assert page.rows("loop_share") == [["10", DASH]]


def test_a_quiet_guard_says_so(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "quiet")
    folder.guard.write_text(json.dumps(guard()))
    assert "No alarm was raised." in report(folder).text
    folder.guard.write_text(json.dumps(guard(action="off")))
    assert "alarm" not in report(folder).text


def test_what_was_so_before_training_stands_apart_from_alarms(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "so")
    before = ["before training 83% of the probe's rows got the same answer."]
    folder.guard.write_text(json.dumps(guard(before_training=before)))
    text = report(folder).text
    assert "No alarm was raised." in text
    assert text.count(f"Not caused by training: {before[0]}") == 1


def test_what_a_function_logged_has_a_curve_of_its_name(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "logged")
    lines = [update(1), update(2, logged={"<b>tone": 0.25}), update(3, logged={"<b>tone": 0.5})]
    write_lines(folder.metrics, lines)
    page = report(folder)
    chart = page.charts()[0][-1]
    assert "<b>tone" not in page.html
    assert (chart["title"], chart["lines"][0]["y"]) == ("<b>tone", [None, 0.25, 0.5])


def test_exports_show_what_came_out_when_they_were_read_again(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "exported")
    good = {"verdict": "PASS", "slope": 0.998, "distance_mean": 0.00123, "likeliest_agree": 0.995}
    bad = {"verdict": "FAIL", "reason": "SafetensorError: file is cut"}
    for name, proof in (("merged_16bit", good), ("gguf.failed", bad)):
        (folder.root / name).mkdir()
        (folder.root / name / "proof.json").write_text(json.dumps(proof))
    page = report(folder)
    assert page.rows("merged_16bit/") == [["PASS", "0.998", "0.00123", "99.5 %"]]
    assert page.rows("gguf.failed/") == [["FAIL", DASH, DASH, DASH]]
    assert "SafetensorError: file is cut" in page.text


def test_samples_show_reward_reference_and_how_they_ended(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "sampled")
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital?"}]
    rows = [
        completion("Rome", -1.25, ended=False, rewards={"a": -1.0, "b": -0.25}),
        completion("Paris", 0.5, answer="Paris, France", prompt=talk),
        completion("", None),
    ]
    write_lines(folder.completions_file(12), rows)
    page = report(folder)
    assert page.cells[-6::2] == [
        ["12", "0.5", "system: Be brief.\nuser: Capital?", "Paris3 tokens, complete",
         "Paris, France"],
        ["12", "-1.25a -1b -0.25", "What?", "Rome3 tokens, truncated", ""],
        ["12", DASH, "What?", "(empty)3 tokens, complete", ""],
    ]  # fmt: skip
    assert "3 of 3 completions" in page.text


def test_samples_come_from_updates_between_the_first_and_the_last(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "sampled")
    for step in [*range(1, 23), 1_000_000]:
        write_lines(folder.completions_file(step), [completion("x", 0.5, step=step)])
    found = re.findall(r'<tr data-step="(\d+)" data-state="complete" data', report(folder).html)
    assert found == ["1", "3", "5", "7", "9", "11", "13", "15", "17", "19", "21", "1000000"]


def test_long_texts_make_fewer_and_shorter_samples(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "sampled")
    for step in range(1, 13):
        rows = [completion("<" * 100_000, float(i), step=step) for i in range(16)]
        write_lines(folder.completions_file(step), rows)
    page = report(folder)
    # 12 updates of 16 texts of 1500 characters, four bytes each in HTML, are over 600,000 bytes.
    assert "Some completions of 12 updates" in page.text
    assert page.text.count("(100,000 characters)") == 12 * 8
    few = sample_table(folder.completions, read_jsonl, 1)
    assert [row.reward for row in few.rows] == [15.0] * 12


def test_control_characters_are_seen(tmp_path: Path) -> None:
    assert shown("a\x00b\x1b[1m\x7f\r\n\tc") == "a\u2400b\u241b[1m\u2421\n\tc"
    assert shown("x" * 1500) == "x" * 1500
    assert shown("x" * 1501) == f"{'x' * 1500}\N{HORIZONTAL ELLIPSIS} (1,501 characters)"


def test_spaced_keeps_first_and_last() -> None:
    assert spaced(range(11), 6) == [0, 2, 4, 6, 8, 10]
    assert spaced([1, 2], 6) == [1, 2]
    assert spaced([1, 2, 3], 1) == [1]


def test_the_newest_completions_are_those_of_the_last_update(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "sampled")
    assert newest_step(folder.completions) is None
    for step in (9, 10):
        ranked = [completion("x", float(reward), step=step) for reward in range(11)]
        write_lines(folder.completions_file(step), [*ranked, completion("y", None, step=step)])
    folder.completions_file(11).write_text('{"step": 11, "pro')
    newest = newest_step(folder.completions)
    assert newest is not None
    assert (newest.step, newest.total, newest.unjudged) == (10, 12, 1)
    assert [row["reward"] for row in newest.shown] == [10, 8, 6, 4, 2, 0]


def answered(text: str, right: bool | None, sampled: int = 0) -> dict[str, Any]:
    return {
        "greedy": {"text": text, "right": right},
        "sampled": [{"text": "x", "right": None if right is None else i < sampled} for i in (0, 1)],
    }


def test_answers_before_and_after_stand_side_by_side(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "answered")
    assert "Answers before and after" not in report(folder).text
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital?"}]
    write_lines(
        folder.answers,
        [
            {"prompt": "2 + 3?", "references": ["5", "five"],
             "before": answered("6", False), "after": answered("5", True, 2)},
            {"prompt": talk, "references": ["<b>Paris"],
             "before": answered("Paris", True, 1), "after": answered("Rome", False)},
            {"prompt": "Hi", "references": [],
             "before": answered("Hello", None), "after": answered("", None)},
        ],
    )  # fmt: skip
    page = report(folder)
    assert "Greedy answers: 1 became right and 1 became wrong, of 3 rows." in page.text
    assert [row for row in page.cells if row[:1] in (["Capital?"], ["2 + 3?"], ["Hi"])] == [
        ["Capital?", "<b>Paris", "Parisright1 of 2 sampled answers right",
         "Romewrong0 of 2 sampled answers right"],
        ["2 + 3?", "5 or five", "6wrong0 of 2 sampled answers right",
         "5right2 of 2 sampled answers right"],
        ["Hi", "(empty)", "Hello", "(empty)"],
    ]  # fmt: skip
    assert "<b>Paris" not in page.html


def test_at_most_four_answers_of_a_kind_are_shown() -> None:
    lines = [
        {"prompt": f"{i}", "references": ["x"],
         "before": answered("", i % 3 == 0), "after": answered("", i % 3 == 1)}
        for i in range(30)
    ]  # fmt: skip
    table = answer_table(lines)
    assert [row.prompt for row in table.shown] == [
        "0", "3", "6", "9", "1", "4", "7", "10", "2", "5", "8", "11",
    ]  # fmt: skip
    assert (table.total, table.became_right, table.became_wrong) == (30, 10, 10)


def test_two_runs_are_compared(tmp_path: Path) -> None:
    first, second = full_run(tmp_path / "alpha"), bare_run(tmp_path / "beta")
    write_lines(second.metrics, [update(1, reward=2.0), update(2, reward=3.0)])
    page = report(first, second)
    assert ["", "alpha", "beta"] in page.cells
    assert page.rows("Verdict") == [["better", "not evaluated"]]
    assert page.rows(f"Accuracy, greedy: before {ARROW} after") == [[f"25 % {ARROW} 37.5 %", DASH]]
    assert page.rows("Updates logged") == [["3", "2"]]
    assert page.rows("Reward in training") == [[f"0.125 {ARROW} 0.375", f"2 {ARROW} 3"]]
    assert page.rows("Entropy in training") == []
    overlaid, *own = page.charts()
    assert [(line["name"], line["x"]) for line in overlaid[0]["lines"]] == [
        ("alpha", [1, 2, 3]), ("beta", [1, 2]),
    ]  # fmt: skip
    assert [charts[0]["key"] for charts in own] == ["reward", "reward"]
    assert len(set(page.ids)) == len(page.ids)
    assert page.html.count(get_plotlyjs()) == 1
    assert "were evaluated on different rows" not in page.text


def test_runs_with_different_questions_are_not_silently_compared(tmp_path: Path) -> None:
    first, second = full_run(tmp_path / "alpha"), full_run(tmp_path / "beta")
    assert "were evaluated on different rows" not in report(first, second).text
    data = json.loads(second.data_report.read_text())
    data["eval"]["sha256"] = "fedcba"
    second.data_report.write_text(json.dumps(data))
    assert "were evaluated on different rows" in report(first, second).text


def test_runs_of_the_same_folder_name_are_told_apart(tmp_path: Path) -> None:
    folders = [bare_run(tmp_path / place / "run") for place in ("one", "two")]
    assert ["", *map(str, folders)] in report(*folders).cells


def test_every_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    folders = [RunDir(empty), bare_run(tmp_path / "good"), RunDir(tmp_path / "absent")]
    output = tmp_path / "report.html"
    with pytest.raises(UserInputError, match="is not a run folder; ") as caught:
        write_report(folders, output)
    assert [problem.where for problem in caught.value.problems] == [
        str(empty),
        str(tmp_path / "absent"),
    ]
    assert not output.exists()
    with pytest.raises(UserInputError, match="no run folder given"):
        write_report([], output)


@pytest.mark.parametrize("name", ["eval.json", "metrics.jsonl"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    folder = bare_run(tmp_path / "damaged")
    (folder.root / name).write_text('{"step": \n')
    with pytest.raises(UserInputError, match=re.escape(f"{folder.root / name}: is damaged")):
        write_report([folder], tmp_path / "report.html")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("eval.json", {"before": 3, "after": None, "verdict": {}, "rows": 1}),
        ("eval.json", []),
        ("guard.json", {"stopped": False, "action": "stop", "findings": [{"alarm": 1}]}),
        ("data_report.json", {"train": {"file": "a", "sha256": 3}}),
        ("environment.json", 3),
        ("metrics.jsonl", {"step": "x", "reward": [1]}),
        ("metrics.jsonl", [1]),
        ("answers.jsonl", {"before": None}),
        ("adapter/proof.json", {"slope": "x"}),
    ],
)
def test_a_file_of_another_form_is_named(tmp_path: Path, name: str, content: Any) -> None:
    folder = full_run(tmp_path / "damaged")
    place = folder.root / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(content) + "\n")
    with pytest.raises(UserInputError, match=re.escape(f"{place}: is damaged (")) as refused:
        write_report([folder], tmp_path / "report.html")
    assert str(refused.value).endswith("; repair it or move it away")
    with pytest.raises(UserInputError, match=re.escape(f"{place}: is damaged (")):
        write_report([bare_run(tmp_path / "whole"), folder], tmp_path / "report.html")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "damaged")
    folder.eval.unlink()
    os.mkfifo(folder.eval)
    with pytest.raises(UserInputError, match=r"eval\.json: is damaged \(it is not a file\)"):
        write_report([folder], tmp_path / "report.html")


def test_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "alpha")
    first = report(folder).html
    assert report(folder).html == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alpha", "report.html"]


def test_a_lone_surrogate_does_not_cost_the_report(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "edited")
    write_lines(folder.completions_file(1), [completion("a\ud800b", 0.5)])
    assert "a?b" in report(folder).text


def test_a_resumed_run_takes_back_what_the_crashed_one_logged() -> None:
    lines = [{"step": 1, "n": 0}, {"step": 2, "n": 0}, {"step": 3, "n": 0}, {"step": 2, "n": 1}]
    assert latest_updates(lines) == [{"step": 1, "n": 0}, {"step": 2, "n": 1}]


def test_start_and_end_are_means_of_a_tenth() -> None:
    values = [1.0, 3.0, *[100.0] * 16, 5.0, None]
    assert start_and_end(values) == (2.0, 5.0)
    assert start_and_end([None, 4.0]) == (None, 4.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, DASH),
        (0, "0"),
        (-0.0, "0"),
        (12345, "12,345"),
        (12345.6, "12,346"),
        (999.7, "1,000"),
        (0.123456, "0.123"),
        (-2.0, "-2"),
        (0.00001234, "1.23e-05"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_changes_are_signed_and_free_of_binary_noise() -> None:
    share = Metric("accuracy", "Accuracy", "", SHARE)
    assert change(share, difference(0.1 + 0.2, 0.3)) == "0 points"
    assert change(share, -0.0125) == "-1.25 points"
    assert change(share, difference(None, 0.3)) == DASH
    assert change(Metric("reward", "Reward", ""), 0.5) == "+0.5"


def test_a_reference_is_shown_as_it_counts(tmp_path: Path) -> None:
    folder = bare_run(tmp_path / "sampled")
    answers: list[Any] = [["Paris", 5, True], 0, False, {"a": 1}]
    rows = [completion("x", float(-i), answer=each) for i, each in enumerate(answers)]
    write_lines(folder.completions_file(12), rows)
    found = [row[4] for row in report(folder).cells if row[:1] == ["12"]]
    assert found == ["Paris or 5 or true", "0", "false", "{'a': 1}"]


def test_overlap_and_answers_taken_as_text_are_told(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "alpha")
    data = json.loads(folder.data_report.read_text())
    data["train"]["answers_taken_as_text"] = {"rows": 1, "lines": ["train.jsonl:7"]}
    lines = [f"e.jsonl:{i}" for i in range(1, 6)]
    data["eval"]["also_in_train"] = {"rows": 5, "lines": lines}
    folder.data_report.write_text(json.dumps(data))
    page = report(folder)
    assert page.rows("Held-out rows whose prompt") == [
        [DASH, "5 (e.jsonl:1, e.jsonl:2, e.jsonl:3, \N{HORIZONTAL ELLIPSIS})"]
    ]
    assert page.rows("Answers read as text") == [["1 (train.jsonl:7)", DASH]]


def test_the_report_of_a_run_that_trains_says_so(tmp_path: Path) -> None:
    folder = full_run(tmp_path / "alpha")
    folder.eval.unlink()
    assert not has_report(folder)
    write_unfinished_report(folder, "Training: <b>update 3 of 9.")
    page = Page(folder.report.read_text())
    assert page.text.index("Training: <b>update 3 of 9.") < page.text.index("Updates logged: 3")
    assert "no eval.json" not in page.text
    assert not has_report(folder)
    write_report([folder], folder.report)
    assert has_report(folder)


def test_intervals_stand_on_a_scale_of_per_cent(tmp_path: Path) -> None:
    values = evaluation()
    (scale,) = interval_scales(values)
    before, after = scale.intervals
    assert (scale.title, before.when, after.when) == ("Accuracy, sampled", "before", "after")
    assert (before.point, before.low, before.width, before.high) == (30, 20, 20, 40)
    assert after.text == "50 % (40 % to 60 %)"
    values["before"] = None
    assert [each.when for each in interval_scales(values)[0].intervals] == ["after"]
    values["after"]["ci95"] = {}
    assert interval_scales(values) == []


def test_the_chart_of_the_guard_replays_its_signals() -> None:
    # loop_share rises from 0; the guard warns at 0.05. distinct_3 halves; it warns at 0.15 times.
    lines = [update(i, loop_share=0.0, distinct_3=0.8) for i in range(1, 6)]
    lines += [update(i, loop_share=0.02, distinct_3=0.4) for i in range(6, 11)]
    near = {name: (steps, y) for name, steps, y in alarm_nearness(lines, None)}
    assert list(near) == ["loop_share", "distinct_3_kept"]
    assert near["loop_share"][0] == [5, 6, 7, 8, 9, 10]
    assert near["loop_share"][1][0] == 0
    assert near["loop_share"][1][-1] == pytest.approx(0.02 / 0.05)
    assert near["distinct_3_kept"][1][-1] == pytest.approx(0.15 / 0.5)
    state = {"action": "warn", "levels": {"loop_share": {"warn": 0.01, "stop": None}}}
    assert alarm_nearness(lines, state)[0][2][-1] == pytest.approx(2.0)


def test_the_chart_of_the_guard_holds_its_probes() -> None:
    def probe(step: int, rows: list[float]) -> dict[str, Any]:
        same = {"fluency": [1.0] * 3, "answer_likelihood": [1.0] * 3}
        per_row = {**same, "prompt_dependence": [1.0] * 3, "accuracy": rows}
        return {"step": step, "reward": None, "duplicate_share": 0.0, "per_row": per_row}

    # Losses 0.6, 0.6 and 0.3: a mean of 0.5 with a standard error of 0.1; the guard warns at 0.03.
    probes = [probe(0, [1.0, 1.0, 1.0]), probe(20, [0.4, 0.4, 0.7])]
    ((name, steps, values),) = alarm_nearness([], {"action": "stop", "probes": probes})
    assert (name, steps) == ("probe_accuracy_lost", [20])
    assert values == pytest.approx([0.4 / 0.03])
    assert alarm_nearness([], {"action": "off", "probes": probes}) == []
    older = [{**each, "per_row": {"accuracy": each["per_row"]["accuracy"]}} for each in probes]
    assert alarm_nearness([], {"action": "stop", "probes": older}) == []
