"""The glTF extensions: how each is treated.

`EXTENSIONS` is the one table. `docs/gltf-extensions.md` is generated from it by `page`:

    python -c "from renderers.gltf.extensions import page; print(page(), end='')" > docs/gltf-extensions.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Handling = Literal["drawn", "approximated", "ignored", "refused"]


@dataclass(frozen=True)
class Extension:
    """How one extension is treated.

    Attributes:
        name: as in `extensionsUsed`.
        handling: "drawn" as specified; "approximated"; "ignored": the file is drawn as if it did not use it; "refused":
            ignored where the file has a fallback, otherwise the file is refused.
        effect: what is drawn, for the page.
        note: how the images differ, the second half of the sentence in `Asset.notes`; "" if they do not differ, or if
            the reader of that part of the file adds the note.
        neutral: property → default value. If all of them have these values, the extension changes nothing.
        root: the extension is declared only at the top level of the file. Of other extensions, the objects there are
            libraries (of lights, of variants) that matter only if something drawn refers to them.
        refused_if_required: a file that lists it in `extensionsRequired` is refused.
        advice: what to do about a file that is refused.
    """

    name: str
    handling: Handling
    effect: str
    note: str = ""
    neutral: Mapping[str, Any] = field(default_factory=dict)
    root: bool = False
    refused_if_required: bool = False
    advice: str = "export the asset without it"

    @property
    def sentence(self) -> str:
        """The note on a file that uses it, "" if there is nothing to note."""
        return f"{self.name} is {self.handling}: {self.note}" if self.note else ""


def _drawn(name: str, effect: str) -> Extension:
    return Extension(name, "drawn", effect)


def _ignored(name: str, effect: str, note: str = "", **neutral: Any) -> Extension:
    return Extension(name, "ignored", effect, note, neutral)


def _unneeded(name: str, effect: str) -> Extension:
    """Not a part of the images; a file that requires it expects an application that does more than draw it."""
    return Extension(name, "ignored", effect, refused_if_required=True)


_REFLECTANCE = "the reflectance of non-metals is 0.04"
_METADATA = "metadata; the images do not depend on it"
_TEXTURE_ADVICE = "export it with PNG, JPEG or WebP textures"
_FALLBACK = "the fallback image is drawn; a texture without one is left out, with a note"

_RATIFIED = (
    Extension(
        "KHR_animation_pointer",
        "approximated",
        "drives transforms, morph weights and visibility of nodes; other properties keep their rest value, with a note",
        advice="bake its animation to node transforms and morph weights",
    ),
    _drawn("KHR_draco_mesh_compression", "decoded; needs the package DracoPy"),
    Extension(
        "KHR_gaussian_splatting",
        "ignored",
        "splats are left out",
        "splats are left out",
        refused_if_required=True,
        advice="render its splats with renderers.gaussians",
    ),
    Extension(
        "KHR_interactivity",
        "ignored",
        "behaviour graphs are not run",
        "its behaviours are not run",
        root=True,
        refused_if_required=True,
    ),
    _ignored(
        "KHR_lights_punctual",
        "every model is lit by the renderer's own light",
        "the file's lights are replaced by the renderer's",
    ),
    _ignored(
        "KHR_materials_anisotropy",
        "highlights are round",
        "highlights are drawn round",
        anisotropyStrength=0,
    ),
    _ignored(
        "KHR_materials_clearcoat",
        "the layer below is drawn without its coat",
        "drawn without the clear coat",
        clearcoatFactor=0,
    ),
    _ignored(
        "KHR_materials_dispersion", "no dispersion", "refracted light is not split into colours", dispersion=0
    ),
    _drawn("KHR_materials_emissive_strength", "emission may exceed 1"),
    _ignored("KHR_materials_ior", _REFLECTANCE, _REFLECTANCE, ior=1.5),
    _ignored(
        "KHR_materials_iridescence",
        "no thin-film colours",
        "drawn without thin-film colours",
        iridescenceFactor=0,
    ),
    _ignored(
        "KHR_materials_sheen",
        "no sheen layer",
        "drawn without the sheen of cloth",
        sheenColorFactor=[0, 0, 0],
    ),
    _ignored(
        "KHR_materials_specular",
        _REFLECTANCE,
        _REFLECTANCE,
        specularFactor=1,
        specularColorFactor=[1, 1, 1],
        specularTexture=None,
        specularColorTexture=None,
    ),
    _ignored(
        "KHR_materials_transmission",
        "transparent surfaces are opaque",
        "transparent surfaces are drawn opaque",
        transmissionFactor=0,
    ),
    _drawn("KHR_materials_unlit", "the base colour, without lighting"),
    _drawn("KHR_materials_variants", "the default materials, as without a chosen variant"),
    _ignored(
        "KHR_materials_volume",
        "no refraction and no absorption",
        "drawn without refraction and absorption",
        thicknessFactor=0,
    ),
    _drawn("KHR_mesh_quantization", "attributes may be small integers"),
    _drawn(
        "KHR_meshopt_compression",
        "decoded, both versions of the vertex format; needs the package meshoptimizer",
    ),
    _ignored("KHR_node_hoverability", "for pointing devices; the images do not depend on it"),
    _ignored("KHR_node_selectability", "for pointing devices; the images do not depend on it"),
    _drawn(
        "KHR_node_visibility",
        "hidden nodes and everything below them are left out, at every time if animated",
    ),
    Extension(
        "KHR_texture_basisu",
        "refused",
        "the fallback image is drawn; a file without one is refused",
        refused_if_required=True,
        advice=_TEXTURE_ADVICE,
    ),
    _drawn("KHR_texture_transform", "texture coordinates are moved, rotated and scaled"),
    _ignored("KHR_xmp_json_ld", _METADATA),
    _drawn(
        "EXT_mesh_gpu_instancing",
        "one copy of the mesh per instance; morph targets apply to all copies, a node that also has a skin is refused",
    ),
    _drawn("EXT_meshopt_compression", "decoded; needs the package meshoptimizer"),
    _drawn("EXT_texture_webp", "decoded"),
)

_KHRONOS = (  # in development or archived
    Extension(
        "KHR_accessor_float64",
        "refused",
        "a file whose meshes use 64-bit numbers is refused",
        refused_if_required=True,
        advice="export it with 32-bit numbers",
    ),
    _unneeded("KHR_audio_emitter", "no sound"),
    _unneeded("KHR_audio_graph", "no sound"),
    _unneeded("KHR_collision_shapes", "shapes for physics; they are not visible"),
    _unneeded("KHR_implicit_shapes", "shapes for physics; they are not visible"),
    _ignored(
        "KHR_materials_diffuse_transmission",
        "light does not shine through thin surfaces",
        "light does not shine through thin surfaces",
        diffuseTransmissionFactor=0,
    ),
    Extension(
        "KHR_materials_pbrSpecularGlossiness",
        "approximated",
        "converted to the nearest metallic-roughness material",
        "converted to the nearest metallic-roughness material",
    ),
    _ignored(
        "KHR_materials_volume_scatter",
        "no light is scattered inside volumes",
        "drawn without scattering inside volumes",
        multiscatterColor=[0, 0, 0],
    ),
    Extension(
        "KHR_physics_rigid_bodies",
        "ignored",
        "bodies are not simulated",
        "its bodies are not simulated",
        refused_if_required=True,
    ),
    Extension(
        "KHR_techniques_webgl",
        "ignored",
        "shaders of the file are not run",
        "drawn as plain materials, without the file's shaders",
        refused_if_required=True,
    ),
    _ignored("KHR_xmp", _METADATA),
)

_MULTI_VENDOR = (
    _unneeded("EXT_instance_features", _METADATA),
    Extension(
        "EXT_lights_ies",
        "ignored",
        "every model is lit by the renderer's own light",
        "the file's lights are replaced by the renderer's",
        refused_if_required=True,
    ),
    Extension(
        "EXT_lights_image_based",
        "ignored",
        "every model is lit by the renderer's own light",
        "the file's environment is replaced by the renderer's light",
        refused_if_required=True,
    ),
    _unneeded("EXT_mesh_features", _METADATA),
    _unneeded("EXT_mesh_manifold", _METADATA),
    _unneeded("EXT_structural_metadata", _METADATA),
    Extension("EXT_texture_avif", "ignored", _FALLBACK, refused_if_required=True, advice=_TEXTURE_ADVICE),
)

_VENDORS = (
    Extension(
        "ADOBE_materials_clearcoat_specular",
        "ignored",
        "the layer below is drawn without its coat",
        "drawn without the clear coat",
        refused_if_required=True,
    ),
    Extension(
        "ADOBE_materials_clearcoat_tint",
        "ignored",
        "the layer below is drawn without its coat",
        "drawn without the clear coat",
        refused_if_required=True,
    ),
    Extension(
        "ADOBE_materials_thin_transparency",
        "ignored",
        "transparent surfaces are opaque",
        "transparent surfaces are drawn opaque",
        {"transmissionFactor": 0},
        refused_if_required=True,
    ),
    _unneeded("AGI_articulations", "the rest pose of its articulations"),
    _unneeded("AGI_stk_metadata", _METADATA),
    _unneeded("CESIUM_primitive_outline", "no outlines"),
    _unneeded("FB_geometry_metadata", _METADATA),
    _unneeded("FB_ngon_encoding", _METADATA),
    _unneeded("GODOT_single_root", _METADATA),
    _unneeded("GRIFFEL_bim_data", _METADATA),
    Extension(
        "MOZ_lightmap",
        "ignored",
        "every model is lit by the renderer's own light",
        "the file's light maps are replaced by the renderer's light",
        refused_if_required=True,
    ),
    _unneeded("MSFT_lod", "the most detailed level"),
    _unneeded("MSFT_packing_normalRoughnessMetallic", "the textures of the core material"),
    _unneeded("MSFT_packing_occlusionRoughnessMetallic", "the textures of the core material"),
    Extension("MSFT_texture_dds", "ignored", _FALLBACK, refused_if_required=True, advice=_TEXTURE_ADVICE),
    Extension(
        "NV_materials_mdl",
        "ignored",
        "the core material",
        "drawn with the core material, without MDL",
        refused_if_required=True,
    ),
    Extension(
        "VRM",
        "ignored",
        "an avatar of version 0: no spring bones, expressions or toon shading",
        "drawn without spring bones, expressions and toon shading",
        root=True,
        refused_if_required=True,
    ),
    Extension(
        "VRMC_materials_mtoon",
        "ignored",
        "the core material, without toon shading",
        "drawn without toon shading",
        refused_if_required=True,
    ),
    Extension(
        "VRMC_node_constraint",
        "ignored",
        "constraints between nodes are not solved",
        "its constraints between nodes are not solved",
        refused_if_required=True,
    ),
    Extension(
        "VRMC_springBone",
        "ignored",
        "spring bones are not simulated",
        "its spring bones are not simulated",
        root=True,
        refused_if_required=True,
    ),
    _unneeded("VRMC_vrm", "an avatar of version 1: metadata, expressions and a rig that applications drive"),
)

GROUPS: dict[str, tuple[Extension, ...]] = {
    "Ratified by Khronos": _RATIFIED,
    "Khronos, in development or archived": _KHRONOS,
    "Multi-vendor": _MULTI_VENDOR,
    "Vendors": _VENDORS,
}
EXTENSIONS = {extension.name: extension for group in GROUPS.values() for extension in group}


def page() -> str:
    """The page `docs/gltf-extensions.md`."""
    lines = [
        "# glTF extensions",
        "",
        "<!-- Generated by `page` in renderers/gltf/extensions.py. -->",
        "",
        "How `renderers.gltf` treats the extensions of a file:",
        "",
        "* **drawn**: as specified.",
        "* **approximated**: drawn with the difference given here.",
        "* **ignored**: the file is drawn as if it did not use the extension.",
        "* **refused**: ignored where the file has a fallback; otherwise the file is refused.",
        "",
        "An extension marked † changes the images. If something drawn uses it, and its values have a visible effect, "
        "`Asset.notes` has a sentence on it. The column `notes` of a dataset, the closing table of `factory.render` "
        "and the dataset card report these sentences, and `factory.render --strict` leaves such assets out. An "
        "extension that is not listed here is ignored, with a note.",
        "",
        "The column *required* shows what happens to a file that lists the extension in `extensionsRequired`. A file "
        "that requires an extension that is not listed here is refused.",
    ]
    for title, group in GROUPS.items():
        lines += ["", f"## {title}", "", "| extension | | drawn | required |", "|---|---|---|---|"]
        lines += [
            f"| `{e.name}`{' †' * bool(e.note)} | {e.handling} | {e.effect} | "
            f"{'refused' if e.refused_if_required else 'loaded'} |"
            for e in group
        ]
    return "\n".join(lines) + "\n"
