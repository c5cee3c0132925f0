"""Splat files: round trips, and interoperability with gsplat's exporter, gsply and trimesh."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from renderers.gaussians import Gaussians, TensorCameras, ply, render


def _splats(K: int, number: int = 50) -> Gaussians:
    generator = torch.Generator().manual_seed(K)
    quats = torch.randn(1, number, 4, generator=generator)
    return Gaussians(
        torch.randn(1, number, 3, generator=generator),
        torch.nn.functional.normalize(quats, dim=-1),
        torch.exp(torch.randn(1, number, 3, generator=generator) - 3),
        torch.rand(1, number, generator=generator),
        sh=0.2 * torch.randn(1, number, K, 3, generator=generator),
    )


@pytest.mark.parametrize("K", [1, 4, 9, 16, 25])
def test_ply_round_trip(tmp_path: Path, K: int) -> None:
    splats = _splats(K)
    ply.write(tmp_path / "splats.ply", splats)
    back = ply.read(tmp_path / "splats.ply")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        torch.testing.assert_close(getattr(back, name), getattr(splats, name), rtol=1e-5, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["splats.ply"]


@pytest.mark.parametrize("K", [1, 4, 16])
def test_gsply_and_trimesh_read_our_files(tmp_path: Path, K: int) -> None:
    gsply = pytest.importorskip("gsply", reason="gsply is not installed")
    splats = _splats(K)
    ply.write(tmp_path / "splats.ply", splats, up="y")
    data = gsply.plyread(tmp_path / "splats.ply")
    np.testing.assert_array_equal(data.means, splats.means[0])
    np.testing.assert_allclose(data.quats, splats.quats[0], atol=1e-6)
    np.testing.assert_allclose(data.scales, splats.scales[0].log(), atol=1e-5)
    np.testing.assert_allclose(data.opacities.reshape(-1), splats.opacities[0].logit(), atol=1e-5)
    np.testing.assert_allclose(data.sh0, splats.sh[0, :, 0], atol=1e-7)
    np.testing.assert_allclose(np.asarray(data.shN).reshape(50, -1, 3), splats.sh[0, :, 1:], atol=1e-7)
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
    np.testing.assert_array_equal(trimesh.load(tmp_path / "splats.ply").vertices, splats.means[0])


@pytest.mark.parametrize("K", [1, 4, 16])
def test_files_exported_by_gsplat_are_read(tmp_path: Path, K: int) -> None:
    package = importlib.util.find_spec("gsplat")
    if package is None:
        pytest.skip("gsplat is not installed")
    spec = importlib.util.spec_from_file_location(
        "gsplat_exporter", Path(package.origin).with_name("exporter.py")
    )
    exporter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(exporter)
    splats = _splats(K)
    exporter.export_splats(
        splats.means[0], splats.scales[0].log(), splats.quats[0], splats.opacities[0].logit(), splats.sh[0, :, :1],
        splats.sh[0, :, 1:], save_to=str(tmp_path / "gsplat.ply"),
    )  # fmt: skip
    back = ply.read(tmp_path / "gsplat.ply")
    for name in ("means", "quats", "scales", "opacities", "sh"):
        torch.testing.assert_close(getattr(back, name), getattr(splats, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("K", [1, 4, 16])
def test_spz_preserves_the_image(tmp_path: Path, K: int) -> None:
    """The file is smaller, and the image differs only by quantisation to about eight bits."""
    pytest.importorskip("gsply", reason="gsply is not installed")
    splats = _splats(K, 500)
    ply.write(tmp_path / "splats.spz", splats)
    ply.write(tmp_path / "splats.ply", splats)
    sizes = {suffix: (tmp_path / f"splats.{suffix}").stat().st_size for suffix in ("ply", "spz")}
    assert sizes["spz"] * 3 < sizes["ply"]  # random values; real scenes compress further
    back = ply.read(tmp_path / "splats.spz")
    assert back.sh.shape == splats.sh.shape
    assert (back.means - splats.means).abs().max() <= 0.5 / 4096 + 1e-6
    K_matrix = torch.tensor([[[[40.0, 0, 16], [0, 40.0, 16], [0, 0, 1]]]])
    viewmat = torch.eye(4)
    viewmat[2, 3] = 4.0
    cameras = TensorCameras(viewmat[None, None], K_matrix, 32, 32)
    difference = (render(back, cameras).rgb - render(splats, cameras).rgb).abs()
    assert difference.mean() < 0.01
    swapped = replace(back, sh=back.sh.flip(-1))  # control: red and blue exchanged
    assert (render(swapped, cameras).rgb - render(splats, cameras).rgb).abs().mean() > 0.01


def test_plain_colours_and_extreme_values_are_written(tmp_path: Path) -> None:
    splats = replace(
        _splats(1, 4), sh=None, colors=torch.rand(1, 4, 3), opacities=torch.tensor([[0.0, 1.0, 0.5, 0.25]]),
        scales=torch.tensor([[[0.0, 1.0, 2.0]] * 4]),
    )  # fmt: skip
    ply.write(tmp_path / "colors.ply", splats)
    back = ply.read(tmp_path / "colors.ply")
    torch.testing.assert_close(back.sh[..., 0, :] * ply.SH_C0 + 0.5, splats.colors, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.opacities, splats.opacities, rtol=0, atol=2e-7)
    torch.testing.assert_close(back.scales, splats.scales, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="stores RGB colours, expected 3 channels or sh, got 5 channels"):
        ply.write(tmp_path / "five.ply", replace(splats, colors=torch.rand(1, 4, 5)))


def test_one_of_several_scenes_is_written(tmp_path: Path) -> None:
    splats = replace(_splats(4), means=torch.randn(3, 50, 3))
    ply.write(tmp_path / "two.ply", splats, scene=2)
    torch.testing.assert_close(ply.read(tmp_path / "two.ply").means[0], splats.means[2])


def test_an_empty_scene_can_be_written_and_read(tmp_path: Path) -> None:
    ply.write(tmp_path / "none.ply", _splats(4, 0))
    assert ply.read(tmp_path / "none.ply").sh.shape == (1, 0, 4, 3)


def test_ascii_is_read(tmp_path: Path) -> None:
    ply.write(tmp_path / "binary.ply", _splats(1, 3))
    content = (tmp_path / "binary.ply").read_bytes()
    header, body = content.split(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(3, -1)
    text = header.replace(b"binary_little_endian", b"ascii") + b"end_header\n"
    text += "\n".join(" ".join(f"{value:.9g}" for value in row) for row in rows).encode()
    (tmp_path / "text.ply").write_bytes(text)
    for a, b in zip(vars(ply.read(tmp_path / "text.ply")).values(), vars(ply.read(tmp_path / "binary.ply")).values(),
                    strict=True):  # fmt: skip
        assert a is b is None or torch.allclose(a, b)


def test_errors_for_invalid_files(tmp_path: Path) -> None:
    ply.write(tmp_path / "good.ply", _splats(4))
    good = (tmp_path / "good.ply").read_bytes()
    for content, message in (
        (b"", "expected a PLY file"),
        (b"solid cube", "expected a PLY file .*solid cube"),
        (good[:-100], "truncated: the header declares 50 vertices of 104 bytes"),
        (good.replace(b"property float opacity", b"property float opaxity"), "missing opacity"),
        (
            good.replace(b"element vertex", b"element chunk"),
            "compressed PLY files .PlayCanvas. are not supported",
        ),
        (good.replace(b"f_rest_8", b"g_rest_8"), "properties f_rest_.* got 8"),
        (good.replace(b"binary_little_endian", b"binary_middle_endian"), "unknown PLY format"),
    ):
        (tmp_path / "bad.ply").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            ply.read(tmp_path / "bad.ply")
    (tmp_path / "bad.spz").write_bytes(good)
    pytest.importorskip("gsply", reason="gsply is not installed")
    with pytest.raises(ValueError, match=r"cannot be read as an \.spz file"):
        ply.read(tmp_path / "bad.spz")
    with pytest.raises(FileNotFoundError):
        ply.read(tmp_path / "missing.ply")


def test_a_failed_write_leaves_the_existing_file(tmp_path: Path) -> None:
    ply.write(tmp_path / "splats.ply", _splats(1))
    before = (tmp_path / "splats.ply").read_bytes()
    with pytest.raises(IndexError):
        ply.write(tmp_path / "splats.ply", replace(_splats(4), means=torch.randn(2, 50, 3)), scene=5)
    assert (tmp_path / "splats.ply").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["splats.ply"]


# --- which direction is up --------------------------------------------------------------------------

HALF_TURN = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # 180° about x: y up to y down, and back


def _views(turn: torch.Tensor) -> TensorCameras:
    """Two cameras on different sides of a scene; `turn` is applied to the scene that they look at."""
    viewmats = torch.eye(4).repeat(1, 2, 1, 1)
    angle = torch.tensor(0.9)
    viewmats[0, 1, :3, :3] = torch.tensor(
        [[angle.cos(), 0.3 * angle.sin(), -angle.sin()], [0, 1, 0.3], [angle.sin(), -0.3, angle.cos()]]
    )
    viewmats[0, 1, :3, :3] = torch.linalg.qr(viewmats[0, 1, :3, :3])[0]
    viewmats[..., :3, :3] = viewmats[..., :3, :3] @ turn.T  # the camera sees R (turnᵀ x') = R x
    viewmats[..., 2, 3] = 5.0
    K = torch.tensor([[60.0, 0, 24], [0, 60.0, 24], [0, 0, 1]]).repeat(1, 2, 1, 1)
    return TensorCameras(viewmats, K, 48, 48)


def _wide(K: int) -> Gaussians:
    """Anisotropic Gaussians whose colours depend strongly on the direction."""
    splats = _splats(K, 200)
    return replace(splats, scales=splats.scales * torch.tensor([3.0, 1.0, 0.2]), sh=2 * splats.sh)


@pytest.mark.parametrize("K", [1, 4, 9, 16])
def test_a_file_is_the_scene_turned_by_half_about_x(tmp_path: Path, K: int) -> None:
    """The pictures of the coordinates in the file, from cameras turned with them, are those of the scene."""
    splats = _wide(K)
    ply.write(tmp_path / "splats.ply", splats)
    stored = ply.read(tmp_path / "splats.ply", up="y")  # as they are in the file
    torch.testing.assert_close(stored.means, splats.means @ HALF_TURN, rtol=0, atol=0)
    expected = render(splats, _views(torch.eye(3)), want=("rgb", "alpha", "depth", "normal"))
    found = render(stored, _views(HALF_TURN), want=("rgb", "alpha", "depth", "normal"))
    for name in ("rgb", "alpha", "depth"):
        assert (getattr(found, name) - getattr(expected, name)).abs().max() < 2e-4, name
    assert (found.normal @ HALF_TURN - expected.normal).abs().max() < 2e-4
    # Controls: each part of the turn is visible in these pictures.
    parts = {
        "means": splats.means,
        "quats": splats.quats,
        "sh": splats.sh if K > 1 else None,
    }
    for name, unturned in parts.items():
        if unturned is not None:
            wrong = render(replace(stored, **{name: unturned}), _views(HALF_TURN)).rgb
            assert (wrong - expected.rgb).abs().max() > 0.02, name


def test_harmonics_of_any_degree_are_turned(tmp_path: Path) -> None:
    """Σ c Y(d) of the scene is Σ c' Y(D d) of the file, with Y of degrees 0 to 4 as polynomials."""

    def basis(d: torch.Tensor) -> torch.Tensor:
        """Proportional to the real spherical harmonics in the order of 3DGS (constants do not matter for the turn)."""
        x, y, z = d.unbind(-1)
        xx, yy, zz = x * x, y * y, z * z
        return torch.stack([
            torch.ones_like(x), -y, z, -x,
            x * y, -y * z, 2 * zz - xx - yy, -x * z, xx - yy,
            -y * (3 * xx - yy), x * y * z, -y * (4 * zz - xx - yy), z * (2 * zz - 3 * xx - 3 * yy),
            -x * (4 * zz - xx - yy), z * (xx - yy), -x * (xx - 3 * yy),
            x * y * (xx - yy), -y * z * (3 * xx - yy), x * y * (7 * zz - 1), -y * z * (7 * zz - 3),
            zz * (35 * zz - 30) + 3, -x * z * (7 * zz - 3), (xx - yy) * (7 * zz - 1), -x * z * (xx - 3 * yy),
            xx * (xx - 3 * yy) - yy * (3 * xx - yy),
        ], -1)  # fmt: skip

    splats = _splats(25)
    ply.write(tmp_path / "splats.ply", splats)
    stored = ply.read(tmp_path / "splats.ply", up="y")
    directions = torch.nn.functional.normalize(
        torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    expected = (basis(directions)[..., None] * splats.sh).sum(2)
    found = (basis(directions @ HALF_TURN)[..., None] * stored.sh).sum(2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert ((basis(directions)[..., None] * stored.sh).sum(2) - expected).abs().max() > 0.1


@pytest.mark.parametrize("up", [None, "-y", "y"])
def test_a_file_says_which_way_is_up_and_is_read_back_to_the_bit(tmp_path: Path, up: str | None) -> None:
    splats = replace(_splats(16), quats=torch.tensor([[[0.5, 0.5, -0.5, 0.5]]]).expand(1, 50, 4))
    ply.write(tmp_path / "splats.ply", splats, **({} if up is None else {"up": up}))
    header = (tmp_path / "splats.ply").read_bytes().split(b"end_header")[0].decode().splitlines()
    assert [line for line in header if line.startswith("comment")] == [
        "comment menagerie4d: up y (x right, y up, z backward)"
        if up == "y"
        else "comment menagerie4d: up -y (x right, y down, z forward, as in COLMAP and 3DGS)"
    ]
    back = ply.read(tmp_path / "splats.ply")
    for name in ("means", "quats", "sh"):
        assert torch.equal(getattr(back, name), getattr(splats, name)), name
    raw = ply.read(tmp_path / "splats.ply", up="y")
    assert torch.equal(raw.means, splats.means @ (torch.eye(3) if up == "y" else HALF_TURN))


def test_files_without_the_comment_are_read_as_they_are(tmp_path: Path) -> None:
    """Version 0.1.0 wrote +Y up without a comment; the axes of other programs' files are unknown."""
    splats = _splats(4)
    ply.write(tmp_path / "new.ply", splats, up="y")
    lines = (tmp_path / "new.ply").read_bytes().split(b"\n", 3)
    assert lines[2].startswith(b"comment menagerie4d: up y")
    (tmp_path / "old.ply").write_bytes(b"\n".join([*lines[:2], lines[3]]))
    assert torch.equal(ply.read(tmp_path / "old.ply").means, splats.means)
    turned = ply.read(tmp_path / "old.ply", up="-y")  # a scan, turned upright
    assert torch.equal(turned.means, splats.means @ HALF_TURN)
    ply.write(tmp_path / "again.ply", turned)  # and written with y down again
    assert torch.equal(ply.read(tmp_path / "again.ply", up="y").means, splats.means)
    strange = b"\n".join([*lines[:2], b"comment menagerie4d: up z", lines[3]])
    (tmp_path / "strange.ply").write_bytes(strange)
    with pytest.raises(ValueError, match="names 'z' as up"):
        ply.read(tmp_path / "strange.ply")
    assert torch.equal(ply.read(tmp_path / "strange.ply", up="y").means, splats.means)
    for bad in ("z", "Y", "", 1):
        with pytest.raises(ValueError, match='up: expected "-y"'):
            ply.write(tmp_path / "bad.ply", splats, up=bad)
        with pytest.raises(ValueError, match='up: expected "-y"'):
            ply.read(tmp_path / "old.ply", up=bad)
    assert not (tmp_path / "bad.ply").exists()


def test_spz_has_y_up(tmp_path: Path) -> None:
    """The format is defined with x right, y up, z backward, which is the world of this package."""
    gsply = pytest.importorskip("gsply", reason="gsply is not installed")
    splats = _splats(4)
    ply.write(tmp_path / "splats.spz", splats)
    assert np.abs(gsply.read_spz(tmp_path / "splats.spz").means - splats.means[0].numpy()).max() < 1e-3
    ply.write(tmp_path / "down.spz", splats, up="-y")
    assert (ply.read(tmp_path / "down.spz", up="-y").means - splats.means).abs().max() < 1e-3
    assert (ply.read(tmp_path / "down.spz").means - splats.means @ HALF_TURN).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"means": float("nan")}, "means: expected finite"),
        ({"quats": 0.0}, "quats: expected a squared length"),
        ({"scales": -1.0}, "scales: expected finite standard deviations"),
        ({"opacities": 1.5}, "opacities: expected values in 0"),
        ({"sh": float("inf")}, "sh: expected finite"),
    ],
)
def test_values_that_no_viewer_shows_are_not_written(tmp_path: Path, changes: dict, words: str) -> None:
    splats = _splats(4)
    ((name, value),) = changes.items()
    tensor = getattr(splats, name).clone()
    tensor[0, 7] = value
    with pytest.raises(ValueError, match=words):
        ply.write(tmp_path / "bad.ply", replace(splats, **{name: tensor}))
    assert list(tmp_path.iterdir()) == []
