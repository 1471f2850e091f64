"""A folder with the files in which Linux tells the memory limit of a container (cgroups v2)."""

import os
from pathlib import Path


class FakeContainer:
    """A limit that no kernel enforces: only what the program reads of it."""

    def __init__(self, folder: Path, limit: int) -> None:
        """``limit`` in bytes."""
        folder.mkdir(parents=True)
        self._folder = folder
        (folder / "cgroup").write_text("0::/\n")
        (folder / "memory.max").write_text(f"{limit}\n")
        self.use(0)

    @property
    def patches(self) -> dict[str, object]:
        """For `forked.start`: a command that takes this for its container."""
        hardware = "remote_trainer.models.hardware"
        return {
            f"{hardware}:CGROUPS": self._folder,
            f"{hardware}:OWN_CGROUP": self._folder / "cgroup",
        }

    def use(self, used: int) -> None:
        """The memory in use, in bytes."""
        partial = self._folder / "partial"
        partial.write_text(f"{used}\n")
        os.replace(partial, self._folder / "memory.current")


def resident(pid: int) -> int:
    """Bytes that a process holds; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
