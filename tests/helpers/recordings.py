"""Recordings of event cameras, written as their files are."""

import struct

import numpy as np

from sastc.data.event_files import OBJECTS, dvs_cifar10_split
from sastc.data.events import Events

HEADER2 = (
    b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n# created Wed Aug 10 14:06:01 CST 2016\r\n"
)
HEADER3 = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: DVS128\r\n"
    b"#Start-Time: 2016-06-02 14:00:00 (TZ+0200)\r\n#!END-HEADER\r\n"
)


def aedat2(events, header=HEADER2):
    """Events (t, x, y, p) as big-endian address and time: y in bits 8-14, x in bits 1-7, polarity in bit 0."""
    return header + b"".join(struct.pack(">II", y << 8 | x << 1 | p, t) for t, x, y, p in events)


def event3(t, x, y, p, valid=1):
    return struct.pack("<Ii", x << 17 | y << 2 | p << 1 | valid, t)


def packet3(events, *, kind=1, source=0, size=8, offset=4, overflow=0, capacity=None, number=None, valid=None):
    number = len(events) if number is None else number
    capacity = number if capacity is None else capacity
    valid = number if valid is None else valid
    header = struct.pack("<hhiiiiii", kind, source, size, offset, overflow, capacity, number, valid)
    return header + b"".join(events) + bytes(size * max(0, capacity - len(events)))


def written(folder, content, name="a.aedat"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(events: Events):
    return list(zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist(), strict=True))


def random_events(n, seed=0, start=1_000, stop=900_000):
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(start, stop, n)).tolist()
    return list(zip(t, *(random.integers(0, high, n).tolist() for high in (128, 128, 2)), strict=True))


TRIALS = "class,startTime_usec,endTime_usec\n1,1000,300000\n11,300000,500000\n4,600000,900000\n"


def gesture_events(seed):
    """Random events, and one at each end of the gestures."""
    return sorted([*random_events(697, seed), *((t, 7, 9, 1) for t in (1_000, 300_000, 500_000))])


def gesture_folder(root, place="dvs_gesture/DvsGesture", train=("user01_led", "user02_lab")):
    """Recordings of three gestures each: those of `train`, and one to test."""
    folder = root / place
    for seed, name in enumerate((*train, "user24_led")):
        events = gesture_events(seed)
        half = [event3(*e) for e in events[:400]], [event3(*e) for e in events[400:]]
        written(folder, HEADER3 + packet3(half[0]) + packet3(half[1]), f"{name}.aedat")
        written(folder, TRIALS, f"{name}_labels.csv")
    written(folder, "".join(f"{name}.aedat\n" for name in train) + "\n", "trials_to_train.txt")
    written(folder, "user24_led.aedat\n", "trials_to_test.txt")
    return folder


def cifar_folder(root, place="dvs_cifar10", numbers=(0, 1), events=300):
    """A few recordings a class: the first ones, and the first of the test recordings."""
    split = dvs_cifar10_split()
    for label, name in enumerate(OBJECTS):
        for i in sorted({*numbers, split[name][0]}):
            content = aedat2(random_events(events, 1000 * label + i))
            written(root / place, content, f"{name}/cifar10_{name}_{i}.aedat")
    return root / place


def recordings_for_training(root):
    """As many recordings of both sets, and no more, as fill one training batch of the paper's scale."""
    gesture_folder(root, train=[f"user{k:02}_lab" for k in range(1, 12)])  # 33 gestures for a batch of 32
    cifar_folder(root, numbers=range(15), events=40)  # some of the 150 are for testing; a batch has 128
    return root
