"""Inspect processes through /proc."""

from __future__ import annotations

import os
from pathlib import Path

# 127.0.0.1 (in two notations) and ::1, as written in /proc/net/tcp and tcp6.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    return _stat(pid)[0] not in ("", "Z")


def descendants(pid: int) -> list[int]:
    """Return the process ids of all direct and indirect children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            children.setdefault(_stat(int(entry))[1], []).append(int(entry))
    result, queue = [], [pid]
    while queue:
        direct = children.get(queue.pop(), [])
        result += direct
        queue += direct
    return result


def command(pid: int) -> str:
    """Return the command line; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def listening_addresses(pids: list[int]) -> set[str]:
    """Return the IP addresses, hexadecimal as in /proc, on which the processes listen for TCP connections."""
    inodes = set()
    for pid in pids:
        try:
            links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    addresses = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.add(fields[1].split(":")[0])
    return addresses


def started(pid: int) -> int:
    """Return the start time in clock ticks. Process ids are reused, but not together with the start time."""
    return _stat(pid)[2]


def age(pid: int) -> float:
    """Return the seconds since a process started."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - started(pid) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> tuple[str, int, int]:
    """Return state letter, parent and start time; ("", 0, 0) if there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0, 0
    return fields[0], int(fields[1]), int(fields[19])
