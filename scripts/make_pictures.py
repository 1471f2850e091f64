"""Makes the pictures of README.md from a real run: docs/report.png and docs/terminal.svg.

    python scripts/make_pictures.py [RUN_DIR]

Trains configs/supervised.yaml in RUN_DIR (runs/supervised) unless a finished run stands there. The
first picture is the top of its report in Chromium, which must be installed; the second replays what
the live view showed at some updates, from what the run logged.
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from remote_trainer.cli.live import TrainingView
from remote_trainer.cli.texts import describe_eval
from remote_trainer.pipeline.train import read_eval
from remote_trainer.report import has_report, write_report
from remote_trainer.report.run_view import latest_updates
from remote_trainer.run_dir import RunDir, read_jsonl, write_text

ROOT = Path(__file__).parents[1]
CONFIG = "configs/supervised.yaml"
REPORT, TERMINAL = ROOT / "docs" / "report.png", ROOT / "docs" / "terminal.svg"
WIDTH_PX, HEIGHT_PX = 1120, 1760
COLUMNS, ROWS = 90, 25
FRAMES, FRAME_SECONDS, LAST_SECONDS = 9, 1.2, 6.0
MOST_BYTES = 300_000


def trained(folder: RunDir) -> RunDir:
    """The run, after training it if it is missing."""
    if not has_report(folder):
        train = [sys.executable, "-m", "remote_trainer.cli", "train", CONFIG]
        subprocess.run([*train, "--set", f"output_dir={folder}"], cwd=ROOT, check=True)
    return folder


def picture_of_report(folder: RunDir) -> None:
    """The top of the report, as on a desktop."""
    with tempfile.TemporaryDirectory() as place:
        page = write_report([folder], Path(place) / "report.html")
        command = [
            shutil.which("chromium") or "chromium", "--headless=new", "--no-sandbox",
            "--hide-scrollbars", f"--window-size={WIDTH_PX},{HEIGHT_PX}",
            "--virtual-time-budget=10000", f"--screenshot={REPORT}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    size = REPORT.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{REPORT} has {size} bytes, more than {MOST_BYTES}")


def picture_of_terminal(folder: RunDir) -> None:
    """The live view at some updates, and the result at the end, one after the other."""
    lines = latest_updates(read_jsonl(folder.metrics))
    updates = lines[-1]["step"]
    wanted = {round(1 + i * (updates - 1) / (FRAMES - 1)) for i in range(FRAMES)}
    view = TrainingView(folder)
    frames: list[str] = []
    for line in lines:
        view.update(line, updates)
        if line["step"] in wanted:
            frames.append(frame(folder, view, "", len(frames)))
    result = f"{describe_eval(read_eval(folder))}\nreport:  {folder.report}"
    frames.append(frame(folder, view, result, len(frames)))
    write_text(TERMINAL, animated(frames))


def frame(folder: RunDir, view: TrainingView, result: str, place: int) -> str:
    """What stands in the terminal, as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(f"$ remote-trainer train {CONFIG}", highlight=False)
    console.print("training", style="bold")
    console.print(view)
    console.print(Text(result))
    shown = console.export_text(clear=False).count("\n")
    console.print("\n" * max(0, ROWS - shown), end="")
    return console.export_svg(title="remote-trainer", code_format=SVG, unique_id=f"f{place}")


def animated(frames: list[str]) -> str:
    """One SVG that shows the frames in turn; the last one for whoever wants no motion."""
    last = len(frames) - 1
    total = last * FRAME_SECONDS + LAST_SECONDS
    styles, groups = [], []
    for i, each in enumerate(frames):
        begin = 100 * i * FRAME_SECONDS / total
        end = 100 * (i + 1) * FRAME_SECONDS / total if i < last else 100
        styles.append(
            f"@keyframes k{i} {{ 0% {{ visibility: hidden }} {begin:.2f}% {{ visibility: visible }}"
            f" {end:.2f}% {{ visibility: hidden }} }}\n"
            f"#g{i} {{ animation: k{i} {total:g}s step-end infinite }}"
        )
        groups.append(f'<g id="g{i}" visibility="{"hidden" if i < last else "visible"}">{each}</g>')
    size = re.search(r'viewBox="([^"]+)"', frames[-1])
    assert size is not None
    still = "@media (prefers-reduced-motion: reduce) { g[id^=g] { animation: none !important } }"
    head = f'<svg viewBox="{size[1]}" xmlns="http://www.w3.org/2000/svg">'
    return "\n".join([head, "<style>", *styles, still, "</style>", *groups, "</svg>\n"])


# rich's own, without its font from the network.
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/supervised"))
    folder = trained(RunDir(parser.parse_args().run))
    picture_of_report(folder)
    picture_of_terminal(folder)


if __name__ == "__main__":
    main()
