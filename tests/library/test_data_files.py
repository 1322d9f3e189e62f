"""CIFAR from shards and from the original archive: round trips, checksums, the decoded copy, bad files."""

import hashlib
import io
import json
import shutil
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from archives import SHARDS, write_archive, write_cifar
from data_files import ANIMALS, REAL, as_images, encode, photo, write_shard
from PIL import Image

import sastc.data.cifar
from sastc.data import load_dataset
from sastc.data.cifar import content_sha256
from sastc.data.files import cached
from sastc.facts import FACTS
from sastc.files import sha256

TRAIN_0, TRAIN_1, TEST = (f"{name}.parquet" for name in SHARDS)


def write_sums(folder):
    lines = [f"{sha256(path)}  {path.name}\n" for path in sorted(folder.glob("*.parquet"))]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("SASTC_DATA", raising=False)
    monkeypatch.setenv("SASTC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "root"


@pytest.fixture
def cifar(root):
    write_cifar(root / "cifar10")
    return root / "cifar10"


def forbid_building(monkeypatch):
    def fail(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(sastc.data.cifar, "shard_rows", fail)


@pytest.mark.parametrize("folder", ["", "cifar10", "cifar10/plain_text", "cifar10-jpeg"])
def test_png_shards_round_trip(root, folder):
    pixels, _ = write_cifar(root / folder)
    data = load_dataset("cifar10", root=root)
    assert np.array_equal(as_images(data.train.images), np.stack(pixels[:20]))
    assert np.array_equal(as_images(data.test.images), np.stack(pixels[20:]))
    assert data.train.labels.tolist() == [i % 10 for i in range(20)]
    assert data.label == "CIFAR-10 (20 + 10 images only)"
    assert data.classes == tuple(ANIMALS)
    assert (data.image_size, data.crop_padding, data.flip) == (32, 4, True)


def test_jpeg_shards_say_so(root):
    _, cells = write_cifar(root / "cifar10-jpeg", "JPEG")
    data = load_dataset("cifar10", root=root)
    assert data.label == "CIFAR-10 (JPEG copy, 20 + 10 images only)"
    expected = np.stack([np.asarray(Image.open(io.BytesIO(cell)).convert("RGB")) for cell in cells])
    assert np.array_equal(as_images(data.train.images), expected[:20])


def pretend_complete(monkeypatch, data, **changes):
    """Have thirty images count as all of CIFAR-10, and those of `data` as the original."""
    monkeypatch.setitem(FACTS, "cifar10", FACTS["cifar10"]._replace(train=20, test=10))
    content = {part: content_sha256(split.images, split.labels) for part, split in data.items()}
    monkeypatch.setattr(sastc.data.cifar, "ORIGINAL", {"cifar10": content})


@pytest.fixture
def original(root, monkeypatch):
    """The splits of a tiny CIFAR-10, which are taken for the original's."""
    write_cifar(root / "original" / "cifar10")
    data = load_dataset("cifar10", root=root / "original")
    pretend_complete(monkeypatch, {"train": data.train, "test": data.test})
    return data


@pytest.mark.parametrize(
    ("kind", "options", "label"),
    [
        ("PNG", {}, "CIFAR-10"),
        ("TIFF", {"compression": "tiff_lzw"}, "CIFAR-10"),
        ("WEBP", {"lossless": True, "exact": True}, "CIFAR-10"),
        ("WEBP", {"quality": 95}, "CIFAR-10 (WEBP copy)"),
        ("TIFF", {"compression": "jpeg"}, "CIFAR-10 (TIFF jpeg copy)"),
        ("JPEG", {"quality": 100}, "CIFAR-10 (JPEG copy)"),
    ],
)
def test_label_says_whether_pixels_are_the_originals(root, original, kind, options, label):
    for name, (a, b) in SHARDS.items():
        order = range(a, b)[::-1]  # another order of rows is the same set
        cells = [encode(photo(i), kind, **options) for i in order]
        write_shard(root / "cifar10" / f"{name}.parquet", cells, [i % 10 for i in order])
    data = load_dataset("cifar10", root=root)
    assert data.label == label
    assert (data.provenance["content_sha256"] == original.provenance["content_sha256"]) == (label == "CIFAR-10")
    assert load_dataset("cifar10", root=root, image_size=16).label == label
    assert (
        load_dataset("cifar10", root=root, train_fraction=0.5).provenance["content_sha256"]
        == (data.provenance["content_sha256"])
    )


@pytest.mark.parametrize("change", ["pixel", "label", "blurred"])
def test_complete_lossless_set_of_other_pixels_or_labels_says_so(root, original, change):
    write_cifar(root / "cifar10")
    if change == "label":
        rewrite(root / "cifar10" / TEST, labels=[1, 0, *range(2, 10)])
    else:
        images = [photo(i).copy() for i in range(20, 30)]
        images[3][5, 6, 1] ^= 1
        cells = [encode(image) for image in images]
        if change == "blurred":  # JPEG, then PNG
            cells = [encode(np.asarray(Image.open(io.BytesIO(encode(photo(i), "JPEG"))))) for i in range(20, 30)]
        rewrite(root / "cifar10" / TEST, cells)
    assert load_dataset("cifar10", root=root).label == "CIFAR-10 (not the original's pixels and labels)"


def test_content_hash_is_that_of_the_binary_version():
    images = torch.arange(2 * 3072).mul(7).div(5).byte().view(2, 3, 32, 32)
    labels = torch.tensor([9, 3])
    records = [bytes([9]) + bytes(images[0].flatten().tolist()), bytes([3]) + bytes(images[1].flatten().tolist())]
    digests = sorted(hashlib.sha256(record).digest() for record in records)
    assert content_sha256(images, labels) == hashlib.sha256(digests[0] + digests[1]).hexdigest()
    assert content_sha256(images.flip(0), labels.flip(0)) == content_sha256(images, labels)
    assert content_sha256(images, labels.flip(0)) != content_sha256(images, labels)


def test_environment_names_the_root(root, cifar, monkeypatch, tmp_path):
    monkeypatch.setenv("SASTC_DATA", str(root))
    assert len(load_dataset("cifar10").train) == 20
    with pytest.raises(FileNotFoundError):  # a root that was asked for is not overruled
        load_dataset("cifar10", root=tmp_path / "elsewhere")


def test_other_image_sizes(root, cifar):
    data = load_dataset("cifar10", root=root, image_size=64)
    assert (data.train.images.shape, data.train.images.dtype) == ((20, 3, 64, 64), torch.uint8)
    assert (data.image_size, data.crop_padding) == (64, 8)


def test_cifar100_takes_fine_labels_and_its_own_test_images(root):
    names = [f"kind{i:02d}" for i in range(100)]
    cells = [encode(photo(i)) for i in range(8)]
    for name, a, b in (("train-00000-of-00001", 0, 5), ("test-00000-of-00001", 5, 8)):
        fine = list(range(90 + a, 90 + b))
        write_shard(
            root / f"cifar100/{name}.parquet",
            cells[a:b],
            fine,
            label="fine_label",
            names=names,
            coarse_label=[1] * (b - a),
        )
    write_cifar(root / "cifar10", seed=500)
    data = load_dataset("cifar100", root=root)
    assert data.train.labels.tolist() == [90, 91, 92, 93, 94]
    assert data.test.labels.tolist() == [95, 96, 97]
    assert np.array_equal(as_images(data.test.images), np.stack([photo(i) for i in (5, 6, 7)]))
    assert data.label == "CIFAR-100 (5 + 3 images only)"
    assert data.mean != load_dataset("cifar10", root=root).mean


def test_second_load_reads_the_decoded_copy(root, cifar, monkeypatch):
    first = load_dataset("cifar10", root=root)
    forbid_building(monkeypatch)
    second = load_dataset("cifar10", root=root)
    assert torch.equal(first.train.images, second.train.images)
    assert first.provenance == second.provenance
    assert set(first.provenance["files"]) == {f"{name}.parquet" for name in SHARDS}


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest", "nonsense"])
def test_damaged_decoded_copy_is_made_again(root, cifar, damage, tmp_path):
    first = load_dataset("cifar10", root=root)
    (copy,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    array = copy / "train_images.npy"
    content = bytearray(array.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        array.write_bytes(content)
    elif damage == "cut":
        array.write_bytes(content[:-7])
    elif damage == "remove":
        array.unlink()
    else:
        (copy / "manifest.json").write_text('{"format": 1, ' if damage == "manifest" else '{"format": 1, "source": 3}')
    with pytest.warns(UserWarning, match="the decoded copy is made again"):
        again = load_dataset("cifar10", root=root)
    assert torch.equal(first.train.images, again.train.images)


def test_stale_decoded_copy_is_made_again(root, cifar):
    load_dataset("cifar10", root=root)
    pixels, _ = write_cifar(cifar, seed=100)
    with pytest.warns(UserWarning, match="stale"):
        data = load_dataset("cifar10", root=root)
    assert np.array_equal(as_images(data.train.images), np.stack(pixels[:20]))


def test_two_copies_of_a_data_set_do_not_replace_each_other(tmp_path, monkeypatch):
    first, _ = write_cifar(tmp_path / "a/cifar10")
    second, _ = write_cifar(tmp_path / "b/cifar10", seed=100)
    load_dataset("cifar10", root=tmp_path / "a"), load_dataset("cifar10", root=tmp_path / "b")
    forbid_building(monkeypatch)
    for root, pixels in (("a", first), ("b", second)):
        images = load_dataset("cifar10", root=tmp_path / root).test.images
        assert np.array_equal(as_images(images), np.stack(pixels[20:]))


def test_decoded_copy_lies_in_the_users_cache_folder_and_says_so_once(root, cifar, monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("SASTC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    load_dataset("cifar10", root=root)
    (manifest,) = (tmp_path / "home" / "sastc").glob("cifar10-*/manifest.json")
    assert sorted(path.name for path in root.iterdir()) == ["cifar10"]
    assert sorted(path.name for path in cifar.iterdir()) == sorted(f"{name}.parquet" for name in SHARDS)
    said = capsys.readouterr().err
    assert f"0 MB in {manifest.parent}; delete that folder to clear it, SASTC_CACHE names another place" in said
    load_dataset("cifar10", root=root)
    assert str(tmp_path) not in capsys.readouterr().err
    shutil.rmtree(manifest.parent)
    assert len(load_dataset("cifar10", root=root).train) == 20


def test_cache_variable_means_the_home_folder_by_a_tilde(root, cifar, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SASTC_CACHE", "~/copies")
    monkeypatch.chdir(tmp_path)
    load_dataset("cifar10", root=root)
    assert len(list((tmp_path / "home" / "copies").glob("cifar10-*/manifest.json"))) == 1
    assert not (tmp_path / "~").exists()
    with pytest.raises(ValueError, match=r"root='~nobody-of-this-name/x': Could not determine home"):
        load_dataset("cifar10", root="~nobody-of-this-name/x")


def test_unwritable_cache_is_a_clear_error(root, cifar, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SASTC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"cannot write the decoded copy .* set SASTC_CACHE"):
        load_dataset("cifar10", root=root)


def test_interrupted_build_leaves_nothing_behind(tmp_path):
    source = {"file": {"sha256": "0", "bytes": 1}}
    folder = tmp_path / "cache" / "x"

    def interrupted(aside):
        (aside / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(folder, source, interrupted)
    assert [path.name for path in folder.parent.iterdir() if path.suffix != ".lock"] == []
    (tmp_path / "cache" / "x.partial").mkdir()  # what kill -9 leaves
    (tmp_path / "cache" / "x.partial" / "half").write_text("half")
    cached(folder, source, lambda aside: (aside / "whole").write_text("whole"))
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "whole"]


def test_many_at_once_build_once(tmp_path):
    built = []

    def build(aside):
        built.append(1)
        (aside / "whole").write_text("whole")

    source = {"file": {"sha256": "0", "bytes": 1}}
    threads = [threading.Thread(target=cached, args=(tmp_path / "x", source, build)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]


def test_checksums_are_verified(root, cifar):
    write_sums(cifar)
    load_dataset("cifar10", root=root)
    shard = cifar / "test-00000-of-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"test-00000-of-00001.parquet: damaged: its SHA-256"):
        load_dataset("cifar10", root=root)


SUM = "0" * 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc  train.parquet\n", r"SHA256SUMS, line 1: must read"),
        (f"{SUM}  a\n".encode("utf-16"), r"SHA256SUMS: not UTF-8 text \(byte 0 is 0xff\)"),
        (f"{SUM}  Stra\xdfe\n".encode("latin-1"), r"SHA256SUMS: not UTF-8 text \(byte 70 is 0xdf\)"),
        (f"{SUM}  a\n{SUM[1:]}1  a\n".encode(), r"SHA256SUMS, line 2: another checksum of a stands above it"),
        (f"\ufeff{SUM}  {TRAIN_0}\r\n".encode(), rf"{TRAIN_0}: damaged: its SHA-256"),  # as Windows writes it
    ],
)
def test_malformed_checksum_file(root, cifar, content, message):
    (cifar / "SHA256SUMS").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_dataset("cifar10", root=root)


def test_missing_data_says_where_and_how(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_dataset("cifar100", root=tmp_path)
    for part in (
        str(tmp_path / "cifar100"),
        "train-*.parquet",
        "cifar-100-python",
        "download=True",
        "--data",
        "SASTC_DATA",
    ):
        assert part in str(error.value)
    for name in ("imagenet", "imagefolder"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no data found"):
            load_dataset(name, root=tmp_path / "nowhere")


def deep(value):
    return np.full((32, 32), value, np.uint16)


def rewrite(shard, images=None, labels=None, **options):
    """Write a shard again with something changed."""
    table = pq.read_table(shard).to_pydict()
    images = images or [cell["bytes"] for cell in table["img"]]
    write_shard(shard, images, labels or table["label"], **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / TRAIN_1).unlink(), r"cifar10: incomplete: 1 shards are missing, first train-00001"),
        (lambda f: (f / TRAIN_1).write_bytes(b"x" * 99), r"train-00001.*damaged: not a readable parquet"),
        (lambda f: rewrite(f / TEST, labels=[10] * 10), r"test-.*row 0: label=10, must be 0 to 9"),
        (lambda f: rewrite(f / TEST, labels=[None] + [1] * 9), r"label=None, must be 0 to 9"),
        (lambda f: rewrite(f / TEST, [b""] * 10), r"test-.*row 0: no image bytes in column 'img'"),
        (lambda f: rewrite(f / TEST, [b"nonsense"] * 10), r"test image 0: not a readable image"),
        (lambda f: rewrite(f / TEST, [encode(photo(0))[:90]] * 10), r"test image 0: not a readable image"),
        (lambda f: rewrite(f / TEST, [encode(photo(0, 32, 40))] * 10), r"is 40x32, a CIFAR image is 32x32"),
        (lambda f: write_shard(f / TEST, [], []), r"test-.*holds no images"),
        (
            lambda f: rewrite(f / TRAIN_0, image="picture"),
            r"needs an image column \(img or image\).* has picture, label",
        ),
        (lambda f: rewrite(f / TRAIN_1, names=ANIMALS[::-1]), r"train-00001.*class names differ"),
        (lambda f: rewrite(f / TEST, names=None), r"test-.*class names differ"),
        (
            lambda f: rewrite(f / TEST, labels=["cat"] * 10),
            r"test-.*column 'label' is of type string, must hold integers",
        ),
        (lambda f: rewrite(f / TEST, labels=[3.5] * 10), r"test-.*column 'label' is of type double"),
        (lambda f: rewrite(f / TEST, labels=[float("nan")] * 10), r"test-.*column 'label' is of type double"),
        (lambda f: rewrite(f / TEST, labels=[True] * 10), r"test-.*column 'label' is of type bool"),
        (lambda f: rewrite(f / TEST, labels=[-1] * 10), r"test-.*row 0: label=-1, must be 0 to 9"),
        (
            lambda f: pq.write_table(pa.table({"img": [photo(0).tolist()], "label": [0]}), f / TEST),
            r"test-.*column 'img' is of type list<.*must hold bytes",
        ),
        (
            lambda f: pq.write_table(pa.table({"img": [{"bytes": "text"}], "label": [0]}), f / TEST),
            r"test-.*column 'img' is of type struct<bytes: string>, must hold bytes",
        ),
        (
            lambda f: pq.write_table(pa.Table.from_arrays([pa.array([0])] * 2, ["label"] * 2), f / TEST),
            r"test-.*needs an image column",
        ),
        (
            lambda f: pq.write_table(
                pa.Table.from_arrays([pa.array([b"x"]), pa.array([0]), pa.array([0])], ["img", "label", "label"]),
                f / TEST,
            ),
            r"test-.*column 'label' is there 2 times",
        ),
        (lambda f: rewrite(f / TEST, names=["cat"] * 10), r"test-.*class names of column 'label' are \['cat'"),
        (
            lambda f: rewrite(f / TEST, [encode(np.zeros((32, 32), np.float32), "TIFF")] * 10),
            r"test image 0: TIFF of mode F",
        ),
    ],
)
def test_bad_shards_are_named(root, cifar, change, message):
    change(cifar)
    with pytest.raises(ValueError, match=message):
        load_dataset("cifar10", root=root)


@pytest.mark.parametrize("names", [ANIMALS[::-1], ANIMALS[:5]])
def test_other_classes_are_no_cifar(root, names):
    for name in SHARDS:
        write_shard(root / f"{name}.parquet", [encode(photo(0))], [0], names=names)
    with pytest.raises(ValueError, match=r"cifar10 has 10 in alphabetical order"):
        load_dataset("cifar10", root=root)


def test_sixteen_bits_are_scaled(root):
    for name in SHARDS:
        cells = [encode(deep(value)) for value in (0, 2000, 60000, 65535)]
        write_shard(root / f"{name}.parquet", cells, [0, 1, 2, 3])
    assert load_dataset("cifar10", root=root).train.images[:4, :, 0, 0].tolist() == [[v] * 3 for v in (0, 8, 233, 255)]


def test_shards_without_class_names(root):
    for name in SHARDS:
        write_shard(root / f"{name}.parquet", [encode(photo(0))], [0], names=None)
    assert load_dataset("cifar10", root=root).classes == tuple("0123456789")


def test_training_shards_alone(root, cifar):
    (cifar / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"cifar10: has train-00000.* but no test images; expected test-"):
        load_dataset("cifar10", root=root)


# --- the original archive ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_original_archive(root, name, monkeypatch):
    kind = getattr(torchvision.datasets, name.upper())
    write_archive(root, monkeypatch, kind)
    write_cifar(root / f"{name}-jpeg", "JPEG")  # a copy is only taken where there is nothing better
    data = load_dataset(name, root=root)
    assert len(data.train) == 6 * len(kind.train_list)
    assert np.array_equal(as_images(data.train.images[:6]), np.stack([photo(i) for i in range(6)]))
    assert np.array_equal(as_images(data.test.images), np.stack([photo(1000 + i) for i in range(6)]))
    assert data.test.labels.tolist() == [1, 2, 3, 4, 5, 6]
    assert data.train.labels.dtype == torch.int64
    assert data.num_classes == int(name[5:])
    assert data.provenance["source"] == f"torchvision.datasets.{name.upper()}"
    json.dumps(data.provenance)


def test_damaged_archive_names_the_file(root, monkeypatch):
    folder = write_archive(root, monkeypatch, torchvision.datasets.CIFAR10)
    (folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"data_batch_3: missing or damaged"):
        load_dataset("cifar10", root=root)
    shutil.rmtree(folder)
    (root / "cifar-10-python.tar.gz").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"cifar-10-python.tar.gz: missing or damaged"):
        load_dataset("cifar10", root=root)


def test_failed_download_is_a_clear_error(root, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", offline)
    with pytest.raises(OSError, match=r"cifar10: could not be downloaded .*no route to host"):
        load_dataset("cifar10", root=root, download=True)


PUBLISHED = {  # of all training pixels, to eight digits
    "cifar10": ((0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)),
    "cifar100": ((0.50707516, 0.48654887, 0.44091784), (0.26733429, 0.25643846, 0.27615047)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_real_cifar(name):
    if not (REAL / name).is_dir():
        pytest.skip(f"SASTC_DATA holds no {name}")
    data = load_dataset(name, root=REAL)
    count = data.num_classes
    assert (data.label, count) == (name.upper().replace("R", "R-"), int(name[5:]))
    assert data.provenance["content_sha256"] == sastc.data.cifar.ORIGINAL[name]
    assert torch.bincount(data.train.labels).tolist() == [50_000 // count] * count
    assert torch.bincount(data.test.labels).tolist() == [10_000 // count] * count
    counts = np.stack([np.bincount(data.train.images[:, c].flatten().numpy(), minlength=256) for c in range(3)])
    values, share = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = share @ values
    assert mean == pytest.approx(PUBLISHED[name][0], abs=5e-9)
    assert np.sqrt(share @ values**2 - mean**2) == pytest.approx(PUBLISHED[name][1], abs=5e-9)
    assert data.mean == pytest.approx(PUBLISHED[name][0], abs=6e-5)
    assert data.std == pytest.approx(PUBLISHED[name][1], abs=6e-5)
    quarter = load_dataset(name, root=REAL, train_fraction=0.25, label_noise=0.1)
    assert torch.bincount(quarter.train.clean_labels).tolist() == [12_500 // count] * count
    assert (quarter.train.labels != quarter.train.clean_labels).sum() == 1250
