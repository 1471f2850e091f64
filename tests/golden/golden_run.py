"""Two frozen configs, trained for 20 updates each: every number that a run leaves behind.

    python tests/golden/golden_run.py      record the numbers of this machine

Floating-point results depend on the processor, the number of threads and the versions of the
libraries, so there is one recording for each combination. A change that means to alter the numbers
records them again, in a commit of its own that says why.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIGS = ("supervised", "unsupervised")
LIBRARIES = ("torch", "transformers", "trl", "peft")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
LEFT_OUT = re.compile(r"seconds|tokens_per_second|memory|hours|^text$")
"""Keys of values that differ from run to run, and of sentences."""


def machine_key() -> str:
    """What decides the last bit: processor, threads (always one) and libraries."""
    versions = "-".join(f"{name}{version(name).partition('+')[0]}" for name in LIBRARIES)
    return f"{processor()}-{versions}"


def processor() -> str:
    """Vendor, family and the instructions that products are computed with."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.machine()
    facts = dict(re.findall(r"^(.+?)\s*: (.*)$", cpuinfo.read_text(), re.M))
    flags = set(facts.get("flags", "").split())
    known = [name for name in INSTRUCTIONS if name in flags]
    return "-".join([facts.get("vendor_id", "unknown"), facts.get("cpu family", "0"), *known])


def recording(key: str) -> Path:
    return HERE / "recordings" / f"{key}.json"


def golden_run(name: str, folder: Path) -> dict[str, Any]:
    """Train ``name`` in ``folder``, in a process with one thread, and read what it left."""
    command = [sys.executable, "-m", "remote_trainer.cli", "train"]
    command += [str(HERE / f"{name}.yaml"), "--set", f"output_dir={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["REMOTE_TRAINER_CACHE"] = str(folder.parent / "cache")  # no answers kept earlier
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return numbers_of(folder)


def numbers_of(folder: Path) -> dict[str, Any]:
    """Metrics, completions, verdicts and weights of a run folder, without times and sentences."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    completions = b"".join(path.read_bytes() for path in sorted((folder / "completions").iterdir()))
    return {
        "metrics": [only_numbers(line) for line in lines],
        "guard": only_numbers(json.loads((folder / "guard.json").read_text())),
        "eval": only_numbers(json.loads((folder / "eval.json").read_text())),
        "completions": hashlib.sha256(completions).hexdigest(),
        "adapter": hashlib.sha256(weights).hexdigest(),
    }


def only_numbers(value: Any) -> Any:
    """Without times and sentences; of an alarm's line the alarm's name."""
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if not LEFT_OUT.search(key)}
        return {key: only_numbers(each) for key, each in kept.items()}
    if isinstance(value, list):
        return [only_numbers(each) for each in value]
    return value.partition(": ")[0] if isinstance(value, str) else value


def record() -> Path:
    with tempfile.TemporaryDirectory() as folder:
        found = {name: golden_run(name, Path(folder) / name) for name in CONFIGS}
    path = recording(machine_key())
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


if __name__ == "__main__":
    print(record().relative_to(ROOT))
