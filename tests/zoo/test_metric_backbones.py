"""Metrics that need published weights: small networks of the real classes in the published files' formats.

The files have other hashes than the published ones, which the tests put into the table; without that they are refused.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import metrics
from zoo.metrics import backbones, clip, raft, vbench

CLOSE = 1e-4
Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path, monkeypatch) -> Publish:
    """Saves a file under a backbone's published name and expects its hash; returns the folder of weights."""

    def save(backbone: str, content: object) -> Path:
        entry = metrics.BACKBONES[backbone]
        path = tmp_path / entry.file
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, torch.jit.ScriptModule):
            content.save(str(path))
        elif path.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(content, path)
        else:
            torch.save(content, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(metrics.BACKBONES, backbone, replace(entry, sha256=digest))
        return tmp_path

    return save


def video(views: int = 1, frames: int = 4, size: int = 128, seed: int = 0) -> Tensor:
    """A smooth random picture that moves 2 pixels per frame, other noise in each view; rounded to 8 bits."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(views, 3, size // 8, size // 8, generator=generator)
    picture = F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    moved = torch.stack([picture.roll(2 * t, -1) for t in range(frames)], 1)
    return (moved * 255).round() / 255


def tiny_clip(monkeypatch, backbone: str) -> nn.Module:
    """A small CLIPModel whose image encoder has the configuration that the backbone's is set to."""
    from transformers import CLIPConfig, CLIPModel

    vision = dict.fromkeys(("hidden_size", "intermediate_size"), 32)
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 56, "projection_dim": 768}
    monkeypatch.setitem(clip.CONFIGS, backbone, vision | {"image_size": 224})
    text = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision | {"image_size": 224}, projection_dim=768)
    return CLIPModel(config).eval()


@torch.no_grad()
def features_of(model: nn.Module, frames: Tensor) -> Tensor:
    """transformers' own image features, [V, T, D], of unit length."""
    found = model.get_image_features(clip.clip_input(frames.flatten(0, 1)))
    found = getattr(found, "pooler_output", found)
    return F.normalize(found, dim=-1).unflatten(0, frames.shape[:2])


def test_clip_similarities_are_those_of_transformers(publish, monkeypatch):
    model = tiny_clip(monkeypatch, "clip-b32")
    state = model.state_dict()
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]  # in files of older versions
    weights = publish("clip-b32", state)
    frames, target = video(2), video(2, seed=1)
    ours, theirs, image = features_of(model, frames), features_of(model, target), target[0, 0]
    expected = F.cosine_similarity(ours, theirs, dim=-1).mean().item()
    assert metrics.clip_similarity(frames, target, weights=weights) == pytest.approx(expected, abs=CLOSE)
    expected = (ours * theirs[0, 0]).sum(-1).mean().item()
    assert metrics.clip_reference_similarity(frames, image, weights=weights) == pytest.approx(
        expected, abs=CLOSE
    )
    expected = F.cosine_similarity(ours[:, 1:], ours[:, :-1], dim=-1).mean().item()
    assert metrics.clip_frame_consistency(frames, weights=weights) == pytest.approx(expected, abs=CLOSE)
    cosines = (
        F.cosine_similarity(ours[:, 1:], ours[:, :-1], dim=-1),
        F.cosine_similarity(ours[:, 1:], ours[:, :1], dim=-1),
    )
    expected = torch.stack(cosines).clamp(min=0).mean().item()
    assert metrics.background_consistency(frames, weights=weights) == pytest.approx(expected, abs=CLOSE)
    assert metrics.clip_similarity(frames, frames, weights=weights) == pytest.approx(1.0)
    assert expected < 0.9999


@pytest.mark.parametrize("size", [(256, 256), (100, 140), (300, 224), (224, 224)])
def test_clip_input_is_torchvisions(size):
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize

    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    theirs = Compose(
        [
            Resize(224, InterpolationMode.BICUBIC, antialias=True),
            CenterCrop(224),
            Normalize(clip.MEAN, clip.STD),
        ]
    )
    torch.testing.assert_close(clip.clip_input(images), theirs(images), atol=1e-5, rtol=0)


def test_aesthetic_quality_is_a_tenth_of_the_linear_head(publish, monkeypatch):
    model = tiny_clip(monkeypatch, "clip-l14")
    with pytest.raises(
        metrics.NotComputed, match=r"^not computed: needs sa_0_4_vit_l_14_linear\.pth \(sha256 2cd4e6"
    ):
        metrics.aesthetic_quality(video(), weights=publish("clip-l14", model.state_dict()))
    head = nn.Linear(768, 1)
    weights = publish("aesthetic-l14", head.state_dict())
    expected = head(features_of(model, video())).mean().item() / 10
    assert metrics.aesthetic_quality(video(), weights=weights) == pytest.approx(expected, abs=CLOSE)
    hashes = metrics.metric("aesthetic_quality").hashes(weights)
    assert list(hashes) == ["clip-vit-large-patch14/model.safetensors", "sa_0_4_vit_l_14_linear.pth"]
    assert set(map(len, hashes.values())) == {64}


def tiny_dino(monkeypatch) -> tuple[nn.Module, dict[str, Tensor]]:
    """A small ViTModel of transformers with DINO's epsilon, and its weights under the names in DINO's file."""
    from transformers import ViTConfig, ViTModel

    tiny = {"patch_size": 56, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    monkeypatch.setattr(vbench, "DINO", {"image_size": 224, **tiny})
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, patch_size=56,
        layer_norm_eps=1e-6,
    )  # fmt: skip
    model = ViTModel(config, add_pooling_layer=False).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    source = model.state_dict()
    state = {
        "cls_token": source["embeddings.cls_token"],
        "pos_embed": source["embeddings.position_embeddings"],
    }
    for end in ("weight", "bias"):
        state[f"patch_embed.proj.{end}"] = source[f"embeddings.patch_embeddings.projection.{end}"]
        state[f"norm.{end}"] = source[f"layernorm.{end}"]
        for layer in range(2):
            get = lambda name, layer=layer, end=end: source[f"layers.{layer}.{name}.{end}"]  # noqa: E731
            block = f"blocks.{layer}."
            state[f"{block}attn.qkv.{end}"] = torch.cat([get(f"attention.{each}_proj") for each in "qkv"])
            state[f"{block}attn.proj.{end}"] = get("attention.o_proj")
            state[f"{block}norm1.{end}"], state[f"{block}norm2.{end}"] = (
                get("layernorm_before"),
                get("layernorm_after"),
            )
            state[f"{block}mlp.fc1.{end}"], state[f"{block}mlp.fc2.{end}"] = get("mlp.fc1"), get("mlp.fc2")
    return model, state


def test_subject_scores_are_those_of_transformers_dino(publish, monkeypatch):
    from torchvision.transforms import Compose, Normalize, Resize

    model, state = tiny_dino(monkeypatch)
    weights = publish("dino-b16", state)
    frames, image = video(2), video(2, 1, 160, seed=1)[:, 0]
    transform = Compose([Resize(224, antialias=True), Normalize(vbench.MEAN, vbench.STD)])
    with torch.no_grad():
        found = model(transform(frames.flatten(0, 1))).last_hidden_state[:, 0].unflatten(0, (2, -1))
        reference = model(transform(image)).last_hidden_state[:, 0]
    # VBench's loop, for each view.
    scores, consistencies = [], []
    for features, goal in zip(found, reference, strict=True):
        cosine = lambda a, b: max(0.0, F.cosine_similarity(a, b, dim=0).item())  # noqa: E731
        conformity = [cosine(goal, each) for each in features]
        successive = [cosine(a, b) for a, b in pairwise(features)]
        scores.append(0.5 * np.max(conformity) + 0.5 * np.mean(successive))
        first = [cosine(features[0], each) for each in features[1:]]
        consistencies.append(np.mean([(a + b) / 2 for a, b in zip(successive, first, strict=True)]))
    value = metrics.i2v_subject(frames, image, weights=weights)
    assert value == pytest.approx(np.mean(scores), abs=CLOSE)
    value = metrics.subject_consistency(frames, weights=weights)
    assert value == pytest.approx(np.mean(consistencies), abs=CLOSE)
    still = frames[:, :1].expand(-1, 3, -1, -1, -1)
    assert metrics.i2v_subject(still, frames[:, 0], weights=weights) == pytest.approx(1.0, abs=CLOSE)
    assert min(*scores, *consistencies) < 0.99


class SmallI3D(nn.Module):
    """Stands in for I3D's TorchScript: the same call, a few features."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert not rescale and not resize and return_features and x.shape[-1] == 224
        moved = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((2, 3, 4))
        return torch.cat([x.mean((2, 3, 4)), moved, x.std(dim=(2, 3, 4))], 1)


def test_fvd_is_the_frechet_distance_of_the_networks_features(publish):
    """torchvision's resizing, scaling to −1..1, and the matrix square root of scipy."""
    from scipy.linalg import sqrtm

    weights = publish("i3d", torch.jit.script(SmallI3D()))
    frames, target = (torch.cat([video(1, 10, 32, n + m) for n in range(12)]) for m in (0, 3))
    target = (0.8 * target).clamp(0, 1)
    features = []
    for videos in (frames, target):
        x = F.interpolate(videos.flatten(0, 1), (224, 224), mode="bilinear") * 2 - 1
        x = x.unflatten(0, videos.shape[:2]).transpose(1, 2)
        features.append(SmallI3D()(x, False, False, True).double().numpy())
    means, covariances = zip(*[(each.mean(0), np.cov(each, rowvar=False)) for each in features], strict=True)
    expected = np.square(means[0] - means[1]).sum() + np.trace(sum(covariances))
    expected -= 2 * np.trace(sqrtm(covariances[0] @ covariances[1]).real)
    assert metrics.fvd(frames, target, weights=weights) == pytest.approx(expected, abs=CLOSE)
    assert metrics.fvd(frames[:2], frames[:2], weights=weights) == pytest.approx(0.0, abs=1e-9)
    assert expected > 0.01
    single = metrics.fvd(frames[:1], target[:1], weights=weights)
    assert single == pytest.approx(np.square(features[0][0] - features[1][0]).sum(), abs=CLOSE)


def test_raft_flow_is_torchvisions_and_padding_is_cut_off(publish, monkeypatch):
    from torchvision.models.optical_flow import raft_large

    monkeypatch.setattr(raft, "ITERATIONS", 6)
    torch.manual_seed(0)
    network = raft_large(weights=None).eval()
    weights = publish("raft", network.state_dict())
    frames = video(1, 2, 136)[..., 4:-3]  # 136 x 129: padded to 136 x 136, three columns left and four right
    padded = F.pad(frames[0], (3, 4, 0, 0), mode="replicate") * 2 - 1
    with torch.no_grad():
        expected = network(padded[:1], padded[1:], num_flow_updates=raft.ITERATIONS)[-1]
    flow = raft.raft_flow(frames, weights=weights)
    assert flow.shape == (1, 1, 2, 136, 129)
    torch.testing.assert_close(flow[0], expected[..., 3:-4], atol=CLOSE, rtol=CLOSE)


def test_dynamic_degree_and_motion_amplitude_by_hand(monkeypatch):
    """Flows of known length: 5 % of the pixels move by 4, 20 % by 2; threshold 6 · 128 / 256 = 3 px at 8 fps."""
    flow = torch.zeros(2, 16, 2, 128, 128)
    flow[..., 0, :32, :102] = 2.0  # 20 %
    flow[0, :4, 1, :8, :103] = 4.0  # 5 %, in 4 of 16 pairs: 17 frames need round(4.25) = 4
    flow[1, :3, 1, :8, :103] = 4.0  # in 3 of them
    monkeypatch.setattr(raft, "raft_flow", lambda frames, **_: flow[: len(frames), : frames.shape[1] - 1])
    frames = torch.zeros(2, 17, 3, 128, 128)
    assert metrics.dynamic_degree(frames, 8) == 0.5
    assert metrics.dynamic_degree(frames[:1], 8) == 1.0
    assert metrics.dynamic_degree(frames[:1], 4) == 0.0  # the threshold doubles
    assert metrics.dynamic_degree(frames, 16) == 1.0  # every second frame: 9 frames need 2
    with pytest.raises(ValueError, match="at least 3 frames at 8 fps, got 2"):
        metrics.dynamic_degree(frames[:, :6], 24)
    mask = torch.zeros(2, 17, 128, 128, dtype=torch.bool)
    mask[:, :, 16:26, :10] = True  # 100 pixels that move by 2
    assert metrics.motion_amplitude(frames, mask) == pytest.approx(2.0)
    mask[:, :8] = False  # half of the pairs have no object
    assert metrics.motion_amplitude(frames, mask) == pytest.approx(1.0)


# In place of vbench's AMT-S: the mean of both frames in proportion to the time, plus a value per pixel.
# Importing the package itself fails.
NETWORK = """
import torch
from vbench.third_party.amt.networks import SIDE

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(SIDE, SIDE))

    def forward(self, img0, img1, embt, scale_factor=1.0, eval=False):
        assert eval and scale_factor == 1 and embt.shape == (1, 1, 1, 1)
        assert img0.shape == img1.shape == (1, 3, SIDE, SIDE)
        return {"imgt_pred": (1 - embt) * img0 + embt * img1 + self.bias}
"""


@pytest.fixture
def vbench_package(tmp_path, monkeypatch) -> Iterator[Path]:
    """Makes `vbench` importable, with another network; returns the network's file."""
    site = tmp_path / "site"
    networks = site / "vbench" / "third_party" / "amt" / "networks"
    networks.mkdir(parents=True)
    (site / "vbench" / "__init__.py").write_text("raise ImportError('a dozen packages')")
    (networks / "__init__.py").write_text("SIDE = 144")
    (networks / "AMT-S.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(backbones, "_LOADED", {})
    yield networks / "AMT-S.py"
    for name in [name for name in sys.modules if name.partition(".")[0] == "vbench"]:
        del sys.modules[name]


def test_motion_smoothness_compares_odd_frames_with_the_networks(publish, vbench_package):
    """Frames are padded by 2 pixels on each side; both values are cut to 8 bits, the network's downwards."""
    bias = 0.2 * torch.rand(144, 144, generator=torch.Generator().manual_seed(1))
    weights = publish("amt-s", {"epoch": 1, "state_dict": {"bias": bias}})
    frames = video(2, 5, 140)
    halfway = (frames[:, [0, 2]] + frames[:, [2, 4]]) / 2 + bias[2:-2, 2:-2]
    expected = (halfway.clamp(0, 1) * 255).floor() - (frames[:, [1, 3]] * 255).round()
    value = metrics.motion_smoothness(frames, weights=weights)
    assert value == pytest.approx(1 - float(expected.abs().mean()) / 255, abs=1e-6) and value < 0.95
    assert "vbench" not in sys.modules  # a later `import vbench` imports the package itself


def test_without_the_code_of_amt_motion_smoothness_is_not_computed(publish, vbench_package, monkeypatch):
    """Neither its code nor its weights may be used commercially: the message says so, and how to get them."""
    with pytest.raises(
        metrics.NotComputed, match=r"^not computed: needs amt-s\.pth .*licence: CC-BY-NC-4\.0"
    ):
        metrics.motion_smoothness(video(), weights=vbench_package.parent)
    weights = publish("amt-s", {"state_dict": {"bias": torch.zeros(144, 144)}})
    vbench_package.write_text("import nothing_of_this_name")
    with pytest.raises(metrics.NotComputed, match=r"installed one cannot be used .*nothing_of_this_name"):
        metrics.motion_smoothness(video(), weights=weights)
    monkeypatch.undo()
    publish("amt-s", {"state_dict": {"bias": torch.zeros(144, 144)}})
    with pytest.raises(metrics.NotComputed, match=r"needs the package vbench==0\.1\.5 .*CC BY-NC 4\.0"):
        metrics.motion_smoothness(video(), weights=weights)


def test_files_without_the_published_hash_are_refused(tmp_path):
    """In one sentence with the file, the hash, the source and what was found; nothing is loaded."""
    entry = metrics.BACKBONES["i3d"]
    expected = f"not computed: needs i3d_torchscript.pt (sha256 {entry.sha256}) from {entry.url} "
    expected += f"(licence: {entry.licence}); "
    with pytest.raises(metrics.NotComputed) as error:
        metrics.fvd(video(2, 10, 32), video(2, 10, 32), weights=tmp_path)
    assert str(error.value) == expected + f"{tmp_path / entry.file} does not exist"
    (tmp_path / entry.file).write_bytes(b"another network")
    digest = hashlib.sha256(b"another network").hexdigest()
    with pytest.raises(metrics.NotComputed) as error:
        metrics.fvd(video(2, 10, 32), video(2, 10, 32), weights=tmp_path)
    found = f"{tmp_path / entry.file} has the sha256 {digest}: delete it and download it again"
    assert str(error.value) == expected + found
    (tmp_path / "raft_large_C_T_V1-22a6c225.pth").write_bytes(b"x")
    with pytest.raises(
        metrics.NotComputed, match=r"\(sha256 22a6c225…\) from https://download\.pytorch\.org"
    ):
        metrics.dynamic_degree(video(), 8, weights=tmp_path)


def test_a_file_that_does_not_fit_the_network_is_refused(publish):
    weights = publish("raft", {"something": torch.zeros(3)})
    with pytest.raises(metrics.NotComputed, match=r"cannot be used.*Missing key"):
        metrics.raft_flow(video(), weights=weights)
    weights = publish("i3d", {"no": "script"})
    with pytest.raises(metrics.NotComputed, match=r"i3d_torchscript\.pt cannot be used"):
        metrics.fvd(video(2, 10, 32), video(2, 10, 32), weights=weights)


class Executed:
    """An object whose pickle runs code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (Path("executed"), "yes")


def test_no_code_in_a_pickle_is_executed(publish, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = publish("dino-b16", {"cls_token": Executed()})
    with pytest.raises(metrics.NotComputed, match="cannot be used"):
        metrics.subject_consistency(video(), weights=weights)
    assert not Path("executed").exists()


def test_without_a_folder_the_hubs_caches_are_used_and_nothing_is_downloaded_offline(
    tmp_path, monkeypatch, publish
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(metrics.NotComputed, match=r"needs amt-s\.pth .*downloads are off \(HF_HUB_OFFLINE\)"):
        metrics.find_weights("amt-s")
    publish("amt-s", {"state_dict": {}})
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def download(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        asked.append((url, hash_prefix))
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1/")
    with pytest.raises(metrics.NotComputed, match=r"the download failed \(no network\): put it in a folder"):
        metrics.find_weights("amt-s")
    entry = metrics.BACKBONES["amt-s"]
    assert asked == [("http://127.0.0.1:1/lalala125/AMT/resolve/main/amt-s.pth", entry.sha256)]
    cached = tmp_path / "torch" / "hub" / "checkpoints" / "amt-s.pth"
    (tmp_path / "amt-s.pth").rename(cached)
    assert metrics.find_weights("amt-s") == cached and len(asked) == 1


def test_networks_are_kept_until_their_file_changes(publish, monkeypatch):
    head = nn.Linear(3, 1)
    build = lambda: nn.Linear(3, 1)  # noqa: E731
    cpu = torch.device("cpu")
    weights = publish("aesthetic-l14", head.state_dict())
    first = backbones.load_network("aesthetic-l14", build, weights, cpu)
    assert backbones.load_network("aesthetic-l14", build, weights, cpu) is first
    assert not first.weight.requires_grad and torch.equal(first.weight, head.weight)
    publish("aesthetic-l14", nn.Linear(3, 1).state_dict())
    assert backbones.load_network("aesthetic-l14", build, weights, cpu) is not first


def test_a_missing_package_is_named(publish):
    def build() -> nn.Module:
        raise ImportError("No module named 'torchvision'", name="torchvision")

    weights = publish("raft", {})
    with pytest.raises(metrics.NotComputed, match=r"package torchvision for raft.*menagerie4d\[metrics\]"):
        backbones.load_network("raft", build, weights, torch.device("cpu"))
