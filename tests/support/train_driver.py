"""The parallel training that the chaos test starts, kills and restarts: `train_driver.py OUT AUDIT OBJECTS WORKERS`."""

from __future__ import annotations

import sys
from pathlib import Path

from exactly_once import AuditedLedger

from factory.motion_videos.plan import MotionRecipe
from factory.motion_videos.run import make_motions
from factory.training.dimo import DimoStage, configured, train_objects

RECIPE = MotionRecipe(resolution=32, frames=4, views=4, heldout_views=2, points=32, heldout=0)
TINY = (
    "key_points=16", "gaussians=100", "width=16", "skip=1", "depth=3", "resolution=32",
    "pretraining.steps=60", "joint.steps=140", "pretraining.resolutions=((0, 32),)", "joint.resolutions=((0, 32),)",
    "joint.polish_steps=0", "joint.surface_steps=0", "pretraining.untracked_steps=0", "joint.untracked_steps=0",
    "fit.steps=25", "fit.resolutions=((0, 32),)",
)  # fmt: skip


def main() -> None:
    out, audit, objects, workers = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    Path(audit).touch()
    ledger = AuditedLedger(out, audit)
    made = make_motions([objects], out, RECIPE, workers=workers, ledger=ledger)
    stage = DimoStage(out=out, num_cpus=0.5, checkpoint_s=0.2)
    results = train_objects(made, stage, configured("laptop", TINY), ledger, workers=workers)
    for task, record in results.values():
        if record.status != "done":
            print(f"{task.label}: {record.reason}\n{record.detail}")
    done = [record for _, record in results.values() if record.status == "done"]
    print(f"{len(done)} trained, {sum(record.resumed for record in done)} by earlier runs")


if __name__ == "__main__":
    main()
