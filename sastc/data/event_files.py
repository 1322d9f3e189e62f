"""Recordings of event cameras: N-MNIST, DVS-Gesture and DVS-CIFAR10.

Orchard et al. (2015), Amir et al. (2017), Li et al. (2017). The formats, 40-bit events and AEDAT, are read here;
data/README.md says why no other library does it. A truncated or damaged file is a ValueError that names file and byte
or line.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sastc.data.dataset import Dataset, Split
from sastc.data.events import LAST_TIME, Events, events_to_frames, frame_scale
from sastc.data.files import decoded_copy, find_folder, hidden, list_digest, own_folders, read_lines, subfolders
from sastc.data.subsets import DVS_SPLIT, digest, draw_words
from sastc.facts import FACTS

SENSOR = 128  # AEDAT files come from the DVS128, 128 x 128 pixels
AEDAT2, AEDAT3 = b"#!AER-DAT2.0", b"#!AER-DAT3.1"
PACKET = struct.Struct("<hhiiiiii")  # type, source, event size, time offset, overflow, capacity, number, valid
POLARITY, EVENT_SIZE, TIME_OFFSET, KINDS = 1, 8, 4, 14

GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise",
    "left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORDINGS, TEST_RECORDINGS = 1000, 100  # of each class of DVS-CIFAR10
DVS_SPLIT_SHA256 = "2d7abba435b248455dfd55fc64b243e7083aca71e9cb1bb52d575362e57ac391"

NMNIST_SENSOR, NMNIST_EVENT = 34, 5  # pixels of a side of N-MNIST's pictures, bytes of an event
OVERFLOW, OVERFLOW_TIME = 240, 1 << 13  # row of a mark that is no event, microseconds that it adds

Recording = tuple[Events, int, tuple[int, int] | None]  # one stream, its class, the microseconds that its frames span
Listed = list[tuple[Path, int | Path]]  # recordings, each with its class or with the file that has the classes
Found = tuple[Path, list[Listed], list[Path]]  # the folder, what is to train and to test on, and all files that count


def _damaged(path: Path, byte: int, what: str) -> NoReturn:
    raise ValueError(f"{path}, byte {byte}: {what}; get the file again")


def _header(path: Path, content: bytes, version: bytes) -> tuple[int, bytes]:
    """The byte behind the header lines of an AEDAT file, and the last of these."""
    if not content.startswith(version):
        found = content[: len(version)].decode("ascii", "replace")
        _damaged(path, 0, f"must begin with {version.decode()}, begins with {found!r}")
    end, line = 0, b""
    while content[end : end + 1] == b"#" and line != b"#!END-HEADER":
        start, end = end, content.find(b"\n", end) + 1
        if end == 0:
            _damaged(path, start, "a header line without end")
        line = content[start:end].rstrip()
    return end, line


def _sensor_events(
    path: Path, t: NDArray, x: NDArray, y: NDArray, p: NDArray, start: NDArray, side: int = SENSOR
) -> Events:
    """One stream of a sensor of side x side pixels; or the error for an event that is none, at byte start[k]."""
    for k in np.flatnonzero((x >= side) | (y >= side))[:1]:
        _damaged(path, start[k], f"an event at x={x[k]}, y={y[k]}, the sensor has {side}x{side} pixels")
    for k in np.flatnonzero(t > LAST_TIME)[:1]:
        _damaged(path, start[k], f"an event at {t[k]} us, must be at most {LAST_TIME}")
    ends = np.array([0, len(t)])
    return Events(t, x.astype(np.int16), y.astype(np.int16), p.astype(np.int8), ends, side, side)


def read_aedat2(path: Path) -> Events:
    """Read a recording of the DVS128 in AEDAT 2.0: header lines, then big-endian pairs of int32 address and time.

    Address bits: 0 polarity, 1-7 x, 8-14 y, 15 external event (left out here), the rest zero. A time smaller than the
    one before it goes on from there, as in the script that DVS-CIFAR10's authors give. Coordinates are the raw ones.
    """
    content = path.read_bytes()
    begin, _ = _header(path, content, AEDAT2)
    if rest := (len(content) - begin) % EVENT_SIZE:
        _damaged(path, len(content) - rest, f"truncated: {rest} bytes of an event of {EVENT_SIZE}")
    address, t = np.frombuffer(content, dtype=">u4", offset=begin).reshape(-1, 2).T.astype(np.int64)
    start = begin + EVENT_SIZE * np.arange(len(t))
    for k in np.flatnonzero(address >> 16)[:1]:
        _damaged(path, start[k], f"address {address[k]:#x}, must be less than 0x10000")
    back = np.flatnonzero(np.diff(t) < 0)
    jumps = np.zeros_like(t)
    jumps[back + 1] = t[back]
    t = t + np.cumsum(jumps)
    pixels = address < 1 << 15
    address, t, start = address[pixels], t[pixels], start[pixels]
    return _sensor_events(path, t, address >> 1 & 127, address >> 8 & 127, address & 1, start)


def read_aedat3(path: Path) -> Events:
    """Read a recording of the DVS128 in AEDAT 3.1: header lines, then packets of events, all little-endian.

    A packet has a header of 28 bytes and room for `capacity` events, of which the first `number` are there. Only
    polarity packets count. An event is an int32 (bits 0 valid, 1 polarity, 2-16 y, 17-31 x) and an int32 time, whose
    upper bits are the packet's overflow counter. Packets may overlap in time: the events are sorted by it, those of one
    time stay in their order.
    """
    content = path.read_bytes()
    end, last = _header(path, content, AEDAT3)
    if last != b"#!END-HEADER":
        _damaged(path, end, "the header does not end with #!END-HEADER")
    columns = [(np.empty(0, np.int64),) * 3]  # addresses, times and first bytes of the events
    for begin, number, valid, overflow in _polarity_packets(path, content, end):
        word, t = np.frombuffer(content, "<u4", 2 * number, begin).reshape(-1, 2).T.astype(np.int64)
        start = begin + EVENT_SIZE * np.arange(number)
        for k in np.flatnonzero(t >> 31)[:1]:
            _damaged(path, start[k] + TIME_OFFSET, "a negative time")
        keep = word & 1 == 1 if valid < number else slice(None)  # some files never set the mark
        columns.append((word[keep], t[keep] | overflow << 31, start[keep]))
    word, t, start = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(t, kind="stable")
    word, t, start = word[order], t[order], start[order]
    return _sensor_events(path, t, word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, start)


def _polarity_packets(path: Path, content: bytes, at: int) -> Iterator[tuple[int, int, int, int]]:
    """First byte of the events of every polarity packet, their number, how many are valid, and the overflow counter."""
    while at < len(content):
        if at + PACKET.size > len(content):
            _damaged(path, at, f"truncated: {len(content) - at} bytes of a packet header of {PACKET.size}")
        kind, source, size, offset, overflow, capacity, number, valid = PACKET.unpack_from(content, at)
        sound = 0 <= kind < KINDS and source >= 0 and size > 0 and 0 <= offset < size and overflow >= 0
        if not (sound and 0 <= valid <= number <= capacity):
            _damaged(path, at, f"no packet header: {PACKET.unpack_from(content, at)}")
        if at + PACKET.size + capacity * size > len(content):
            held = (len(content) - at - PACKET.size) // size
            _damaged(path, len(content), f"truncated: {held} of {capacity} events of the packet at byte {at}")
        if kind == POLARITY and (size, offset) != (EVENT_SIZE, TIME_OFFSET):
            must = f"must be {EVENT_SIZE}, {TIME_OFFSET}"
            _damaged(path, at, f"polarity events of {size} bytes, time at {offset}; {must}")
        if kind == POLARITY:
            yield at + PACKET.size, number, valid, overflow
        at += PACKET.size + capacity * size


def read_nmnist(path: Path) -> Events:
    """Read a recording of N-MNIST: 40 bits an event, x 8, y 8, polarity 1 (1 ON), time 23, the highest bit first.

    A row of 240 is no event: from there on times are 2^13 us later, as in the reader that N-MNIST's authors give. None
    of the 1,100 recordings that were looked at has one.
    """
    content = path.read_bytes()
    if rest := len(content) % NMNIST_EVENT:
        _damaged(path, len(content) - rest, f"truncated: {rest} bytes of an event of {NMNIST_EVENT}")
    x, y, *time = np.frombuffer(content, np.uint8).reshape(-1, NMNIST_EVENT).T.astype(np.int64)
    p, t = time[0] >> 7, (time[0] & 127) << 16 | time[1] << 8 | time[2]
    mark = y == OVERFLOW
    t = t + OVERFLOW_TIME * np.cumsum(mark)
    start = NMNIST_EVENT * np.flatnonzero(~mark)
    t, x, y, p = (column[~mark] for column in (t, x, y, p))
    for k in np.flatnonzero(np.diff(t) < 0)[:1]:
        _damaged(path, start[k + 1], f"an event at {t[k + 1]} us behind one at {t[k]} us")
    return _sensor_events(path, t, x, y, p, start, NMNIST_SENSOR)


def read_trials(path: Path) -> list[tuple[int, int, int]]:
    """Class (0 ... 10), first and last microsecond of the gestures in a DVS-Gesture recording's ``_labels.csv``.

    Raises ValueError for a line that is not one; names file and line.
    """
    lines = read_lines(path)
    if lines[0].strip() != "class,startTime_usec,endTime_usec":
        raise ValueError(f"{path}, line 1: must be 'class,startTime_usec,endTime_usec', is {lines[0].strip()!r}")
    trials = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            label, start, stop = (int(cell) for cell in line.split(","))
        except ValueError:
            label = start = stop = 0
        if not (1 <= label <= len(GESTURES) and 0 <= start < stop <= LAST_TIME):
            raise ValueError(
                f"{path}, line {number}: must be a class from 1 to {len(GESTURES)}, a start and a later end, "
                f"is {line.strip()!r}"
            )
        trials.append((label - 1, start, stop))
    return trials


def _find_nmnist(root: Path) -> Found:
    """``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``; a digit without a training recording is an error."""
    folder = find_folder(
        "nmnist",
        [*own_folders(root, "nmnist", "N-MNIST", "NMNIST", "nmnist-small"), root],
        lambda place: (place / "Train").is_dir() and (place / "Test").is_dir(),
        "folders Train/ and Test/ with folders 0/ to 9/ of files such as 00002.bin, as its archives unpack",
        "N-MNIST must be fetched from its authors and unpacked; see data/README.md",
    )
    splits: list[Listed] = [[], []]
    for split, name in zip(splits, ("Train", "Test"), strict=True):
        for label in range(10):
            files = sorted(path for path in (folder / name / f"{label}").glob("*.bin") if not hidden(path.name))
            if not files and name == "Train":
                raise ValueError(f"{folder / name / f'{label}'}: holds no recording such as 00002.bin")
            split += [(path, label) for path in files]
    return folder, splits, [path for split in splits for path, _ in split]


def _nmnist_digit(path: Path, label: int) -> Iterator[Recording]:
    yield read_nmnist(path), label, None


def _find_dvs_gesture(root: Path) -> Found:
    """``trials_to_train.txt`` and ``trials_to_test.txt`` list the recordings; each has its ``_labels.csv``."""
    folder = find_folder(
        "dvs_gesture",
        [*own_folders(root, "dvs_gesture", "DvsGesture"), root, *subfolders(root)],
        lambda place: (place / "trials_to_train.txt").is_file(),
        "trials_to_train.txt, trials_to_test.txt, *.aedat and *_labels.csv, as DvsGesture.tar.gz unpacks",
        "DVS-Gesture must be fetched from its authors; see data/README.md",
    )
    lists = [folder / f"trials_to_{split}.txt" for split in ("train", "test")]
    recordings = [[folder / name.strip() for name in read_lines(file) if name.strip()] for file in lists]
    labels = [[path.with_name(f"{path.stem}_labels.csv") for path in split] for split in recordings]
    files = [*lists, *(path for split in (*recordings, *labels) for path in split)]
    if absent := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{absent[0]}: not there, though listed in trials_to_train.txt or trials_to_test.txt")
    return folder, [list(zip(*split, strict=True)) for split in zip(recordings, labels, strict=True)], files


def _gestures(path: Path, trials: Path) -> Iterator[Recording]:
    """Every line of a ``_labels.csv`` is one instance, from its first to its last microsecond."""
    events = read_aedat3(path)
    for label, start, stop in read_trials(trials):
        part = replace(events, offsets=np.searchsorted(events.t, (start, stop))).stream(0)
        if not len(part.t):
            raise ValueError(f"{path}: holds no event of the {GESTURES[label]} from {start} to {stop} us")
        yield part, label, (start, stop)


def _find_dvs_cifar10(root: Path) -> Found:
    """``<class>/cifar10_<class>_<0 ... 999>.aedat``; 100 of each class are to test, see :func:`dvs_cifar10_split`."""
    folder = find_folder(
        "dvs_cifar10",
        [*own_folders(root, "dvs_cifar10", "CIFAR10DVS"), root],
        lambda place: all((place / name).is_dir() for name in OBJECTS),
        f"folders {OBJECTS[0]}/ to {OBJECTS[-1]}/ of files such as cifar10_airplane_0.aedat",
        "DVS-CIFAR10 must be fetched from its authors; see data/README.md",
    )
    test = dvs_cifar10_split()
    splits: list[Listed] = [[], []]
    files: list[Path] = []
    for label, name in enumerate(OBJECTS):
        numbered = ((i, folder / name / f"cifar10_{name}_{i}.aedat") for i in range(RECORDINGS))
        there = [(i, path) for i, path in numbered if path.is_file()]
        if not there:
            raise ValueError(f"{folder / name}: holds no recording such as cifar10_{name}_0.aedat")
        for i, path in there:
            splits[int(i in test[name])].append((path, label))
            files.append(path)
    return folder, splits, files


def _upright(path: Path, label: int) -> Iterator[Recording]:
    """One recording of DVS-CIFAR10, turned so that the picture stands upright.

    The camera's picture is transposed and its origin at the lower right: column 127 - y, row 127 - x. Polarity 0 is ON.
    """
    raw = read_aedat2(path)
    yield replace(raw, x=SENSOR - 1 - raw.y, y=SENSOR - 1 - raw.x, p=1 - raw.p), label, None


def dvs_cifar10_split() -> dict[str, list[int]]:
    """Numbers of the 100 test recordings of each class, as listed in data/dvs_cifar10_split.json."""
    orders = [np.argsort(draw_words(RECORDINGS, 0, DVS_SPLIT, label), kind="stable") for label in range(len(OBJECTS))]
    test = [np.sort(order[:TEST_RECORDINGS]) for order in orders]
    if digest(*test) != DVS_SPLIT_SHA256:
        raise ValueError(f"dvs_cifar10: the split differs from the published one: SHA-256 {digest(*test)}")
    return {name: rows.tolist() for name, rows in zip(OBJECTS, test, strict=True)}


# What finds a data set, what reads a file of it; the classes; whether a mirrored instance keeps its class (a digit is
# another symbol then, a wave is made with the other hand); the files' format.
PUBLISHED: dict[str, tuple[Callable, Callable, tuple[str, ...], bool, str]] = {
    "nmnist": (_find_nmnist, _nmnist_digit, tuple("0123456789"), False, "40-bit events"),
    "dvs_gesture": (_find_dvs_gesture, _gestures, GESTURES, False, "AEDAT 3.1"),
    "dvs_cifar10": (_find_dvs_cifar10, _upright, OBJECTS, True, "AEDAT 2.0"),
}


def load_recordings(name: str, root: Path, size: int, steps: int, binning: str) -> Dataset:
    """Load a set of recordings as frames (N, steps, 2, size, size), counted once and kept in the cache folder.

    Raises FileNotFoundError where the data are not there, and ValueError for a recording without events.
    """
    find, read, classes, flip, file_format = PUBLISHED[name]
    folder, splits, files = find(root)

    def build(cache: Path) -> None:
        for split, listed in zip(("train", "test"), splits, strict=True):
            frames, labels = [], []
            for path, about in tqdm(listed, desc=f"counting {split}", unit="recording", leave=False):
                for events, label, span in read(path, about):
                    if not len(events.t):
                        raise ValueError(f"{path}: holds no event")
                    frames.append(events_to_frames(events, steps, size, binning, span=span)[0])
                    labels.append(label)
            if not frames:
                raise ValueError(f"{folder}: holds no recording of the {split} split")
            np.save(cache / f"{split}_frames.npy", np.stack(frames))
            np.save(cache / f"{split}_labels.npy", np.array(labels, dtype=np.int64))

    base = folder if name == "nmnist" else None  # its files have the same names in all folders
    cache, sums, frames_sums = decoded_copy(f"{name}-{steps}x{size}-{binning}", folder, files, build, base)
    train, test = (
        Split(*(torch.from_numpy(np.load(cache / f"{split}_{part}.npy")) for part in ("frames", "labels")))
        for split in ("train", "test")
    )
    facts, counts = FACTS[name], (len(train), len(test))
    return Dataset(
        name=name,
        label=facts.label + ("" if counts == facts.counts else f" ({counts[0]} + {counts[1]} recordings only)"),
        classes=classes,
        train=train,
        test=test,
        mean=(0.0, 0.0),
        std=frame_scale(train.images),
        crop_padding=0,
        flip=flip,
        provenance={
            "source": file_format,
            "folder": folder.resolve().name,
            "files": _by_folder(sums),
            "frames_sha256": frames_sums,
            "steps": steps,
            "binning": binning,
        },
    )


def _by_folder(sums: Mapping[str, str]) -> dict[str, str]:
    """Checksums of files; in place of the thousands in a folder, one of the list that ``sha256sum`` prints of them."""
    lists: dict[str, list[str]] = {}
    for name in sorted(name for name in sums if "/" in name):
        lists.setdefault(name.split("/")[0] + "/", []).append(f"{sums[name]}  {name}\n")
    return {n: s for n, s in sums.items() if "/" not in n} | {n: list_digest(lines) for n, lines in lists.items()}
