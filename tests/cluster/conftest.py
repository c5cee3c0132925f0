from __future__ import annotations

import pytest
from hosts import missing

from cluster import connect


@pytest.fixture(scope="package")
def session(tmp_path_factory: pytest.TempPathFactory):
    """One embedded Ray with two CPUs, shared by all tests of this folder because starting it takes seconds."""
    with connect(2) as session:
        yield session


@pytest.fixture(scope="session")
def hosts_allowed() -> None:
    """Skip where machines of their own (`hosts.py`) cannot be made."""
    if reason := missing():
        pytest.skip(reason)
