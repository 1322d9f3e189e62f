"""Events that are none, and files of events with damage anywhere: an error that names the place, or the same events."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import HEADER2, HEADER3, TRIALS, aedat2, event3, packet3, random_events, rows, written

from sastc.data.event_files import NMNIST_EVENT, read_aedat2, read_aedat3, read_nmnist, read_trials
from sastc.data.events import LAST_TIME, Events, event_rate, events_to_frames, simulate_events, time_bins

FUZZ = settings(deadline=None, max_examples=60, derandomize=True)


def sound(**changes):
    """Two streams, of three and two events, on a sensor of 4 x 5 pixels."""
    columns = {"t": [0, 5, 9, 2, 3], "x": [0, 4, 1, 2, 3], "y": [3, 0, 1, 2, 3], "p": [0, 1, 1, 0, 1]}
    kinds = {"t": np.int64, "x": np.int16, "y": np.int16, "p": np.int8}
    arrays = {name: np.array(values, kinds[name]) for name, values in columns.items()}
    return Events(**{**arrays, "offsets": np.array([0, 3, 5]), "height": 4, "width": 5, **changes})


def with_value(field, k, value):
    column = getattr(sound(), field).astype(np.int64)
    column[k] = value
    return sound(**{field: column})


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (with_value("p", 2, -1), r"p\[2\]=-1: must be from 0 to 1"),
        (with_value("p", 0, 2), r"p\[0\]=2: must be from 0 to 1"),
        (with_value("x", 4, 5), r"x\[4\]=5: must be from 0 to 4"),
        (with_value("x", 1, -1), r"x\[1\]=-1: must be from 0 to 4"),
        (with_value("y", 3, 4), r"y\[3\]=4: must be from 0 to 3"),
        (with_value("t", 1, 10), r"t\[2\]=9: must be at least t\[1\]=10, times ascend in a stream"),
        (with_value("t", 4, 1), r"t\[4\]=1: must be at least t\[3\]=2"),
        (with_value("t", 2, 1 << 60), rf"t\[2\]={1 << 60}: must be from"),
        (sound(x=np.array([0.0, 4, 1, 2, 3])), r"x: float64 of shape \(5,\), must be an array of integers"),
        (sound(t=np.zeros((5, 1), np.int64)), r"t: int64 of shape \(5, 1\), must be an array of integers"),
        (sound(y=[3, 0, 1, 2, 3]), r"y: list, must be an array of integers"),
        (sound(p=np.array([0, 1, 1, 0], np.int8)), r"p: 4 values, must be as many as times, 5"),
        (sound(offsets=np.array([0, 3])), r"offsets=\[0, 3\]: must ascend from 0 to 5"),
        (sound(offsets=np.array([1, 3, 5])), r"offsets=\[1, 3, 5\]: must ascend from 0 to 5"),
        (sound(offsets=np.array([0, 6, 5])), r"offsets=\[0, 6, 5\]: must ascend from 0 to 5"),
        (sound(offsets=np.array([], np.int64)), r"offsets=\[\]: must ascend from 0 to 5"),
        (sound(offsets=np.array([0, 5])), r"t\[3\]=2: must be at least t\[2\]=9"),
        (sound(height=0), r"height=0: must be an integer >= 1"),
        (sound(width=5.0), r"width=5.0: must be an integer"),
    ],
)
@pytest.mark.parametrize("consumer", [lambda e: events_to_frames(e, 2), event_rate], ids=["frames", "rate"])
def test_events_that_are_none_name_field_index_and_value(events, message, consumer):
    with pytest.raises(ValueError, match="^" + message):
        consumer(events)


def test_sound_events_pass_in_any_integer_type():
    expected = events_to_frames(sound(), 2)
    assert expected.sum() == 5
    for kind in (np.uint8, np.int32, np.uint64):
        part = {name: getattr(sound(), name).astype(kind) for name in ("t", "x", "y", "p")}
        assert (events_to_frames(sound(**part), 2) == expected).all()
    assert (events_to_frames(sound(p=sound().p == 1), 2) == expected).all()
    empty = sound(**{name: getattr(sound(), name)[:0] for name in ("t", "x", "y", "p")}, offsets=np.array([0, 0, 0]))
    assert events_to_frames(empty, 2).sum() == 0
    with pytest.raises(ValueError, match="events: none, a rate needs at least one"):
        event_rate(empty)
    gap = sound(offsets=np.array([0, 3, 3, 5]))
    assert events_to_frames(gap, 2).sum((1, 2, 3, 4)).tolist() == [3, 0, 2]


def test_a_stream_that_is_not_there_is_an_error():
    for i in (-1, 2):
        with pytest.raises(IndexError, match=f"stream {i}: must be from 0 to 1"):
            sound().stream(i)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(steps=2.5), "steps=2.5: must be an integer"),
        (dict(steps=True), "steps=True: must be an integer"),
        (dict(size="8"), "size='8': must be an integer"),
        (dict(span=(0, 2.5)), r"span=\(0, 2.5\): must be two whole microseconds"),
        (dict(span=(0, 1 << 70)), r"span=\(0, \d+\): must be two whole microseconds"),
        (dict(span=(0, 1, 2)), r"span=\(0, 1, 2\): must be two whole microseconds"),
    ],
)
def test_bad_arguments_of_frames_name_the_field(options, message):
    with pytest.raises(ValueError, match="^" + message):
        events_to_frames(sound(), **{"steps": 2, **options})


def test_products_of_times_do_not_overflow():
    last = with_value("t", 2, LAST_TIME)
    assert events_to_frames(last, 1000)[0].sum() == 3
    with pytest.raises(ValueError, match=r"steps=\d+: too many for times from 0 to"):
        time_bins(last.t[:3], 1 << 12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration": 1e5}, "duration=100000.0: must be an integer"),
        ({"samples": 2.5}, "samples=2.5: must be an integer"),
        ({"threshold": float("inf")}, "threshold=inf: must be a finite number > 0"),
        ({"amplitude": float("inf")}, "amplitude=inf: must be a finite number >= 0"),
        ({"start": float("nan")}, "start=nan: must be a finite number"),
        ({"seed": -1}, "seed=-1: must be an integer >= 0"),
    ],
)
def test_simulation_refuses_what_is_no_number(options, message):
    with pytest.raises(ValueError, match="^" + message):
        simulate_events(np.zeros((1, 1, 4, 4), np.uint8), **options)


# --- any events, any bytes --------------------------------------------------------------------------


def loop_frames(events, steps):
    """One event after the other; None where they are no events."""
    frames = np.zeros((len(events), steps, 2, events.height, events.width), dtype=int)
    for i in range(len(events)):
        first, end = events.offsets[i : i + 2]
        t = events.t[first:end].tolist()
        if t != sorted(t):
            return None
        for k in range(first, end):
            x, y, p = (int(column[k]) for column in (events.x, events.y, events.p))
            if not (0 <= x < events.width and 0 <= y < events.height and p in (0, 1)):
                return None
            frames[i, (int(events.t[k]) - t[0]) * steps // (t[-1] + 1 - t[0]), p, y, x] += 1
    return frames


@st.composite
def any_events(draw):
    """Mostly sound streams; at times a value off the sensor, or a time that goes back."""
    parts = draw(st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=3))
    if draw(st.integers(0, 3)):
        parts = [sorted(part) for part in parts]
    t = [value for part in parts for value in part]
    column = lambda low, high: draw(st.lists(st.integers(low, high), min_size=len(t), max_size=len(t)))  # noqa: E731
    off = draw(st.integers(0, 3)) == 0
    x, y, p = column(-off, 2 + off), column(0, 1), column(-off, 1 + off)
    arrays = (np.array(values, np.int64) for values in (t, x, y, p))
    return Events(*arrays, np.cumsum([0, *map(len, parts)]), 2, 3)


@FUZZ
@given(any_events(), st.integers(1, 5))
def test_any_events_are_counted_as_a_loop_counts_them_or_refused(events, steps):
    expected = loop_frames(events, steps)
    if expected is None:
        with pytest.raises(ValueError, match=r"^[txyp]\[\d+\]=-?\d+: must be "):
            events_to_frames(events, steps)
    else:
        assert (events_to_frames(events, steps) == expected).all()


def nmnist_event(t, x, y, p):
    """40 bits: x 8, y 8, polarity 1, time 23."""
    return (x << 32 | y << 24 | p << 23 | t).to_bytes(5, "big")


def slow_nmnist(content):
    """Events of a file bit by bit, or the byte at which it is damaged."""
    events, late, last = [], 0, 0
    for start in range(0, len(content) - 4, NMNIST_EVENT):
        bits = "".join(f"{byte:08b}" for byte in content[start : start + 5])
        x, y, p, t = (int(part, 2) for part in (bits[:8], bits[8:16], bits[16], bits[17:]))
        if y == 240:
            late += 2**13
            continue
        events.append((t + late, x, y, p, start))
    if len(content) % 5:
        return len(content) - len(content) % 5
    for t, _, _, _, start in events:
        if t < last:
            return start
        last = t
    return next((start for _, x, y, _, start in events if x > 33 or y > 33), [event[:4] for event in events])


def small_events(n, seed=0):
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(0, 300_000, n)).tolist()
    return list(zip(t, *(random.integers(0, high, n).tolist() for high in (34, 34, 2)), strict=True))


FILES = {
    "nmnist": (read_nmnist, b"".join(nmnist_event(*e) for e in small_events(12))),
    "aedat2": (read_aedat2, aedat2(random_events(12))),
    "aedat3": (
        read_aedat3,
        HEADER3 + packet3([event3(*e) for e in random_events(8)]) + packet3([event3(*e) for e in random_events(3)]),
    ),
    "trials": (read_trials, TRIALS.encode()),
}


@st.composite
def damage(draw, content):
    """The content with a byte changed, some left out, or some put in."""
    at = draw(st.integers(0, len(content) - 1))
    kind = draw(st.sampled_from(["change", "cut", "end", "insert"]))
    if kind == "change":
        return content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]
    if kind == "end":
        return content[:at]
    if kind == "cut":
        return content[:at] + content[at + draw(st.integers(1, 9)) :]
    return content[:at] + draw(st.binary(min_size=1, max_size=9)) + content[at:]


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_refused_by_name_or_give_events(name, tmp_path):
    read, content = FILES[name]

    @FUZZ
    @given(st.one_of(damage(content), st.binary(max_size=40), st.just(HEADER2), st.just(HEADER3)))
    def fuzz(damaged):
        path = written(tmp_path, damaged, "a.bin")
        try:
            found = read(path)
        except ValueError as error:
            assert re.match(rf"{re.escape(str(path))}(, (byte|line) \d+: |: not UTF-8 text)", str(error))  # noqa: PT017
            return
        if isinstance(found, Events):
            found.check()

    fuzz()


@FUZZ
@given(st.one_of(damage(FILES["nmnist"][1]), st.binary(max_size=30)))
def test_nmnist_against_a_loop_over_bits(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp(), content, "a.bin")
    expected = slow_nmnist(content)
    if isinstance(expected, list):
        assert rows(read_nmnist(path)) == expected
    else:
        with pytest.raises(ValueError, match=rf"a\.bin, byte {expected}: .*; get the file again"):
            read_nmnist(path)


def test_nmnist_bytes_by_hand_and_marks_of_overflow(tmp_path):
    content = bytes([3, 33, 0x81, 0x02, 0x03, 33, 0, 0x7F, 0xFF, 0xFF])
    assert rows(read_nmnist(written(tmp_path, content))) == [(0x10203, 3, 33, 1), (0x7FFFFF, 33, 0, 0)]
    events = [(8000, 1, 2, 0), (100, 3, 4, 1), (50, 5, 6, 0)]
    mark = nmnist_event(0, 0, 240, 0)
    found = read_nmnist(written(tmp_path, mark.join(nmnist_event(*e) for e in events)))
    assert rows(found) == [(8000, 1, 2, 0), (100 + 8192, 3, 4, 1), (50 + 2 * 8192, 5, 6, 0)]
    assert (found.height, found.width, len(found)) == (34, 34, 1)


def test_aedat3_packets_that_overlap_in_time_are_sorted(tmp_path):
    first, second = [(5, 1, 1, 0), (9, 2, 2, 1)], [(5, 3, 3, 1), (7, 4, 4, 0)]
    packets = (packet3([event3(*e) for e in part]) for part in (first, second))
    found = read_aedat3(written(tmp_path, HEADER3 + b"".join(packets)))
    assert rows(found) == [first[0], second[0], second[1], first[1]]


def test_lists_of_dvs_gesture_that_are_no_text_name_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"labels\.csv: not UTF-8 text \(byte 3 is 0xff\)"):
        read_trials(written(tmp_path, b"cla\xff", "labels.csv"))
    with pytest.raises(ValueError, match=r"labels\.csv, line 2: must be a class"):
        read_trials(written(tmp_path, TRIALS.replace("300000", "9" * 30), "labels.csv"))


def test_replaced_columns_are_checked_too():
    good = simulate_events(np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8)).astype(np.uint8))
    with pytest.raises(ValueError, match=r"^x\[0\]=300: must be from 0 to 7"):
        events_to_frames(replace(good, x=np.full_like(good.x, 300)), 2)
