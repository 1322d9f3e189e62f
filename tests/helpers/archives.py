"""Tiny CIFAR sets on the disk, as shards and as the original archive."""

import pickle

import numpy as np
import torchvision
from data_files import encode, photo, write_shard

SHARDS = {"train-00000-of-00002": (0, 10), "train-00001-of-00002": (10, 20), "test-00000-of-00001": (20, 30)}


def write_cifar(folder, kind="PNG", seed=0):
    """Thirty images as a tiny CIFAR-10, image i of class i % 10; returns the pixels and the encoded images."""
    pixels = [photo(seed + i) for i in range(30)]
    cells = [encode(image, kind) for image in pixels]
    for name, (a, b) in SHARDS.items():
        write_shard(folder / f"{name}.parquet", cells[a:b], [i % 10 for i in range(a, b)])
    return pixels, cells


def write_archive(root, monkeypatch, kind, n=6):
    """Write batches as the original archive has them; torchvision is told their checksums."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    key, count = ("labels", 10) if kind is torchvision.datasets.CIFAR10 else ("fine_labels", 100)
    lists = {}
    for number, (name, files) in enumerate({"train_list": kind.train_list, "test_list": kind.test_list}.items()):
        lists[name] = []
        for part, (file, _) in enumerate(files):
            pixels = np.stack([photo(1000 * number + 100 * part + i) for i in range(n)]).transpose(0, 3, 1, 2)
            batch = {"data": pixels.reshape(n, 3072), key: [(number + i) % count for i in range(n)]}
            (folder / file).write_bytes(pickle.dumps(batch))
            lists[name].append([file, md5(folder / file)])
    names = [f"kind{i:02d}" for i in range(count)]
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    for name, value in lists.items():
        monkeypatch.setattr(kind, name, value)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})
    return folder


def md5(path):
    return torchvision.datasets.utils.calculate_md5(path)
