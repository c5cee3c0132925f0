"""The decoder, skinning and the motion graph against hand-computed cases and plain formulas."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from tiny_motions import tiny_config

from renderers.gaussians.features import rotation_matrices
from zoo.dimo.blending import rbf_weights
from zoo.dimo.config import DIMOConfig
from zoo.dimo.decoder import MotionDecoder, encode
from zoo.dimo.discs import matrix_quaternions, multiply_quaternions
from zoo.dimo.model import DIMO, RIDGE, KeyPointMotion
from zoo.metrics import torn_share


def _model(**changes) -> DIMO:
    """A model at random, with its graph."""
    torch.manual_seed(0)
    model = DIMO(tiny_config(**changes), 3)
    with torch.no_grad():
        for name in ("means", "key_points", "quats", "mu"):
            getattr(model, name).normal_()
    model.refresh()
    return model


def _shaken(decoder: MotionDecoder) -> MotionDecoder:
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return decoder


def test_the_papers_decoder_has_647431_parameters():
    assert sum(p.numel() for p in MotionDecoder(DIMOConfig.paper()).parameters()) == 647_431


def test_the_decoder_moves_nothing_at_first_whatever_the_latent():
    torch.manual_seed(0)
    decoder = MotionDecoder(DIMOConfig.paper())
    offsets, quats = decoder(torch.randn(7, 3), torch.rand(5), 10 * torch.randn(3, 32))
    assert offsets.shape == (3, 5, 7, 3) and torch.equal(offsets, torch.zeros_like(offsets))
    assert torch.equal(quats, torch.tensor([1.0, 0, 0, 0]).expand(3, 5, 7, 4))


def test_the_encoding_is_sines_and_cosines_of_octaves():
    expected = [math.sin(0.3), math.sin(-2.0), math.cos(0.3), math.cos(-2.0)]
    expected += [math.sin(0.6), math.sin(-4.0), math.cos(0.6), math.cos(-4.0)]
    assert encode(torch.tensor([0.3, -2.0]), 2).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_decoder_is_that_of_concatenated_inputs():
    """The same network written as published: one row of place, moment and latent for every combination."""
    torch.manual_seed(1)
    config = DIMOConfig(width=32)
    decoder = _shaken(MotionDecoder(config))
    points, phases, z = torch.randn(4, 3), torch.rand(2), torch.randn(3, 32)
    offsets, quats = decoder(points, phases, z)
    for b in range(3):
        for t in range(2):
            for k in range(4):
                row = torch.cat([encode(points[k], 10), encode(phases[t : t + 1], 6), z[b]])
                hidden = row
                for index, layer in enumerate(decoder.trunk):
                    if index == config.skip + 1:
                        hidden = torch.cat([row, hidden])
                    hidden = layer(hidden).relu()
                for head, got in ((decoder.offset_head, offsets), (decoder.rotation_head, quats)):
                    assert torch.allclose(head[1](head[0](hidden).relu()), got[b, t, k], atol=1e-5)


def test_influence_by_hand():
    """d² = 1 and 4 at r = 1: e^-0.5 and e^-2; at r = 2 and 1: e^-1/8 and e^-2."""
    even = rbf_weights(torch.tensor([1.0, 4.0]), torch.ones(2))
    assert even.tolist() == pytest.approx([0.8175745, 0.1824255], abs=1e-6)
    uneven = rbf_weights(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0]))
    first = math.exp(-1 / 8)
    assert uneven[0].item() == pytest.approx(first / (first + math.exp(-2)), abs=1e-6)
    assert rbf_weights(torch.tensor([1e6, 1e6]), torch.ones(2)).tolist() == [0.5, 0.5]  # far, yet governed


def test_skinning_weights_are_shares_and_teach_the_radii_only():
    model = _model()
    weights = model.skinning_weights()
    assert torch.allclose(weights.sum(1), torch.ones(len(weights)))
    assert ((weights > 0).sum(1) <= 4).all()
    (weights[:, 0]).sum().backward()
    assert model.log_radii.grad.abs().sum() > 0
    assert model.means.grad is None and model.key_points.grad is None


@pytest.mark.parametrize("kind", [{}, {"stretching": True}, {"stretching": True, "discs": True}])
def test_key_points_that_move_rigidly_carry_the_gaussians_rigidly(kind):
    model = _model(**kind)
    with torch.no_grad():  # discs of different radii, whose axes are in the order of `skin`
        model.log_scales.copy_(torch.tensor([0.03, 0.02, 0.01]).log())
    turn = Rotation.from_rotvec([0.4, -1.1, 0.3])
    quat = torch.tensor(turn.as_quat(scalar_first=True), dtype=torch.float32)
    matrix, shift = torch.tensor(turn.as_matrix(), dtype=torch.float32), torch.tensor([0.3, -0.2, 0.5])
    positions = (model.key_points @ matrix.T + shift)[None, None]
    motion = KeyPointMotion(positions, (3.0 * quat).expand(1, 1, len(model.key_points), 4))
    moved = model.skin(motion)
    assert torch.allclose(moved.means[0], model.means @ matrix.T + shift, atol=1e-5)
    turned = (matrix.T @ rotation_matrices(moved.quats[0])).mT @ rotation_matrices(model.quats)
    assert torch.allclose(turned.diagonal(dim1=1, dim2=2).abs(), torch.ones(()), atol=1e-4)
    if "discs" not in kind:  # whose axes may point in the opposite direction
        assert torch.allclose(turned, torch.eye(3).expand_as(turned), atol=1e-4)
    assert torch.allclose(moved.scales, model.log_scales.exp().expand_as(moved.scales), rtol=1e-4)
    # The control: half of the key points left behind is no rigid motion.
    torn = positions.clone()
    torn[0, 0, ::2] = model.key_points[::2]
    assert not torch.allclose(model.skin(motion._replace(positions=torn)).means[0], moved.means[0], atol=1e-2)


def _sphere(count: int) -> torch.Tensor:
    """Evenly spread points on the unit sphere, [count, 3]."""
    index = torch.arange(count) + 0.5
    height, angle = 1 - 2 * index / count, math.pi * (1 + 5**0.5) * index
    radius = (1 - height.square()).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)


def _balloon(stretching: bool) -> DIMO:
    """Gaussians on a sphere, the first axis of each along the normal, and key points on the same sphere."""
    model = _model(stretching=stretching, key_points=96, gaussians=2000, neighbours=4, graph=8)
    normals = _sphere(2000)
    upright = torch.stack([1 + normals[:, 0], 0 * normals[:, 0], -normals[:, 2], normals[:, 1]], -1)
    with torch.no_grad():
        model.means.copy_(normals)
        model.quats.copy_(upright)  # each takes the x axis to the normal
        model.key_points.copy_(_sphere(96))
        model.log_radii.fill_(math.log(0.2))
    model.paths = lambda z, phases: model.key_points.expand(len(z), len(phases), -1, -1)
    model.refresh(torch.zeros(1))
    return model


@torch.no_grad()
def _blown_up(model: DIMO, factors: list[float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centres [N, 3] and factors of the scales [N, 3] once the key points have moved apart, and the true centres."""
    factor = torch.tensor(factors)
    still = torch.tensor([1.0, 0, 0, 0]).expand(1, 1, len(model.key_points), 4)
    scene = model.skin(KeyPointMotion((factor * model.key_points)[None, None], still))
    return scene.means[0], scene.scales[0] / model.log_scales.exp(), factor * model.means


def test_a_balloon_stretches_with_the_gaussians_on_it():
    """Blown up to a sphere and to an ellipsoid: centres, gaps and scales against those of the true surface."""
    rigid, model = _balloon(False), _balloon(True)
    for factors in ([1.4, 1.4, 1.4], [1.55, 1.16, 1.02]):
        means, scales, truth = _blown_up(model, factors)
        error = (means - truth).norm(dim=-1).mean()
        assert torn_share(truth[None], model.means) == torn_share(means[None], model.means) == 0
        # The control: key points that carry rigid pieces along leave gaps, and off the key points the surface behind.
        torn, unscaled, _ = _blown_up(rigid, factors)
        assert torn_share(torn[None], model.means) > 0.02
        assert error < 0.4 * (torn - truth).norm(dim=-1).mean()
        assert torch.equal(unscaled, torch.ones_like(unscaled))
    means, scales, _ = _blown_up(model, [1.4, 1.4, 1.4])
    assert (scales[:, 1:] - 1.4).abs().max() < 0.05  # along the surface
    assert scales[:, 0].min() > 0.98 and scales[:, 0].max() < 1.1  # across it, as no key point tells


def test_what_stretches_may_also_turn():
    """Skinning commutes with a rotation of the whole object, stretched or not."""
    model = _balloon(True)
    turn = Rotation.from_rotvec([0.4, -1.1, 0.3])
    quat = torch.tensor(turn.as_quat(scalar_first=True), dtype=torch.float32)
    matrix = torch.tensor(turn.as_matrix(), dtype=torch.float32)
    means, scales, _ = _blown_up(model, [1.55, 1.16, 1.02])
    places = torch.tensor([1.55, 1.16, 1.02]) * model.key_points @ matrix.T
    turned = model.skin(KeyPointMotion(places[None, None], quat.expand(1, 1, 96, 4)))
    assert torch.allclose(turned.means[0], means @ matrix.T, atol=1e-5)
    assert torch.allclose(turned.scales[0] / model.log_scales.exp(), scales, atol=1e-4)


def test_discs_remain_tangent_to_the_deformed_surface():
    """Their axes against the gradient of equation 7 by finite differences, with weights that vary."""
    model = _model(stretching=True, discs=True, key_points=12, graph=12, neighbours=5).double()
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(1, 1, 12, 7, generator=generator, dtype=torch.float64)
    quats = torch.tensor([1.0, 0, 0, 0]) + 0.2 * noise[..., 3:]
    motion = KeyPointMotion(model.key_points.detach() + 0.05 * noise[..., :3], quats)

    def place(points: torch.Tensor) -> torch.Tensor:
        """Equation 7 as it is written, with the key points of each Gaussian."""
        near = model.neighbours
        squared = (points[:, None] - model.key_points[near]).square().sum(-1)
        weights = rbf_weights(squared, model.log_radii.exp()[near])
        maps = rotation_matrices(quats[0, 0]) @ (
            torch.eye(3, dtype=torch.float64) + model.strains(motion.positions[0])[0]
        )
        apart = points[:, None] - model.key_points[near]
        moved = (maps[near] @ apart[..., None]).squeeze(-1) + motion.positions[0, 0, near]
        return (weights[..., None] * moved).sum(1)

    with torch.no_grad():
        model.log_radii.fill_(math.log(1.5))
        model.log_scales.copy_(torch.tensor([0.03, 0.02, 0.002]).log())
        discs = model.skin(motion)
        assert torch.allclose(discs.means[0], place(model.means), atol=1e-12)
        axes = rotation_matrices(model.quats) * model.log_scales.exp()[:, None]
        step = 1e-5
        ends = [
            (place(model.means + step * a) - place(model.means - step * a)) / (2 * step)
            for a in axes[..., :2].unbind(-1)
        ]
        expected = torch.stack(ends, -1)
        shape = rotation_matrices(discs.quats[0])[..., :2] * discs.scales[0, :, None, :2]
        inside = (expected.norm(dim=1) < 0.05).all(-1) & (expected.norm(dim=1) > 0.012).all(
            -1
        )  # discs.STRETCHES
        assert inside.float().mean() > 0.5
        assert torch.allclose((shape @ shape.mT)[inside], (expected @ expected.mT)[inside], atol=1e-8)
        # The control: blended rotations, which other models have.
        model.config = replace(model.config, discs=False)
        old = model.skin(motion)
        shape = rotation_matrices(old.quats[0])[..., :2] * old.scales[0, :, None, :2]
        assert not torch.allclose((shape @ shape.mT)[inside], (expected @ expected.mT)[inside], atol=1e-5)


def test_quaternions_of_matrices_are_scipys():
    turns = Rotation.random(100, random_state=0)
    halves = Rotation.from_rotvec(np.pi * np.eye(3))  # w = 0
    for each in (turns, halves, Rotation.identity(1)):
        quats = matrix_quaternions(torch.tensor(each.as_matrix()))
        quats = torch.nn.functional.normalize(quats, dim=-1)
        assert ((quats * torch.tensor(each.as_quat(scalar_first=True))).sum(-1).abs() > 1 - 1e-12).all()
    matrices = torch.tensor(turns.as_matrix()[:5], requires_grad=True)
    assert torch.autograd.gradcheck(matrix_quaternions, matrices)


def test_strains_and_their_gradients():
    """Against the least squares of numpy over all nine entries, and gradients by finite differences."""
    model = _model(stretching=True, key_points=12, graph=12).double()
    rest = model.key_points.detach()
    factor = torch.tensor([1.3, 0.8, 1.1], dtype=torch.float64)
    strains = model.strains((factor * rest)[None]).detach()[0]
    assert torch.allclose(strains, strains.mT)
    for k in range(12):
        before = np.delete(rest.numpy() - rest[k].numpy(), k, axis=0)
        lengths = np.linalg.norm(before, axis=1)
        growth = np.linalg.norm(factor.numpy() * before, axis=1) / lengths - 1
        directions = before / lengths[:, None]
        rows = np.einsum("ja,jb->jab", directions, directions).reshape(11, 9)
        rows = np.concatenate([rows, RIDGE**0.5 * np.eye(9)])
        expected = np.linalg.lstsq(rows, np.concatenate([growth, np.zeros(9)]), rcond=None)[0]
        assert np.allclose(strains[k].numpy().ravel(), expected, atol=1e-9)
    generator = torch.Generator().manual_seed(2)
    moved = model.key_points.detach() + 0.1 * torch.randn(1, 12, 3, generator=generator, dtype=torch.float64)
    quats = torch.randn(1, 1, 12, 4, generator=generator, dtype=torch.float64)

    def scales(positions: torch.Tensor) -> torch.Tensor:
        return model.skin(KeyPointMotion(positions[None], quats)).scales

    assert torch.autograd.gradcheck(scales, moved.requires_grad_())


@pytest.mark.parametrize("blending", ["linear", "aligned"])
def test_rotations_of_any_sign_and_norm_blend_to_their_mean(blending):
    """Rotations about one axis have a mean by hand, whatever multiples of their quaternions the decoder returns."""
    model = _model(blending=blending)
    K = len(model.key_points)
    generator = torch.Generator().manual_seed(1)
    angles = 0.6 * torch.rand(K, generator=generator)
    norms = (0.05 + 3.7 * torch.rand(K, generator=generator)) * torch.tensor([1.0, -1.0] * (K // 2))
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5]), dim=0)
    unit = torch.cat([(angles / 2).cos()[:, None], (angles / 2).sin()[:, None] * axis], -1)
    motion = KeyPointMotion(model.key_points[None, None], (norms[:, None] * unit)[None, None])
    with torch.no_grad():
        turned = rotation_matrices(model.skin(motion).quats[0])
        half = model.skinning_weights() @ unit  # unit quaternions of one sign: their sum points to the mean
        expected = rotation_matrices(half) @ rotation_matrices(model.quats)
    if blending == "aligned":
        assert torch.allclose(turned, expected, atol=1e-5)
    else:  # as the models of version 0.1 were trained, and the control
        assert not torch.allclose(turned, expected, atol=0.1)
        direct = multiply_quaternions(model.skinning_weights() @ (norms[:, None] * unit), model.quats)
        assert torch.allclose(turned, rotation_matrices(direct), atol=1e-4)


def test_configurations_without_a_field_blend_as_before_and_presets_as_now():
    values = asdict(DIMOConfig.bundled())
    assert values.pop("blending") == "aligned"
    assert DIMOConfig(**json.loads(json.dumps(values))).blending == "linear"
    assert DIMOConfig.paper().blending == DIMOConfig.laptop().blending == "aligned"
    assert values.pop("stretching") is True and not DIMOConfig(**json.loads(json.dumps(values))).stretching
    assert not DIMOConfig.paper().stretching  # as published


def test_quaternions_are_scipys():
    a, b = Rotation.random(2, random_state=0)
    one, two = (torch.tensor(r.as_quat(scalar_first=True)) for r in (a, b))
    product = rotation_matrices(multiply_quaternions(one, two))
    assert np.allclose(product.numpy(), (a * b).as_matrix())


def test_the_graph_joins_what_moves_together_not_what_is_near():
    """Four key points: 0 and 1 touch at rest but part, 0 and 2 stay together."""
    model = _model(key_points=4, graph=2, neighbours=2)
    rest = torch.tensor([[0.0, 0, 0], [0.05, 0, 0], [0.2, 0, 0], [0.25, 0, 0]])
    side = torch.tensor([1.0, -1.0, 1.0, -1.0])

    def paths(z, phases):
        positions = rest + phases[None, :, None, None] * side[:, None] * torch.tensor([0.0, 1.0, 0.0])
        return positions.expand(len(z), -1, -1, -1)

    with torch.no_grad():
        model.key_points.copy_(rest)
        model.means.copy_(torch.tensor([0.01, 0.0, 0.0]).expand_as(model.means))
    model.paths = paths
    model.refresh(torch.tensor([0.0, 0.5, 1.0]))
    assert model.graph.tolist() == [[0, 2], [1, 3], [2, 0], [3, 1]]
    assert (model.neighbours == torch.tensor([0, 2])).all()
    # At rest alone, the nearest in space.
    model.refresh(torch.tensor([0.0]))
    assert model.graph.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


def test_without_factorisation_the_decoder_moves_every_gaussian():
    model = _model(factorised=False)
    motion = model.trajectories(model.mu[:2], model.phases[:3])
    assert motion.positions.shape == (2, 3, len(model.means), 3)
    assert torch.equal(model.skin(motion).means, motion.positions.flatten(0, 1))


def test_a_state_brings_back_the_model_and_the_configuration_survives_json():
    model = _model()
    again = DIMO.from_state(model.config, model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    # No more key points drive a Gaussian than the motion graph joins, before `assign` and after it.
    narrow = DIMO(replace(model.config, graph=3, neighbours=4), 1, 6, 8)
    before = narrow.neighbours.shape
    narrow.assign()
    assert narrow.neighbours.shape == before == (6, 3)
    for config in (DIMOConfig.paper(), DIMOConfig.laptop(), DIMOConfig.bundled()):
        assert DIMOConfig(**json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(ValueError, match="skip"):
        DIMOConfig(depth=4, skip=3)
