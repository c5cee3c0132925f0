"""`chaos_driver.py` with small segments, so that markers are packed all the time: ROOT AUDIT TASKS."""

from __future__ import annotations

import chaos_driver

import cluster.ledger


def main() -> None:
    cluster.ledger.SEGMENT_RECORDS = 8
    cluster.ledger._REMOVED_TOGETHER = 3
    chaos_driver.main()


if __name__ == "__main__":
    main()
