"""One image from its bytes: exactly, in eight bits a channel, or an error that names the file and says why."""

from io import BytesIO

import numpy as np
from PIL import Image

# A format says whether pixels were lost; of WebP and TIFF, the coding inside the file does.
LOSSLESS = frozenset({"PNG", "BMP", "TIFF", "PPM", "WEBP lossless"})
SAMPLE_FORMAT, UNSIGNED, BITS, PHOTOMETRIC, BLACK_IS_ZERO = 339, 1, 258, 262, 1  # tags of TIFF


def decode(encoded: bytes, where: str) -> tuple[Image.Image, str]:
    """Decode a file's bytes, called `where` in errors: an image of mode RGB, eight bits a channel, and its coding.

    Grey values of 16 bits are scaled, 65535 to 255, and rounded. A transparent image is put on white. Palettes, one
    bit, CMYK and YCbCr become the colours they stand for. The orientation that a camera writes into EXIF is ignored.

    The coding is the file's format, with "lossless" behind that of a WebP file whose bitstream is VP8L, and the
    compression behind that of a TIFF file whose compression loses something. Nothing is lost in those of `LOSSLESS`.

    Raises ValueError if it is no image, is damaged, holds several, has more pixels than PIL's `Image.MAX_IMAGE_PIXELS`,
    or values of which nothing says what is white: floats, 32 bits, signed ones.
    """
    try:
        with Image.open(BytesIO(encoded)) as image:
            _check(image)
            return _rgb(image), _coding(image, encoded)
    except _RefusedError as reason:
        raise ValueError(f"{where}: {reason}") from None
    except Exception as error:  # decoders of damaged files raise anything: struct.error, IndexError, zlib.error
        raise ValueError(f"{where}: not a readable image ({error})") from error


def too_large(width: int, height: int) -> bool:
    """Whether PIL takes so many pixels for a decompression bomb; it warns from here, and refuses twice as many."""
    return Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS


class _RefusedError(Exception):
    """A sound image whose pixel values have no clear meaning."""


def _check(image: Image.Image) -> None:
    """Refuse an image whose pixels cannot be decoded exactly."""
    if too_large(*image.size):
        allowed = f"{Image.MAX_IMAGE_PIXELS} (Image.MAX_IMAGE_PIXELS)"
        raise _RefusedError(f"{image.width}x{image.height} pixels: must be at most {allowed}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview behind it
        raise _RefusedError(f"holds {frames} images ({image.format}): must be one")
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    samples, bits, white = tags.get(SAMPLE_FORMAT, (UNSIGNED,)), tags.get(BITS, (16,)), tags.get(PHOTOMETRIC)
    odd = image.mode.startswith("I;16") and (tuple(bits) != (16,) or white not in (None, BLACK_IS_ZERO))
    # PGM files of more than 8 bits come as mode I, scaled to 65535.
    unknown = image.mode == "F" or (image.mode == "I" and image.format not in ("PPM", "PNG"))
    if unknown or odd or set(samples) != {UNSIGNED}:
        why = "nothing says what is black and what is white; save it with 8 or 16 unsigned bits a pixel"
        raise _RefusedError(f"{image.format} of mode {image.mode}: {why}")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):  # convert() would clip at 255
        values = (np.asarray(image).astype(np.int64) + 128) // 257
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    if layers.getchannel("A").getextrema() == (255, 255):
        return layers.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(layers)
    flat = white.convert("RGB")
    if flat.getcolors(1) and not layers.getcolors(1):
        raise _RefusedError(f"mode {image.mode}: nothing is left of it on white; put it on another background")
    return flat


def _coding(image: Image.Image, encoded: bytes) -> str:
    if image.format == "WEBP":
        return "WEBP lossless" if _vp8l(encoded) else "WEBP"
    if image.format == "TIFF" and (kind := image.info.get("compression")) in ("jpeg", "tiff_jpeg", "webp"):
        return f"TIFF {kind}"
    return str(image.format)


def _vp8l(encoded: bytes) -> bool:
    """Whether the first bitstream of a WebP file (RIFF chunks: name, size, content, even) is VP8L, not VP8."""
    at = 12
    while at + 8 <= len(encoded):
        name, size = encoded[at : at + 4], int.from_bytes(encoded[at + 4 : at + 8], "little")
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        at += 8 + size + size % 2
    return False
