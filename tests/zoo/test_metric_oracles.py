"""Metrics against implementations that nobody here wrote, on the same arrays: to 1e-4 or closer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from zoo import metrics
from zoo.metrics import images

CLOSE = 1e-4


def pair(*shape: int, noise: float = 0.1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth random images in 0..1, and the same with noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, shape[-1], 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, shape[-3:-1], mode="bicubic")[0].movedim(0, -1)
    image = smooth.clamp(0, 1).expand(shape)
    return image, (image + noise * torch.randn(shape, generator=generator)).clamp(0, 1)


def test_psnr_and_ssim_are_scikit_images():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    for noise in (0.02, 0.3):
        image, target = pair(40, 56, 3, noise=noise)
        expected = peak_signal_noise_ratio(target.numpy(), image.numpy(), data_range=1.0)
        assert metrics.psnr(image, target) == pytest.approx(expected, abs=CLOSE)
        expected = structural_similarity(
            image.numpy(), target.numpy(), data_range=1.0, channel_axis=-1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        assert metrics.ssim(image, target).item() == pytest.approx(expected, abs=CLOSE)
        assert expected < 0.98


@pytest.mark.slow  # torchmetrics imports transformers
def test_images_masks_and_frechet_distances_are_torchmetrics():
    from torchmetrics.functional.classification import binary_jaccard_index
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
    from torchmetrics.functional.regression import mean_squared_error
    from torchmetrics.image.fid import _compute_fid

    image, target = pair(2, 48, 40, 3)
    planes = [each.movedim(-1, 1).contiguous() for each in (image, target)]
    # Its map also has windows that reach over the border, 5 pixels wide, where images are reflected.
    _, ssim = structural_similarity_index_measure(*planes, data_range=1.0, return_full_image=True)
    expected = ssim[..., 5:-5, 5:-5].mean((1, 2, 3))
    assert torch.allclose(metrics.ssim(image, target), expected, atol=CLOSE)
    assert metrics.psnr(image, target) == pytest.approx(
        peak_signal_noise_ratio(*planes, data_range=1.0).item(), abs=CLOSE
    )
    error = mean_squared_error(image.flatten(), target.flatten())
    assert metrics.squared_error(image, target).item() == pytest.approx(error.item(), abs=CLOSE)
    mask, other = image[..., 0] * 1.2, target[..., 1] * 1.2
    jaccard = binary_jaccard_index((mask > 0.5).long(), (other > 0.5).long()).item()
    assert metrics.iou(*metrics.intersection_and_union(mask, other)) == pytest.approx(jaccard, abs=CLOSE)
    assert 0.1 < jaccard < 0.9
    a, b = torch.randn(60, 12).double(), 1.5 * torch.randn(80, 12).double() + 0.3
    expected = _compute_fid(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T)).item()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.slow  # builds VGG-16 four times
def test_lpips_is_that_of_the_package_and_of_torchmetrics(tmp_path, monkeypatch):
    """VGG-16 with random weights, in a folder, under the published name; the package's own linear heads."""
    import hashlib
    from dataclasses import replace

    from lpips import LPIPS
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import vgg16

    torch.manual_seed(0)
    state = vgg16(weights=None).state_dict()
    entry = metrics.BACKBONES["vgg16"]
    torch.save(state, tmp_path / entry.file)
    digest = hashlib.sha256((tmp_path / entry.file).read_bytes()).hexdigest()
    image, target = pair(2, 64, 64, 3)
    with pytest.raises(
        metrics.NotComputed, match=r"not computed: needs vgg16-397923af\.pth .* has the sha256"
    ):
        metrics.lpips(image, target, weights=tmp_path)
    monkeypatch.setitem(metrics.BACKBONES, "vgg16", replace(entry, sha256=digest))
    value = metrics.lpips(image, target, weights=tmp_path).item()
    inputs = [each.movedim(-1, 1) * 2 - 1 for each in (image, target)]
    names = ("slice1", "slice2", "slice3", "slice4", "slice5")
    for oracle in (LPIPS(net="vgg", pnet_rand=True, verbose=False), _LPIPS(net="vgg", pnet_rand=True)):
        oracle.eval()
        for name in names:
            part = getattr(oracle.net, name)
            part.load_state_dict({key: state[f"features.{key}"] for key in part.state_dict()})
        assert value == pytest.approx(oracle(*inputs).mean().item(), abs=CLOSE)
    assert value > 1e-3
    singles = [metrics.lpips(a, b, weights=tmp_path).item() for a, b in zip(image, target, strict=True)]
    assert value == pytest.approx(sum(singles) / 2, abs=CLOSE)
    images.lpips_network.cache_clear()


@pytest.mark.parametrize(("count", "other", "size"), [(50, 60, 8), (10, 12, 24), (6, 40, 6)])
def test_frechet_distance_is_that_of_scipys_matrix_square_root(count, other, size):
    """Also for fewer samples than features, where the covariances are singular."""
    generator = torch.Generator().manual_seed(count)
    a = torch.randn(count, size, generator=generator, dtype=torch.float64)
    b = torch.randn(other, size, generator=generator, dtype=torch.float64) * 1.3 + 0.2
    cov_a, cov_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    # Symmetric form, which is stable for singular matrices: tr (√Σ₁ Σ₂ √Σ₁)^½.
    values, vectors = linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = linalg.eigvalsh(root @ cov_b @ root).clip(0)
    means = np.square((a.mean(0) - b.mean(0)).numpy()).sum()
    expected = means + np.trace(cov_a + cov_b) - 2 * np.sqrt(inner).sum()
    assert metrics.frechet_distance(a, b) == pytest.approx(float(expected), abs=CLOSE)
    if min(count, other) > size:
        expected = means + np.trace(cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real)
        assert metrics.frechet_distance(a, b) == pytest.approx(float(expected), abs=CLOSE)
    assert metrics.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)


def test_frechet_distance_by_hand():
    """One dimension: means 0 and 3, variances 1 and 4: 9 + (2 − 1)². One sample: the distance of the means."""
    a, b = torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[1.0], [3.0], [5.0]])
    assert metrics.frechet_distance(a, b) == pytest.approx(10.0)
    assert metrics.frechet_distance(a[2:], b) == pytest.approx(4.0)


def test_colour_histograms_are_numpys():
    frames = torch.rand(2, 3, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    frames[..., :4, :] = 127 / 255  # background
    overlaps = []
    for view in frames.numpy():
        objects = [frame.reshape(3, -1).T for frame in view]
        objects = [each[np.abs(each - 127 / 255).max(1) > 0.06] for each in objects]
        histograms = [np.histogramdd(each, bins=4, range=[(0, 1)] * 3)[0] / len(each) for each in objects]
        overlaps += [np.minimum(histograms[0], each).sum() for each in histograms[1:]]
    value = metrics.color_histogram_overlap(frames, bins=4).item()
    assert value == pytest.approx(np.mean(overlaps), abs=CLOSE)
    assert 0.2 < value < 0.9


def test_flow_is_near_scikit_images():
    """Iterative Lucas-Kanade of both on a picture that moves by (2, −1) pixels."""
    from skimage.registration import optical_flow_ilk

    image, _ = pair(64, 64, 1)
    before, after = image[..., 0], torch.roll(image[..., 0], (-1, 2), (0, 1))
    rows, columns = optical_flow_ilk(before.numpy(), after.numpy(), radius=5)
    flow = metrics.optical_flow(before[None], after[None])[0]
    inner = (slice(16, -16), slice(16, -16))
    for ours, theirs, true in zip(flow, (columns, rows), (2, -1), strict=True):
        assert ours[inner].mean().item() == pytest.approx(theirs[inner].mean(), abs=0.2)
        assert ours[inner].mean().item() == pytest.approx(true, abs=0.2)


def test_chamfer_distance_is_that_of_all_pairs():
    a, b = (torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (70, 90))
    distances = cdist(a, b)
    expected = distances.min(0).mean() + distances.min(1).mean()
    assert metrics.chamfer_distance(a, b) == pytest.approx(expected, abs=CLOSE)
    chosen = np.random.RandomState(45).permutation(90)[:20]
    others = np.random.RandomState(44).permutation(70)[:20]
    expected = distances.min(0)[chosen].mean() + distances.min(1)[others].mean()
    assert metrics.chamfer_distance(a, b, queries=20) == pytest.approx(expected, abs=CLOSE)


def test_displacement_and_trajectory_errors_are_numpys_and_by_hand():
    """One point moves 2, then 4; predicted 1, then 4: 1 of 6. Standing still is 1, the truth 0."""
    target = torch.zeros(3, 1, 3)
    target[1:, 0, 0] = torch.tensor([2.0, 4.0])
    predicted = target.clone()
    predicted[1, 0, 0] = 1.0
    assert metrics.displacement_error(predicted, target) == pytest.approx(1 / 6)
    assert metrics.displacement_error(target[:1].expand_as(target), target) == 1.0
    assert metrics.displacement_error(target, target) == 0.0
    assert np.isnan(metrics.displacement_error(target, torch.zeros(3, 1, 3)))
    with pytest.raises(ValueError, match="target: expected at least 2 frames, got 1"):
        metrics.displacement_error(target[:1], target[:1])
    a, b = (torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    error = np.linalg.norm((a - b).numpy(), axis=-1)
    moved = np.linalg.norm((b - b[:1]).numpy(), axis=-1)
    assert metrics.displacement_error(a, b) == pytest.approx(error.mean() / moved.mean(), abs=CLOSE)
    assert metrics.displacement_error(5 * a, 5 * b) == pytest.approx(metrics.displacement_error(a, b))
    assert metrics.trajectory_error(a, b) == pytest.approx(error.mean(), abs=CLOSE)


def test_samples_of_a_surface_lie_on_it_by_area_and_keep_their_points():
    """Two triangles of areas 1 and 3, turned and shifted in the second frame."""
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0], [10, 0, 0], [12, 0, 0], [10, 3, 0]])
    turn = torch.tensor(Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix()).float()
    frames = torch.stack([vertices, vertices @ turn.T + 1])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    points = metrics.sample_surface(frames, faces, 4000, synchronized=True)
    assert torch.allclose(points[0] @ turn.T + 1, points[1], atol=1e-5)
    first = points[0][points[0][:, 0] < 5]
    assert len(first) / 4000 == pytest.approx(0.25, abs=0.03)
    assert torch.allclose(first.mean(0), vertices[:3].mean(0), atol=0.05)  # uniform: the centroid
    assert (points[0][:, 2] == 0).all() and (first[:, 0] / 2 + first[:, 1] <= 1 + 1e-6).all()
    free = metrics.sample_surface(frames, faces, 4000)
    assert torch.equal(free[0], points[0]) and not torch.allclose(free[1], points[1], atol=0.1)
    assert torch.equal(free, metrics.sample_surface(frames, faces, 4000))
