"""Loading published checkpoints into an MV-VDM: small files of the same structure, compared with diffusers' readers."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

from diffusers import MotionAdapter, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file

import zoo
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.embeddings import encode_time
from zoo.mvvdm.parts import find_file, kind, load_parts, read_tensors
from zoo.mvvdm.unet import MVVDMUNet

# Stable Diffusion's structure with fewer channels: as many tensors, and the last two levels equally wide.
CONFIG = MVVDMConfig(
    block_out_channels=(16, 24, 32, 32),
    num_heads=4,
    norm_num_groups=8,
    cross_attention_dim=12,
    image_embed_dim=20,
)
DIFFUSERS = {
    "block_out_channels": CONFIG.block_out_channels,
    "cross_attention_dim": CONFIG.cross_attention_dim,
    "norm_num_groups": CONFIG.norm_num_groups,
    "attention_head_dim": CONFIG.num_heads,
}
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def trained() -> State:
    """The state dict of a model after every tensor has been changed from its initial value."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in MVVDMUNet(CONFIG).state_dict().items()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def blank() -> MVVDMUNet:
    return MVVDMUNet(CONFIG)


@pytest.fixture
def unet(blank) -> MVVDMUNet:
    return copy.deepcopy(blank)


def of(trained: State, *kinds: str) -> State:
    return {name: tensor for name, tensor in trained.items() if kind(name) in kinds}


def same(unet: MVVDMUNet, expected: State) -> bool:
    found = unet.state_dict()
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


# --- files in the published layouts ----------------------------------------------------------------------


def mvdream_file(folder: Path, trained: State) -> Path:
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(of(trained, "backbone", "camera"), path)
    return path


def ldm_name(name: str) -> str:
    """Convert diffusers' name of a Stable Diffusion 1.5 tensor to the original name."""
    ends = {
        "conv_in.": "input_blocks.0.0.", "time_embedding.linear_1.": "time_embed.0.", "conv_norm_out.": "out.0.",
        "time_embedding.linear_2.": "time_embed.2.", "camera_embedding.linear_1.": "camera_embed.0.",
        "camera_embedding.linear_2.": "camera_embed.2.", "conv_out.": "out.2.",
    }  # fmt: skip
    for theirs, original in ends.items():
        if name.startswith(theirs):
            return "model.diffusion_model." + name.replace(theirs, original)
    place, level, layer = re.match(r"(down|mid|up)_block(?:s\.(\d))?\.\w+\.(\d)\.", name).groups()
    rest = name.split(".", 4)[4] if place != "mid" else name.split(".", 3)[3]
    sub = 1 if ".attentions." in name else 0
    if place == "mid":
        block = f"middle_block.{1 if sub else 2 * int(layer)}"
    elif "samplers." in name:
        block = f"input_blocks.{3 * (int(level) + 1)}.0" if place == "down" else None
        block = block or f"output_blocks.{3 * int(level) + 2}.{1 if level == '0' else 2}"
        rest = rest.replace("conv.", "op.") if place == "down" else rest
    else:
        number = 3 * int(level) + int(layer) + (place == "down")
        block = f"{'input' if place == 'down' else 'output'}_blocks.{number}.{sub}"
    if not sub:
        inside = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
                  "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
        head, _, last = rest.rpartition(".")
        rest = f"{inside.get(head, head)}.{last}"
    return f"model.diffusion_model.{block}.{rest}"


def ip_adapter_file(folder: Path, trained: State) -> Path:
    """Nested dictionaries; the middle block's attention is numbered last."""
    state = {
        "image_proj": {
            "proj.weight": trained["image_projection.image_embeds.weight"],
            "proj.bias": trained["image_projection.image_embeds.bias"],
            "norm.weight": trained["image_projection.norm.weight"],
            "norm.bias": trained["image_projection.norm.bias"],
        },
        "ip_adapter": {},
    }
    blocks = [f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)]
    blocks += [f"up_blocks.{i}.attentions.{j}" for i in range(1, 4) for j in range(3)] + [
        "mid_block.attentions.0"
    ]
    for number, block in enumerate(blocks):
        for letter in "kv":
            state["ip_adapter"][f"{2 * number + 1}.to_{letter}_ip.weight"] = trained[
                f"{block}.transformer_blocks.0.attn2.to_{letter}_ip.weight"
            ]
    path = folder / "models" / "ip-adapter_sd15.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


def released_state(trained: State) -> State:
    """The released file: 888 tensors, 40 in each of 21 motion modules and 3 in each of 16 adapters."""
    state = {}
    for name, tensor in of(trained, "motion", "spatial", "adapter").items():
        block, _, last = name.partition(".attn1." if ".attn1." in name else ".attn2.")
        attention = name[len(block) : len(name) - len(last)]
        if kind(name) == "motion":
            state[name] = tensor
        elif last == "mix_factor":
            state[f"{block}{attention}processor.alpha_blender.mix_factor"] = tensor
            width = trained[f"{block}{attention}to_q.weight"].shape[0]
            state[f"{block}{attention}processor.time_pos_embed.pe"] = encode_time(32, width)[None].half()
        else:
            state[f"{block}{attention}processor.{last}"] = tensor
    return state


def released_file(folder: Path, trained: State) -> Path:
    path = folder / "animate3d_motion_modules.ckpt"
    torch.save({"state_dict": released_state(trained)}, path)
    return path


def animatediff_name(name: str) -> str:
    """Convert diffusers' name of a motion adapter's tensor to the original name."""
    for theirs, original in {".norm1.": ".norms.0.", ".norm2.": ".norms.1.", ".norm3.": ".ff_norm.",
                             ".attn1.": ".attention_blocks.0.", ".attn2.": ".attention_blocks.1."}.items():  # fmt: skip
        name = name.replace(theirs, original)
    return re.sub(r"(motion_modules\.\d)\.", r"\1.temporal_transformer.", name)


# --- loading -------------------------------------------------------------------------------------------


def test_the_released_file_alone_and_with_the_others(blank, unet, trained, tmp_path):
    """As in the official code: 726 tensors missing and none unexpected; with the other parts, none missing."""
    released = released_file(tmp_path, trained)
    assert len(released_state(trained)) == 888
    alone = load_parts(unet, released=released)
    assert alone.counts == {"released": {"motion": 546, "spatial": 294, "adapter": 48}}
    assert len(alone.missing) == 726
    assert same(unet, of(trained, "motion", "spatial", "adapter"))

    fresh = copy.deepcopy(blank)
    mvdream_file(tmp_path / "mvdream", trained)
    ip_adapter_file(tmp_path / "ip", trained)
    whole = load_parts(fresh, mvdream=tmp_path / "mvdream", ip_adapter=tmp_path / "ip", released=tmp_path)
    assert whole.missing == ()
    assert whole.counts["mvdream"] == {"backbone": 686, "camera": 4}
    assert whole.counts["ip_adapter"] == {"image projection": 4, "image attention": 32}
    assert same(fresh, trained)


def test_a_full_dump_of_a_parallel_training_is_read_as_well(unet, trained, tmp_path):
    """A checkpoint of all tensors under the official names, with the prefix that DDP adds."""
    state = {**of(trained, "backbone", "camera"), **released_state(trained)}
    for name, tensor in of(trained, "image projection", "image attention").items():
        name = name.replace("image_projection.", "encoder_hid_proj.image_projection_layers.0.")
        state[re.sub(r"\.to_([kv])_ip\.", r".processor.to_\1_ip.0.", name)] = tensor
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "full.ckpt")
    assert load_parts(unet, released=tmp_path / "full.ckpt").missing == ()
    assert same(unet, trained)


def test_mvdreams_original_names(unet, trained, tmp_path):
    """The original Stable Diffusion names are confirmed by diffusers' own conversion."""
    ours = of(trained, "backbone", "camera")
    state = {ldm_name(name): tensor for name, tensor in ours.items()}
    plain = {name: tensor for name, tensor in state.items() if ".camera_embed." not in name}
    theirs = single_file_utils.convert_ldm_unet_checkpoint(
        plain, {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None}
    )
    assert len(theirs) == 686 and all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())

    beside = {"first_stage_model.encoder.conv_in.weight": torch.zeros(1), "betas": torch.zeros(1000)}
    torch.save({"state_dict": {**state, **beside}}, tmp_path / "sd-v1.5-4view.pt")
    loaded = load_parts(unet, mvdream=tmp_path)
    assert loaded.counts == {"mvdream": {"backbone": 686, "camera": 4}}
    assert same(unet, ours)


def test_a_new_adapter_asks_as_its_attention_does(unet, trained, tmp_path):
    """W'_Q starts as MVDream's W_Q and W'_O as zero, so the untrained network gives MVDream's images."""
    load_parts(unet, mvdream=mvdream_file(tmp_path, trained))
    state = unet.state_dict()
    queries = [name for name in state if name.endswith(".to_q_i2v.weight")]
    assert len(queries) == 16
    for name in queries:
        assert torch.equal(state[name], trained[name.replace("to_q_i2v", "to_q")])
        assert not state[name.replace("to_q_i2v", "to_out_i2v")].any()


def test_motion_adapters(blank, unet, tmp_path):
    """diffusers' file, and the original file, whose names are confirmed by diffusers' own conversion."""
    torch.manual_seed(0)
    adapter = MotionAdapter(
        block_out_channels=CONFIG.block_out_channels, motion_norm_num_groups=8, motion_num_attention_heads=4
    )
    adapter.save_pretrained(tmp_path / "diffusers")
    expected = {name: t for name, t in adapter.state_dict().items() if not name.endswith(".pe")}
    assert len(expected) == 546
    assert load_parts(unet, motion_adapter=tmp_path / "diffusers").counts == {
        "motion_adapter": {"motion": 546}
    }
    assert same(unet, expected)

    original = {animatediff_name(name): tensor for name, tensor in expected.items()}
    theirs = single_file_utils.convert_animatediff_checkpoint_to_diffusers(original)
    assert set(theirs) == set(expected)
    for name in [n for n in original if n.endswith("attention_blocks.0.to_q.weight")]:
        encoding = name.replace("to_q.weight", "pos_encoder.pe")
        original[encoding] = encode_time(32, original[name].shape[0])[None]
    torch.save(
        {f"module.{name}": tensor for name, tensor in original.items()}, tmp_path / "mm_sd_v15_v2.ckpt"
    )
    fresh = copy.deepcopy(blank)
    load_parts(fresh, motion_adapter=tmp_path / "mm_sd_v15_v2.ckpt")
    assert same(fresh, expected)


def test_ip_adapters_numbers_mean_what_diffusers_says(unet, trained, tmp_path):
    file = ip_adapter_file(tmp_path, trained)
    theirs = UNet2DConditionModel(**DIFFUSERS)
    theirs._load_ip_adapter_weights([torch.load(file, weights_only=True)])
    load_parts(unet, ip_adapter=file)
    ours, found = unet.state_dict(), 0
    for name, tensor in theirs.state_dict().items():
        if "_ip." in name or name.startswith("encoder_hid_proj."):
            name = re.sub(r"processor\.to_([kv])_ip\.0", r"to_\1_ip", name)
            name = name.replace("encoder_hid_proj.image_projection_layers.0", "image_projection")
            assert torch.equal(ours[name], tensor)
            found += 1
    assert found == 36


# --- refusals --------------------------------------------------------------------------------------------


def spoilt(trained: State, how: str) -> State:
    state = released_state(trained)
    name = "mid_block.motion_modules.0.transformer_blocks.0.attn1.processor.to_q_sp.weight"
    if how == "renamed":
        state[name.replace("to_q_sp", "to_q_space")] = state.pop(name)
    elif how == "absent":
        del state[name], state[name.replace("attn1", "attn2")]
    elif how == "reshaped":
        state[name] = state[name][:, :-1]
    elif how == "encoded":
        name = name.replace("to_q_sp.weight", "time_pos_embed.pe")
        state[name] = state[name].flip(1)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("renamed", r"attn1\.processor\.to_q_space\.weight is not a parameter of this network \(released\)"),
        (
            "absent",
            r"has no tensor for mid_block\S+attn1\.to_q_sp\.weight and 1 more, expected all 846 of released",
        ),
        (
            "reshaped",
            r"attn1\.processor\.to_q_sp\.weight is \[32, 31\], expected \[32, 32\] for mid_block\S+",
        ),
        ("encoded", r"attn1\.processor\.time_pos_embed\.pe is not AnimateDiff's sinusoidal encoding"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_by_name(unet, trained, tmp_path, how, message):
    before = copy.deepcopy(unet.state_dict())
    torch.save(spoilt(trained, how), tmp_path / "spoilt.ckpt")
    with pytest.raises(zoo.ZooError, match=r"spoilt\.ckpt: .*" + message):
        load_parts(unet, released=tmp_path / "spoilt.ckpt")
    assert same(unet, before)  # no tensor was copied
    torch.save(spoilt(trained, "not at all"), tmp_path / "whole.ckpt")  # the control
    load_parts(unet, released=tmp_path / "whole.ckpt")


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_a_truncated_file(unet, trained, tmp_path, ending):
    path = tmp_path / f"cut{ending}"
    state = released_state(trained)
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(zoo.ZooError, match=r"cut\.\w+: cannot be read as tensors .*download it again"):
        load_parts(unet, released=path)


def test_a_file_that_holds_code_is_not_run(unet, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it ran",))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.ckpt")
    with pytest.raises(
        zoo.ZooError, match=r"bomb\.ckpt: cannot be read as tensors .*contains other objects than tensors"
    ):
        load_parts(unet, released=tmp_path / "bomb.ckpt")
    assert not (tmp_path / "it ran").exists()
    pickle.loads(pickle.dumps(Bomb()))  # the control: unpickling does run the code
    assert (tmp_path / "it ran").exists()


def test_another_size_and_another_kind_of_file(unet, trained, tmp_path):
    other = MVVDMUNet(replace(CONFIG, block_out_channels=(16, 24, 32, 40)))
    with pytest.raises(zoo.ZooError, match=r"is \[\S+.*, expected \[\S+.* a network of another size"):
        load_parts(other, released=released_file(tmp_path, trained))
    with pytest.raises(
        zoo.ZooError,
        match=r"is not a parameter of this network \(ip_adapter\); check that this is the right file",
    ):
        load_parts(unet, ip_adapter=mvdream_file(tmp_path, trained))
    blind = MVVDMUNet(replace(CONFIG, image_embed_dim=None))
    with pytest.raises(
        zoo.ZooError, match="has no parameters of ip_adapter, because its config has image_embed_dim None"
    ):
        load_parts(blind, ip_adapter=ip_adapter_file(tmp_path, trained))


def test_version_1_of_animatediff_has_no_middle(unet, trained, tmp_path):
    state = {name: t for name, t in of(trained, "motion").items() if not name.startswith("mid_block.")}
    save_file(state, tmp_path / "v1.safetensors")
    with pytest.raises(
        zoo.ZooError, match=r"has no tensor for mid_block\S+ and 25 more, .*version 1 .*v1-5-2 does"
    ):
        load_parts(unet, motion_adapter=tmp_path / "v1.safetensors")


def test_files_that_are_not_there(tmp_path):
    names = ("a.safetensors", "b.bin")
    (tmp_path / "b.bin").write_bytes(b"")
    assert find_file(tmp_path, names) == tmp_path / "b.bin"
    with pytest.raises(zoo.ZooError, match=r"expected one of c\.bin in this folder"):
        find_file(tmp_path, ("c.bin",))
    with pytest.raises(zoo.ZooError, match="no such file or folder"):
        find_file(tmp_path / "nothing.ckpt", names)
    with pytest.raises(
        zoo.HubError, match=r"org/nothing: .* is not in the cache and the hub cannot be reached"
    ):
        find_file("org/nothing", names)  # tests are offline
    (tmp_path / "d.npz").write_bytes(b"")
    with pytest.raises(zoo.ZooError, match=r"d\.npz: expected \.safetensors, or \.bin, .* got '\.npz'"):
        read_tensors(tmp_path / "d.npz")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(zoo.ZooError, match=r"empty\.pt: contains no tensors"):
        read_tensors(tmp_path / "empty.pt")
