"""What all tests share: one core each, nothing fetched, nothing of this machine's settings."""

from __future__ import annotations

import os

# Before numpy, torch or Mesa is imported: they read these once, and timings and sums depend on them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe draws in the calling thread
# Tests reach no hub: what they load they have made.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
