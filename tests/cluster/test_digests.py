from __future__ import annotations

import random

import pytest

from cluster import digests
from cluster.digests import ABSENT, DigestMap


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DigestMap, "RECENT", 16)


@pytest.mark.parametrize("bits", [128, 66])
def test_it_behaves_like_a_dict(small: None, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random operations, also with digests that mostly agree in their first half."""
    whole = digests._digest
    monkeypatch.setattr(
        digests, "_digest", lambda key: (int.from_bytes(whole(key), "big") % 2**bits).to_bytes(16, "big")
    )
    chosen, mapping, truth = random.Random(0), DigestMap(), {}
    keys = [f"key {number}" for number in range(400)]
    for step in range(3000):
        key = chosen.choice(keys)
        if step % 5 == 4:
            mapping.discard(key)
            truth.pop(key, None)
        elif step % 50 == 7:
            some = chosen.sample(keys, chosen.randint(0, 40))
            values = [chosen.randrange(ABSENT) for _ in some]
            mapping.update(some, values)
            truth.update(zip(some, values, strict=True))
        else:
            mapping[key] = truth[key] = chosen.randrange(ABSENT)
        if step % 100 == 0:
            assert mapping.get_many(keys) == [truth.get(key) for key in keys]
    assert [mapping.get(key) for key in keys] == [truth.get(key) for key in keys]
    assert mapping.get_many(keys) == [truth.get(key) for key in keys]
    assert [key in mapping for key in keys] == [key in truth for key in keys]


def test_a_key_takes_24_bytes() -> None:
    mapping = DigestMap()
    keys = [f"key {number}" for number in range(100_000)]
    mapping.update(keys, list(range(len(keys))))
    assert mapping.nbytes == 24 * len(keys) and not mapping._recent
    assert mapping.get_many(keys[::1000]) == list(range(0, len(keys), 1000))


def test_single_assignments_are_merged_into_few_chunks() -> None:
    mapping = DigestMap()
    for number in range(5 * DigestMap.RECENT):
        mapping[str(number)] = number
    assert [len(chunk) for chunk in mapping._chunks] == [4 * DigestMap.RECENT, DigestMap.RECENT]
    assert mapping.get("7") == 7
