"""What the rest of the library sees of every data set: two splits and a few constants."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sastc.data.lazy import LazyImages


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one split.

    Attributes
    ----------
    images : Tensor or LazyImages
        uint8, (N, C, H, W), or (N, T, C, H, W) for sequences such as frames of events; lazy where decoded images
        would not fit into memory.
    labels : Tensor
        int64, (N,); the labels to train on, wrong ones included.
    clean_labels : Tensor
        int64, (N,); the labels before any was made wrong, `labels` if left out.
    rows : Tensor
        int64, (N,); the place of each image in the full split, before any subset was taken; 0 ... N - 1 if left out.
    """

    images: Tensor | LazyImages
    labels: Tensor
    clean_labels: Tensor = None  # type: ignore[assignment]  # filled below
    rows: Tensor = None  # type: ignore[assignment]  # filled below
    _moved: dict[torch.device, "Split"] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.clean_labels is None:
            object.__setattr__(self, "clean_labels", self.labels)
        if self.rows is None:
            object.__setattr__(self, "rows", torch.arange(len(self.labels)))
        lengths = [len(part) for part in (self.images, self.labels, self.clean_labels, self.rows)]
        if len(set(lengths)) != 1:
            raise ValueError(f"images, labels, clean_labels and rows must be equally long, got {lengths}")
        for name, dtype in (("images", torch.uint8), *((n, torch.int64) for n in ("labels", "clean_labels", "rows"))):
            part = getattr(self, name)
            kind = part.dtype if isinstance(part, Tensor) else type(part).__name__
            if kind != dtype and not isinstance(part, LazyImages):
                raise ValueError(f"{name} are {kind}: must be a tensor of {dtype}")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Return this split on `device`; a copy is made once and kept. Lazy images stay where they are."""
        device = torch.device(device)
        if self.labels.device == device:
            return self
        if device not in self._moved:
            images = self.images if isinstance(self.images, LazyImages) else self.images.to(device)
            moved = (part.to(device) for part in (self.labels, self.clean_labels, self.rows))
            self._moved[device] = Split(images, *moved)
        return self._moved[device]

    def take(self, indices: Tensor | Sequence[int]) -> "Split":
        """Return the images at `indices` (K,) as a split of their own, with their `rows` of this one."""
        indices = torch.as_tensor(indices, dtype=torch.int64)
        return Split(self.images[indices], self.labels[indices], self.clean_labels[indices], self.rows[indices])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: its splits, its constants and where it came from.

    Attributes
    ----------
    name, label : str
        Key in `DATASETS`, and the name to print, which says where the files differ from the original.
    classes : tuple of str
        Class names, in the order of the labels.
    train, test : Split
        The training split after subset and noise, and the test split.
    mean, std : tuple of float
        Per channel, on the scale [0, 1]; see `normalise`.
    crop_padding, flip, wrap : int, bool, bool
        Training augmentation of images in memory, as in `augment`: padding before the random crop in pixels, whether a
        mirrored image keeps its class, and whether the other side of the image is the padding, in place of zeros.
    provenance : dict
        For JSON: source, checksums of the files and pixels, and what was drawn from them.
    """

    name: str
    label: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    provenance: dict[str, Any]
    wrap: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return len(self.mean)

    @property
    def image_size(self) -> int:
        """Height and width of an image as the network sees it."""
        return self.train.images.shape[-1]

    @property
    def timesteps(self) -> int | None:
        """Steps T of a sequence; None for static images."""
        shape = self.train.images.shape
        return shape[1] if len(shape) == 5 else None
