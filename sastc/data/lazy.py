"""Images that stay encoded until a batch needs them, for sets too large to hold decoded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sastc.data.images import decode, too_large

CROP_TRIES = 10
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
DRAWS = 4 * CROP_TRIES + 1  # uniform numbers one training view uses: tries x (area, ratio, top, left), flip


@dataclass(frozen=True)
class Files:
    """Image files below one folder."""

    folder: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes:
        """Return the bytes of file `i`."""
        return (self.folder / self.names[i]).read_bytes()

    def where(self, i: int) -> str:
        """Path of file `i`."""
        return str(self.folder / self.names[i])


@dataclass(frozen=True)
class Packed:
    """Encoded images end to end in one memory-mapped file; image i is bytes offsets[i]:offsets[i+1]."""

    path: Path
    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, i: int) -> bytes:
        """Return the bytes of image `i`."""
        return self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def where(self, i: int) -> str:
        """File and number of image `i`."""
        return f"{self.path}, image {i}"


class LazyImages:
    """A stand-in for a uint8 tensor (N, 3, S, S), S being `image_size`, that decodes images when they are needed.

    `rows`, int64 (N,), says which of the encoded images, in which order; all of them if left out.
    """

    def __init__(self, encoded: Files | Packed, image_size: int, rows: NDArray[np.int64] | None = None) -> None:
        self.encoded, self.image_size = encoded, image_size
        self.rows = np.arange(len(encoded)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 3, S, S)."""
        return len(self), 3, self.image_size, self.image_size

    def __getitem__(self, indices: Tensor) -> "LazyImages":
        return LazyImages(self.encoded, self.image_size, self.rows[indices.numpy()])

    def decode(self, index: int, draws: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
        """Decode one image to uint8 (3, S, S): the training view of `DRAWS` numbers from [0, 1), or else the test view.

        Raises ValueError if the file cannot be read or is refused by :func:`sastc.data.images.decode`; names the file.
        """
        row = int(self.rows[index])
        where = self.encoded.where(row)
        try:
            encoded = self.encoded.read(row)
        except OSError as error:
            raise ValueError(f"{where}: cannot be read ({error})") from error
        image, _ = decode(encoded, where)
        if draws is None and too_large(*resized(image, self.image_size)):
            width, height = image.size
            raise ValueError(f"{where}: {width}x{height} pixels: too long and narrow for image_size={self.image_size}")
        view = centre_view(image, self.image_size) if draws is None else random_view(image, self.image_size, draws)
        return np.ascontiguousarray(np.asarray(view).transpose(2, 0, 1))


def centre_view(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to 256/224 of `size` and cut out the centre, the customary test view of ImageNet."""
    # paper: not given  released: no ImageNet code
    width, height = resized(image, size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def resized(image: Image.Image, size: int) -> tuple[int, int]:
    """Width and height of an image whose shorter side is 256/224 of `size`."""
    short, (width, height) = round(size * 256 / 224), image.size
    return int(short * width / min(width, height)), int(short * height / min(width, height))


def random_view(image: Image.Image, size: int, draws: NDArray[np.float64]) -> Image.Image:
    """Crop a random part of the image, resize it to `size` and mirror it half of the time.

    The paper says only "randomly sampled as a 224x224 crop or its horizontal flip"; this is the customary
    reading, a random resized crop (area 8-100 %, aspect ratio 3/4-4/3, ten tries, else the centre).
    """
    left, top, width, height = random_box(*image.size, draws[:-1].reshape(CROP_TRIES, 4))
    # Cropping first keeps pixels outside the box out of the antialiasing filter.
    view = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws[-1] < 0.5 else view


def random_box(width: int, height: int, draws: NDArray[np.float64]) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) of the first of the drawn boxes, (tries, 4), that fits the image."""
    area = width * height * (CROP_AREA[0] + draws[:, 0] * (CROP_AREA[1] - CROP_AREA[0]))
    low, high = np.log(CROP_RATIO)
    ratio = np.exp(low + draws[:, 1] * (high - low))
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    if fits.any():
        k = int(fits.argmax())
        w, h = int(widths[k]), int(heights[k])
        return math.floor(draws[k, 3] * (width - w + 1)), math.floor(draws[k, 2] * (height - h + 1)), w, h
    # The largest centred box whose aspect ratio is allowed.
    w = min(width, max(1, round(height * CROP_RATIO[1])))
    h = min(height, max(1, round(width / CROP_RATIO[0])))
    return (width - w) // 2, (height - h) // 2, w, h
