"""Files that Blender reads (`vertices`) and writes (`write_scene`), and the script that runs inside Blender."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def vertices(file: Path, times: Sequence[float], fps: float) -> np.ndarray:
    """Import a file in Blender: float64 [T, N, 3], the corners of all triangles in glTF's world.

    Args:
        file: .glb, .fbx or .usd; its first animation, or the scene's, is played.
        times: seconds.
        fps: at which Blender reads the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.npz")
        _run({"file": str(file.resolve()), "times": [float(t) for t in times], "fps": fps, "out": str(out)})
        with np.load(out) as result:
            return result["corners"]


def write_scene(file: Path) -> None:
    """Write a scene as .fbx, .blend or .usd: a rigged patch below an empty object, a second empty, and a camera."""
    _run({"write": str(file.resolve()), "out": str(file.resolve())})


def _run(job: dict[str, Any]) -> None:
    from renderers.meshes import blender

    program = blender.find()
    assert program is not None
    flags = [] if program.name.startswith("python") else ["--background", "--factory-startup", "--python"]
    separator = [] if program.name.startswith("python") else ["--"]
    command = [str(program), *flags, str(Path(__file__).resolve()), *separator, json.dumps(job)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert Path(job["out"]).exists(), done.stdout[-3000:] + done.stderr[-3000:]


def _write(path: str) -> None:
    import bpy
    from mathutils import Matrix

    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene

    def add(name: str, data: Any, parent: Any = None) -> Any:
        owner = bpy.data.objects.new(name, data)
        scene.collection.objects.link(owner)
        owner.parent = parent
        return owner

    size = 9
    mesh = bpy.data.meshes.new("patch")
    steps = np.linspace(-1.0, 1.0, size)
    points = [(x, 0.3 * x * y, y + 1.0) for x in steps for y in steps]
    corner = [i * size + j for i in range(size - 1) for j in range(size - 1)]
    mesh.from_pydata(points, [], [(c, c + size, c + size + 1, c + 1) for c in corner])
    mesh.uv_layers.new(name="UVMap")
    mesh.materials.append(bpy.data.materials.new("paint"))
    armature = bpy.data.armatures.new("rig")
    rig = add("rig", armature, add("stand", None))
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for name, low in (("lower", 0.0), ("upper", 1.0)):
        bone = armature.edit_bones.new(name)
        bone.head, bone.tail = (0.0, 0.0, low), (0.0, 0.0, low + 1.0)
    armature.edit_bones["upper"].parent = armature.edit_bones["lower"]
    bpy.ops.object.mode_set(mode="OBJECT")
    body = add("body", mesh, rig)
    for name, upper in (("lower", False), ("upper", True)):
        chosen = [i for i, point in enumerate(points) if (point[2] > 1.0) == upper]
        body.vertex_groups.new(name=name).add(chosen, 1.0, "REPLACE")
    body.modifiers.new("rig", "ARMATURE").object = rig
    add("marker", None).matrix_world = Matrix.Translation((0.0, 0.0, 2.5))
    camera = add("view", bpy.data.cameras.new("view"))
    camera.matrix_world = Matrix.Translation((0.0, -6.0, 1.0)) @ Matrix.Rotation(np.pi / 2, 4, "X")
    suffix = Path(path).suffix
    if suffix == ".fbx":
        bpy.ops.export_scene.fbx(filepath=path, add_leaf_bones=False)
    elif suffix == ".blend":
        bpy.ops.wm.save_as_mainfile(filepath=path)
    else:
        bpy.ops.wm.usd_export(filepath=path, export_armatures=True, export_animation=False)


def _main() -> None:
    import bpy

    job = json.loads(sys.argv[-1])
    if "write" in job:
        _write(job["write"])
        return
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = round(job["fps"]), round(job["fps"]) / job["fps"]
    suffix = Path(job["file"]).suffix
    if suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=job["file"], disable_bone_shape=True)
    elif suffix == ".fbx":
        bpy.ops.import_scene.fbx(filepath=job["file"], anim_offset=0.0)
    else:
        bpy.ops.wm.usd_import(filepath=job["file"], set_frame_range=True)
    scene = bpy.context.scene
    rate = scene.render.fps / scene.render.fps_base
    frames = []
    for time in job["times"]:
        frame = time * rate
        scene.frame_set(int(frame // 1), subframe=float(frame % 1))
        graph = bpy.context.evaluated_depsgraph_get()
        corners = []
        for owner in sorted((o for o in scene.objects if o.type == "MESH"), key=lambda o: o.name):
            evaluated = owner.evaluated_get(graph)
            mesh = evaluated.to_mesh()
            mesh.calc_loop_triangles()
            points = np.empty(3 * len(mesh.vertices), np.float32)
            mesh.vertices.foreach_get("co", points)
            order = np.empty(3 * len(mesh.loop_triangles), np.int32)
            mesh.loop_triangles.foreach_get("vertices", order)
            matrix = np.array(evaluated.matrix_world, np.float64)
            world = points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
            corners.append(np.stack([world[:, 0], world[:, 2], -world[:, 1]], 1)[order])
            evaluated.to_mesh_clear()
        frames.append(np.concatenate(corners))
    np.savez(job["out"], corners=np.stack(frames))


if __name__ == "__main__":
    _main()
