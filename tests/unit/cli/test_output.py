"""What the terminal gets of names and values in files that others made."""

import subprocess
import sys
from pathlib import Path

import pytest

from remote_trainer.cli.output import complain, harmless


def test_control_characters_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    complain("a\tkey \x1b[2J\x07 of \u202e \x9b r\u00e9sum\u00e9\nnext")
    told = capsys.readouterr().err
    assert told == "a\tkey \\x1b[2J\\x07 of \\u202e \\x9b r\u00e9sum\u00e9\nnext\n"
    assert harmless("half \ud800") == "half \\ud800"


def test_text_that_the_terminal_cannot_encode_is_no_traceback(tmp_path: Path) -> None:
    script = 'from remote_trainer.cli.process import prepare; prepare(); print("caf\\xe9 \\ud800")'
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"caf\\xe9 \\ud800\n"), done.stderr
