"""How much memory there is, where a container has less than its host."""

from pathlib import Path

import pytest

from remote_trainer.models import hardware
from remote_trainer.models.hardware import find_machine, free_in_container

GIB = 2**30


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that stands in for /sys/fs/cgroup; the process is in its root."""
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")
    return tmp_path / "cgroup"


def test_a_limit_leaves_what_is_not_used(groups: Path) -> None:
    assert free_in_container() is None
    stat = f"anon 5\ninactive_file {GIB}\n"
    write(groups, memory__max=f"{4 * GIB}\n", memory__current=f"{3 * GIB}\n", memory__stat=stat)
    assert free_in_container() == 2 * GIB
    assert find_machine().memory_gb == pytest.approx(4 * GIB / 1e9)
    write(groups, memory__max="max\n")
    assert free_in_container() is None
    write(groups, memory__max=f"{GIB}\n", memory__stat="")
    assert free_in_container() == 0


def test_the_tightest_group_around_the_process_counts(groups: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/outer/inner\n")
    write(groups / "outer", memory__max=f"{3 * GIB}", memory__current=f"{2 * GIB}")
    write(groups / "outer/inner", memory__max=f"{8 * GIB}", memory__current=f"{GIB}")
    assert free_in_container() == GIB


def test_groups_of_version_1(groups: Path, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n")
    stat = f"total_inactive_file {GIB}\n"
    limit = {"memory__limit_in_bytes": f"{4 * GIB}", "memory__usage_in_bytes": f"{2 * GIB}"}
    write(groups / "memory", **limit, memory__stat=stat)
    assert free_in_container() == 3 * GIB
    write(groups / "memory", memory__limit_in_bytes=str(2**63 - 4096))
    assert free_in_container() is None
