"""1,000 mutated GLB files: each loads or raises GltfError, within limits on memory and time, in one process.

The child process limits its own address space and the time per file, so that passing proves the bounds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sample_assets import model
from tiny_gltf import CORNERS, TinyGltf, pack_glb, split_glb

FILES = 1000
SECONDS_PER_FILE = 5
EXTRA_MEMORY = 1 << 30  # bytes beyond the memory of the process after its imports


# --- mutations ------------------------------------------------------------------------------------

WEIRD = (
    None, True, -1, 0, 1, 3, 255, 65535, 2**31, 2**32, 2**63, 10**30, 0.5, -0.0, 1e308, "", "x",
    "../../etc/passwd", "http://127.0.0.1:9/x", "data:,", "data:application/octet-stream;base64,AAAA",
    "STEP", "CUBICSPLINE", "VEC2", "MAT4", [], {},
    [0], [[]], [None], [1e39] * 3, [0] * 16, {"a": {}}, list(range(300)),
)  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Insert one to three faults in the JSON values and keys or in the binary part, or one in the container."""
    kind = rng.random()
    if kind < 0.05:
        return data[: rng.randrange(len(data))]
    if kind < 0.12:
        return flip(data, rng, rng.randint(1, 3))
    root, binary = split_glb(data)
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.6:
            mutate_json(root, rng)
        else:
            binary = flip(binary, rng, rng.randint(1, 8)) if binary else binary
    return pack_glb(json.dumps(root).encode(), binary)


def flip(data: bytes, rng: random.Random, count: int) -> bytes:
    out = bytearray(data)
    for _ in range(count):
        out[rng.randrange(len(out))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(out)


def mutate_json(root: dict, rng: random.Random) -> None:
    places = list(walk(root))
    container, key = rng.choice(places)
    value = container[key]
    choice = rng.random()
    if choice < 0.15 and isinstance(container, dict):
        del container[key]
    elif choice < 0.3 and isinstance(value, list) and value:
        value.append(rng.choice(value))
    elif choice < 0.6 and isinstance(value, (int, float)) and not isinstance(value, bool):
        container[key] = rng.choice(
            (value + 1, value - 1, -value, value * 2, value * 1000, value + rng.randrange(99))
        )
    elif choice < 0.75:
        container[key] = places[rng.randrange(len(places))][0]  # a part copied from another place
    else:
        container[key] = rng.choice(WEIRD)
    try:
        json.dumps(root)
    except ValueError:  # a part that contains itself
        container[key] = value


def walk(node):
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(pairs):
        yield node, key
        if isinstance(value, (dict, list)):
            yield from walk(value)


# --- seeds: all features in small files ----------------------------------------------------------


def everything() -> TinyGltf:
    """Skin, two joint sets, morphs, sparse, strides, colours, a texture, all interpolations."""
    import io

    from PIL import Image

    tiny = TinyGltf()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(picture, "PNG")
    tiny.add("images", bufferView=tiny.view(picture.getvalue()))
    tiny.add("samplers", wrapS=33071)
    tiny.add("textures", source=0, sampler=0)
    transform = {"extensions": {"KHR_texture_transform": {"rotation": 1, "scale": [2, 2]}}}
    tiny.add(
        "materials", pbrMetallicRoughness={"baseColorTexture": {"index": 0} | transform}, alphaMode="BLEND"
    )
    gloss = {"diffuseTexture": {"index": 0}, "specularGlossinessTexture": {"index": 0}}
    tiny.add("materials", extensions={"KHR_materials_pbrSpecularGlossiness": gloss})
    a, b = tiny.node(children=[1]), tiny.node(translation=[0, 1, 0])
    attributes = {
        "NORMAL": tiny.accessor(np.tile([0, 1, 0], (4, 1)), stride=16),
        "TEXCOORD_0": tiny.accessor(np.full((4, 2), 65535), "u2", normalized=True),
        "COLOR_0": tiny.accessor(np.full((4, 4), 255), "u1", normalized=True),
        "JOINTS_0": tiny.accessor([[0, 1, 0, 0]] * 4, "u1"),
        "WEIGHTS_0": tiny.accessor([[0.25, 0.25, 0, 0]] * 4),
        "JOINTS_1": tiny.accessor([[1, 0, 0, 0]] * 4, "u1"),
        "WEIGHTS_1": tiny.accessor([[0.5, 0, 0, 0]] * 4),
    }
    targets = [{"POSITION": tiny.sparse(4, [3], [[0, 0, 2]])}]
    body = tiny.node(mesh=tiny.mesh(attributes=attributes, targets=targets, material=0))
    tiny.json["nodes"][body]["skin"] = tiny.skin([a, b], np.tile(np.eye(4), (2, 1, 1)))
    flat = tiny.node(mesh=tiny.mesh(material=1), matrix=np.eye(4).reshape(-1).tolist())
    strip = tiny.node(mesh=tiny.mesh(CORNERS, None, mode=5), scale=[1, -1, 1])
    tiny.scene(a, body, flat, strip)
    zero, turned = [0, 0, 0, 0], [0, 0, 0.7, 0.7]
    tiny.animation(
        (b, "rotation", [0, 1], [zero, [0, 0, 0, 1], zero, zero, turned, zero], "CUBICSPLINE"),
        (a, "translation", [0, 1, 2], [[0, 0, 0], [1, 0, 0], [1, 1, 0]], "STEP"),
        (body, "weights", [0, 2], [0, 1]),
        (flat, "rotation", [0, 1], [[0, 0, 0, 127], [0, 90, 0, 90]], "LINEAR", "i1"),
    )
    return tiny


def compressed() -> TinyGltf:
    """A Draco mesh and a meshopt buffer view."""
    import DracoPy
    import meshoptimizer

    tiny = TinyGltf()
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.uint32)
    packed = {"bufferView": tiny.view(DracoPy.encode(CORNERS, faces)), "attributes": {"POSITION": 0}}
    tiny.add("accessors", componentType=5126, count=4, type="VEC3")
    tiny.add("accessors", componentType=5125, count=12, type="SCALAR")
    one = tiny.node(mesh=tiny.mesh(0, None, extensions={"KHR_draco_mesh_compression": packed}, indices=1))
    view = tiny.view(bytes(meshoptimizer.encode_vertex_buffer(CORNERS, 4, 12)))
    entry = tiny.json["bufferViews"][view]
    entry["extensions"] = {
        "EXT_meshopt_compression": dict(entry, count=4, byteStride=12, mode="ATTRIBUTES", filter="NONE")
    }
    points = tiny.add("accessors", bufferView=view, componentType=5126, count=4, type="VEC3")
    tiny.scene(one, tiny.node(mesh=tiny.mesh(points)))
    return tiny


def seeds() -> list[bytes]:
    files = [everything().glb(), everything().glb(), compressed().glb()]
    for name in ("box_sparse.glb", "unsupported/BoxMeshopt.glb", "greenman.glb", "Fox.glb"):
        if model(name).is_file():  # all but greenman.glb are in the optional collection
            files.append(model(name).read_bytes())
    return files


# --- the child process: loads and poses all files ----------------------------------------------------------

CHILD = """
import json, resource, signal, sys, time
from pathlib import Path
import DracoPy, meshoptimizer, numpy as np, PIL.Image
from renderers import gltf

seconds, extra, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + extra
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

def too_slow(*_):
    raise SystemExit("a file exceeded the time limit")

signal.signal(signal.SIGALRM, too_slow)
report = {"loaded": 0, "refused": 0, "slowest_s": 0.0, "unforeseen": []}
for path in sorted(folder.iterdir()):
    print(path.name, file=sys.stderr, flush=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    start = time.perf_counter()
    try:
        asset = gltf.load(path)
        for animation in [None, *range(min(3, len(asset.animations)))]:
            for when in (0.0, 0.7):
                pose = asset.pose(animation, when)
                assert np.isfinite(pose.positions).all() and np.isfinite(pose.normals).all(), path.name
        report["loaded"] += 1
    except gltf.GltfError as error:
        report["refused"] += 1
        assert path.name in str(error), error
        if isinstance(error.__cause__, MemoryError):
            raise SystemExit(f"{path.name} exceeded the memory limit")
        if "internal error" in str(error):
            report["unforeseen"].append(str(error))
    signal.setitimer(signal.ITIMER_REAL, 0)
    report["slowest_s"] = max(report["slowest_s"], time.perf_counter() - start)
report["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps(report))
"""


def run_child(folder: Path, extra: int) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-P",
        "-W",
        "error",
        "-c",
        CHILD,
        str(SECONDS_PER_FILE),
        str(extra),
        str(folder),
    ]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def _libraries():
    pytest.importorskip("DracoPy")
    pytest.importorskip("meshoptimizer")


def test_mutated_files_load_or_are_rejected(tmp_path, record_property):
    originals = seeds()
    for number in range(FILES):
        rng = random.Random(number)
        (tmp_path / f"{number:04d}.glb").write_bytes(mutate(originals[number % len(originals)], rng))
    done = run_child(tmp_path, EXTRA_MEMORY)
    last = done.stderr.splitlines()[-12:]
    assert done.returncode == 0, f"stopped with {done.returncode} after: {last}"
    report = json.loads(done.stdout)
    record_property("fuzz", report)
    print(report)
    assert report["loaded"] + report["refused"] == FILES
    assert not report["unforeseen"], "faults of files that no check names"
    assert min(report["loaded"], report["refused"]) > FILES // 8, "the mutations are too weak or too strong"


def test_the_memory_limit_is_enforced(tmp_path):
    """Control: a valid mesh larger than a small limit makes the child report it."""
    tiny = TinyGltf()
    points = np.random.default_rng(0).random((300_000, 3), np.float32)
    tiny.scene(tiny.node(mesh=tiny.mesh(points, None)))
    (tmp_path / "large.glb").write_bytes(tiny.glb())
    assert run_child(tmp_path, EXTRA_MEMORY).returncode == 0
    assert "memory limit" in run_child(tmp_path, 15 << 20).stderr
