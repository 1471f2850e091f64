"""Ports of Ray that other machines can reach. Without a token, they can run commands here."""

from collections.abc import Iterator
from pathlib import Path

RAY_PORTS = {8265: "dashboard and jobs", 6379: "cluster", 10001: "Ray client"}
TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTEN = "0A"
_LOOPBACK_4, _LOOPBACK_6 = "7F", "00000000000000000000000001000000"
"""In the byte order of the tables: 127.x.x.x ends in 7F there."""


def open_ray_ports(tables: tuple[Path, ...] = TABLES) -> tuple[int, ...]:
    """Those of Ray's usual ports that listen on more than the loopback, in order."""
    found = {port for table in tables for port in _listening(table)}
    return tuple(port for port in sorted(RAY_PORTS) if port in found)


def _listening(table: Path) -> Iterator[int]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except OSError:  # not Linux
        return
    for line in lines:
        _, local, _, state, *_ = line.split()
        address, _, port = local.partition(":")
        if state == _LISTEN and not _is_loopback(address):
            yield int(port, 16)


def _is_loopback(address: str) -> bool:
    mapped = address.startswith("0000000000000000FFFF0000")  # IPv4 in IPv6
    if len(address) == 8 or mapped:
        return address.endswith(_LOOPBACK_4)
    return address == _LOOPBACK_6
