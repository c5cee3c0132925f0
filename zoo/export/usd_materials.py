"""Materials of glTF as UsdPreviewSurface, with the image files as they are."""

from __future__ import annotations

import math
from typing import Any

from renderers.gltf.editing import GltfEditor

_SUFFIXES = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"RIFF", "webp"), (b"\xabKTX", "ktx2"))
_WRAP = {33071: "clamp", 33648: "mirror", 10497: "repeat"}


class MaterialWriter:
    """Defines a material of a stage per material of a file, on request.

    Attributes:
        textures: the images in use, by the names of the files to write.
    """

    def __init__(self, stage: Any, editor: GltfEditor, folder: str) -> None:
        self._stage = stage
        self._editor = editor
        self._folder = folder
        self._materials: dict[tuple[int, bool], Any] = {}
        self.textures: dict[str, bytes] = {}

    def material(self, index: int, colored: bool = False) -> Any:
        """Return the material with an index in the file.

        Args:
            index: in the file.
            colored: of meshes with vertex colours, which replace the base colour if it has no texture: a
                UsdPreviewSurface does not multiply its inputs.
        """
        if (index, colored) not in self._materials:
            self._materials[index, colored] = self._define(index, colored)
        return self._materials[index, colored]

    def _define(self, index: int, colored: bool) -> Any:
        from pxr import Sdf, Tf, UsdShade

        owner = self._editor.json["materials"][index]
        title = Tf.MakeValidIdentifier(owner.get("name") or "material")
        self._path = f"/Model/Materials/{title}_{index}{'_colored' if colored else ''}"
        material = UsdShade.Material.Define(self._stage, self._path)
        surface = UsdShade.Shader.Define(self._stage, f"{self._path}/surface")
        surface.CreateIdAttr("UsdPreviewSurface")
        kinds = Sdf.ValueTypeNames
        surface.CreateOutput("surface", kinds.Token)
        material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
        metallic = owner.get("pbrMetallicRoughness", {})
        base = [float(x) for x in metallic.get("baseColorFactor", (1, 1, 1, 1))]
        rough = [
            1.0,
            float(metallic.get("roughnessFactor", 1)),
            float(metallic.get("metallicFactor", 1)),
            1.0,
        ]
        emissive = [*(float(x) for x in owner.get("emissiveFactor", (0, 0, 0))), 1.0]

        color = self._texture("base_color", metallic.get("baseColorTexture"), base)
        if colored and color is None:
            reader = UsdShade.Shader.Define(self._stage, f"{self._path}/vertex_color")
            reader.CreateIdAttr("UsdPrimvarReader_float3")
            reader.CreateInput("varname", kinds.String).Set("displayColor")
            reader.CreateOutput("result", kinds.Float3)
            entry = surface.CreateInput("diffuseColor", kinds.Color3f)
            entry.ConnectToSource(reader.ConnectableAPI(), "result")
        else:
            self._set(surface, "diffuseColor", kinds.Color3f, color, "rgb", tuple(base[:3]))
        mode = owner.get("alphaMode", "OPAQUE")
        if mode != "OPAQUE":
            self._set(surface, "opacity", kinds.Float, color, "a", base[3])
        if mode == "MASK":
            surface.CreateInput("opacityThreshold", kinds.Float).Set(float(owner.get("alphaCutoff", 0.5)))
        packed = self._texture(
            "metallic_roughness", metallic.get("metallicRoughnessTexture"), rough, raw=True
        )
        self._set(surface, "roughness", kinds.Float, packed, "g", rough[1])
        self._set(surface, "metallic", kinds.Float, packed, "b", rough[2])
        glow = self._texture("emissive", owner.get("emissiveTexture"), emissive)
        self._set(surface, "emissiveColor", kinds.Color3f, glow, "rgb", tuple(emissive[:3]))
        shade = self._texture("occlusion", owner.get("occlusionTexture"), [1.0] * 4, raw=True)
        if shade is not None:
            self._set(surface, "occlusion", kinds.Float, shade, "r", 1.0)
        bump = owner.get("normalTexture")
        depth = float((bump or {}).get("scale", 1.0))
        normal = self._texture(
            "normal", bump, [2 * depth, 2 * depth, 2.0, 1.0], bias=(-depth, -depth, -1.0, 0.0), raw=True
        )
        if normal is not None:
            self._set(surface, "normal", kinds.Normal3f, normal, "rgb", (0.0, 0.0, 1.0))
        return material

    @staticmethod
    def _set(surface: Any, name: str, kind: Any, texture: Any, channel: str, value: Any) -> None:
        """Connect an input to a texture, or set it to a value if there is none."""
        entry = surface.CreateInput(name, kind)
        if texture is None:
            entry.Set(value)
        else:
            entry.ConnectToSource(texture.ConnectableAPI(), channel)

    def _texture(
        self,
        name: str,
        info: dict[str, Any] | None,
        scale: list[float],
        *,
        bias: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
        raw: bool = False,
    ) -> Any:
        """Define a texture reader; None without a texture.

        Args:
            name: of the prim.
            info: textureInfo of the file.
            scale, bias: of the values, RGBA.
            raw: the values are not colours.
        """
        from pxr import Gf, Sdf, UsdShade

        if info is None:
            return None
        texture = self._editor.json["textures"][info["index"]]
        file = self._image(texture)
        if file is None:
            return None
        kinds = Sdf.ValueTypeNames
        reader = UsdShade.Shader.Define(self._stage, f"{self._path}/{name}")
        reader.CreateIdAttr("UsdUVTexture")
        reader.CreateInput("file", kinds.Asset).Set(f"./{self._folder}/{file}")
        reader.CreateInput("sourceColorSpace", kinds.Token).Set("raw" if raw else "sRGB")
        sampler = {}
        if texture.get("sampler") is not None:
            sampler = self._editor.json["samplers"][texture["sampler"]]
        for axis in "ST":
            reader.CreateInput(f"wrap{axis}", kinds.Token).Set(
                _WRAP.get(sampler.get(f"wrap{axis}", 10497), "repeat")
            )
        reader.CreateInput("scale", kinds.Float4).Set(Gf.Vec4f(*scale))
        reader.CreateInput("bias", kinds.Float4).Set(Gf.Vec4f(*bias))
        for channel in "rgba":
            reader.CreateOutput(channel, kinds.Float)
        reader.CreateOutput("rgb", kinds.Float3)
        coordinates = self._coordinates(name, info)
        reader.CreateInput("st", kinds.Float2).ConnectToSource(coordinates.ConnectableAPI(), "result")
        return reader

    def _coordinates(self, name: str, info: dict[str, Any]) -> Any:
        """Define the texture coordinates of a texture, transformed by KHR_texture_transform."""
        from pxr import Gf, Sdf, UsdShade

        kinds = Sdf.ValueTypeNames
        change = (info.get("extensions") or {}).get("KHR_texture_transform") or {}
        number = change.get("texCoord", info.get("texCoord", 0))
        reader = UsdShade.Shader.Define(self._stage, f"{self._path}/{name}_st")
        reader.CreateIdAttr("UsdPrimvarReader_float2")
        reader.CreateInput("varname", kinds.String).Set(f"st{number or ''}")
        reader.CreateOutput("result", kinds.Float2)
        if not any(key in change for key in ("offset", "rotation", "scale")):
            return reader
        # glTF rotates and scales about (0, 0) with v downward; USD about (0, 0) with v upward, which is (0, 1) there.
        u, v = (float(x) for x in change.get("offset", (0, 0)))
        su, sv = (float(x) for x in change.get("scale", (1, 1)))
        angle = float(change.get("rotation", 0.0))
        shift = (u + sv * math.sin(angle), 1.0 - v - sv * math.cos(angle))
        moved = UsdShade.Shader.Define(self._stage, f"{self._path}/{name}_transform")
        moved.CreateIdAttr("UsdTransform2d")
        moved.CreateInput("in", kinds.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
        moved.CreateInput("scale", kinds.Float2).Set(Gf.Vec2f(su, sv))
        moved.CreateInput("rotation", kinds.Float).Set(math.degrees(angle))
        moved.CreateInput("translation", kinds.Float2).Set(Gf.Vec2f(*shift))
        moved.CreateOutput("result", kinds.Float2)
        return moved

    def _image(self, texture: dict[str, Any]) -> str | None:
        """Return the name of the file of a texture's image."""
        extensions = texture.get("extensions") or {}
        source = texture.get("source")
        for name in ("EXT_texture_webp", "KHR_texture_basisu"):
            source = extensions.get(name, {}).get("source", source)
        if source is None:
            return None
        data = self._editor.image(source)
        suffix = next((end for magic, end in _SUFFIXES if data.startswith(magic)), "bin")
        file = f"image_{source}.{suffix}"
        self.textures[file] = data
        return file
