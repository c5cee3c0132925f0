"""Build and render the scene of `renderers.meshes.blender_scene` inside Blender; imported by `_blender_child.py`.

It imports only bpy, numpy and the standard library. The mesh is replaced in every frame by vertices computed by
`renderers.gltf`; no modifier, shape key, armature or F-curve is involved. Blender's world is z-up: glTF (x, y, z) is
Blender (x, -z, y).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

Y_UP_TO_Z_UP = Matrix(((1, 0, 0, 0), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)))
CAMERA_AXES = Matrix.Diagonal((1, -1, -1, 1))  # between OpenCV camera axes and Blender's; self-inverse


class PosedMesh:
    """One Blender object with all triangles of the asset, whose vertices are replaced in every frame.

    Args:
        arrays: the contents of mesh.npz.
        materials: the materials that `arrays["materials"]` indexes.
    Attributes:
        object: the object, linked to the scene, with an identity transform.
    """

    def __init__(self, arrays: dict[str, np.ndarray], materials: list[Any]) -> None:
        self.arrays = arrays
        self.mirrored: np.ndarray | None = None
        self.triangles = arrays["triangles"]
        self.mesh = bpy.data.meshes.new("asset")
        for material in materials:
            self.mesh.materials.append(material)
        self.object = bpy.data.objects.new("asset", self.mesh)
        bpy.context.scene.collection.objects.link(self.object)

    def pose(self, positions: np.ndarray, normals: np.ndarray, mirrored: np.ndarray) -> None:
        """Set the vertices of a frame, and check that Blender has evaluated the mesh to them.

        Args:
            positions: float32 [N, 3].
            normals: float32 [N, 3], unit.
            mirrored: bool [P], per primitive: its front faces are clockwise in this frame.
        """
        if self.mirrored is None or (self.mirrored != mirrored).any():
            self.mirrored = mirrored
            self._build(mirrored[self.arrays["primitives"]])
        mesh = self.mesh
        mesh.vertices.foreach_set("co", positions.ravel())
        mesh.update()
        mesh.normals_split_custom_set_from_vertices(normals)
        mesh.update_tag()
        bpy.context.view_layer.update()
        if not np.array_equal(self.corners(), positions[self.triangles]):
            raise RuntimeError("Blender's evaluated mesh differs from the vertices that were passed to it")

    def _build(self, flipped: np.ndarray) -> None:
        """Create the triangles, counter-clockwise seen from their front: `flipped` bool [F] reverses the winding."""
        mesh, arrays = self.mesh, self.arrays
        mesh.clear_geometry()
        self.triangles = np.where(flipped[:, None], arrays["triangles"][:, [0, 2, 1]], arrays["triangles"])
        corners = self.triangles.ravel()
        mesh.vertices.add(len(arrays["colors"]))
        mesh.loops.add(len(corners))
        mesh.polygons.add(len(corners) // 3)
        mesh.loops.foreach_set("vertex_index", corners)
        mesh.polygons.foreach_set("loop_start", np.arange(0, len(corners), 3, dtype=np.int32))
        mesh.polygons.foreach_set("material_index", arrays["materials"])
        for number in range(arrays["texcoords"].shape[1]):
            # The importer's materials refer to these names. glTF's v points down in the image, Blender's up.
            layer = mesh.uv_layers.new(name="UVMap" if number == 0 else f"UVMap.{number:03d}", do_init=False)
            uv = arrays["texcoords"][corners, number] * np.float32([1, -1]) + np.float32([0, 1])
            layer.uv.foreach_set("vector", uv.ravel())
        color = mesh.color_attributes.new("Color", "FLOAT_COLOR", "POINT")
        color.data.foreach_set("color", arrays["colors"].ravel())
        # A material reads the default colour attribute.
        mesh.attributes.default_color_name = mesh.attributes.active_color_name = "Color"
        mesh.update(calc_edges=True)

    def corners(self) -> np.ndarray:
        """Return the corners of the triangles that Blender draws in this frame, in its world, float32 [F, 3, 3]."""
        evaluated = self.object.evaluated_get(bpy.context.evaluated_depsgraph_get())
        mesh = evaluated.to_mesh()
        points = np.empty(3 * len(mesh.vertices), np.float32)
        mesh.vertices.foreach_get("co", points)
        corners = np.empty(len(mesh.loops), np.int32)
        mesh.loops.foreach_get("vertex_index", corners)
        evaluated.to_mesh_clear()
        matrix = np.array(evaluated.matrix_world, np.float32)
        if not np.array_equal(matrix, np.eye(4)):
            raise RuntimeError(f"Blender moved the mesh: its world matrix is {matrix.tolist()}")
        return points.reshape(-1, 3)[corners].reshape(-1, 3, 3)


class Importer:
    """Import hook (a documented interface of the glTF add-on) that keeps the importer's object."""

    gltf: Any = None

    def gather_import_gltf_before_hook(self, gltf: Any) -> None:
        """Keep the importer's object."""
        Importer.gltf = gltf


def import_materials(path: Path) -> list[Any]:
    """Import the materials of a .glb into an empty scene, in the order of the file; remove its objects."""
    sys.modules["io_scene_gltf2"].glTF2ImportUserExtension = Importer
    status = bpy.ops.import_scene.gltf(filepath=str(path))
    if status != {"FINISHED"} or Importer.gltf is None:
        raise RuntimeError(f"Blender's importer did not finish: it returned {status}")
    for imported in list(bpy.data.objects):
        bpy.data.objects.remove(imported)
    # `blender_material` maps the vertex colour attribute that a material is used with to the name in Blender.
    materials = [
        bpy.data.materials[name]
        for material in Importer.gltf.data.materials
        for name in material.blender_material.values()
    ]
    for material in materials:
        if material.use_backface_culling:
            hide_backs(material)
    return materials


def render(job: dict[str, Any]) -> None:
    """Pose the mesh for each frame and render one PNG with straight alpha per view, or record the posed triangles.

    The job's `task` is "render" or "corners"; its `folder` contains the scene and receives the results,
    <view>-<frame>.png or corners-<frame>.npy.
    """
    folder = Path(job["folder"])
    bpy.ops.wm.read_factory_settings(use_empty=True)
    materials = import_materials(folder / "materials.glb")
    with np.load(folder / "mesh.npz") as arrays:
        mesh = PosedMesh(dict(arrays), materials)
    if job["task"] == "render":
        cameras = dict(np.load(folder / "cameras.npz"))
        scene = bpy.context.scene
        light_world(scene, cameras["environment"])
        configure(scene, job)
        camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        scene.collection.objects.link(camera)
        scene.camera = camera
    for frame in range(job["frames"]):
        with np.load(folder / f"pose-{frame:04d}.npz") as pose:
            mesh.pose(pose["positions"], pose["normals"], pose["mirrored"])
        if job["task"] == "corners":
            np.save(folder / f"corners-{frame:04d}.npy", mesh.corners())
            continue
        for view, (to_world, K) in enumerate(zip(cameras["camera_to_world"], cameras["K"], strict=True)):
            set_camera(camera, to_world, K, job)
            scene.render.filepath = str(folder / f"{view:03d}-{frame:04d}.png")
            bpy.ops.render.render(write_still=True)


def set_camera(camera: Any, camera_to_world: np.ndarray, K: np.ndarray, job: dict[str, Any]) -> None:
    """Set pose, focal length and principal point of Blender's camera from a pinhole camera."""
    width, height = job["width"], job["height"]
    matrix = Matrix([list(map(float, row)) for row in camera_to_world])
    camera.matrix_world = Y_UP_TO_Z_UP @ matrix @ CAMERA_AXES
    fx, fy, cx, cy = (float(K[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    render, lens = bpy.context.scene.render, camera.data
    # Blender expresses focal length and shifts in units of the sensor width, and has a single focal length: fx != fy is
    # expressed by non-square pixels.
    render.pixel_aspect_x, render.pixel_aspect_y = max(1.0, fy / fx), max(1.0, fx / fy)
    lens.sensor_fit, lens.sensor_width = "HORIZONTAL", 36.0
    lens.lens = 36.0 * fx / width
    lens.shift_x = (0.5 * width - cx) / width
    lens.shift_y = (cy - 0.5 * height) / width * (fx / fy)
    distance = np.linalg.norm(camera_to_world[:3, 3])
    lens.clip_start, lens.clip_end = max(distance * 1e-3, 1e-4), distance * 100.0


def hide_backs(material: Any) -> None:
    """Make the back faces of a single-sided material transparent, as in glTF; Cycles renders both sides by default."""
    tree = material.node_tree
    out = next((n for n in tree.nodes if n.type == "OUTPUT_MATERIAL" and n.is_active_output), None)
    if out is None or not out.inputs["Surface"].is_linked:
        return
    front = out.inputs["Surface"].links[0].from_socket
    geometry, clear = tree.nodes.new("ShaderNodeNewGeometry"), tree.nodes.new("ShaderNodeBsdfTransparent")
    mix = tree.nodes.new("ShaderNodeMixShader")
    tree.links.new(geometry.outputs["Backfacing"], mix.inputs[0])
    tree.links.new(front, mix.inputs[1])
    tree.links.new(clear.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], out.inputs["Surface"])


def light_world(scene: Any, environment: np.ndarray) -> None:
    """Light the scene with an equirectangular image float32 [H, W, 3], bottom row first."""
    height, width = environment.shape[:2]
    image = bpy.data.images.new("environment", width, height, float_buffer=True)
    image.colorspace_settings.name = "Non-Color"
    pixels = np.ones((height, width, 4), np.float32)
    pixels[..., :3] = environment
    image.pixels.foreach_set(pixels.ravel())
    image.pack()
    world = bpy.data.worlds.new("environment")
    world.use_nodes = True
    nodes = world.node_tree.nodes
    texture = nodes.new("ShaderNodeTexEnvironment")
    texture.image = image
    world.node_tree.links.new(texture.outputs["Color"], nodes["Background"].inputs["Color"])
    scene.world = world


def configure(scene: Any, job: dict[str, Any]) -> None:
    """Set engine, resolution, sampling, and output without tone mapping."""
    render = scene.render
    render.engine = job["engine"]
    render.resolution_x, render.resolution_y, render.resolution_percentage = job["width"], job["height"], 100
    render.film_transparent = True
    render.use_persistent_data = True
    render.dither_intensity = 0.0
    render.threads_mode, render.threads = "FIXED", job["threads"]
    render.image_settings.file_format = "PNG"
    render.image_settings.color_mode, render.image_settings.color_depth = "RGBA", "8"
    render.image_settings.compression = 0
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform = "Standard"
    scene.view_settings.look = "None"
    render.filter_size = 1.0
    if job["engine"] == "CYCLES":
        cycles = scene.cycles
        cycles.device = "CPU"
        cycles.samples, cycles.use_adaptive_sampling, cycles.seed = job["samples"], False, 0
        cycles.use_denoising = False
        cycles.pixel_filter_type = "BOX"
