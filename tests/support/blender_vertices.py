"""Where Blender puts the vertices of a file that it imports: `vertices`, and the script that runs inside Blender."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def vertices(file: Path, times: Sequence[float], fps: float) -> np.ndarray:
    """Import a file in Blender: float64 [T, N, 3], the corners of all triangles in glTF's world.

    Args:
        file: .glb, .fbx or .usd; its first animation, or the scene's, is played.
        times: seconds.
        fps: at which Blender reads the file.
    """
    from renderers.meshes import blender

    program = blender.find()
    assert program is not None
    flags = [] if program.name.startswith("python") else ["--background", "--factory-startup", "--python"]
    separator = [] if program.name.startswith("python") else ["--"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.npz")
        job = json.dumps(
            {"file": str(file.resolve()), "times": [float(t) for t in times], "fps": fps, "out": str(out)}
        )
        command = [str(program), *flags, str(Path(__file__).resolve()), *separator, job]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder)
        assert out.exists(), done.stdout[-3000:] + done.stderr[-3000:]
        with np.load(out) as result:
            return result["corners"]


def _main() -> None:
    import bpy

    job = json.loads(sys.argv[-1])
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
