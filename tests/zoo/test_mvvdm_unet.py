"""MV-VDM's network: parameter counts, and equality with diffusers' networks on shared weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import Attention as DiffusersAttention

from renderers.cameras import mvvdm_camera_vectors
from zoo.mvvdm.attention import MultiViewAttention, SpatiotemporalAttention, TextImageAttention
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.embeddings import SentenceEmbedding, Whitening, encode_place, encode_time
from zoo.mvvdm.parts import kind
from zoo.mvvdm.schedule import signal_levels
from zoo.mvvdm.unet import MVVDMUNet
from zoo.mvvdm.views import condition_cameras

# Stable Diffusion's structure with fewer channels.
SMALL = MVVDMConfig(
    block_out_channels=(16, 24, 32, 32),
    num_heads=4,
    norm_num_groups=8,
    cross_attention_dim=24,
    image_embed_dim=None,
)
DIFFUSERS = {
    "block_out_channels": SMALL.block_out_channels,
    "cross_attention_dim": SMALL.cross_attention_dim,
    "norm_num_groups": SMALL.norm_num_groups,
}


def unet(config: MVVDMConfig = SMALL, seed: int = 0) -> MVVDMUNet:
    torch.manual_seed(seed)
    return MVVDMUNet(config).eval()


def inputs(B: int = 1, V: int = 2, T: int = 3, side: int = 16, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "sample": normal(B, V, T, 4, side, side),
        "timestep": torch.randint(1000, (B,), generator=generator),
        "text_embeds": normal(B, 7, SMALL.cross_attention_dim),
        "camera": normal(B, V, 16),
    }


@torch.no_grad()
def forget_cameras(model: MVVDMUNet) -> None:
    """Make the camera embedding zero, as Stable Diffusion has none."""
    model.camera_embedding.linear_2.weight.zero_()
    model.camera_embedding.linear_2.bias.zero_()


@torch.no_grad()
def stir(model: torch.nn.Module, seed: int = 2) -> None:
    """Add noise to every parameter, so that adapters and blenders have an effect."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


# --- parameter counts --------------------------------------------------------------------------------


def test_counts_of_the_published_size():
    """Counted on the meta device, where parameters have shapes but no memory."""
    with torch.device("meta"):
        base = MVVDMUNet(MVVDMConfig.base())
    numbers, tensors = {}, {}
    for name, parameter in base.named_parameters():
        numbers[kind(name)] = numbers.get(kind(name), 0) + parameter.numel()
        tensors[kind(name)] = tensors.get(kind(name), 0) + 1
    assert numbers == {
        "backbone": 859_520_964,
        "camera": 1_661_440,
        "image projection": 1024 * 3072 + 3072 + 2 * 768,
        "image attention": 22_319_616 - (1024 * 3072 + 3072 + 2 * 768),
        "motion": 453_209_280,
        "spatial": 164_697_002,
        "adapter": 24_793_280,
    }
    # The released file also stores 42 temporal encodings, which are computed here: 252 + 42 = 294.
    assert tensors == {
        "backbone": 686, "camera": 4, "image projection": 4, "image attention": 32,
        "motion": 546, "spatial": 252, "adapter": 48,
    }  # fmt: skip
    assert sum(p.numel() for _, p in base.trainable_parameters()) == 642_699_562
    with torch.device("meta"):
        stable_diffusion = UNet2DConditionModel(cross_attention_dim=768)
    assert sum(p.numel() for p in stable_diffusion.parameters()) == numbers["backbone"]


def test_gradients_reach_what_is_trained_and_nothing_else():
    model = unet(replace(SMALL, image_embed_dim=12))
    stir(model)
    model.freeze_backbone()
    model(**inputs(), image_embeds=torch.ones(1, 2, 12)).square().mean().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, _ in model.trainable_parameters()}


def test_tiny_is_tiny():
    """Size of network and autoencoder in half precision."""
    from zoo.mvvdm.autoencoder import PatchAutoencoder

    autoencoder = PatchAutoencoder()
    assert autoencoder.config.latent_channels == MVVDMConfig.tiny().in_channels
    with torch.device("meta"):
        tiny = MVVDMUNet(MVVDMConfig.tiny())
    size = 2 * sum(p.numel() for model in (autoencoder, tiny) for p in model.parameters())
    assert size < 40e6


# --- equivalences ----------------------------------------------------------------------------------------


def test_one_picture_is_stable_diffusions():
    """One view, one frame, no motion modules, untrained adapters: equals diffusers' UNet on the same weights."""
    theirs = UNet2DConditionModel(**DIFFUSERS, attention_head_dim=SMALL.num_heads).eval()
    stir(theirs)
    ours = unet()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert unexpected == [] and {kind(name) for name in missing} == {"camera", "motion", "spatial", "adapter"}
    forget_cameras(ours)
    for side in (16, 20):  # 20, 10, 5, 3: upsampling has to restore an odd size
        given = inputs(B=2, V=1, T=1, side=side)
        with torch.no_grad():
            found = ours(**given, motion=False)[:, 0, 0]
            expected = theirs(given["sample"][:, 0, 0], given["timestep"], given["text_embeds"]).sample
            close(found, expected)
            assert not torch.allclose(
                found, ours(**given)[:, 0, 0], atol=1e-2
            )  # the control: with motion modules


def test_one_view_over_time_is_animatediffs():
    """One view and the temporal branch only: equals diffusers' UNetMotionModel on the same weights."""
    adapter = MotionAdapter(
        block_out_channels=SMALL.block_out_channels, motion_norm_num_groups=8, motion_num_attention_heads=4
    )
    flat = UNet2DConditionModel(**DIFFUSERS, attention_head_dim=SMALL.num_heads)
    theirs = UNetMotionModel.from_unet2d(flat, adapter).eval()
    stir(theirs)
    ours = unet()
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith(".pe")}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert unexpected == [] and {kind(name) for name in missing} == {"camera", "spatial", "adapter"}
    forget_cameras(ours)
    for name, parameter in ours.named_parameters():
        if name.endswith("mix_factor"):
            parameter.data.fill_(-1e4)  # μ = 0
    given = inputs(V=1, T=5)
    with torch.no_grad():
        found = ours(**given)[0]
        sample = given["sample"][0].movedim(2, 1)  # [V, C, T, H, W]
        text = given["text_embeds"].expand(5, -1, -1)  # repeated per frame
        expected = theirs(sample, given["timestep"], text).sample.movedim(1, 2)
    close(found, expected)


@pytest.mark.parametrize("adapter", ["paper", "released"])
def test_a_fresh_model_without_motion_modules_is_its_backbone_frame_by_frame(adapter):
    model, given = unet(replace(SMALL, adapter=adapter)), inputs()
    with torch.no_grad():
        videos = model(**given, motion=False)
        for frame in range(3):
            alone = model(**{**given, "sample": given["sample"][:, :, frame : frame + 1]}, motion=False)
            close(videos[:, :, frame : frame + 1], alone)
        stir(model)
        assert not torch.allclose(
            model(**given, motion=False)[:, :, 2:], alone, atol=1e-2
        )  # trained adapters


def test_multi_view_attention_is_self_attention_over_all_views():
    torch.manual_seed(0)
    ours, theirs = MultiViewAttention(32, 4, "paper"), DiffusersAttention(32, heads=4, dim_head=8)
    ours.load_state_dict(theirs.state_dict(), strict=False)
    tokens = torch.randn(1, 3, 2, 4, 5, 32)
    with torch.no_grad():
        for frame in range(2):
            expected = theirs(tokens[:, :, frame].reshape(1, -1, 32)).view(1, 3, 4, 5, 32)
            close(ours(tokens)[:, :, frame], expected)


@pytest.mark.parametrize("adapter", ["paper", "released"])
def test_the_adapter_is_the_papers_sum_or_the_released_one(adapter):
    """Multi-view attention with the adapter equals its formula, for one frame and one head (Animate3D §3.1)."""
    torch.manual_seed(0)
    layer = MultiViewAttention(8, 1, adapter)
    stir(layer)
    tokens = torch.randn(1, 2, 3, 2, 2, 8)
    rows = tokens[0].transpose(0, 1).reshape(3, 8, 8).double()
    q, k, v, q2 = (rows @ p.weight.T.double() for p in (layer.to_q, layer.to_k, layer.to_v, layer.to_q_i2v))
    frame = 2
    own = (q[frame] @ k[frame].T / math.sqrt(8)).softmax(-1) @ v[frame]
    first = (q2[frame] @ k[0].T / math.sqrt(8)).softmax(-1) @ v[0]
    out, out2 = layer.to_out[0].double(), layer.to_out_i2v.double()
    released, paper = out(own + out2(first)), out(own) + out2(first)
    assert not torch.allclose(released, paper, atol=1e-2)
    expected = released if adapter == "released" else paper
    with torch.no_grad():
        found = layer.float()(tokens)[0, :, frame].reshape(8, 8)
        close(found, expected.float())


def test_without_the_adapter_frames_do_not_see_the_first_one(tmp_path):
    """Without motion modules, every frame is then computed alone, whatever the weights; also after loading."""
    config = replace(SMALL, adapter="none", spatial=False)
    model, given = unet(config), inputs()
    stir(model)
    assert not [name for name in model.state_dict() if "_i2v." in name or "_sp." in name]
    with torch.no_grad():
        videos = model(**given, motion=False)
        alone = model(**{**given, "sample": given["sample"][:, :, 2:]}, motion=False)
        close(videos[:, :, 2:], alone)
        model.save_pretrained(tmp_path)
        loaded = MVVDMUNet.from_pretrained(tmp_path)
        close(loaded(**given), model(**given))


def test_text_and_image_attention_are_ip_adapters():
    """Equals diffusers' processor per view: each view attends to its own image."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    torch.manual_seed(0)
    theirs = DiffusersAttention(32, cross_attention_dim=24, heads=4, dim_head=8)
    theirs.set_processor(IPAdapterAttnProcessor2_0(32, cross_attention_dim=24))
    ours = TextImageAttention(32, 4, 24, image=True)
    ours.load_state_dict(
        {
            name.replace("processor.", "").replace("_ip.0.", "_ip."): t
            for name, t in theirs.state_dict().items()
        }
    )
    tokens, text, image = torch.randn(2, 3, 2, 4, 4, 32), torch.randn(2, 7, 24), torch.randn(2, 3, 4, 24)
    with torch.no_grad():
        found = ours(tokens, text, image)
        for view in range(3):
            for frame in range(2):
                flat = tokens[:, view, frame].flatten(1, 2)
                expected = theirs(flat, encoder_hidden_states=(text, [image[:, view]]))
                close(found[:, view, frame].flatten(1, 2), expected)
        others = ours(tokens, text, image.roll(1, 1))
    assert not torch.allclose(found, others, atol=1e-2)


# --- the motion module -----------------------------------------------------------------------------------


def test_place_encoding_by_hand():
    """Channels of the row come first, then those of the column; the last row and column are at 2π."""
    encoded = encode_place(4, 6, 8)
    assert encoded.shape == (4, 6, 8)
    for row, column in ((3, 5), (0, 2), (1, 5)):
        y, x = (row + 1) / 4 * 2 * math.pi, (column + 1) / 6 * 2 * math.pi
        by_hand = [f(a / d) for a in (y, x) for d in (1, 100) for f in (math.sin, math.cos)]
        np.testing.assert_allclose(encoded[row, column].numpy(), by_hand, atol=1e-5)
    assert abs(math.asin(float(encoded[3, 5, 0]))) < 1e-5  # 2π


def test_time_encoding_is_animatediffs():
    from diffusers.models.embeddings import SinusoidalPositionalEmbedding

    torch.testing.assert_close(encode_time(32, 40), SinusoidalPositionalEmbedding(40, 32).pe[0])
    assert encode_time(50, 40).shape == (50, 40)  # longer than the table that AnimateDiff stores


def test_views_have_no_number():
    """The network is equivariant to a permutation of views and their cameras, but not of frames."""
    model = unet()
    stir(model)
    given = inputs(V=4, side=8)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        found = model(**given)
        turned = model(**{**given, "sample": given["sample"][:, order], "camera": given["camera"][:, order]})
        close(turned, found[:, order])
        only_pictures = model(**{**given, "sample": given["sample"][:, order]})
        assert not torch.allclose(only_pictures, found[:, order], atol=1e-3)
        frames = torch.tensor([0, 2, 1])
        assert not torch.allclose(
            model(**{**given, "sample": given["sample"][:, :, frames]}), found[:, :, frames], atol=1e-3
        )


def test_the_blend_of_space_and_time():
    torch.manual_seed(0)
    layer = SpatiotemporalAttention(32, 4)
    tokens = torch.randn(2, 3, 4, 2, 2, 32)
    with torch.no_grad():
        close(layer(tokens), (layer.over_space(tokens) + layer.over_time(tokens)) / 2)  # initial blend: 1/2
        layer.mix_factor.fill_(1.0)
        share = 1 / (1 + math.exp(-1))
        close(layer(tokens), share * layer.over_space(tokens) + (1 - share) * layer.over_time(tokens))
        # The spatial branch treats frames separately; the temporal branch treats positions separately.
        changed = tokens.clone()
        changed[:, :, 3] += 1
        assert torch.equal(layer.over_space(changed)[:, :, :3], layer.over_space(tokens)[:, :, :3])
        changed = tokens.clone()
        changed[:, 1, :, 0, 1] += 1
        same = torch.ones(3, 2, 2, dtype=torch.bool)
        same[1, 0, 1] = False
        difference = (layer.over_time(changed) - layer.over_time(tokens)).abs().amax((0, 2, 5))
        assert difference[same].max() == 0 and difference[~same].min() > 0


def test_without_the_spatial_branch_frames_meet_only_at_the_same_place():
    torch.manual_seed(0)
    layer, whole = SpatiotemporalAttention(32, 4, spatial=False), SpatiotemporalAttention(32, 4)
    whole.load_state_dict(layer.state_dict(), strict=False)
    assert set(whole.state_dict()) - set(layer.state_dict()) == {
        "to_q_sp.weight", "to_k_sp.weight", "to_v_sp.weight", "to_out_sp.weight", "to_out_sp.bias", "mix_factor",
    }  # fmt: skip
    tokens = torch.randn(2, 3, 4, 2, 2, 32)
    with torch.no_grad():
        assert torch.equal(layer(tokens), whole.over_time(tokens))
        assert not torch.allclose(layer(tokens), whole(tokens), atol=1e-2)


def test_a_network_that_starts_from_the_first_frame():
    """With `from_first`, the untrained network predicts the still first frame; training adds changes to it."""
    config = replace(SMALL, from_first=True)
    model, given = unet(config), inputs(side=8)
    sample, first = given["sample"], given["sample"][:, :, :1]
    with torch.no_grad():
        assert torch.equal(model(**given), first.expand_as(sample))
        assert not torch.allclose(unet()(**given), first.expand_as(sample), atol=1e-3)  # without from_first
        model.conv_out.weight.normal_(std=0.1)
        change = model(**given) - first
        other = {**given, "sample": torch.cat([first + 1, sample[:, :, 1:]], dim=2)}
        assert not torch.allclose(model(**other) - (first + 1), change, atol=1e-3)
    assert model.conv_in.in_channels == model.conv_out.out_channels == 2 * config.in_channels


def test_it_may_believe_what_it_is_given():
    """With `from_first`, half of the output channels are weights of the noisy input. With all weights at 1, the
    prediction is z^1 + √ᾱ_t (z_t − √ᾱ_t z^1); at t = 0 this is the input.
    """
    model = unet(replace(SMALL, from_first=True))
    given = inputs(side=8)
    sample, first = given["sample"], given["sample"][:, :, :1]
    with torch.no_grad():
        model.conv_out.bias[SMALL.in_channels :] = 1.0
        for timestep in (0, 500):
            root = float(signal_levels()[timestep]) ** 0.5
            wanted = first + root * (sample - root * first)
            found = model(**{**given, "timestep": torch.tensor(timestep)})
            torch.testing.assert_close(found[:, :, 1:], wanted[:, :, 1:], rtol=1e-4, atol=1e-4)
            assert torch.equal(found[:, :, :1], first)
            # Some schedulers use fractional time steps.
            between = model(**{**given, "timestep": torch.tensor(timestep + 0.25)})
            torch.testing.assert_close(between, found)


def test_whitening_tells_sentences_apart_that_differ_little():
    """By hand: variances 9 and 1/9, 41/9 on average, along two axes turned by 30°."""
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    turn = torch.tensor([[c, -s], [s, c]])
    along = torch.tensor([[3, 1 / 3], [-3, 1 / 3], [3, -1 / 3], [-3, -1 / 3]])
    whitening = Whitening(2)
    torch.testing.assert_close(whitening(along), along)  # the identity until it is fitted
    whitening.fit(along @ turn.T + 5)
    scales = torch.tensor([(9 / (41 / 9) + 1) ** -0.5, (1 / 9 / (41 / 9) + 1) ** -0.5])
    torch.testing.assert_close(whitening(along @ turn.T + 5), (along * scales) @ turn.T, rtol=1e-5, atol=1e-5)
    again = Whitening(2)
    again.load_state_dict(whitening.state_dict())  # the statistics are buffers: saved but not trained
    assert torch.equal(again.matrix, whitening.matrix) and not list(whitening.parameters())
    whitening.fit(torch.ones(3, 2))  # the same sentence three times
    assert whitening(torch.ones(1, 2)).abs().max() == 0


def test_a_sentence_reaches_every_layer_with_the_time_step():
    """With `sentence`, the output depends on the text even without cross-attention to it."""
    blind = replace(SMALL, attention_levels=(False,) * 4)
    given = inputs(side=8)
    other = {**given, "text_embeds": given["text_embeds"] + 1}
    for sentence in (False, True):
        model = unet(replace(blind, sentence=sentence))
        model.mid_block.attentions[0].transformer_blocks[0].attn2.to_v.weight.data.zero_()
        with torch.no_grad():
            assert torch.equal(model(**given), model(**other)) is not sentence


def test_a_sentence_says_something_else_to_each_frame_and_view():
    torch.manual_seed(0)
    embed, clauses, camera = SentenceEmbedding(8, 16), torch.randn(2, 2, 8), torch.randn(2, 3, 16)
    both, one, other = (
        torch.tensor(valid).view(1, 2, 1) for valid in ([True, True], [True, False], [False, True])
    )
    with torch.no_grad():
        found = embed(clauses, both, camera, 5)
        assert found.shape == (2, 3, 5, 16)
        torch.testing.assert_close(embed(clauses, both, camera[:, :2], 4), found[:, :2, :4])
        torch.testing.assert_close(embed(clauses, one, camera, 5) + embed(clauses, other, camera, 5), found)
    apart = torch.cdist(found[0].flatten(0, 1), found[0].flatten(0, 1)) + torch.eye(15)
    assert apart.min() > 1e-3


def test_places_without_a_clause_say_nothing():
    """The embedding does not depend on padding to the number of clauses of other sentences."""
    model, given = unet(replace(SMALL, sentence=True)), inputs(side=8)
    text = given["text_embeds"][:, :1]
    model.whitening.fit(torch.randn(20, text.shape[-1]) + 1)
    padded = torch.cat([text, torch.zeros_like(text)], dim=1)
    with torch.no_grad():
        alone = model(**{**given, "text_embeds": text})
        torch.testing.assert_close(model(**{**given, "text_embeds": padded}), alone)
        assert not torch.allclose(model(**{**given, "text_embeds": padded.flip(1) + padded}), alone)


# --- usage -------------------------------------------------------------------------------------------------


def test_gradient_checkpointing_changes_nothing():
    model, given = unet(), inputs(side=8)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.enable_gradient_checkpointing()
        assert model.is_gradient_checkpointing == checkpointed
        model.zero_grad()
        model(**given).square().mean().backward()
        gradients.append([p.grad.clone() for _, p in model.trainable_parameters()])
    for with_all, again in zip(*gradients, strict=True):
        torch.testing.assert_close(with_all, again, atol=1e-7, rtol=1e-5)


def test_saved_and_loaded(tmp_path):
    config = replace(SMALL, block_out_channels=(16, 24), attention_levels=(True, False), adapter="paper")
    model = unet(config)
    stir(model)
    model.save_pretrained(tmp_path)
    again = MVVDMUNet.from_pretrained(tmp_path)
    assert again.config.adapter == "paper" and tuple(again.config.block_out_channels) == (16, 24)
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    given = inputs()
    with torch.no_grad():
        close(again.eval()(**given), model(**given))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sample", torch.zeros(1, 2, 3, 5, 8, 8), r"sample \[B, V, T, 4, H, W\], got \[1, 2, 3, 5, 8, 8\]"),
        ("camera", torch.zeros(1, 3, 16), r"camera \[1, 2, 16\] .*, got \[1, 3, 16\]"),
        ("text_embeds", torch.zeros(1, 7, 25), r"text_embeds \[1, any, 24\] .*, got \[1, 7, 25\]"),
        ("timestep", torch.zeros(2), r"one timestep or 1, one per object, got \[2\]"),
        ("image_embeds", torch.zeros(1, 2, 5), r"image_embeds None, got \(1, 2, 5\)"),
    ],
)
def test_wrong_shapes_are_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        unet()(**{**inputs(), name: value})


def test_configs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"adapter: expected one of .*'both'"):
        replace(SMALL, adapter="both")
    with pytest.raises(ValueError, match="attention_levels: expected one entry for each of the 4 levels"):
        replace(SMALL, attention_levels=(True,))
    with pytest.raises(ValueError, match=r"block_out_channels: expected multiples of 4, .* got 30"):
        replace(SMALL, block_out_channels=(30, 24, 32, 32))


# --- cameras -----------------------------------------------------------------------------------------------


def test_the_four_cameras_as_the_network_is_told_them():
    """Elevation 15°, azimuth 0: at (0.9659, 0, 0.2588) of a z-up world; then counter-clockwise to +y."""
    matrices = mvvdm_camera_vectors(condition_cameras()).reshape(4, 4, 4)
    c, s = math.cos(math.radians(15)), math.sin(math.radians(15))
    np.testing.assert_allclose(matrices[:, :3, 3], [[c, 0, s], [0, c, s], [-c, 0, s], [0, -c, s]], atol=1e-7)
    np.testing.assert_allclose(matrices[0, :3, 3], [0.9659, 0, 0.2588], atol=1e-4)
    for matrix in matrices[:, :3, :3]:
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-7)
        assert np.linalg.det(matrix) == pytest.approx(1)


def test_camera_vectors_back_to_the_house():
    """Converted back from z-up OpenGL axes to y-up OpenCV axes, they are the cameras' matrices except for distance."""
    cameras = condition_cameras(5)
    for vector, camera_to_world in zip(mvvdm_camera_vectors(cameras), cameras.camera_to_world, strict=True):
        matrix = vector.reshape(4, 4)
        y_up = matrix[[1, 2, 0], :]  # our x is MVDream's y, our y its z, our z its x
        right, up, backward, position = y_up.T
        found = np.stack([right, -up, -backward, position * 3.0], 1)
        np.testing.assert_allclose(found, camera_to_world[:3], atol=1e-6)
