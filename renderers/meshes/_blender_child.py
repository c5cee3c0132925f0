"""The script that runs inside Blender: renders a scene, poses a glTF file for reference, or converts a file to glTF.

It imports only bpy, numpy and the standard library. `renderers.meshes.blender` starts it as `python _blender_child.py
JOB.json` with the bpy module, or as `blender --background --factory-startup --python _blender_child.py -- JOB.json`.
The job contains the paths of its arrays and of its result. Blender's world is z-up: glTF (x, y, z) is Blender (x, -z,
y).
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Quaternion, Vector

FPS = 24.0
BONE = 1  # VNode.Bone of the importer


class Importer:
    """Import hooks (a documented interface of the glTF add-on) that correct the imported animation.

    The importer deviates from the glTF specification in two interpolations: it drops spline tangents, and it
    interpolates quaternions by component. The hooks correct both: tangents become Bezier handles, and rotations get
    keys at the requested times, computed with mathutils' slerp.

    Attributes:
        animation: index in the file; None for no animation.
        times: the times that will be evaluated, seconds.
        gltf: the importer's object, set by the first hook.
        failure: an exception of a hook; the add-on would only log it.
    """

    animation: int | None = None
    times: Sequence[float] = ()
    gltf: Any = None
    failure: Exception | None = None

    def gather_import_gltf_before_hook(self, gltf: Any) -> None:
        """Keep the importer's object, and the requested animation only."""
        Importer.gltf = gltf
        animations = gltf.data.animations or []
        # Importing all animations of a file with 76 takes a minute, and their poses would mix.
        gltf.data.animations = [] if self.animation is None else [animations[self.animation]]

    def gather_import_animation_channel_after_hook(
        self, animation: Any, vnode: Any, path: str, channel: Any, action: Any, gltf: Any
    ) -> None:
        """Correct the interpolation of a node channel."""
        name = {"translation": "location", "rotation": "rotation_quaternion", "scale": "scale"}[path]
        try:
            if vnode.type == BONE:
                name = f'pose.bones["{bpy.utils.escape_identifier(vnode.blender_bone_name)}"].{name}'
            curves = curves_of(gltf, channel.target.node, path, name)
            sampler = animation.samplers[channel.sampler]
            if sampler.interpolation == "CUBICSPLINE":
                convert = converter(gltf, vnode, path)
                keys, values = read_sampler(gltf, sampler)
                set_splines(curves, keys, [convert(value, i % 3 != 1) for i, value in enumerate(values)])
            elif sampler.interpolation != "STEP" and path == "rotation":
                slerp_at(curves, [time * FPS for time in self.times])
        except Exception as error:
            Importer.failure = error

    def gather_import_animation_weight_after_hook(self, vnode: Any, animation: Any, gltf: Any) -> None:
        """Correct the interpolation of morph weights."""
        try:
            key = next(key for key, value in gltf.vnodes.items() if value is vnode)
            for channel in animation.channels:
                sampler = animation.samplers[channel.sampler]
                drives = channel.target.path == "weights" and channel.target.node == vnode.mesh_node_idx
                if drives and sampler.interpolation == "CUBICSPLINE":
                    names = gltf.data.meshes[gltf.data.nodes[vnode.mesh_node_idx].mesh].shapekey_names
                    keys, values = read_sampler(gltf, sampler)
                    for target, name in enumerate(names):
                        name = f'key_blocks["{bpy.utils.escape_identifier(name)}"].value'
                        set_splines(curves_of(gltf, key, "weights", name), keys, values[target :: len(names)])
        except Exception as error:
            Importer.failure = error


def read_sampler(gltf: Any, sampler: Any) -> tuple[list[float], Any]:
    """Return key times in frames, and the values as stored."""
    from io_scene_gltf2.io.imp.gltf2_io_binary import BinaryData

    keys = [key[0] * FPS for key in BinaryData.get_data_from_accessor(gltf, sampler.input)]
    return keys, BinaryData.get_data_from_accessor(gltf, sampler.output)


def curves_of(gltf: Any, vnode_key: Any, path: str, data_path: str) -> list[Any]:
    """Return the F-curves that the importer has created for a property, ordered by component."""
    from io_scene_gltf2.blender.com.data_path import get_channelbag_for_slot
    from io_scene_gltf2.blender.imp.animation_utils import get_or_create_action_and_slot

    curves = get_channelbag_for_slot(*get_or_create_action_and_slot(gltf, vnode_key, 0, path)).fcurves
    return sorted((c for c in curves if c.data_path == data_path), key=lambda curve: curve.array_index)


def converter(gltf: Any, vnode: Any, path: str) -> Callable[[Any, bool], Any]:
    """Return the importer's change of coordinates for values of a property.

    The returned function takes a value and whether it is a derivative, to which only the linear part applies.
    """
    after, before = vnode.rotation_after, vnode.rotation_before
    rest_inverse, origin = Quaternion(), Vector()
    if vnode.type == BONE:
        rest_inverse, origin = vnode.editbone_rot.conjugated(), vnode.editbone_trans
    elif vnode.parent is not None and gltf.vnodes[vnode.parent].type == BONE:
        origin = Vector(
            (0, gltf.vnodes[vnode.parent].bone_length, 0)
        )  # children are relative to the tip of a bone

    def convert(value: Any, derivative: bool) -> Any:
        if path == "translation":
            moved = after @ gltf.loc_gltf_to_blender(value)
            return rest_inverse @ (moved if derivative else moved - origin)
        if path == "rotation":
            return rest_inverse @ (after @ gltf.quaternion_gltf_to_blender(value) @ before)
        return vnode.base_scales_to_final_scales([gltf.scale_gltf_to_blender(value)])[0]

    return convert


def set_splines(curves: Sequence[Any], keys: Sequence[float], points: Sequence[Any]) -> None:
    """Write cubic Hermite keys as equivalent Bezier handles.

    Args:
        curves: one F-curve per component.
        keys: key times in frames.
        points: in-tangent, value and out-tangent of every key; tangents per second.
    """
    for axis, curve in enumerate(curves):
        for i, key in enumerate(curve.keyframe_points):
            in_tangent, value, out_tangent = (points[3 * i + j][axis] for j in range(3))
            before = (keys[i] - keys[i - 1]) / 3 if i else 1.0
            after = (keys[i + 1] - keys[i]) / 3 if i + 1 < len(keys) else 1.0
            key.co = keys[i], value
            key.interpolation = "BEZIER"
            key.handle_left_type = key.handle_right_type = "FREE"
            key.handle_left = keys[i] - before, value - in_tangent * before / FPS
            key.handle_right = keys[i] + after, value + out_tangent * after / FPS


def slerp_at(curves: Sequence[Any], frames: Sequence[float]) -> None:
    """Insert keys at `frames` into the four linear curves of a quaternion, interpolated spherically between keys."""
    keys = [key.co[0] for key in curves[0].keyframe_points]
    values = [Quaternion([curve.keyframe_points[i].co[1] for curve in curves]) for i in range(len(keys))]
    for frame in frames:
        after = next((i for i, key in enumerate(keys) if key > frame), None)
        if after is None or after == 0:
            continue
        a, b = values[after - 1], values[after]
        value = a.slerp(b, (frame - keys[after - 1]) / (keys[after] - keys[after - 1]))
        if min(abs(frame - key) for key in keys) < 1e-3:
            continue
        for axis, curve in enumerate(curves):
            key = curve.keyframe_points.insert(frame, value[axis], options={"FAST"})
            key.interpolation = "LINEAR"
    for curve in curves:
        curve.update()


def import_asset(job: dict[str, Any]) -> Any:
    """Import the asset into an empty scene with its animation assigned; return the importer's object."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = int(FPS), 1.0
    Importer.animation, Importer.times = job["animation"], job["times"]
    sys.modules["io_scene_gltf2"].glTF2ImportUserExtension = Importer
    options = {"import_webp_texture": True, "disable_bone_shape": True}
    supported = bpy.ops.import_scene.gltf.get_rna_type().properties.keys()
    status = bpy.ops.import_scene.gltf(
        filepath=job["asset"], **{key: value for key, value in options.items() if key in supported}
    )
    if status != {"FINISHED"} or Importer.gltf is None:
        raise RuntimeError(f"Blender's importer did not finish: it returned {status}")
    if Importer.failure is not None:
        raise Importer.failure
    return Importer.gltf


def go_to(time: float) -> None:
    """Set the scene to a time in seconds."""
    frame = time * FPS
    whole = math.floor(frame)
    bpy.context.scene.frame_set(whole, subframe=frame - whole)


# --- vertex positions -----------------------------------------------------------------------------


def corner_positions(job: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return, for every "node/primitive", the corners of its triangles in glTF's world, float32 [T, F, 3, 3]."""
    gltf = import_asset(job)
    parts = []
    for vnode in gltf.vnodes.values():
        if vnode.mesh_node_idx is not None:
            node = vnode.mesh_node_idx
            parts.append((node, vnode.blender_object, mesh_corners(gltf, gltf.data.nodes[node].mesh)))
    out = {
        f"{node}/{primitive}": np.zeros((len(job["times"]), len(corners) // 3, 3, 3), np.float32)
        for node, _, primitives in parts
        for primitive, corners in primitives.items()
    }
    for index, time in enumerate(job["times"]):
        go_to(time)
        graph = bpy.context.evaluated_depsgraph_get()
        for node, blender_object, primitives in parts:
            evaluated = blender_object.evaluated_get(graph)
            mesh = evaluated.to_mesh()
            if len(mesh.vertices) != len(blender_object.data.vertices):
                raise RuntimeError(f"node {node}: Blender changed the number of vertices")
            local = np.empty(3 * len(mesh.vertices), np.float32)
            mesh.vertices.foreach_get("co", local)
            evaluated.to_mesh_clear()
            matrix = np.array(evaluated.matrix_world, np.float64)
            world = local.reshape(-1, 3).astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
            world = np.stack([world[:, 0], world[:, 2], -world[:, 1]], 1)
            for primitive, corners in primitives.items():
                out[f"{node}/{primitive}"][index] = world[corners].reshape(-1, 3, 3)
    return out


def mesh_corners(gltf: Any, mesh: int) -> dict[int, np.ndarray]:
    """Return, per triangle primitive, the Blender vertex of each corner.

    The importer keeps the used vertices of all primitives, in order.
    """
    from io_scene_gltf2.blender.imp.mesh import points_edges_tris
    from io_scene_gltf2.io.imp.gltf2_io_binary import BinaryData

    corners, first = {}, 0
    for index, primitive in enumerate(gltf.data.meshes[mesh].primitives):
        if "POSITION" not in primitive.attributes:
            continue
        if primitive.indices is None:
            order = np.arange(gltf.data.accessors[primitive.attributes["POSITION"]].count, dtype=np.uint32)
        else:
            order = BinaryData.decode_accessor(gltf, primitive.indices).reshape(-1)
        groups = points_edges_tris(4 if primitive.mode is None else primitive.mode, order)
        used, inverse = np.unique(next(g for g in groups if g is not None), return_inverse=True)
        if groups[2] is not None:
            corners[index] = first + inverse
        first += len(used)
    return corners


# --- conversion -----------------------------------------------------------------------------------


def convert(job: dict[str, Any]) -> None:
    """Open an FBX, BLEND or USD file and export it as a .glb. Scripts in the file are not executed."""
    if job["kind"] == "blend":
        bpy.context.preferences.filepaths.use_scripts_auto_execute = False
        bpy.ops.wm.open_mainfile(filepath=job["asset"], load_ui=False, use_scripts=False)
    elif job["kind"].startswith("usd"):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.wm.usd_import(filepath=job["asset"], import_textures_mode="IMPORT_PACK")
    else:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.import_scene.fbx(
            filepath=job["asset"], anim_offset=0.0
        )  # the default shifts animations by one frame
    bpy.ops.export_scene.gltf(
        filepath=job["result"],
        export_format="GLB",
        export_cameras=job.get("cameras", False),
        export_lights=False,
    )


def write_fbx(job: dict[str, Any]) -> None:
    """Import one animation of a .glb and export it as .fbx, baked at every frame."""
    global FPS
    FPS = float(job["fps"])
    import_asset(job)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 0, job["frames"] - 1
    bpy.ops.export_scene.fbx(
        filepath=job["result"],
        add_leaf_bones=False,
        bake_anim_use_nla_strips=False,
        bake_anim_use_all_actions=False,
        bake_anim_step=1.0,
        bake_anim_simplify_factor=0.0,
        path_mode="COPY",
        embed_textures=True,
        mesh_smooth_type="OFF",
        colors_type="SRGB",
    )


def main() -> None:
    """Run the job named on the command line and write Blender's version to `job["done"]`."""
    if bpy.app.version < (4, 4):
        raise RuntimeError(f"Blender {bpy.app.version_string} is too old, expected 4.4 or newer")
    job = json.loads(Path(sys.argv[-1]).read_text())
    if job["task"] == "positions":
        np.savez(job["result"], **corner_positions(job))
    elif job["task"] == "convert":
        convert(job)
    elif job["task"] == "fbx":
        write_fbx(job)
    else:
        sys.path.append(
            str(Path(__file__).parent)
        )  # a Blender executable does not add the folder of its script
        import _blender_render

        _blender_render.render(job)
    Path(job["done"]).write_text(bpy.app.version_string)


main()
