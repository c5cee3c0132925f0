"""What the bundled models need: memory and the time of a first and a second sample, shown by `python -m zoo info`.

    nice python -m benchmarks.needs [--out zoo/bundled/needs.json] [NAME ...]

Each model is loaded in fresh processes, which save two samples as .mp4. The times are those of the fastest process, the
memory that of the largest. The splat kernels are compiled beforehand, as they are once per installation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import describe_machine

PROCESSES = 3
OUT = Path(__file__).parents[1] / "zoo" / "bundled" / "needs.json"
_CHILD = """
import json, resource, sys, time
started, name, folder = float(sys.argv[1]), sys.argv[2], sys.argv[3]
import zoo
model = zoo.load(name)
model.sample(0).save(folder + "/first.mp4")
first = time.monotonic()
model.sample(1).save(folder + "/warm.mp4")
warm = time.monotonic()
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps([first - started, warm - first, memory]))
"""


def measure(name: str) -> tuple[float, float, int]:
    """Seconds until the first sample is saved, seconds of the second, and peak resident memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        # The clock is the system's, so that it can be read in both processes.
        command = [sys.executable, "-P", "-c", _CHILD, str(time.monotonic()), name, folder]
        output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    first, warm, memory = json.loads(output.splitlines()[-1])
    return first, warm, memory


def main() -> None:
    """Measure models and write a JSON file that `zoo.info` reads."""
    import zoo

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", help="default: all bundled models")
    parser.add_argument("--out", type=Path, default=OUT, help=f"default: {OUT}")
    args = parser.parse_args()
    machine = describe_machine().split(", GPU")[0].rpartition(",")[0]
    needs = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.names or [name.removeprefix("bundled:") for name in zoo.list_models("bundled:*")]:
        measure(f"bundled:{name}")  # compiles kernels and fills the page cache
        runs = [measure(f"bundled:{name}") for _ in range(PROCESSES)]
        needs[name] = {
            "revision": zoo.info(f"bundled:{name}").revision,
            "memory_mib": max(memory for _, _, memory in runs),
            "first_sample_s": round(min(first for first, _, _ in runs), 1),
            "warm_sample_s": round(min(warm for _, warm, _ in runs), 1),
            "cores": len(os.sched_getaffinity(0)),
            "machine": machine,
        }
        print(name, {key: value for key, value in needs[name].items() if key != "revision"})
        args.out.write_text(json.dumps(needs, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
