"""A moving mesh as USD: time samples of points and normals, preview materials, and texture files as they are."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from renderers.files import atomic_folder, atomic_path, file_path
from renderers.gltf import Asset, Primitive
from renderers.gltf.editing import GltfEditor
from zoo.errors import ModelError
from zoo.export.fbx import frame_times
from zoo.export.usd_materials import MaterialWriter
from zoo.formats import check_suffix

USD_SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")


def write_usd(
    path: str | os.PathLike[str],
    asset: Asset,
    positions: np.ndarray,
    normals: np.ndarray,
    times: np.ndarray,
    *,
    name: str = "animation",
) -> None:
    """Write vertices over time as USD, atomically.

    Every primitive of the asset becomes a mesh without parents. The textures of the file are written byte by byte:
    into the package for .usdz, else into the folder "NAME_textures" beside the file.

    Args:
        path: of the file.
        asset: the model: its triangles, texture coordinates, colours and materials.
        positions: [T, V, 3], its vertices in world space, relative to `asset.origin(None)`.
        normals: [T, V, 3].
        times: [T], seconds, from 0.
        name: a title, stored as the documentation of the stage.

    Raises:
        ModelError: usd-core is not installed.
        ValueError: the name does not end in .usd, .usda, .usdc or .usdz.
    """
    path = file_path(path, "write_usd: path")
    check_suffix(path, USD_SUFFIXES, "animations")
    try:
        from pxr import Usd
    except ImportError as error:
        raise ModelError(
            f"{path}: writing USD needs usd-core ({error}); pip install 'menagerie4d[animate]', or save as .glb"
        ) from error
    packed = path.suffix.lower() == ".usdz"
    folder = "textures" if packed else f"{path.stem}_textures"
    fps, _ = frame_times(times)
    stage = Usd.Stage.CreateInMemory()
    writer = _StageWriter(stage, asset, fps, folder)
    writer.write(positions, normals, times, name)
    textures = writer.materials.textures
    with atomic_path(path) as part:
        if packed:
            _package(part, stage, textures)
            return
        stage.Export(str(part), addSourceFileComment=False)
        if textures:
            replaceable = re.compile(r"image_\d+\.\w+").fullmatch
            with atomic_folder(path.with_name(folder), replaceable) as target:
                for file, data in textures.items():
                    (target / file).write_bytes(data)


def _package(part: Path, stage: Any, textures: dict[str, bytes]) -> None:
    """Write a .usdz: an uncompressed archive with the stage first."""
    from pxr import Sdf

    with tempfile.TemporaryDirectory(prefix="menagerie-usd-") as name:
        folder = Path(name)
        stage.Export(str(folder / "model.usdc"), addSourceFileComment=False)
        part.unlink()  # the archive writer does not replace files
        with Sdf.ZipFileWriter.CreateNew(str(part)) as archive:
            archive.AddFile(str(folder / "model.usdc"), "model.usdc")
            for file, data in textures.items():
                (folder / file).write_bytes(data)
                archive.AddFile(str(folder / file), f"textures/{file}")


class _StageWriter:
    """Fills a stage with the meshes of an asset."""

    def __init__(self, stage: Any, asset: Asset, fps: int, folder: str) -> None:
        self._stage = stage
        self._asset = asset
        self._fps = fps
        self._editor = GltfEditor(asset.source, name=asset.name, root=asset.root)
        self.materials = MaterialWriter(stage, self._editor, folder)

    def write(self, positions: np.ndarray, normals: np.ndarray, times: np.ndarray, name: str) -> None:
        from pxr import Gf, UsdGeom

        stage, asset = self._stage, self._asset
        root = UsdGeom.Xform.Define(stage, "/Model")
        stage.SetDefaultPrim(root.GetPrim())
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetTimeCodesPerSecond(self._fps)
        stage.SetFramesPerSecond(self._fps)
        codes = times * self._fps
        codes = np.where(np.abs(codes - np.rint(codes)) < 1e-3, np.rint(codes), codes)
        stage.SetStartTimeCode(float(codes[0]))
        stage.SetEndTimeCode(float(codes[-1]))
        stage.GetRootLayer().documentation = name
        if asset.origin(None).any():
            root.AddTranslateOp().Set(Gf.Vec3d(*asset.origin(None).tolist()))
        mirrored = asset.pose(None, 0.0).mirrored
        for number, primitive in enumerate(asset.primitives):
            mesh = self._mesh(number, primitive, bool(mirrored[number]))
            moved, turned = (each[:, primitive.vertices].astype(np.float32) for each in (positions, normals))
            for code, points, directions in zip(codes.tolist(), moved, turned, strict=True):
                self._sample(mesh, code, points, directions)

    def _sample(self, mesh: Any, code: float, points: np.ndarray, normals: np.ndarray) -> None:
        from pxr import Vt

        extent = np.stack([points.min(0), points.max(0)])
        for attribute, values in (
            (mesh.GetPointsAttr(), points),
            (mesh.GetNormalsAttr(), normals),
            (mesh.GetExtentAttr(), extent),
        ):
            attribute.Set(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(values)), code)

    def _mesh(self, number: int, primitive: Primitive, mirrored: bool) -> Any:
        """Define a mesh with everything that does not move."""
        from pxr import Sdf, Tf, UsdGeom, UsdShade, Vt

        asset = self._asset
        title = Tf.MakeValidIdentifier(primitive.name or "mesh")
        mesh = UsdGeom.Mesh.Define(self._stage, f"/Model/{title}_{number}")
        triangles = primitive.triangles.astype(np.int32) - primitive.vertices.start
        triangles = triangles[:, ::-1] if mirrored else triangles
        corners = np.ascontiguousarray(triangles.reshape(-1))
        mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(triangles), 3, np.int32)))
        mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(corners))
        mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
        variables = UsdGeom.PrimvarsAPI(mesh)
        for index in range(asset.texcoords.shape[1]):
            values = asset.texcoords[primitive.vertices, index] * [1, -1] + [0, 1]  # v upward
            kind = Sdf.ValueTypeNames.TexCoord2fArray
            st = variables.CreatePrimvar(f"st{index or ''}", kind, UsdGeom.Tokens.vertex)
            st.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(values, np.float32)))
        colors = asset.colors[primitive.vertices, :3]
        colored = bool((colors != 1).any())
        if colored:
            mesh.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex).Set(
                Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(colors))
            )
        owner = self._editor.json["nodes"][primitive.node]["mesh"]
        material = self._editor.json["meshes"][owner]["primitives"][primitive.index].get("material")
        if material is not None:
            double = bool(self._editor.json["materials"][material].get("doubleSided", False))
            mesh.CreateDoubleSidedAttr(double)
            UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(self.materials.material(material, colored))
        return mesh
