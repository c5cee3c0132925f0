"""Recognise the format of a file that is not glTF by its first bytes, to explain what to do with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from renderers.arguments import instance

SNIFFED_BYTES = 4096  # enough to recognise every format below

_CONVERT = "convert it to .glb, for example with Blender (File > Import, then File > Export > glTF 2.0)"
_OPEN_BLEND = "open it in Blender and export it (File > Export > glTF 2.0)"
_UNPACK = "unpack it and use the .glb or .gltf file inside"
_FETCH_AGAIN = "download the model file itself"
_NOT_A_MODEL = "it contains no model; choose a .glb or .gltf file"


@dataclass(frozen=True)
class FileFormat:
    """A file format other than glTF.

    Attributes:
        name: with an article, completes "this is …".
        advice: what to do with such a file.
    """

    name: str
    advice: str

    def __str__(self) -> str:
        return f"this is {self.name}: {self.advice}"


_FBX = FileFormat("an FBX file", _CONVERT)
_BLEND = FileFormat("a Blender file", _OPEN_BLEND)
_USD_TEXT = FileFormat("a USD file (text)", _CONVERT)
_USD_CRATE = FileFormat("a USD file (binary)", _CONVERT)
_USDZ = FileFormat("a USDZ package", _CONVERT)
_OBJ = FileFormat("a Wavefront OBJ file", f"OBJ has no animation; {_CONVERT}")
_STL = FileFormat("an STL file", f"STL has no animation; {_CONVERT}")
_PLY = FileFormat("a PLY file", f"PLY has no animation; {_CONVERT}")
_DAE = FileFormat("a COLLADA file", _CONVERT)
_3DS = FileFormat("a 3D Studio file (.3ds)", _CONVERT)
_3MF = FileFormat("a 3MF package", f"3MF has no animation; {_CONVERT}")
_ALEMBIC = FileFormat("an Alembic file", _CONVERT)
_BVH = FileFormat("a BVH motion file", "it contains a skeleton without a model; apply it to one in Blender")
_X3D = FileFormat("an X3D or VRML file", _CONVERT)
_MAYA = FileFormat(
    "an Autodesk Maya file", "export it from Maya as FBX, and convert that to .glb, for example with Blender"
)
_MAX = FileFormat("an Autodesk 3ds Max file", "export it from 3ds Max as glTF or FBX")
_OLE = FileFormat("an OLE document, as 3ds Max and Office write", f"if it is a model, {_MAX.advice}")
_C4D = FileFormat("a Cinema 4D file", "export it from Cinema 4D as glTF")
_LIGHTWAVE = FileFormat("a LightWave file", _CONVERT)
_DIRECTX = FileFormat("a DirectX model (.x)", _CONVERT)
_MMD = FileFormat(
    "a MikuMikuDance model", "convert it to .glb, for example with Blender and the add-on mmd_tools"
)
_MD5 = FileFormat("a Doom 3 model (MD5)", _CONVERT)
_TILE = FileFormat("a Cesium 3D tile", "extract its .glb, for example with 3d-tiles-tools b3dmToGlb")
_DRACO = FileFormat("a bare Draco mesh", f"it has no animation; {_CONVERT}")
_CAD = FileFormat("a CAD drawing (STEP or DWG)", f"it has no animation; {_CONVERT}")
_OFF = FileFormat("an OFF mesh", f"it has no animation; {_CONVERT}")
_PROGRAM = FileFormat("a program", _NOT_A_MODEL)
_LFS = FileFormat("a Git LFS pointer, not the file itself", "run `git lfs pull` in its repository")
_HTML = FileFormat("an HTML page, most likely an error or login page", _FETCH_AGAIN)
_XML = FileFormat("an XML document, most likely an error message", _FETCH_AGAIN)
_JSON = FileFormat("a JSON document, but not glTF", f"if it is an error message, {_FETCH_AGAIN}")
_SHORTCUT = FileFormat("a shortcut to a web page", _FETCH_AGAIN)
_EMPTY = FileFormat("an empty file", "copy or download it again")
_ZEROS = FileFormat("a file of zeros, as an unfinished download leaves it", "copy or download it again")

# First bytes → format, for formats that they identify.
_MAGIC: tuple[tuple[bytes, FileFormat], ...] = (
    (b"Kaydara FBX Binary", _FBX),
    (b"BLENDER", _BLEND),
    (b"PXR-USDC", _USD_CRATE),
    (b"#usda", _USD_TEXT),
    (b"Ogawa", _ALEMBIC),
    (b"version https://git-lfs.github.com/spec/", _LFS),
    (b"ply\n", _PLY),
    (b"ply\r\n", _PLY),
    (b"HIERARCHY", _BVH),
    (b"#VRML", _X3D),
    (b"#X3D", _X3D),
    (b"[InternetShortcut]", _SHORTCUT),
    (b"7z\xbc\xaf\x27\x1c", FileFormat("a 7z archive", _UNPACK)),
    (b"Rar!\x1a\x07", FileFormat("a RAR archive", _UNPACK)),
    (b"BZh", FileFormat("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ\x00", FileFormat("an xz archive", _UNPACK)),
    # Blender compresses its files with gzip (before 3.0) or zstd, so the suffix has to tell them from archives.
    (b"\x1f\x8b", FileFormat("a gzip archive or a compressed Blender file", f"{_UNPACK}, or {_OPEN_BLEND}")),
    (
        b"\x28\xb5\x2f\xfd",
        FileFormat("a zstd archive or a compressed Blender file", f"{_UNPACK}, or {_OPEN_BLEND}"),
    ),
    (b"\x89PNG\r\n\x1a\n", FileFormat("a PNG picture", _NOT_A_MODEL)),
    (b"\xff\xd8\xff", FileFormat("a JPEG picture", _NOT_A_MODEL)),
    (b"GIF8", FileFormat("a GIF picture", _NOT_A_MODEL)),
    (b"%PDF-", FileFormat("a PDF document", _NOT_A_MODEL)),
    (b"\xabKTX ", FileFormat("a KTX texture", _NOT_A_MODEL)),
    (b"DDS ", FileFormat("a DDS texture", _NOT_A_MODEL)),
    (b"\x89HDF\r\n\x1a\n", FileFormat("an Alembic or other HDF5 file", _CONVERT)),
    (b"//Maya ASCII", _MAYA),
    (b"QC4DC4D", _C4D),
    (b"xof 0", _DIRECTX),
    (b"PMX ", _MMD),
    (b"Pmd\0", _MMD),
    (b"Vocaloid Motion Data", FileFormat("a MikuMikuDance motion", "it contains a motion without a model")),
    (b"MD5Version", _MD5),
    (b"b3dm", _TILE),
    (b"i3dm", _TILE),
    (b"DRACO", _DRACO),
    (b"ISO-10303-21", _CAD),
    (b"AC10", _CAD),
    (b"OFF\n", _OFF),
    (b"OFF\r\n", _OFF),
    (b"\x7fELF", _PROGRAM),
    (b"MZ\x90\0", _PROGRAM),
)

# Suffix → format, for files that are not read (the contents of a folder).
_SUFFIXES: dict[str, FileFormat] = {
    ".fbx": _FBX,
    ".blend": _BLEND,
    ".usd": FileFormat("a USD file", _CONVERT),
    ".usda": _USD_TEXT,
    ".usdc": _USD_CRATE,
    ".usdz": _USDZ,
    ".obj": _OBJ,
    ".stl": _STL,
    ".ply": _PLY,
    ".dae": _DAE,
    ".3ds": _3DS,
    ".3mf": _3MF,
    ".ma": _MAYA,
    ".mb": _MAYA,
    ".max": _MAX,
    ".c4d": _C4D,
    ".lwo": _LIGHTWAVE,
    ".pmx": _MMD,
    ".b3dm": _TILE,
    ".drc": _DRACO,
    ".abc": _ALEMBIC,
    ".bvh": _BVH,
    ".x3d": _X3D,
    ".wrl": _X3D,
    ".zip": FileFormat("a zip archive", _UNPACK),
    ".rar": FileFormat("a RAR archive", _UNPACK),
    ".7z": FileFormat("a 7z archive", _UNPACK),
    ".tar": FileFormat("a tar archive", _UNPACK),
    ".gz": FileFormat("a gzip archive", _UNPACK),
    ".tgz": FileFormat("a gzip archive", _UNPACK),
}


def identify(head: bytes, name: str = "") -> FileFormat | None:
    """Recognise a format other than glTF.

    Args:
        head: the first `SNIFFED_BYTES` bytes of the file, or all of it.
        name: of the file; its suffix decides between formats that share their first bytes.

    Returns:
        The format; None for glTF and for what is not recognised.
    """
    instance(head, bytes, "identify: head")
    instance(name, str, "identify: name")
    if head[:4] == b"glTF":
        return None
    suffix = _suffix(name)
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            compressed = magic in (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
            return _BLEND if compressed and suffix == ".blend" else kind
    if head[:2] == b"PK" and head[2:4] in (b"\x03\x04", b"\x05\x06", b"\x07\x08"):
        return _identify_zip(head, suffix)
    if not head.strip():
        return _EMPTY
    if not head.strip(b"\0"):
        return _ZEROS
    if head[257:262] == b"ustar":
        return FileFormat("a tar archive", _UNPACK)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return FileFormat("a WebP picture", _NOT_A_MODEL)
    if head[4:8] == b"ftyp":  # ISO base media
        picture = head[8:12] in (b"avif", b"avis", b"heic", b"mif1")
        return FileFormat("an AVIF or HEIF picture" if picture else "an MP4 video", _NOT_A_MODEL)
    if head[:4] in (b"FORM", b"FOR4", b"FOR8"):  # IFF
        return _MAYA if b"Maya" in head[:64] else _LIGHTWAVE if head[8:11] == b"LWO" else None
    if head[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        return _MAX if suffix == ".max" else _OLE
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        head = head.decode("utf-16", "replace").encode()
    if _is_3ds(head):
        return _3DS
    return _identify_text(head) or (_STL if suffix == ".stl" else None)


def format_of_suffix(name: str) -> FileFormat | None:
    """The format that the suffix of a file name stands for; None for other suffixes."""
    instance(name, str, "format_of_suffix: name")
    return _SUFFIXES.get(_suffix(name))


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def _identify_zip(head: bytes, suffix: str) -> FileFormat:
    first = head[30 : 30 + int.from_bytes(head[26:28], "little")].lower()  # name of the first file
    if suffix == ".usdz" or first.endswith((b".usd", b".usda", b".usdc")):
        return _USDZ
    if suffix == ".3mf" or first.startswith((b"3d/", b"[content_types].xml")):
        return _3MF
    return FileFormat("a zip archive", _UNPACK)


def _is_3ds(head: bytes) -> bool:
    """The main chunk 0x4D4D, which contains a version (0x0002) or the scene (0x3D3D)."""
    return head[:2] == b"MM" and len(head) >= 8 and head[6:8] in (b"\x02\x00", b"\x3d\x3d")


def _identify_text(head: bytes) -> FileFormat | None:
    if b"\0" in head[:512]:
        return None
    text = head.decode("utf-8-sig", "replace").lstrip()
    lowered = text[:2048].lower()
    if lowered.startswith(("<!doctype html", "<html", "<head", "<body")):
        return _HTML
    if lowered.startswith("<"):
        return next((kind for word, kind in _XML_WORDS if word in lowered), _XML)
    if lowered.startswith("solid") and re.search(r"\b(facet|endsolid)\b", lowered):
        return _STL
    return next((kind for matches, kind in _TEXTS if matches(text)), None)


# In an XML document, in order: an XHTML page may mention the others.
_XML_WORDS = (("<html", _HTML), ("<collada", _DAE), ("<x3d", _X3D))


def _is_ascii_fbx(text: str) -> bool:
    return text.startswith("; FBX") or bool(re.match(r"(?:;.*\n|\s)*FBXHeaderExtension\s*:", text))


def _is_obj(text: str) -> bool:
    """At least one statement, and all of them those of OBJ."""
    statements = [
        line.split() for line in text.splitlines()[:200] if line.strip() and line.lstrip()[0] != "#"
    ]
    words = {"v", "vt", "vn", "vp", "f", "l", "p", "o", "g", "s", "mtllib", "usemtl"}
    complete = statements[: max(1, len(statements) - 1)]  # the last line may be cut off
    return bool(statements) and all(words_of[0] in words for words_of in complete)


def _is_other_json(text: str) -> bool:
    """A complete JSON document without the member "asset" that every glTF file has."""
    if text[:1] not in "{[":
        return False
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return not (isinstance(document, dict) and "asset" in document)


_TEXTS: tuple[tuple[Callable[[str], bool], FileFormat], ...] = (
    (_is_ascii_fbx, _FBX),
    (_is_obj, _OBJ),
    (_is_other_json, _JSON),
)
