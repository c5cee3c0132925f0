"""Description of the machine and the commit, printed by every benchmark."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def describe_machine() -> str:
    """Return one line: processor model, cores available to this process, GPU, commit."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, GPU: {_first_line(['nvidia-smi', '-L']) or 'none'}, commit {_commit()}"


def _commit() -> str:
    folder = Path(__file__).parent
    commit = _first_line(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]) or "unknown"
    changed = _first_line(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    return commit + ("+changes" if changed else "")


def _first_line(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.splitlines()[0] if result.stdout else ""
