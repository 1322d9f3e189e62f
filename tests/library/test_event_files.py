"""Recordings of event cameras, written here as the formats say, whole and damaged, and what is loaded from them."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import (
    HEADER2,
    HEADER3,
    TRIALS,
    aedat2,
    cifar_folder,
    event3,
    gesture_events,
    gesture_folder,
    packet3,
    random_events,
    recordings_for_training,
    rows,
    written,
)

import sastc.data.event_files as event_files
from sastc.data import load_dataset
from sastc.data.event_files import GESTURES, OBJECTS, dvs_cifar10_split, read_aedat2, read_aedat3, read_trials
from sastc.data.events import events_to_frames
from sastc.data.subsets import digest
from sastc.facts import FACTS

REPOSITORY = Path(__file__).resolve().parents[2]


# --- AEDAT 2.0 --------------------------------------------------------------------------------------


def test_aedat2_round_trip(tmp_path):
    events = [
        (5, 0, 0, 0),
        (5, 127, 0, 1),
        (8, 0, 127, 0),
        (2**31 + 4, 35, 13, 1),
        *random_events(50, start=2**31 + 5, stop=2**32),
    ]
    found = read_aedat2(written(tmp_path, aedat2(events)))
    assert rows(found) == events
    assert (len(found), found.height, found.width) == (1, 128, 128)
    assert rows(read_aedat2(written(tmp_path, aedat2([])))) == []
    plain = b"#!AER-DAT2.0\n# End of ASCII Header\n"
    assert rows(read_aedat2(written(tmp_path, aedat2(events[:2], plain)))) == events[:2]


def test_aedat2_bytes_by_hand(tmp_path):
    content = b"#!AER-DAT2.0\r\n" + bytes([0, 0, 0x21, 0x07, 0, 0, 1, 2])
    assert rows(read_aedat2(written(tmp_path, content))) == [(258, 3, 33, 1)]


def test_aedat2_times_that_go_back_go_on_and_external_events_are_left_out(tmp_path):
    events = [(100, 1, 1, 0), (250, 2, 2, 0), (30, 3, 3, 1), (50, 4, 4, 1), (10, 5, 5, 1)]
    assert read_aedat2(written(tmp_path, aedat2(events))).t.tolist() == [100, 250, 280, 300, 310]
    content = aedat2(events[:1]) + struct.pack(">II", 1 << 15, 120) + aedat2(events[1:2], b"")
    assert rows(read_aedat2(written(tmp_path, content))) == events[:2]


@pytest.mark.parametrize("cut", range(1, 8))
def test_aedat2_truncated(tmp_path, cut):
    whole = aedat2(random_events(9))
    path = written(tmp_path, whole[:-cut])
    byte = len(HEADER2) + 8 * 8
    with pytest.raises(ValueError, match=rf"a\.aedat, byte {byte}: truncated: {8 - cut} bytes of an event of 8"):
        read_aedat2(path)


def test_aedat2_damaged(tmp_path):
    def message(content):
        with pytest.raises(ValueError, match="get the file again") as error:
            read_aedat2(written(tmp_path, content))
        assert str(error.value).startswith(f"{tmp_path / 'a.aedat'}, byte ")
        return str(error.value).removeprefix(f"{tmp_path / 'a.aedat'}, byte ")

    whole = bytearray(aedat2(random_events(9)))
    whole[len(HEADER2) + 16 + 1] = 7
    assert message(bytes(whole)).startswith(f"{len(HEADER2) + 16}: address 0x7")
    assert message(b"").startswith("0: must begin with #!AER-DAT2.0, begins with ''")
    assert message(b"PK\x03\x04").startswith("0: must begin with #!AER-DAT2.0, begins with 'PK")
    assert message(HEADER3).startswith("0: must begin with #!AER-DAT2.0, begins with '#!AER-DAT3.1'")
    assert message(HEADER2[:40]).startswith("14: a header line without end")


# --- AEDAT 3.1 --------------------------------------------------------------------------------------


def test_aedat3_round_trip(tmp_path):
    events = [(0, 0, 0, 0), (3, 127, 0, 1), (3, 0, 127, 0), *random_events(50)]
    packets = packet3([event3(*e) for e in events[:20]]), packet3([event3(*e) for e in events[20:]], source=3)
    found = read_aedat3(written(tmp_path, HEADER3 + b"".join(packets)))
    assert rows(found) == events
    assert (len(found), found.height, found.width) == (1, 128, 128)
    assert rows(read_aedat3(written(tmp_path, HEADER3))) == []


def test_aedat3_bytes_by_hand(tmp_path):
    header = bytes([1, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0])
    event = bytes([0x0F, 0x00, 0x06, 0x00, 0x02, 0x01, 0, 0])  # y 3, x 3, ON, valid, 258 us
    assert rows(read_aedat3(written(tmp_path, HEADER3 + header + event))) == [(2**31 + 258, 3, 3, 1)]


def test_aedat3_skips_other_packets_free_room_and_invalid_events(tmp_path):
    first, second, third = random_events(3)
    frame = packet3([bytes(36)], kind=2, size=36, offset=12)
    special = packet3([bytes(8)], kind=0)
    marked = packet3([event3(*first), event3(*second, valid=0)], valid=1, capacity=5)
    unmarked = packet3([event3(*third, valid=0)])  # never marked at all: kept
    found = read_aedat3(written(tmp_path, HEADER3 + special + marked + frame + unmarked))
    assert rows(found) == [first, third]


def test_aedat3_truncated_anywhere(tmp_path):
    packets = packet3([event3(*e) for e in random_events(4)]), packet3([event3(*e) for e in random_events(3)])
    whole, second = HEADER3 + b"".join(packets), len(HEADER3) + len(packets[0])
    for length in range(len(HEADER3) + 1, len(whole)):
        path = written(tmp_path, whole[:length])
        if length == second:
            assert len(read_aedat3(path).t) == 4  # nothing says that a packet is missing
            continue
        start = len(HEADER3) if length < second else second
        byte = start if length < start + 28 else length
        with pytest.raises(ValueError, match=rf"a\.aedat, byte {byte}: truncated: .*; get the file again"):
            read_aedat3(path)
    held = r"truncated: 2 of 3 events of the packet at byte \d+"
    with pytest.raises(ValueError, match=held):
        read_aedat3(written(tmp_path, whole[:-1]))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 14},
        {"kind": -1},
        {"source": -2},
        {"size": 0},
        {"offset": -4},
        {"offset": 8},
        {"overflow": -1},
        {"capacity": 1},
        {"number": -1, "valid": -1, "capacity": 2},
        {"valid": 3},
        {"valid": -1},
    ],
)
def test_aedat3_damaged_packet_header(tmp_path, change):
    good, bad = (packet3([event3(*e) for e in random_events(2)], **options) for options in ({}, change))
    with pytest.raises(ValueError, match=rf"a\.aedat, byte {len(HEADER3 + good)}: no packet header: \("):
        read_aedat3(written(tmp_path, HEADER3 + good + bad))


def test_aedat3_damaged(tmp_path):
    def message(content):
        with pytest.raises(ValueError, match="get the file again") as error:
            read_aedat3(written(tmp_path, content))
        return str(error.value).removeprefix(f"{tmp_path / 'a.aedat'}, byte ")

    event, start = event3(9, 1, 2, 1), len(HEADER3) + 28
    bad = [event3(9, 1, 2, 1, valid=0), event, event3(9, 128, 2, 1), event]
    assert message(HEADER3 + packet3(bad)).startswith(f"{start + 16}: an event at x=128, y=2, the sensor has 128x128")
    assert message(HEADER3 + packet3(bad, valid=3)).startswith(f"{start + 16}: an event at x=128")
    assert message(HEADER3 + packet3([event3(9, 1, 200, 1)])).startswith(f"{start}: an event at x=1, y=200")
    assert message(HEADER3 + packet3([event, event3(-5, 1, 2, 1)])).startswith(f"{start + 12}: a negative time")
    wide = packet3([event * 2], size=16)
    assert message(HEADER3 + wide).startswith(f"{start - 28}: polarity events of 16 bytes, time at 4; must be 8, 4")
    assert message(HEADER2).startswith("0: must begin with #!AER-DAT3.1")
    without = HEADER3.removesuffix(b"#!END-HEADER\r\n")
    assert message(without + packet3([event])).startswith(f"{len(without)}: the header does not end with #!END-HEADER")


# --- DVS-Gesture ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["dvs_gesture/DvsGesture", "dvs_gesture", "DvsGesture", "."])
def test_dvs_gesture_is_found(tmp_path, place):
    gesture_folder(tmp_path, place)
    assert len(load_dataset("dvs_gesture", root=tmp_path, timesteps=2).train) == 6


@pytest.mark.parametrize("binning", ["time", "count"])
def test_dvs_gesture(tmp_path, binning):
    gesture_folder(tmp_path)
    dataset = load_dataset("dvs_gesture", root=tmp_path, timesteps=4, image_size=32, binning=binning)
    assert dataset.label == "DVS-Gesture (6 + 3 recordings only)"
    assert dataset.train.images.shape == (6, 4, 2, 32, 32)
    assert dataset.train.images.dtype == torch.uint8
    assert dataset.train.labels.tolist() == [0, 10, 3] * 2
    assert dataset.classes == GESTURES
    assert (dataset.flip, dataset.timesteps, dataset.in_channels, dataset.crop_padding) == (False, 4, 2, 3)
    for split, seed, first in ((dataset.train, 0, 0), (dataset.train, 1, 3), (dataset.test, 2, 0)):
        for k, (start, stop) in enumerate(((1_000, 300_000), (300_000, 500_000), (600_000, 900_000))):
            events = [e for e in gesture_events(seed) if start <= e[0] < stop]
            expected = np.zeros((4, 2, 32, 32), dtype=int)
            for n, (t, x, y, p) in enumerate(events):
                step = (t - start) * 4 // (stop - start) if binning == "time" else n * 4 // len(events)
                expected[step, p, y // 4, x // 4] += 1
            assert split.images[first + k].tolist() == expected.tolist()


def test_frames_are_kept_and_made_again_when_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("SASTC_CACHE", str(tmp_path / "cache"))
    folder = gesture_folder(tmp_path)
    first = load_dataset("dvs_gesture", root=tmp_path, timesteps=2)
    manifests = list((tmp_path / "cache").glob("dvs_gesture-2x64-time-*/manifest.json"))
    assert len(manifests) == 1
    kept = json.loads(manifests[0].read_text())
    assert set(kept["files"]) == {f"{s}_{part}.npy" for s in ("train", "test") for part in ("frames", "labels")}
    assert "user01_led.aedat" in kept["source"]
    assert "user01_led_labels.csv" in kept["source"]
    with monkeypatch.context() as patch:
        patch.setattr(event_files, "read_aedat3", lambda path: pytest.fail("read again"))
        again = load_dataset("dvs_gesture", root=tmp_path, timesteps=2)
    assert torch.equal(again.train.images, first.train.images)
    assert json.loads(json.dumps(again.provenance)) == first.provenance
    written(folder, TRIALS.replace("4,600000", "5,600000"), "user01_led_labels.csv")
    with pytest.warns(UserWarning, match="stale"):
        assert load_dataset("dvs_gesture", root=tmp_path, timesteps=2).train.labels.tolist() == [0, 10, 4, 0, 10, 3]


def test_dvs_gesture_damage_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SASTC_CACHE", str(tmp_path / "cache"))
    folder = gesture_folder(tmp_path)
    path = folder / "user24_led.aedat"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"user24_led.aedat, byte {len(whole) - 100}: truncated"):
        load_dataset("dvs_gesture", root=tmp_path, timesteps=2)
    assert not list((tmp_path / "cache").glob("dvs_gesture*/manifest.json")), "no half-made copy is kept"
    path.write_bytes(whole)
    written(folder, TRIALS.replace("11,300000,500000", "11,1000000,1100000"), "user24_led_labels.csv")
    with pytest.raises(ValueError, match=r"user24_led.aedat: holds no event of the other gestures from 1000000"):
        load_dataset("dvs_gesture", root=tmp_path, timesteps=2)
    (folder / "user02_lab_labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"user02_lab_labels.csv: not there, though listed"):
        load_dataset("dvs_gesture", root=tmp_path, timesteps=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class;start;end\n", r"line 1: must be 'class,startTime_usec,endTime_usec', is 'class;start;end'"),
        (TRIALS + "12,1,2\n", r"line 5: must be a class from 1 to 11, a start and a later end, is '12,1,2'"),
        (TRIALS + "0,1,2\n", r"line 5"),
        (TRIALS + "3,5,5\n", r"line 5"),
        (TRIALS + "3,5\n", r"line 5"),
        (TRIALS + "\n3,5,x\n", r"line 6"),
    ],
)
def test_bad_trials_name_file_and_line(tmp_path, text, message):
    path = written(tmp_path, text, "labels.csv")
    with pytest.raises(ValueError, match="labels.csv, " + message):
        read_trials(path)
    assert read_trials(written(tmp_path, TRIALS)) == [(0, 1000, 300000), (10, 300000, 500000), (3, 600000, 900000)]
    assert read_trials(written(tmp_path, TRIALS.replace("\n", "\r\n"))) == read_trials(written(tmp_path, TRIALS))


# --- DVS-CIFAR10 ------------------------------------------------------------------------------------


def test_dvs_cifar10_split_is_the_committed_one():
    listed = json.loads((REPOSITORY / "data" / "dvs_cifar10_split.json").read_text())
    assert listed["test"] == dvs_cifar10_split()
    assert listed["split_sha256"] == digest(*(np.array(rows) for rows in listed["test"].values()))
    assert list(listed["test"]) == list(OBJECTS)
    for numbers in listed["test"].values():
        assert len(set(numbers)) == 100
        assert 0 <= min(numbers) <= max(numbers) < 1000
    assert len({tuple(numbers) for numbers in listed["test"].values()}) == 10


def test_a_changed_split_is_noticed(monkeypatch):
    monkeypatch.setattr(event_files, "TEST_RECORDINGS", 99)
    with pytest.raises(ValueError, match="the split differs from the published one"):
        dvs_cifar10_split()


@pytest.mark.parametrize("place", ["dvs_cifar10", "CIFAR10DVS", "dvs_cifar10/raw", "."])
def test_dvs_cifar10(tmp_path, place):
    cifar_folder(tmp_path, place)
    dataset = load_dataset("dvs_cifar10", root=tmp_path, timesteps=3)
    split = dvs_cifar10_split()
    expected = {"train": [], "test": []}
    for label, name in enumerate(OBJECTS):
        for i in sorted({0, 1, split[name][0]}):
            expected["test" if i in split[name] else "train"].append((label, 1000 * label + i))
    for part in ("train", "test"):
        found = getattr(dataset, part)
        assert found.labels.tolist() == [label for label, _ in expected[part]]
        for frames, (_, seed) in zip(found.images, expected[part], strict=True):
            events = random_events(300, seed)
            first, last = events[0][0], events[-1][0]
            wanted = np.zeros((3, 2, 48, 48), dtype=int)
            for t, x, y, p in events:
                wanted[(t - first) * 3 // (last + 1 - first), 1 - p, (127 - x) * 48 // 128, (127 - y) * 48 // 128] += 1
            assert frames.tolist() == wanted.tolist()
    assert len(dataset.test) == 10
    assert dataset.label == f"DVS-CIFAR10 ({len(dataset.train)} + 10 recordings only)"
    assert (dataset.flip, dataset.wrap, dataset.crop_padding, dataset.image_size) == (True, True, 5, 48)
    assert not load_dataset("dvs_cifar10", root=tmp_path, timesteps=3, event_augment="none").flip


def test_dvs_cifar10_damage_names_the_file(tmp_path):
    folder = cifar_folder(tmp_path)
    path = folder / "ship" / "cifar10_ship_0.aedat"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0\0\0")
    with pytest.raises(ValueError, match=rf"cifar10_ship_0.aedat, byte {len(whole)}: truncated: 3 bytes"):
        load_dataset("dvs_cifar10", root=tmp_path, timesteps=3)
    path.write_bytes(HEADER2)
    with pytest.raises(ValueError, match=r"cifar10_ship_0.aedat: holds no event"):
        load_dataset("dvs_cifar10", root=tmp_path, timesteps=3)
    for file in (folder / "ship").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"ship: holds no recording such as cifar10_ship_0.aedat"):
        load_dataset("dvs_cifar10", root=tmp_path, timesteps=3)


@pytest.mark.parametrize(("name", "expected"), [("dvs_gesture", "trials_to_train.txt"), ("dvs_cifar10", "airplane/")])
def test_data_that_are_not_there(tmp_path, name, expected):
    with pytest.raises(FileNotFoundError, match=rf"{name}: no data found. Looked in: .*{expected}.*data/README.md"):
        load_dataset(name, root=tmp_path, timesteps=2)


def test_upright_events_keep_their_number(tmp_path):
    path = written(tmp_path, aedat2([(5, 3, 100, 1), (9, 0, 0, 0)]))
    ((events, label, span),) = event_files._upright(path, 7)
    assert (rows(events), label, span) == ([(5, 27, 124, 0), (9, 127, 127, 1)], 7, None)
    assert events_to_frames(events, 1)[0, 0].sum() == 2


def test_recordings_fill_a_batch(tmp_path):
    root = recordings_for_training(tmp_path)
    for name, size in (("dvs_gesture", 32), ("dvs_cifar10", 128)):
        assert size <= len(load_dataset(name, root=root, timesteps=2).train) < size + 22


# --- N-MNIST ----------------------------------------------------------------------------------------


def nmnist_recording(seed, events=30):
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(0, 300_000, events))
    columns = (column.tolist() for column in (t, *(random.integers(0, high, events) for high in (34, 34, 2))))
    return list(zip(*columns, strict=True))


def nmnist_folder(root, place="nmnist", train=2, test=1):
    """So many recordings of each digit; the seed of one is 100 times its digit and its number, 50 more for testing."""
    folder = root / place
    for digit in range(10):
        for split, count, first in (("Train", train, 0), ("Test", test, 50)):
            for k in range(count):
                events = nmnist_recording(100 * digit + first + k)
                content = b"".join((x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big") for t, x, y, p in events)
                written(folder, content, f"{split}/{digit}/{k + 1:05}.bin")
    return folder


@pytest.mark.parametrize("place", ["nmnist", "N-MNIST", "nmnist-small", "nmnist/unpacked", "."])
def test_nmnist(tmp_path, place):
    folder = nmnist_folder(tmp_path, place)
    written(folder, b"no event", "Train/3/._00001.bin")  # what some archives bring along
    dataset = load_dataset("nmnist", root=tmp_path, timesteps=3)
    assert dataset.label == "N-MNIST (20 + 10 recordings only)"
    assert dataset.train.images.shape == (20, 3, 2, 34, 34)
    assert dataset.train.labels.tolist() == [digit for digit in range(10) for _ in range(2)]
    assert dataset.test.labels.tolist() == list(range(10))
    assert (dataset.flip, dataset.classes, dataset.crop_padding) == (False, tuple("0123456789"), 3)
    for images, seed in ((dataset.train.images[7], 301), (dataset.test.images[4], 450)):
        events = nmnist_recording(seed)
        first, last = events[0][0], events[-1][0] + 1
        expected = np.zeros((3, 2, 34, 34), dtype=int)
        for t, x, y, p in events:
            expected[(t - first) * 3 // (last - first), p, y, x] += 1
        assert images.tolist() == expected.tolist()
    coarse = load_dataset("nmnist", root=tmp_path, timesteps=3, image_size=17)
    assert torch.equal(
        coarse.train.images, dataset.train.images.unflatten(4, (17, 2)).unflatten(3, (17, 2)).sum((4, 6))
    )


def test_the_complete_nmnist_has_no_remark():
    assert FACTS["nmnist"].counts == (60_000, 10_000)
    assert FACTS["nmnist"].label == "N-MNIST"


def test_nmnist_record_stays_small_and_follows_its_files(tmp_path):
    folder = nmnist_folder(tmp_path)
    first = load_dataset("nmnist", root=tmp_path, timesteps=2).provenance["files"]
    assert set(first) == {"Train/", "Test/"}
    names = sorted(p.relative_to(folder).as_posix() for p in (folder / "Test").rglob("*.bin"))
    listed = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert first["Test/"] == hashlib.sha256(listed.encode()).hexdigest()
    recording = folder / "Test/4/00001.bin"
    recording.write_bytes(recording.read_bytes()[5:])
    with pytest.warns(UserWarning, match="stale"):
        second = load_dataset("nmnist", root=tmp_path, timesteps=2).provenance["files"]
    assert second["Train/"] == first["Train/"]
    assert second["Test/"] != first["Test/"]
    written(folder, f"{'0' * 64}  Test/4/00001.bin\n", "SHA256SUMS")
    with pytest.raises(
        ValueError, match=r"Test/4/00001\.bin: damaged: its SHA-256 is .*, SHA256SUMS beside it says 000"
    ):
        load_dataset("nmnist", root=tmp_path, timesteps=2)


def test_nmnist_that_is_missing_or_damaged_names_the_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nmnist: no data found\. Looked in: .*folders Train/ and Test/"):
        load_dataset("nmnist", root=tmp_path, timesteps=2)
    folder = nmnist_folder(tmp_path)
    recording = folder / "Train/2/00002.bin"
    whole = recording.read_bytes()
    recording.write_bytes(whole[:-2])
    with pytest.raises(ValueError, match=r"Train/2/00002\.bin, byte 145: truncated: 3 bytes of an event of 5"):
        load_dataset("nmnist", root=tmp_path, timesteps=2)
    recording.write_bytes(b"")
    with pytest.raises(ValueError, match=r"Train/2/00002\.bin: holds no event"):
        load_dataset("nmnist", root=tmp_path, timesteps=2)
    for path in (folder / "Train/2").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"Train/2: holds no recording such as 00002\.bin"):
        load_dataset("nmnist", root=tmp_path, timesteps=2)
