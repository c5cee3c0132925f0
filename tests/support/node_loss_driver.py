"""A run on two local nodes, one of which is killed halfway: `node_loss_driver.py ROOT AUDIT TASKS`."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from chaos_driver import ShortTimeout, tasks
from cluster_stages import wait_until
from exactly_once import AuditedLedger
from ray.cluster_utils import Cluster

from cluster import run


def main() -> None:
    root, audit, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    node = cluster.add_node(**small)
    os.environ["RAY_ADDRESS"] = cluster.address
    raylet = node.all_processes["raylet"][0].process
    nodes = []

    def kill_raylet() -> None:
        wait_until(lambda: sum(1 for _ in Path(root).glob("_factory/done/*/*.json")) > count // 3, 300)
        raylet.kill()

    threading.Thread(target=kill_raylet).start()
    report = run(
        ShortTimeout(),
        tasks(count),
        AuditedLedger(root, audit),
        on_tick=lambda tick: nodes.append(tick.workers),
    )
    print(f"{max(nodes)} nodes before, {nodes[-1]} after, {report.actors_lost} actors lost")


if __name__ == "__main__":
    main()
