"""One image from its bytes: every mode exactly or an error that names the file; and files damaged at random."""

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import encode, photo, write_shard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sastc.data import load_dataset
from sastc.data.event_files import read_trials
from sastc.data.files import file_digests
from sastc.data.images import decode
from sastc.data.lazy import Files, LazyImages

GREYS = np.array([[0, 1, 128, 129, 2000], [4095, 32767, 32768, 60000, 65535]], np.uint16)
SCALED = [[0, 0, 0, 1, 8], [16, 127, 128, 233, 255]]  # value / 257, rounded
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(encoded):
    return np.asarray(decode(encoded, "x")[0])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind):
    got = pixels(encode(GREYS, kind))
    assert got.transpose(2, 0, 1).tolist() == [SCALED] * 3


def test_orientation_is_ignored_and_the_data_card_says_so():
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    turned = image.getexif()
    turned[0x0112] = 6  # a quarter turn
    encoded = saved(image, "PNG", exif=turned)
    assert ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).size == (2, 4)
    assert np.array_equal(pixels(encoded), np.asarray(image))
    card = (Path(__file__).parents[2] / "data/README.md").read_text(encoding="utf-8")
    assert "**Orientation is ignored.**" in card


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_other_modes_become_the_colours_they_stand_for(mode):
    image = Image.fromarray(photo(3)).convert(mode)
    assert np.array_equal(pixels(saved(image, "TIFF")), np.asarray(image.convert("RGB")))
    if mode == "1":
        assert set(np.unique(pixels(saved(image, "PNG")))) == {0, 255}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_are_put_on_white(mode):
    rgba = np.dstack([photo(3), np.full((32, 32), 255, np.uint8)])
    opaque = Image.fromarray(rgba)
    grey = (lambda image: image.convert("L").convert("RGB")) if mode == "LA" else (lambda image: image.convert("RGB"))
    if mode != "P":
        assert np.array_equal(pixels(saved(opaque.convert(mode), "PNG")), np.asarray(grey(opaque)))
    rgba[:16, :, 3] = 0  # what a hole hides is no part of the picture
    rgba[16:20, :, 3] = 128
    holed = Image.fromarray(rgba)
    got = pixels(saved(holed.quantize() if mode == "P" else holed.convert(mode), "PNG"))
    assert (got[:16] == 255).all()
    if mode == "RGBA":
        assert np.array_equal(got[20:], photo(3)[20:])
        expected = (photo(3)[16:20].astype(int) * 128 + 255 * 127) / 255
        assert np.abs(got[16:20] - expected).max() <= 1


def test_two_shapes_that_differ_in_transparency_alone_do_not_become_equal():
    shapes = np.zeros((2, 8, 8, 4), np.uint8)
    shapes[0, 2:4, :, 3] = shapes[1, :, 5:7, 3] = 255
    black = [pixels(saved(Image.fromarray(shape), "PNG")) for shape in shapes]
    assert not np.array_equal(*black)
    shapes[..., :3] = 255
    with pytest.raises(ValueError, match=r"^x: mode RGBA: nothing is left of it on white"):
        pixels(saved(Image.fromarray(shapes[0]), "PNG"))


REFUSED = {
    "float": (encode(np.full((4, 4), 0.5, np.float32), "TIFF"), "TIFF of mode F: nothing says what is black"),
    "int32": (encode(np.full((4, 4), 70000, np.int32), "TIFF"), "TIFF of mode I: nothing says what is black"),
    "white is zero": (
        saved(Image.fromarray(GREYS), "TIFF", tiffinfo={262: 0}).replace(
            struct.pack("<HHII", 262, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 0)
        ),
        "TIFF of mode I;16: nothing says",
    ),
    "pages": (
        saved(Image.fromarray(photo(0)), "TIFF", save_all=True, append_images=[Image.fromarray(photo(1))]),
        "holds 2 images",
    ),
    "film": (
        saved(Image.fromarray(photo(0)), "WEBP", save_all=True, append_images=[Image.fromarray(photo(1))]),
        "holds 2 images",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_images_of_unknown_meaning_are_refused(name, tmp_path):
    content, message = REFUSED[name]
    (tmp_path / "a.tif").write_bytes(content)
    images = LazyImages(Files(tmp_path, ["a.tif"]), 8)
    with pytest.raises(ValueError, match=rf"a\.tif: {message}"):
        images.decode(0)


def test_sixteen_bits_of_the_other_byte_order_are_scaled():
    little = encode(GREYS, "TIFF")
    assert little[:2] == b"II"
    big = saved(Image.fromarray(GREYS.astype(">u2")), "TIFF")
    assert big[:2] == b"MM"
    assert np.array_equal(pixels(big), pixels(little))


def bomb(width, height):
    """A PNG of a few bytes that says it is huge."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("size", "message"),  # where PIL raises, and where it warns
    [((30_000, 30_000), "exceeds limit of 178956970 pixels"), ((10_000, 9_000), "10000x9000 .* at most 89478485")],
)
def test_decompression_bombs_are_named(size, message, tmp_path):
    (tmp_path / "a.png").write_bytes(bomb(*size))
    with pytest.raises(ValueError, match=rf"a\.png: .*{message}"):
        LazyImages(Files(tmp_path, ["a.png"]), 8).decode(0)


def test_a_thread_of_pixels_is_named_before_it_fills_the_memory(tmp_path):
    Image.new("L", (60_000, 1)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: 60000x1 pixels: too long and narrow for image_size=224"):
        LazyImages(Files(tmp_path, ["a.png"]), 224).decode(0)


def test_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.png: cannot be read"):
        LazyImages(Files(tmp_path, ["a.png"]), 8).decode(0)


@pytest.mark.parametrize("content", ["class,startTime_usec,endTime_usec\n1,2,3\n", "a.aedat\n"])
def test_label_files_in_utf16_are_named(content, tmp_path):
    path = tmp_path / "user01_labels.csv"
    path.write_text(content, encoding="utf-16")
    with pytest.raises(ValueError, match=r"user01_labels\.csv: not UTF-8 text \(byte 0 is 0xff\)"):
        read_trials(path)


# --- Damaged at random -----------------------------------------------------------------------------------------------
KINDS = [
    encode(photo(0), "PNG"),
    encode(photo(0), "JPEG"),
    encode(photo(0), "WEBP", lossless=True),
    encode(photo(0), "TIFF", compression="tiff_lzw"),
    encode(photo(0), "BMP"),
    encode(photo(0), "GIF"),
    encode(GREYS, "PNG"),
    encode(GREYS, "PPM"),
    saved(Image.fromarray(photo(0)).convert("P"), "PNG"),
]


@st.composite
def damaged(draw, contents):
    """A file with bytes changed, cut off, put in or none at all."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
        if how == "flip" and at < len(content):
            content[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del content[at:]
        elif how == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            del content[at : at + draw(st.integers(1, 8))]
    return bytes(content)


def outcome(function, *args, **options):
    """What it returns and None, or None and the message of its ValueError: nothing else is promised."""
    try:
        return function(*args, **options), None
    except ValueError as error:
        return None, str(error)


@pytest.mark.filterwarnings("ignore")  # of PIL, on damaged metadata and bombs
@settings(FUZZ, max_examples=300)
@given(damaged(KINDS) | st.binary(max_size=200))
def test_any_image_file_is_decoded_or_named(content):
    decoded, error = outcome(decode, content, "folder/a.png")
    assert decoded[0].mode == "RGB" if error is None else error.startswith("folder/a.png: ")


@pytest.mark.filterwarnings("ignore")
@settings(FUZZ, max_examples=25)
@given(st.data())
def test_any_shard_is_read_or_named_and_no_copy_is_left_half_made(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    for split in ("train", "test"):
        write_shard(folder / f"root/{split}-0.parquet", [encode(photo(i)) for i in range(2)], [3, 5])
    path = folder / "root/test-0.parquet"
    path.write_bytes(data.draw(damaged([path.read_bytes()])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SASTC_CACHE", str(folder / "cache"))
        dataset, error = outcome(load_dataset, "cifar10", root=folder / "root")
    copies = [copy for copy in (folder / "cache").glob("*") if copy.suffix != ".lock"]
    if error is None:
        assert dataset.test.labels.tolist() <= [9, 9]
        assert len(copies) == 1
    else:
        assert str(folder / "root") in error
        assert copies == []


CELLS = (st.integers(-2, 12), st.floats(), st.text(max_size=3), st.booleans(), st.none() | st.integers(0, 9))


@settings(FUZZ, max_examples=25)
@given(st.one_of(*(st.lists(cell, min_size=2, max_size=2) for cell in CELLS)))
def test_any_labels_are_kept_or_named(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("labels")
    for split in ("train", "test"):
        cells = [{"bytes": encode(photo(i)), "path": None} for i in range(2)]
        pq.write_table(pa.table({"img": cells, "label": labels}), folder / f"{split}-0.parquet")
    dataset, error = outcome(load_dataset, "cifar10", root=folder)
    if all(type(label) is int and 0 <= label <= 9 for label in labels):
        assert dataset.train.labels.tolist() == labels
    else:
        assert str(folder / "train-0.parquet") in error


SUMS = b"%064x  a.bin\n%064x *./b.bin\n" % (1, 2)
TRIALS = b"class,startTime_usec,endTime_usec\n1,20,30\n11,40,50\n"
UTF16 = st.text(max_size=80).map(lambda text: text.encode("utf-16", "replace"))


@FUZZ
@given(damaged([SUMS]) | UTF16)
def test_any_checksum_file_is_read_or_named(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("sums")
    (folder / "SHA256SUMS").write_bytes(content)
    (folder / "c.bin").write_bytes(b"content")
    found, error = outcome(file_digests, [folder / "c.bin"], folder / "cache")
    if error is None:
        assert found["c.bin"]["sha256"] == hashlib.sha256(b"content").hexdigest()
    else:
        # a damaged name may be that of the file, which then has another sum
        assert error.startswith((f"{folder / 'SHA256SUMS'}", f"{folder / 'c.bin'}: damaged"))


@FUZZ
@given(damaged([TRIALS]) | UTF16)
def test_any_label_file_is_read_or_named(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("trials") / "a_labels.csv"
    path.write_bytes(content)
    trials, error = outcome(read_trials, path)
    if error is None:
        assert all(0 <= label <= 10 and 0 <= start < stop for label, start, stop in trials)
    else:
        assert error.startswith(str(path))
