"""Decoding of texture images within limits."""

from __future__ import annotations

import io
import warnings

import numpy as np

from renderers.gltf.files import reason
from renderers.gltf.limits import GltfError, LimitExceeded, UnsupportedGltf

# glTF allows the first two, and WebP by an extension; exporters write the others, too. Formats that run programs (EPS)
# or decoders outside Pillow are not read.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "TGA")
_KTX2_MAGIC = b"\xabKTX 20\xbb\r\n\x1a\n"


class UndecodableImage(GltfError):
    """The image is in another format or damaged. The asset can be drawn without it."""


def decode_image(data: bytes, max_side: int, pixels_left: int, max_pixels: int) -> np.ndarray:
    """Decode an image to RGBA. Its size is checked from the header, before pixels are allocated.

    Args:
        data: an encoded image. Of an animated one, the first frame is decoded.
        max_side: `Limits.texture_side`.
        pixels_left: pixels that remain of `max_pixels`, `Limits.texture_pixels`.
    Returns:
        uint8 [H, W, 4], read-only.
    Raises:
        UnsupportedGltf: a KTX2 texture.
        LimitExceeded: the image is too large.
        UndecodableImage: the image is in another format or damaged. Messages do not name the asset; `Document` adds
            that.
    """
    from PIL import Image

    if data[:12] == _KTX2_MAGIC:
        raise UnsupportedGltf("KTX2 textures are not supported; export it with PNG, JPEG or WebP textures")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = picture.size
            if max(width, height) > max_side:
                raise LimitExceeded(
                    f"the image has {width} x {height} pixels, expected at most {max_side} per side; "
                    "scale it down or raise Limits.texture_side"
                )
            if width * height > pixels_left:
                raise LimitExceeded(
                    f"the image has {width} x {height} pixels, which brings the total of all textures above "
                    f"{max_pixels} pixels; scale them down or raise Limits.texture_pixels"
                )
            if picture.mode == "F":
                raise ValueError("floating-point pixels have no range")
            if picture.mode.startswith("I"):  # 16-bit grey: convert("RGBA") would clip instead of scaling
                grey = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                picture = Image.fromarray(grey)
            pixels = np.array(picture.convert("RGBA"))
    except (GltfError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise UndecodableImage(f"the image is not one of {', '.join(_FORMATS)}; replace it") from error
    except Image.DecompressionBombError as error:
        raise LimitExceeded(
            f"the image is too large: {error}; expected at most {max_side} pixels per side; scale it down"
        ) from error
    except Exception as error:  # PIL raises exceptions of nearly any type for a broken image
        raise UndecodableImage(
            f"the image cannot be decoded ({type(error).__name__}: {reason(error)}); replace it"
        ) from error
    pixels.setflags(write=False)
    return pixels
