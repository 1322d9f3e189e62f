"""Images in folders and ImageNet: views, order and bad files of what is decoded batch by batch."""

import json
import os
import re
import shutil
import threading

import numpy as np
import pytest
import torch
from data_files import REAL, batches, joined, photo, same, write_shard
from PIL import Image
from torchvision.transforms import v2

import sastc.data.imagenet
from sastc.data import epoch_batches, load_dataset, normalise, num_batches
from sastc.data.lazy import CROP_TRIES, DRAWS, random_box

SIZES = [(40, 40), (30, 70), (70, 30), (120, 12), (64, 48), (25, 33)]  # height, width


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("SASTC_DATA", raising=False)
    monkeypatch.setenv("SASTC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "root"


def write_folders(folder, kind="PNG", test="val"):
    """Six images of odd shapes a class and split; the second of each class is grey, the third transparent."""
    pixels = {}
    for number, (split, name) in enumerate([("train", "ant"), ("train", "bee"), (test, "ant"), (test, "bee")]):
        place = folder / split / name
        place.mkdir(parents=True)
        for i, (height, width) in enumerate(SIZES):
            image = Image.fromarray(photo(10 * number + i, height, width))
            image = image.convert({1: "L", 2: "RGBA"}.get(i, "RGB") if kind == "PNG" else "RGB")
            image.save(place / f"{i}.{kind.lower()}", kind)
            pixels[split, name, i] = image.convert("RGB")
        (place / "notes.txt").write_text("no image")
    return pixels


def test_folders_are_listed_in_order(root):
    write_folders(root)
    data = load_dataset("imagefolder", root=root)
    assert (data.classes, data.label) == (("ant", "bee"), "ImageFolder (root)")
    assert data.train.labels.tolist() == [0] * 6 + [1] * 6
    assert (data.train.images.shape, data.image_size, data.in_channels) == ((12, 3, 224, 224), 224, 3)
    assert data.train.images.encoded.where(7).endswith("train/bee/1.png")
    json.dumps(data.provenance)


@pytest.mark.parametrize("size", [224, 32])
def test_test_view_is_torchvisions(root, size):
    pixels = write_folders(root)
    data = load_dataset("imagefolder", root=root, image_size=size)
    x, y, index = joined(batches(data, "test", 5, train=False))
    assert index.tolist() == list(range(12))
    assert y.tolist() == [0] * 6 + [1] * 6
    view = v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), v2.PILToTensor()])
    expected = torch.stack([view(pixels["val", name, i]) for name in ("ant", "bee") for i in range(6)])
    assert torch.equal(x, normalise(expected, data.mean, data.std))


def test_training_view_is_a_resized_crop(root):
    pixels = write_folders(root)
    data = load_dataset("imagefolder", root=root, image_size=24)
    for i, (height, width) in enumerate(SIZES):
        draws = np.random.default_rng(i).random(DRAWS)
        left, top, w, h = random_box(width, height, draws[:-1].reshape(CROP_TRIES, 4))
        expected = v2.functional.resized_crop(pixels["train", "ant", i], top, left, h, w, [24, 24])
        if draws[-1] < 0.5:
            expected = v2.functional.hflip(expected)
        got = data.train.images.decode(i, draws)
        assert np.array_equal(got, np.asarray(expected).transpose(2, 0, 1))


def test_random_box_against_a_loop():
    rng = np.random.default_rng(0)
    fell_back = 0
    for _ in range(500):
        width, height = rng.integers(1, 200, 2).tolist()
        draws = rng.random((CROP_TRIES, 4))
        for area, ratio, y, x in draws.tolist():
            target = width * height * (0.08 + 0.92 * area)
            aspect = np.exp(np.log(3 / 4) + ratio * np.log(16 / 9))
            w, h = round((target * aspect) ** 0.5), round((target / aspect) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                expected = int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
                break
        else:
            fell_back += 1
            w, h = width, height
            if width / height < 3 / 4:
                h = max(1, round(width / (3 / 4)))
            elif width / height > 4 / 3:
                w = max(1, round(height * (4 / 3)))
            expected = (width - w) // 2, (height - h) // 2, w, h
        assert random_box(width, height, draws) == expected
    assert fell_back > 20


def test_lazy_batches_are_determined_and_augmented(root):
    write_folders(root)
    data = load_dataset("imagefolder", root=root, image_size=16)
    assert num_batches(data, "train", 5) == 3
    first = batches(data, size=5, epoch=1)
    assert same(first, batches(data, size=5, epoch=1))
    assert [len(y) for _, y, _ in first] == [5, 5, 2]
    assert sorted(joined(first)[2].tolist()) == list(range(12))
    assert torch.equal(joined(first)[1], data.train.labels[joined(first)[2]])
    fixed = [batches(data, size=5, epoch=epoch, reshuffle=False) for epoch in (0, 1)]
    assert torch.equal(joined(fixed[0])[2], joined(fixed[1])[2])
    assert not torch.equal(joined(fixed[0])[0], joined(fixed[1])[0])
    shares = [batches(data, size=5, epoch=1, rank=rank, world_size=2) for rank in range(2)]
    for full, even, odd in zip(first, *shares, strict=True):
        assert torch.equal(full[0][0::2], even[0])
        assert torch.equal(full[0][1::2], odd[0])


def test_lazy_batches_may_be_left_early(root):
    write_folders(root)
    before = threading.active_count()
    part = epoch_batches(
        load_dataset("imagefolder", root=root, image_size=16),
        *("train", 2),
        **dict(train=True, seed=0, epoch=0, drop_last=False, device="cpu"),
    )
    next(part)
    part.close()
    assert threading.active_count() == before


def test_lazy_subset_and_noise(root):
    write_folders(root)
    full = load_dataset("imagefolder", root=root, image_size=16)
    part = load_dataset("imagefolder", root=root, image_size=16, train_fraction=0.5, label_noise=0.5)
    assert torch.bincount(part.train.clean_labels).tolist() == [3, 3]
    assert (part.train.labels != part.train.clean_labels).sum() == 3
    for i, row in enumerate(part.train.rows.tolist()):
        assert np.array_equal(part.train.images.decode(i), full.train.images.decode(row))


def test_hidden_files_and_folders_are_no_data(root):
    write_folders(root)
    before = load_dataset("imagefolder", root=root)
    picture = (root / "train/ant/0.png").read_bytes()
    for hidden in (
        *("train/ant/.x.png", "train/ant/.ipynb_checkpoints/0-checkpoint.png", "train/.thumbnails/0.png"),
        *("train/ant/@eaDir/0.png/SMALL.jpg", "val/__MACOSX/ant/0.png", "train/ant/deeper/.hidden/0.png"),
    ):
        (root / hidden).parent.mkdir(parents=True, exist_ok=True)
        (root / hidden).write_bytes(picture)
    (root / "train/ant/._0.png").write_bytes(b"Mac OS X resource fork")
    (root / "train/ant/Thumbs.db").write_bytes(b"thumbs")
    (root / "train/ant/folder.png").mkdir()
    after = load_dataset("imagefolder", root=root)
    assert after.train.images.encoded.names == before.train.images.encoded.names
    assert after.provenance == before.provenance
    (root / "train/ant/deeper/1.png").write_bytes(picture)  # a visible folder counts
    assert len(load_dataset("imagefolder", root=root).train) == len(before.train) + 1
    (root / "train/bee/lost.png").symlink_to(root / "nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"train/bee/lost\.png"):
        load_dataset("imagefolder", root=root)


@pytest.mark.parametrize("where", ["train/ant", "train", "."])
def test_names_that_are_not_utf8_are_named(root, where):
    write_folders(root)
    odd = root / where / os.fsdecode(b"x\xe9.png")
    try:
        shutil.copytree(root / "val/ant", odd) if where != "train/ant" else shutil.copy(root / "val/ant/0.png", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    if where == ".":
        shutil.copytree(root / "train", odd / "train")
    shown = re.escape(rf"{where}/x\xe9.png" if where != "." else r"root/x\xe9.png")
    with pytest.raises(ValueError, match=f"{shown}: its name is not UTF-8"):
        load_dataset("imagefolder", root=odd if where == "." else root)


def test_two_greys_of_sixteen_bits_stay_two(root):
    for split in ("train", "val"):
        for name, value in (("dark", 2000), ("light", 60000)):
            (root / split / name).mkdir(parents=True)
            Image.fromarray(np.full((20, 20), value, np.uint16)).save(root / split / name / "0.png")
    data = load_dataset("imagefolder", root=root, image_size=8)
    assert [np.unique(data.test.images.decode(i)).tolist() for i in (0, 1)] == [[8], [233]]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_unreadable_image_is_named(root, content):
    write_folders(root)
    path = root / "train" / "bee" / "4.png"
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    data = load_dataset("imagefolder", root=root, image_size=16)
    with pytest.raises(ValueError, match=r"bee/4.png: not a readable image"):
        batches(data, train=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f / "val"), r"Expected: val/<class>/\* or test/<class>"),
        (lambda f: shutil.rmtree(f / "val/bee"), r"val: must have the class folders of train/; differing: bee"),
        (lambda f: [path.unlink() for path in (f / "train/bee").glob("*.png")], r"train/bee: holds no image"),
        (lambda f: [shutil.rmtree(f / "train" / name) for name in ("ant", "bee")], r"train: must hold one folder"),
    ],
)
def test_bad_folders(root, change, message):
    write_folders(root)
    change(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_dataset("imagefolder", root=root)


def write_imagenet(root, folder="imagenet"):
    """The images of `write_folders` as shards too; the Hub's test shards carry no labels."""
    pixels = write_folders(root / "folders", "PNG")
    for split, shard in (("train", "train"), ("val", "validation")):
        cells = [
            (root / "folders" / split / name / f"{i}.png").read_bytes() for name in ("ant", "bee") for i in range(6)
        ]
        path = root / folder / "data" / f"{shard}-00000-of-00001.parquet"
        write_shard(path, cells, [0] * 6 + [1] * 6, image="image", names=("ant", "bee"))
    hidden = root / folder / "data" / "test-00000-of-00001.parquet"
    write_shard(hidden, cells, [-1] * 12, image="image", names=("ant", "bee"))
    return pixels


def test_imagenet_shards_equal_imagenet_folders(root, monkeypatch):
    write_imagenet(root)
    shards = load_dataset("imagenet", root=root, image_size=32)
    folders = load_dataset("imagenet", root=root / "folders", image_size=32)
    assert shards.label == folders.label == "ImageNet (12 + 12 images only)"
    assert shards.classes == folders.classes == ("ant", "bee")
    for split, train in (("train", True), ("test", False)):
        assert same(batches(shards, split, train=train), batches(folders, split, train=train))
    monkeypatch.setattr(sastc.data.imagenet, "shard_rows", None)
    assert same(batches(shards), batches(load_dataset("imagenet", root=root, image_size=32)))


def test_imagenet_needs_room(root, monkeypatch):
    write_imagenet(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match=r"needs 0.0 GB, 0.0 GB are free.*set SASTC_CACHE"):
        load_dataset("imagenet", root=root)


def test_unreadable_packed_image_is_named(root):
    write_imagenet(root)
    shard = root / "imagenet" / "data" / "train-00000-of-00001.parquet"
    write_shard(shard, [b"nonsense"] * 2, [0, 1], image="image", names=("ant", "bee"))
    data = load_dataset("imagenet", root=root)
    with pytest.raises(ValueError, match=r"train.bin, image [01]: not a readable image"):
        batches(data)


@pytest.mark.skipif(not (REAL / "imagenet-sample").is_dir(), reason="SASTC_DATA holds no imagenet-sample")
def test_real_imagenet_sample(root):
    (root / "imagenet").mkdir(parents=True)
    for name in ("train", "validation"):  # one photo a class, as both splits
        (root / "imagenet" / f"{name}-00000-of-00001.parquet").symlink_to(
            (REAL / "imagenet-sample" / "train-00000-of-00001.parquet").resolve()
        )
    data = load_dataset("imagenet", root=root, train_subset=24)
    assert (data.num_classes, data.image_size) == (1000, 224)
    x, _, index = joined(batches(data, size=8))
    assert x.shape == (24, 3, 224, 224)
    assert torch.equal(data.train.labels, data.train.rows)  # photo i is of class i
    assert sorted(index.tolist()) == list(range(24))
    assert x.mean().abs() < 0.5
