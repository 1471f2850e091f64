"""Which ports of Ray other machines can reach, from tables as Linux writes them."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from test_doctor import CPU_STATE

from remote_trainer.doctor.diagnosis import diagnose
from remote_trainer.doctor.open_ports import open_ray_ports

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


def table(tmp_path: Path, *entries: tuple[str, int, str]) -> tuple[Path]:
    lines = [
        f"   {i}: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000\n"
        for i, (address, port, state) in enumerate(entries)
    ]
    path = tmp_path / "tcp"
    path.write_text(HEAD + "".join(lines))
    return (path,)


@pytest.mark.parametrize(
    ("address", "port", "state", "found"),
    [
        ("00000000", 8265, "0A", (8265,)),  # every address
        ("0100A8C0", 6379, "0A", (6379,)),  # 192.168.0.1
        ("00000000000000000000000000000000", 10001, "0A", (10001,)),
        ("0100007F", 8265, "0A", ()),
        ("0000000000000000FFFF00000100007F", 8265, "0A", ()),
        ("00000000000000000000000001000000", 8265, "0A", ()),
        ("00000000", 8265, "01", ()),  # a connection
        ("00000000", 80, "0A", ()),
    ],
)
def test_what_other_machines_reach(
    tmp_path: Path, address: str, port: int, state: str, found: tuple[int, ...]
) -> None:
    assert open_ray_ports(table(tmp_path, (address, port, state))) == found


def test_a_real_socket_on_the_loopback_is_not_open() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        assert held.getsockname()[1] not in open_ray_ports()


def test_no_table_is_no_port(tmp_path: Path) -> None:
    assert open_ray_ports((tmp_path / "none",)) == ()


def test_doctor_warns() -> None:
    findings = diagnose(replace(CPU_STATE, open_ports=(8265,))).findings
    [warning] = [each for each in findings if "8265" in each.message]
    assert warning.kind == "advice"
    assert "RAY_AUTH_MODE=token" in warning.message
    assert not [each for each in diagnose(CPU_STATE).findings if "8265" in each.message]
