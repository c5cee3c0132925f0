"""Stated capabilities match the classes, and measured needs match the bundled models."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
from tiny_family import Pendulum, pendulum

import zoo
from zoo import families
from zoo.capabilities import (
    Animates,
    Capabilities,
    FollowsText,
    HasMotions,
    Interpolates,
    Needs,
    Operation,
    Reconstructs,
    Rendered,
    Resampled,
    Samples,
)

ON_MODELS = {
    Operation.SAMPLE: Samples,
    Operation.MOTION: HasMotions,
    Operation.TEXT: FollowsText,
    Operation.INTERPOLATE: Interpolates,
    Operation.ANIMATE: Animates,
    Operation.RECONSTRUCT: Reconstructs,
}
ON_RESULTS = {Operation.RESAMPLE: Resampled, Operation.RENDER: Rendered}


def methods(protocol: type) -> list[str]:
    """Names of the methods that a protocol adds."""
    return [
        name
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and not name.startswith("_")
    ]


@pytest.mark.parametrize("family", ["dimo", "mvvdm"])
def test_a_family_can_do_exactly_what_it_states(family):
    if family == "mvvdm":
        pytest.importorskip("diffusers", reason="diffusers is not installed")
    cls, capabilities = families.family_class(family), zoo.capabilities_of(family)
    for operation, protocol in ON_MODELS.items():
        (method,) = methods(protocol)
        assert (operation in capabilities.operations) == hasattr(cls, method), operation
        if operation in capabilities.operations:
            required = inspect.signature(getattr(protocol, method)).parameters
            offered = inspect.signature(getattr(cls, method)).parameters
            assert len(required) <= len(offered), operation
    assert set(ON_MODELS) | set(ON_RESULTS) == set(Operation)


def test_dimos_motions_can_do_what_is_stated():
    from zoo.dimo import Motion

    for operation, protocol in ON_RESULTS.items():
        assert operation in zoo.capabilities_of("dimo").operations
        assert all(hasattr(Motion, name) for name in methods(protocol))


def test_a_registered_family_states_its_capabilities_on_its_class(monkeypatch, tmp_path):
    monkeypatch.setattr(families, "_registered", {})
    monkeypatch.setenv("MENAGERIE_HOME", str(tmp_path))
    zoo.register_family("tiny", "tiny_family:Pendulum")
    assert zoo.capabilities_of("tiny") == Capabilities()
    with pytest.raises(zoo.UnsupportedError, match=r"cannot draw a random sample .*states no operations"):
        zoo.capabilities_of("tiny").require(Operation.SAMPLE, "tiny/clock", "tiny")
    stated = Capabilities((Operation.SAMPLE,), (".mp4",))
    monkeypatch.setattr(Pendulum, "capabilities", stated, raising=False)
    zoo.publish(pendulum(), "local:tiny/clock")
    assert zoo.info("tiny/clock").capabilities == stated
    stated.require(Operation.SAMPLE, "tiny/clock", "tiny")
    monkeypatch.setattr(families, "_registered", {})
    assert zoo.info("tiny/clock").capabilities is None  # described, although its family is not installed


def test_bundled_models_have_measured_needs():
    """`python -m benchmarks.needs` measures a new revision."""
    for name in zoo.list_models("bundled:*"):
        needs = zoo.info(name).needs
        assert needs is not None, name
        assert 100 < needs.memory_mib < 4000 and needs.warm_sample_s < needs.first_sample_s


NEEDS = Needs(512, 3.5, 0.25, 2, "a machine")


def test_a_model_may_state_its_own_needs(monkeypatch, tmp_path):
    monkeypatch.setattr(families, "_registered", {})
    monkeypatch.setenv("MENAGERIE_HOME", str(tmp_path))
    zoo.register_family("tiny", "tiny_family:Pendulum")
    zoo.publish(pendulum(metrics={"needs": NEEDS.to_json()}), "local:tiny/clock")
    assert zoo.info("tiny/clock").needs == NEEDS


@pytest.mark.parametrize(
    "content", [None, 3, {}, {**NEEDS.to_json(), "memory_mib": "much"}, {**NEEDS.to_json(), "machine": None}]
)
def test_malformed_needs_are_ignored(content):
    assert Needs.from_json(content) is None
    assert Needs.from_json(replace(NEEDS, cores=1).to_json()) == replace(NEEDS, cores=1)  # control
