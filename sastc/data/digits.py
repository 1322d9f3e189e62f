"""The default data: scikit-learn's bundled digits, which need no download, and simulated event streams of them."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.datasets import load_digits as bundled_digits

from sastc.data.dataset import Dataset, Split
from sastc.data.events import to_events
from sastc.data.subsets import DIGITS_SPLIT, digest, stratified_order
from sastc.facts import FACTS

DATA_SHA256 = "267f86e03ae0481efa68bbcf4dcd04133dbc88a3145b0551cb2221500a4881e0"
SPLIT_SHA256 = "5f4a759bcb3702575115c79c258adfa8191cc20f2af4463b3d566cb88e2c515f"


def load_digits(image_size: int) -> Dataset:
    """Load scikit-learn's bundled digits: 1797 images of 8x8, enlarged; 1437 to train, 360 to test.

    Raises ValueError if the installed scikit-learn bundles other images than those that the split was drawn for.
    """
    bunch = bundled_digits()
    values, labels = bunch.images.astype(np.int64), bunch.target.astype(np.int64)  # 0 ... 16, (1797, 8, 8)
    if digest(values, labels) != DATA_SHA256:
        raise ValueError(f"digits: scikit-learn's bundled images changed: SHA-256 {digest(values, labels)}")
    train_rows, test_rows = digits_split(labels)
    pixels = torch.from_numpy(values).double()[:, None]
    pixels = F.interpolate(pixels, size=(image_size, image_size), mode="bilinear", align_corners=False)
    images = (pixels * (255 / 16)).round().byte()
    train, test = (Split(images[rows], torch.from_numpy(labels)[rows]) for rows in (train_rows, test_rows))
    scaled = train.images.double() / 255
    return Dataset(
        name="digits",
        label="Digits (scikit-learn)",
        classes=tuple("0123456789"),
        train=train,
        test=test,
        mean=(scaled.mean().item(),),
        std=(scaled.std(correction=0).item(),),
        crop_padding=image_size // 8,
        flip=False,  # a mirrored digit is another symbol
        provenance={"source": "sklearn.datasets.load_digits", "data_sha256": DATA_SHA256, "split_sha256": SPLIT_SHA256},
    )


def digits_split(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows (1437,) to train on and (360,) to test on, as listed in data/digits_split.json."""
    order, count = stratified_order(labels, 0, DIGITS_SPLIT), FACTS["digits"].test
    test, train = np.sort(order[:count]), np.sort(order[count:])
    if digest(train, test) != SPLIT_SHA256:
        raise ValueError(f"digits: the split differs from the published one: SHA-256 {digest(train, test)}")
    return train, test


def digits_camera(image_size: int) -> dict[str, Any]:
    """How the digits move: saccades of one pixel of the original 8x8, all from the top, as in N-MNIST."""
    return {"amplitude": image_size / 8, "start": -np.pi / 2}


@lru_cache(maxsize=4)  # a workflow's process trains several runs of few kinds
def load_digits_dvs(image_size: int, steps: int, binning: str) -> Dataset:
    """Load the digits as a simulated event camera sees them, in `steps` frames."""
    events = to_events(load_digits(image_size), steps, binning, **digits_camera(image_size))
    return replace(events, label=FACTS["digits_dvs"].label)
