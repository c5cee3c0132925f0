"""`zoo.load(…, device=…, dtype=…)` and the models' `to`: what moves, what stays as it was, what is refused."""

from __future__ import annotations

import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_dimo import tiny_pipeline

import zoo
from zoo.dimo.config import LossWeights
from zoo.errors import PlacementError
from zoo.placement import existing_devices, placement

DIMO, MVVDM = "dimo/kangaroo", "mvvdm/tiny"
HALF = (torch.float16, torch.bfloat16)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="expects a machine without a GPU")


def pixels(motion, size: int = 48) -> np.ndarray:
    return motion.at([0.0, 0.4]).render(motion.default_camera(size)).astype(int)


@pytest.fixture(scope="module")
def kangaroo():
    return zoo.load(DIMO)


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip("diffusers")
    return zoo.load(MVVDM)


def videos(model) -> np.ndarray:
    model.set_progress_bar_config(disable=True)
    return model.sample(3, num_inference_steps=3, output_type="np").frames


def test_the_cpu_and_single_precision_change_nothing(kangaroo):
    moved = zoo.load(DIMO, device="cpu", dtype=torch.float32)
    assert moved.to("cpu") is moved and moved.to(torch.float32) is moved and moved.to() is moved
    assert (moved.device, moved.dtype) == (torch.device("cpu"), torch.float32)
    assert all(
        torch.equal(a, b)
        for a, b in zip(moved.model.state_dict().values(), kangaroo.model.state_dict().values(), strict=True)
    )
    assert moved.sample(7) == kangaroo.sample(7)
    assert np.array_equal(pixels(moved.sample(7)), pixels(kangaroo.sample(7)))


@pytest.mark.parametrize(
    ("dtype", "metres", "grey"),
    # Twice the errors measured, in the worst key point and in the mean pixel.
    [("float16", 3.5e-4, 0.05), (torch.bfloat16, 1.6e-3, 0.28), ("torch.float64", 1e-7, 1e-4)],
)
def test_a_motion_space_in_another_precision(kangaroo, dtype, metres, grey):
    model, single = zoo.load(DIMO, dtype=dtype), kangaroo.sample(7)
    motion = model.sample(7)
    wide = torch.float64 if "64" in str(dtype) else torch.float32
    assert str(model.dtype).removeprefix("torch.") == str(dtype).removeprefix("torch.")
    assert {each.dtype for each in (*motion.trajectories, *motion.gaussians().to("cpu").__dict__.values()) if
            each is not None} == {wide}  # fmt: skip
    apart = motion.trajectories.positions.double() - single.trajectories.positions.double()
    assert 0 < apart.norm(dim=-1).max() < metres
    assert np.abs(pixels(motion) - pixels(single)).mean() < grey


@pytest.mark.parametrize("dtype", [*HALF, torch.float64], ids=str)
def test_every_operation_and_file_in_another_precision(dtype, tmp_path):
    plain = {"losses": LossWeights(lpips=0.0, ssim=0.0)}  # LPIPS needs weights from the network
    model, reference = tiny_pipeline(**plain).to(dtype), tiny_pipeline(**plain)
    motions = [model.sample(1), *model.interpolate(0, model.sample(2), steps=3), model.sample([0.1] * 8)]
    assert all(torch.isfinite(motion.trajectories.positions).all() for motion in motions)
    motion = model.motion(0)
    assert len(motion.resampled(5).at(0.25).phases) == 1
    for name, options in {
        "a.glb": {"detail": 16},
        "a.mp4": {"resolution": 32},
        "a.ply": {},
        "a.npz": {},
    }.items():
        assert motion.save(tmp_path / name, **options).exists()
    saved, expected = np.load(tmp_path / "a.npz"), np.load(reference.motion(0).save(tmp_path / "b.npz"))
    assert {name: (saved[name].dtype, saved[name].shape) for name in saved} == {
        name: (expected[name].dtype, expected[name].shape) for name in expected
    }
    assert np.allclose(saved["positions"], expected["positions"], atol=2e-3)
    view = motion.default_camera(32)
    seen = model.reconstruct(motion.render(view, background=None), view, steps=2)
    assert seen.z.dtype == motion.z.dtype and model.dtype == dtype


def test_a_model_in_half_precision_is_published_with_its_own_weights(tmp_path):
    model = tiny_pipeline()
    before = zoo.publish(model, "local:dimo/egg", home=tmp_path)
    for dtype in (torch.float16, torch.float64, torch.float32):
        assert zoo.publish(model.to(dtype), "local:dimo/egg", home=tmp_path) == before
        assert model.dtype == dtype  # publishing converts a copy


def test_latents_of_a_motion_space_keep_single_precision():
    """At 2⁹ radians per metre, positions in half precision would be noise."""
    model = tiny_pipeline().to(torch.float16).model
    assert {n for n, p in model.named_parameters() if p.dtype == torch.float32} == {
        "means", "key_points", "log_radii", "mu", "log_var"
    }  # fmt: skip


def test_a_motion_outlives_a_move():
    model = tiny_pipeline()
    motion, before = model.sample(1), pixels(model.sample(1))
    model.to(torch.float64)
    assert np.abs(pixels(motion) - before).max() <= 1
    assert len(model.interpolate(motion, 1, steps=2)) == 2
    assert motion.at(0.5).z.dtype == torch.float64
    model.to(torch.float32)
    assert np.array_equal(pixels(motion), before)


@pytest.mark.parametrize(
    ("dtype", "worst"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 1e-4)], ids=str
)
def test_a_video_model_in_another_precision(tiny, dtype, worst, caplog):
    model = zoo.load(MVVDM, dtype=dtype)
    assert {p.dtype for p in model.unet.parameters()} == {dtype} == {model.dtype}
    apart = np.abs(videos(model).astype(float) - videos(tiny))
    assert 0 < apart.max() < worst, apart.max()  # the same noise: a seed means the same in every precision
    assert not [record for record in caplog.records if "diffusers" in record.name]


def test_a_video_model_moves_like_one_of_diffusers(tiny):
    before = videos(tiny)
    assert tiny.to("cpu") is tiny and tiny.to("cpu", torch.float32) is tiny and tiny.to() is tiny
    assert tiny.to(device="cpu", dtype=torch.float32, silence_dtype_warnings=True) is tiny
    assert np.array_equal(videos(tiny), before)


@pytest.mark.parametrize("name", [DIMO, MVVDM])
def test_a_model_without_values_refuses_to_sample(name):
    model = zoo.load(name, device="meta")
    assert model.device.type == "meta" and "meta" in repr(model)
    with pytest.raises(PlacementError, match="on the device meta, which holds no values"):
        model.sample(0)


REFUSED = [
    ({"device": "gpu"}, "torch has no device 'gpu' on this machine, expected one of cpu"),
    ({"device": "cuda:99"}, "torch has no device 'cuda:99' on this machine, expected one of cpu"),
    ({"device": 99}, "torch has no device '99' on this machine, expected one of cpu"),
    ({"device": "xla"}, "torch has no device 'xla' on this machine, expected one of cpu"),
    ({"device": -1}, "torch has no device '-1' on this machine, expected one of cpu"),
    ({"device": ""}, "torch has no device '' on this machine, expected one of cpu"),
    ({"device": 0.5}, "torch has no device '0.5' on this machine, expected one of cpu"),
    ({"dtype": torch.int8}, "float16, bfloat16, float32 or float64, got the type torch.int8"),
    ({"dtype": torch.bool}, "got the type torch.bool"),
    ({"dtype": torch.complex64}, "got the type torch.complex64"),
    ({"dtype": torch.float8_e4m3fn}, "got the type torch.float8_e4m3fn"),
    ({"dtype": "half precision"}, "got the type 'half precision'"),
    ({"dtype": float}, "got the type <class 'float'>"),
    ({"dtype": "nn"}, "got the type 'nn'"),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED, ids=lambda each: str(each)[:30])
def test_what_cannot_be_is_refused_before_anything_is_read(arguments, expected, monkeypatch):
    monkeypatch.setattr("zoo.hub.find", lambda *_: pytest.fail("the model was looked up"))
    with pytest.raises(PlacementError) as refusal:
        zoo.load("hub:org/large", **arguments)
    message = str(refusal.value)
    assert message.startswith("zoo.load('hub:org/large'): ") and expected in message and "\n" not in message


@pytest.mark.parametrize(("arguments", "expected"), REFUSED, ids=lambda each: str(each)[:30])
def test_a_refused_move_changes_nothing(arguments, expected, tiny):
    for model in (tiny_pipeline(), tiny):
        device, dtype = model.device, model.dtype
        with pytest.raises(PlacementError, match=re.escape(expected)):
            model.to(**arguments)
        assert (model.device, model.dtype) == (device, dtype)


@no_gpu
def test_a_gpu_that_is_absent():
    for model in (zoo.load, tiny_pipeline().to):
        arguments = (DIMO,) if model is zoo.load else ()
        with pytest.raises(PlacementError, match=r"no device 'cuda' on this machine, expected one of cpu$"):
            model(*arguments, device="cuda")


def test_arguments_of_to():
    cpu = torch.device("cpu")
    expected = placement(device="cpu", dtype="float16")
    assert expected == (cpu, torch.float16, False)
    assert placement("cpu", torch.float16) == placement(torch.zeros(1).half()) == expected
    assert placement(torch.float16, device=cpu) == placement(None, torch.float16, device="cpu") == expected
    assert placement("cpu", torch.float16, True) == (cpu, torch.float16, True)
    assert placement() == (None, None, False)
    for wrong in (("cpu", "cpu"), (torch.float16, torch.float32), ([],), (1.5,)):
        with pytest.raises(TypeError, match=r"given twice|expected a device"):
            placement(*wrong)


def accelerator(monkeypatch, kind: str, count: int) -> None:
    """Pretend that torch has devices."""
    fake = SimpleNamespace(
        is_available=lambda: count > 0,
        current_accelerator=lambda: torch.device(kind),
        device_count=lambda: count,
    )
    monkeypatch.setattr(torch, "accelerator", fake)


def test_devices_of_other_machines(monkeypatch):
    accelerator(monkeypatch, "cuda", 2)
    assert existing_devices() == ["cpu", "cuda:0", "cuda:1"]
    assert placement("cuda:1").device == torch.device("cuda:1") and placement("cuda").device.type == "cuda"
    with pytest.raises(
        PlacementError, match="no device 'cuda:2' on this machine, expected one of cpu, cuda:0, cuda:1"
    ):
        placement("cuda:2")
    accelerator(monkeypatch, "mps", 1)
    assert placement("mps", torch.float16).device.type == "mps"
    with pytest.raises(PlacementError, match="the device mps has no float64; use float32"):
        placement("mps", torch.float64)


def test_a_family_that_cannot_be_moved(tmp_path, monkeypatch):
    from tiny_family import pendulum

    monkeypatch.setattr("zoo.families._registered", {"pendulum": "tiny_family:Pendulum"})
    zoo.publish(pendulum(), "local:pendulum/a", home=tmp_path)
    assert zoo.load("pendulum/a", home=tmp_path).sample(1).shape == (8,)
    with pytest.raises(zoo.ZooError, match=r"family 'pendulum' have no method to\(device, dtype\)"):
        zoo.load("pendulum/a", home=tmp_path, device="cpu")


def test_a_family_of_another_package_is_moved(tmp_path, monkeypatch):
    import tiny_family

    def to(self, *, device, dtype):
        self.moved = (device, dtype)
        return self

    monkeypatch.setattr(tiny_family.Pendulum, "to", to, raising=False)
    monkeypatch.setattr("zoo.families._registered", {"pendulum": "tiny_family:Pendulum"})
    zoo.publish(tiny_family.pendulum(), "local:pendulum/a", home=tmp_path)
    moved = zoo.load("pendulum/a", home=tmp_path, dtype="float16").moved
    assert moved == (None, torch.float16)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, *HALF], ids=str)
def test_on_a_gpu(dtype, kangaroo, tiny, tmp_path):
    """The same motions and videos as on the CPU, up to rounding; results come back as NumPy arrays and files."""
    model, single = zoo.load(DIMO, device="cuda", dtype=dtype), kangaroo.sample(7)
    motion = model.sample(7)
    assert motion.device.type == "cuda" and motion.z.is_cuda and motion.gaussians().means.is_cuda
    apart = motion.trajectories.positions.cpu() - single.trajectories.positions
    assert apart.norm(dim=-1).max() < (2e-3 if dtype else 1e-4)
    assert np.abs(pixels(motion) - pixels(single)).mean() < 0.3
    for name, options in {
        "a.glb": {"detail": 16},
        "a.mp4": {"resolution": 32},
        "a.ply": {},
        "a.npz": {},
    }.items():
        assert motion.save(tmp_path / name, **options).exists()
    assert pickle.loads(pickle.dumps(motion)) == motion
    assert model.to("cpu", torch.float32).sample(7).device.type == "cpu"

    moved = zoo.load(MVVDM, device="cuda", dtype=dtype)
    assert moved.device.type == "cuda" and np.abs(videos(moved) - videos(tiny)).mean() < 0.02
    assert videos(moved.to("cpu", torch.float32)).shape == videos(tiny).shape
