"""Recordings of event cameras: N-MNIST, DVS-Gesture and DVS-CIFAR10.

Orchard et al. (2015), Amir et al. (2017), Li et al. (2017). The formats, 40-bit events and AEDAT, are read here;
data/README.md says why no other library does it. Where the data are not there, the functions ``load_...`` raise
FileNotFoundError; where a file is truncated or damaged, they and those that read one raise a ValueError that names
file and byte.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sastc.data.dataset import Dataset, Split
from sastc.data.events import LAST_TIME, Events, events_to_frames, frame_scale
from sastc.data.files import cache_folder, cached, file_digests, find_folder, read_lines, subfolders
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
NMNIST_FOLDERS = ("nmnist", "N-MNIST", "NMNIST", "nmnist-small")


# Names of the classes; whether a mirrored instance keeps its class (a digit is another symbol then, a wave is made
# with the other hand); the files' format.
PUBLISHED = {
    "nmnist": (tuple("0123456789"), False, "40-bit events"),
    "dvs_gesture": (GESTURES, False, "AEDAT 3.1"),
    "dvs_cifar10": (OBJECTS, True, "AEDAT 2.0"),
}


def _damaged(path: Path, byte: int, what: str) -> NoReturn:
    raise ValueError(f"{path}, byte {byte}: {what}; get the file again")


def _header(path: Path, content: bytes, version: bytes) -> list[tuple[int, bytes]]:
    """Header lines of an AEDAT file, each with the byte behind it."""
    if not content.startswith(version):
        found = content[: len(version)].decode("ascii", "replace")
        _damaged(path, 0, f"must begin with {version.decode()}, begins with {found!r}")
    lines, end = [], 0
    while content[end : end + 1] == b"#":
        start, end = end, content.find(b"\n", end) + 1
        if end == 0:
            _damaged(path, start, "a header line without end")
        lines.append((end, content[start:end].rstrip()))
        if lines[-1][1] == b"#!END-HEADER":
            break
    return lines


def _sensor_events(
    path: Path, t: NDArray, x: NDArray, y: NDArray, p: NDArray, byte_of: Callable[[int], int], side: int = SENSOR
) -> Events:
    """One stream of a sensor of side x side pixels, or the error for the first place that is not on it."""
    outside = np.flatnonzero((x >= side) | (y >= side))
    if outside.size:
        k = int(outside[0])
        _damaged(path, byte_of(k), f"an event at x={x[k]}, y={y[k]}, the sensor has {side}x{side} pixels")
    if (late := np.flatnonzero(t > LAST_TIME)).size:
        k = int(late[0])
        _damaged(path, byte_of(k), f"an event at {t[k]} us, must be at most {LAST_TIME}")
    ends = np.array([0, len(t)])
    return Events(t, x.astype(np.int16), y.astype(np.int16), p.astype(np.int8), ends, side, side)


def read_aedat2(path: Path) -> Events:
    """Read a recording of the DVS128 in AEDAT 2.0: header lines, then big-endian pairs of int32 address and time.

    Address bits: 0 polarity, 1-7 x, 8-14 y, 15 external event (left out here), the rest zero. A time smaller than the
    one before it goes on from there, as in the script that DVS-CIFAR10's authors give. Coordinates are the raw ones.
    """
    content = path.read_bytes()
    start = _header(path, content, AEDAT2)[-1][0]
    if rest := (len(content) - start) % 8:
        _damaged(path, len(content) - rest, f"truncated: {rest} bytes of an event of 8")
    address, t = np.frombuffer(content, dtype=">u4", offset=start).reshape(-1, 2).T.astype(np.int64)
    if (odd := np.flatnonzero(address >> 16)).size:
        _damaged(path, start + 8 * int(odd[0]), f"address {address[odd[0]]:#x}, must be less than 0x10000")
    back = np.flatnonzero(np.diff(t) < 0)
    jumps = np.zeros_like(t)
    jumps[back + 1] = t[back]
    t = t + np.cumsum(jumps)
    pixels = address < 1 << 15
    address, t = address[pixels], t[pixels]
    return _sensor_events(path, t, address >> 1 & 127, address >> 8 & 127, address & 1, int)


def read_aedat3(path: Path) -> Events:
    """Read a recording of the DVS128 in AEDAT 3.1: header lines, then packets of events, all little-endian.

    A packet has a header of 28 bytes and room for `capacity` events, of which the first `number` are there. Only
    polarity packets count. An event is an int32 (bits 0 valid, 1 polarity, 2-16 y, 17-31 x) and an int32 time, whose
    upper bits are the packet's overflow counter. Packets may overlap in time: the events are sorted by it, those of one
    time stay in their order.
    """
    content = path.read_bytes()
    end, last = _header(path, content, AEDAT3)[-1]
    if last != b"#!END-HEADER":
        _damaged(path, end, "the header does not end with #!END-HEADER")
    words, times, starts, kept, negative = [], [], [], [], []
    for at, (kind, size, offset, overflow, number, valid) in _packets(path, content, end):
        if kind != POLARITY:
            continue
        if (size, offset) != (EVENT_SIZE, TIME_OFFSET):
            _damaged(
                path, at, f"polarity events of {size} bytes, time at {offset}; must be {EVENT_SIZE}, {TIME_OFFSET}"
            )
        pairs = np.frombuffer(content, "<u4", 2 * number, at + PACKET.size).reshape(-1, 2).astype(np.int64)
        words.append(pairs[:, 0])
        times.append(pairs[:, 1] | overflow << 31)
        negative.append(pairs[:, 1] >> 31)
        starts.append(at + PACKET.size + EVENT_SIZE * np.arange(number))
        kept.append(pairs[:, 0] & 1 if valid < number else np.ones(number, np.int64))  # some files never set the mark
    if not words:
        return _sensor_events(path, *(np.empty(0, np.int64),) * 4, int)
    word, t, start, keep = (np.concatenate(part) for part in (words, times, starts, kept))
    if (bad := np.flatnonzero(np.concatenate(negative))).size:
        _damaged(path, int(start[bad[0]]) + TIME_OFFSET, "a negative time")
    word, t, start = (part[keep == 1] for part in (word, t, start))
    word, t, start = (part[np.argsort(t, kind="stable")] for part in (word, t, start))
    return _sensor_events(path, t, word >> 17, word >> 2 & 0x7FFF, word >> 1 & 1, lambda k: int(start[k]))


def _packets(path: Path, content: bytes, at: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """First byte of every packet; kind, event size, time offset, overflow, number and number valid of its events."""
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
        yield at, (kind, size, offset, overflow, number, valid)
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
    if (back := np.flatnonzero(np.diff(t) < 0)).size:
        k = int(back[0])
        _damaged(path, int(start[k + 1]), f"an event at {t[k + 1]} us behind one at {t[k]} us")
    return _sensor_events(path, t, x, y, p, lambda k: int(start[k]), NMNIST_SENSOR)


def read_trials(path: Path) -> list[tuple[int, int, int]]:
    """Class (0 ... 10), first and last microsecond of the gestures in a DVS-Gesture recording's ``_labels.csv``.

    Raises
    ------
    ValueError
        For a line that is not one; names file and line.
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


def load_nmnist(root: Path, size: int, steps: int, binning: str) -> Dataset:
    """Load N-MNIST or a part of it from its published files, ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``.

    A digit without a training recording is an error, too.
    """
    places = [place for own in NMNIST_FOLDERS for place in (root / own, *subfolders(root / own))] + [root]
    folder = find_folder(
        "nmnist",
        places,
        lambda place: (place / "Train").is_dir() and (place / "Test").is_dir(),
        "folders Train/ and Test/ with folders 0/ to 9/ of files such as 00002.bin, as its archives unpack",
        "N-MNIST must be fetched from its authors and unpacked; see data/README.md",
    )
    work: list[list[Callable]] = [[], []]
    files: dict[str, list[Path]] = {}
    for split, name in enumerate(("Train", "Test")):
        for label in range(10):
            found = sorted(p for p in (folder / name / f"{label}").glob("*.bin") if not p.name.startswith("."))
            if not found and name == "Train":
                raise ValueError(f"{folder / name / f'{label}'}: holds no recording such as 00002.bin")
            files.setdefault(name, []).extend(found)
            work[split] += [partial(_nmnist_stream, file, label) for file in found]

    def digests(cache: Path) -> dict:
        return file_digests([file for group in files.values() for file in group], cache, folder)

    return _event_dataset("nmnist", folder, work, digests, size, steps, binning)


def _nmnist_stream(path: Path, label: int) -> Iterator[tuple[Events, int, None]]:
    events = read_nmnist(path)
    if not len(events.t):
        raise ValueError(f"{path}: holds no event")
    yield events, label, None


def load_dvs_gesture(root: Path, size: int, steps: int, binning: str) -> Dataset:
    """Load DVS-Gesture from its published files; ``trials_to_train.txt`` and ``trials_to_test.txt`` are the split.

    Every line of a ``_labels.csv`` is one instance, from its first to its last microsecond.
    """
    own = [root / "dvs_gesture", root / "DvsGesture", root]
    folder = find_folder(
        "dvs_gesture",
        [place for folder in own for place in (folder, *subfolders(folder))],
        lambda place: (place / "trials_to_train.txt").is_file(),
        "trials_to_train.txt, trials_to_test.txt, *.aedat and *_labels.csv, as DvsGesture.tar.gz unpacks",
        "DVS-Gesture must be fetched from its authors; see data/README.md",
    )
    lists = [folder / f"trials_to_{split}.txt" for split in ("train", "test")]
    recordings = [[folder / name.strip() for name in read_lines(file) if name.strip()] for file in lists]
    labels = [[file.with_name(f"{file.stem}_labels.csv") for file in split] for split in recordings]
    files = [*lists, *(file for group in (*recordings, *labels) for file in group)]
    if absent := [file for file in files if not file.is_file()]:
        raise FileNotFoundError(f"{absent[0]}: not there, though listed in trials_to_train.txt or trials_to_test.txt")

    def streams(recording: Path, trials: Path) -> Iterator[tuple[Events, int, tuple[int, int]]]:
        events = read_aedat3(recording)
        for label, start, stop in read_trials(trials):
            inside = (events.t >= start) & (events.t < stop)
            t, x, y, p = events.t[inside], events.x[inside], events.y[inside], events.p[inside]
            if not len(t):
                raise ValueError(f"{recording}: holds no event of the {GESTURES[label]} from {start} to {stop} us")
            ends = np.array([0, len(t)])
            yield Events(t, x, y, p, ends, SENSOR, SENSOR), label, (start, stop)

    work = [
        [partial(streams, *pair) for pair in zip(*group, strict=True)] for group in zip(recordings, labels, strict=True)
    ]
    digests = partial(file_digests, files)
    return _event_dataset("dvs_gesture", folder, work, digests, size, steps, binning)


def load_dvs_cifar10(root: Path, size: int, steps: int, binning: str) -> Dataset:
    """Load DVS-CIFAR10 from its published files, ``<class>/cifar10_<class>_<0 ... 999>.aedat``.

    900 recordings of each class to train, 100 to test, as listed in data/dvs_cifar10_split.json.
    """
    places = [place for own in ("dvs_cifar10", "CIFAR10DVS") for place in (root / own, *subfolders(root / own))]
    places.append(root)
    folder = find_folder(
        "dvs_cifar10",
        places,
        lambda place: all((place / name).is_dir() for name in OBJECTS),
        f"folders {OBJECTS[0]}/ to {OBJECTS[-1]}/ of files such as cifar10_airplane_0.aedat",
        "DVS-CIFAR10 must be fetched from its authors; see data/README.md",
    )
    test = dvs_cifar10_split()
    work, groups = [[], []], []
    for label, name in enumerate(OBJECTS):
        files = [folder / name / f"cifar10_{name}_{i}.aedat" for i in range(RECORDINGS)]
        there = [(i, file) for i, file in enumerate(files) if file.is_file()]
        if not there:
            raise ValueError(f"{folder / name}: holds no recording such as {files[0].name}")
        groups.append([file for _, file in there])
        for i, file in there:
            work[int(i in test[name])].append(partial(_upright, file, label))

    def digests(cache: Path) -> dict:
        return {name: entry for group in groups for name, entry in file_digests(group, cache).items()}

    return _event_dataset("dvs_cifar10", folder, work, digests, size, steps, binning)


def _upright(path: Path, label: int) -> Iterator[tuple[Events, int, None]]:
    """One recording of DVS-CIFAR10, turned so that the picture stands upright.

    The camera's picture is transposed and its origin at the lower right: column 127 - y, row 127 - x. Polarity 0 is ON.
    """
    raw = read_aedat2(path)
    if not len(raw.t):
        raise ValueError(f"{path}: holds no event")
    yield Events(raw.t, SENSOR - 1 - raw.y, SENSOR - 1 - raw.x, 1 - raw.p, raw.offsets, SENSOR, SENSOR), label, None


def dvs_cifar10_split() -> dict[str, list[int]]:
    """Numbers of the 100 test recordings of each class, as listed in data/dvs_cifar10_split.json."""
    orders = [np.argsort(draw_words(RECORDINGS, 0, DVS_SPLIT, label), kind="stable") for label in range(len(OBJECTS))]
    test = [np.sort(order[:TEST_RECORDINGS]) for order in orders]
    if digest(*test) != DVS_SPLIT_SHA256:
        raise ValueError(f"dvs_cifar10: the split differs from the published one: SHA-256 {digest(*test)}")
    return {name: rows.tolist() for name, rows in zip(OBJECTS, test, strict=True)}


def _event_dataset(
    name: str,
    folder: Path,
    work: Sequence[Sequence[Callable]],
    digests: Callable[[Path], dict],
    size: int,
    steps: int,
    binning: str,
) -> Dataset:
    """Frames of all recordings of both splits, counted once and kept in the cache folder with a manifest."""

    def build(cache: Path) -> None:
        for split, recordings in zip(("train", "test"), work, strict=True):
            frames, labels = [], []
            for recording in tqdm(recordings, desc=f"counting {split}", unit="recording", leave=False):
                for events, label, span in recording():
                    frames.append(events_to_frames(events, steps, size, binning, span=span)[0])
                    labels.append(label)
            if not frames:
                raise ValueError(f"{folder}: holds no recording of the {split} split")
            np.save(cache / f"{split}_frames.npy", np.stack(frames))
            np.save(cache / f"{split}_labels.npy", np.array(labels, dtype=np.int64))

    cache = cache_folder(f"{name}-{steps}x{size}-{binning}", folder)
    source = digests(cache)
    manifest = cached(cache, source, build)
    train, test = (
        Split(
            *(torch.from_numpy(np.load(cache / f"{s}_{part}.npy", allow_pickle=False)) for part in ("frames", "labels"))
        )
        for s in ("train", "test")
    )
    facts, (classes, flip, source_format), counts = FACTS[name], PUBLISHED[name], (len(train), len(test))
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
            "source": source_format,
            "folder": folder.resolve().name,
            "files": _checksums(source),
            "frames_sha256": {file: entry["sha256"] for file, entry in manifest["files"].items()},
            "steps": steps,
            "binning": binning,
        },
    )


def _checksums(source: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """SHA-256 of every file by its name; of files in folders, thousands, one of each outer folder's list of them.

    The list is what ``sha256sum`` prints of the folder's files in their sorted order.
    """
    sums = {name: entry["sha256"] for name, entry in source.items() if "/" not in name}
    lists: dict[str, list[str]] = {}
    for name in sorted(source.keys() - sums.keys()):
        lists.setdefault(name.split("/")[0] + "/", []).append(f"{source[name]['sha256']}  {name}\n")
    return sums | {name: hashlib.sha256("".join(lines).encode()).hexdigest() for name, lines in lists.items()}
