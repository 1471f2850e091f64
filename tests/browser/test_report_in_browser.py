"""The report in a real browser: charts, search, colours, keyboard, phone, hostile texts."""

from pathlib import Path

import pytest
from browser_page import RIGHT, TAB, Page
from shown_runs import add_update, begin_run, finish_run, hostile_run

from remote_trainer.report import write_report, write_unfinished_report

pytest_plugins = ["chromium"]

UPDATES = 40
MOST_BYTES, MOST_SECONDS = 6_000_000, 2.0
PHONE = 390
SCROLLS = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run = finish_run(begin_run(root / "alpha", UPDATES))
    return write_report([run], root / "report.html")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compared")
    names = ("first", "a-second-run-whose-name-is-rather-long", "<b>third</b>")
    runs = [finish_run(begin_run(root / name, UPDATES)) for name in names[:2]]
    return write_report([*runs, begin_run(root / names[2].replace("/", ""), 3)], root / "all.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    return write_report([hostile_run(root / "x<img src=x onerror=alert(3)>")], root / "report.html")


def test_it_opens_fast_with_every_chart(page: Page, report: Path) -> None:
    page.open(report)
    counts = page.wait_for_charts()
    # The aim is 2 s, which an idle machine meets; beside other tests the same work takes longer.
    assert page.seconds_busy() < 2 * MOST_SECONDS
    page.picture("report")
    assert report.stat().st_size < MOST_BYTES
    titles = [each.text for each in page.all("figcaption b")]
    assert titles[:4] == [
        "Reward", "Distribution of the reward", "KL to the reference model", "Entropy",
    ]  # fmt: skip
    assert {"Completion length", "Repetition", "Guard", "Time per update"} < set(titles)
    assert len(counts) == len(titles)
    assert counts[0] == UPDATES + 1  # the points and their line
    assert page.text.index("Better: by 20 points.") < page.text.index("Evaluation before and after")


def test_the_samples_are_searched_and_filtered(page: Page, report: Path) -> None:
    page.open(report)

    def seen() -> list[str]:
        return [row.text for row in page.all(".samples tbody tr") if row.is_displayed()]

    box = {each.get_attribute("data-by"): each for each in page.all("[data-by]")}
    total = len(page.all(".samples tbody tr"))
    assert len(seen()) == total == 24
    page.ask("document.querySelector('.samples').scrollIntoView()")
    box["text"].send_keys("rome Question")
    assert len(seen()) == 12
    assert all("Rome" in row for row in seen())
    assert "12 of 24 completions" in page.text
    page.picture("samples")
    box["step"].send_keys("40")
    assert len(seen()) == 1
    box["state"].send_keys("complete")
    assert seen() == []
    assert "0 of 24 completions" in page.text
    for name in ("step", "state"):
        box[name].send_keys("all")
    box["text"].clear()
    box["least"].send_keys("0.4")
    box["most"].send_keys("0.45")
    assert [row.split("\n")[0].split()[0] for row in seen()] == ["33", "40"]


@pytest.mark.parametrize("name", ["report", "comparison", "hostile"])
def test_nothing_scrolls_sideways_on_a_phone(
    page: Page, request: pytest.FixtureRequest, name: str
) -> None:
    page.look(PHONE, dark=False)
    page.open(request.getfixturevalue(name))
    page.wait_for_charts()
    page.picture(f"phone-{name}")
    for closed in page.all("details:not([open]) > summary"):
        closed.click()
    assert not page.ask(SCROLLS)
    widths = page.ask(
        "return [...document.querySelectorAll('.plot svg')].map((s) => s.clientWidth)"
    )
    assert max(widths) <= PHONE


@pytest.mark.parametrize(
    ("dark", "paper", "ink"),
    [
        (False, "rgb(255, 255, 255)", "rgb(28, 28, 28)"),
        (True, "rgb(20, 20, 20)", "rgb(230, 230, 230)"),
    ],
)
def test_light_and_dark(page: Page, report: Path, dark: bool, paper: str, ink: str) -> None:
    page.look(1280, dark)
    page.open(report)
    page.wait_for_charts()
    page.picture("dark" if dark else "light")
    style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    assert page.ask(style) == [paper, ink]
    text = "return getComputedStyle(document.querySelector('.xtick text')).fill"
    assert page.ask(text) == ("rgb(168, 168, 168)" if dark else "rgb(95, 95, 95)")


def test_the_keyboard_reaches_everything(page: Page, report: Path) -> None:
    page.open(report)
    page.wait_for_charts()
    reached: list[tuple[str, str, str]] = []
    while len(reached) < 80 and ("SUMMARY", "", "config.resolved.yaml") not in reached:
        page.press(TAB)
        reached.append(page.focused())
    names = [name for _, _, name in reached]
    assert [tag for tag, _, _ in reached].count("FIGURE") == len(page.all("figure"))
    for wanted in ("text", "step", "state", "least", "most", "alpha: evaluation"):
        assert wanted in names
    assert "Table of sampled completions, run 1" in names
    assert any(name.startswith("Reward. Reward: 0.01 at update 1, 0.4 at upd") for name in names)
    page.ask("document.querySelector('figure').focus()")
    page.press(RIGHT, RIGHT)
    hovered = "return document.querySelector('.hoverlayer').textContent"
    page.wait(lambda: "0.02" in page.ask(hovered))  # the first point's text may come before


def test_hostile_texts_are_inert(page: Page, hostile: Path) -> None:
    page.open(hostile)
    page.wait_for_charts()
    assert page.ask("return document.querySelectorAll('img, svg[onload], [onerror]').length") == 0
    scripts = page.ask("return [...document.scripts].map((s) => s.type || 'text/javascript')")
    assert sorted(scripts) == ["application/json", "text/javascript", "text/javascript"]
    page.ask("document.querySelector('.samples').scrollIntoView()")
    page.picture("hostile")
    assert "alert('x')" in page.text
    assert "(20,000 characters)" in page.text
    assert "NUL \N{SYMBOL FOR NULL} and \N{SYMBOL FOR ESCAPE}[31m" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert hostile.stat().st_size < MOST_BYTES
    page.all("[data-by=text]")[0].send_keys("<script>")
    assert page.all("output")[0].text == "8 of 64 completions"  # one in each of 8 updates


def test_runs_are_compared(page: Page, comparison: Path) -> None:
    page.open(comparison)
    page.wait_for_charts()
    heads = [each.text for each in page.all("#comparison thead th")]
    assert heads == ["first", "a-second-run-whose-name-is-rather-long", "<b>third<b>"]
    names = "[...document.querySelector('figure').querySelectorAll('.legendtext')]"
    assert page.ask(f"return {names}.map((t) => t.textContent)")[2] == "<b>third<b>"
    assert len(page.all("article")) == 3
    page.picture("comparison")


def test_a_reload_shows_the_latest_state(page: Page, tmp_path: Path) -> None:
    run = begin_run(tmp_path / "alpha", 2)
    write_unfinished_report(run, "Training: update 2 of 3.")
    page.open(run.report)
    assert "Training: update 2 of 3." in page.text
    assert page.wait_for_charts()[0] == 2 + 1
    add_update(run, 3)
    finish_run(run)
    write_report([run], run.report)
    page.driver.refresh()
    assert "Better: by 20 points." in page.text
    assert "Training: update 2" not in page.text
    assert page.wait_for_charts()[0] == 3 + 1


@pytest.mark.parametrize(
    ("name", "dark"),
    [("report", False), ("report", True), ("comparison", False), ("hostile", False)],
)
def test_axe_finds_nothing_serious(
    page: Page, request: pytest.FixtureRequest, axe: str, name: str, dark: bool
) -> None:
    page.look(1280, dark)
    page.open(request.getfixturevalue(name))
    page.wait_for_charts()
    assert page.serious_violations(axe) == []
