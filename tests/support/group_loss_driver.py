"""A training group on two local nodes, one of which is killed halfway: `group_loss_driver.py OUT`."""

from __future__ import annotations

import os
import sys
import threading

from cluster_stages import wait_until
from group_work import add_up, read_state
from ray.cluster_utils import Cluster

from cluster.storage import Storage
from cluster.training import Group, train_together


def main() -> None:
    storage = Storage(sys.argv[1], "tmp")
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    node = cluster.add_node(**small)
    os.environ["RAY_ADDRESS"] = cluster.address
    raylet = node.all_processes["raylet"][0].process

    def kill_raylet() -> None:
        wait_until(lambda: read_state(storage)["step"] > 100, 600)
        raylet.kill()

    threading.Thread(target=kill_raylet, daemon=True).start()
    job = {"out": storage.url, "steps": 400, "batch": 4, "save_every": 5, "seconds": 0.02}
    train_together(
        add_up, job, storage, Group((1, 2)), name="sum", progress=lambda: read_state(storage)["step"]
    )
    cluster.shutdown()


if __name__ == "__main__":
    main()
