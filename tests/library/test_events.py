"""Simulated events and frames of events, against plain loops in float64; the digits as seen by an event camera."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_files import batches, encode, photo, write_shard

from sastc.data import Dataset, Split, augment, load_dataset
from sastc.data.events import (
    Events,
    event_rate,
    events_to_frames,
    frame_scale,
    simulate_events,
    time_bins,
    to_events,
    trajectory,
)
from sastc.data.subsets import EVENTS, draw_words


def pictures(n=3, channels=1, height=7, width=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


def columns(events, i):
    one = events.stream(i)
    return list(zip(one.t.tolist(), one.y.tolist(), one.x.tolist(), one.p.tolist(), strict=True))


def moved(image, y, x, dx, dy):
    """Bilinear intensity at (y, x) of an image (H, W) moved right by dx and down by dy, edges repeated."""
    height, width = image.shape
    v, u = y - dy, x - dx
    y0, x0 = math.floor(v), math.floor(u)
    total = 0.0
    for yy, wy in ((y0, 1 - (v - y0)), (y0 + 1, v - y0)):
        for xx, wx in ((x0, 1 - (u - x0)), (x0 + 1, u - x0)):
            total += wy * wx * image[min(max(yy, 0), height - 1), min(max(xx, 0), width - 1)]
    return total


def corner(k, start, amplitude):
    return (amplitude * math.cos(start + 2 * math.pi * k / 3), amplitude * math.sin(start + 2 * math.pi * k / 3))


def place(path, turn, start, amplitude):
    if path == "circle":
        return amplitude * math.cos(start + 2 * math.pi * turn), amplitude * math.sin(start + 2 * math.pi * turn)
    leg = min(int(3 * turn), 2)
    (x0, y0), (x1, y1) = corner(leg, start, amplitude), corner(leg + 1, start, amplitude)
    return x0 + (3 * turn - leg) * (x1 - x0), y0 + (3 * turn - leg) * (y1 - y0)


def loop_events(image, start, *, path, amplitude, duration, samples, threshold, refractory):
    """One pixel after the other, one threshold step after the other."""
    image = image.double().mean(0).numpy() / 255
    found = []
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            levels = []
            for k in range(samples + 1):
                dx, dy = place(path, k / samples, start, amplitude)
                levels.append(math.log(moved(image, y, x, dx, dy) + 0.1))
            reference, last = levels[0], -math.inf
            for k in range(1, samples + 1):
                before, after = levels[k - 1], levels[k]
                while abs(after - reference) > threshold + 1e-9:  # no event for a step exactly undone
                    up = after > reference
                    reference += threshold if up else -threshold
                    share = (reference - before) / (after - before)
                    t = math.floor(duration * (k - 1 + share) / samples)
                    if t - last >= refractory:
                        found.append((t, y, x, int(up)))
                        last = t
    return sorted(found)


# --- simulation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["saccade", "circle"])
@pytest.mark.parametrize(
    ("amplitude", "threshold", "refractory", "channels"),
    [(1.0, 0.3, 0, 1), (2.3, 0.2, 0, 3), (2.3, 0.2, 5_000, 1), (0.4, 0.05, 900, 1)],
)
def test_events_against_a_loop_over_pixels(path, amplitude, threshold, refractory, channels):
    images = pictures(3, channels)
    options = dict(path=path, amplitude=amplitude, duration=70_000, samples=20)
    options |= dict(threshold=threshold, refractory=refractory)
    events = simulate_events(images, seed=4, **options)
    assert len(events) == 3
    for i in range(3):
        start = draw_words(1, 4, EVENTS, i)[0] * (2 * math.pi / 2**64)
        expected = loop_events(images[i], start, **options)
        assert columns(events, i) == expected
        assert len(expected) > 50
        if refractory:
            assert len(expected) < len(loop_events(images[i], start, **options | {"refractory": 0}))


def test_all_paths_may_start_alike():
    images, options = pictures(3), dict(path="saccade", amplitude=2.3, duration=70_000, samples=20)
    options |= dict(threshold=0.2, refractory=0)
    events = simulate_events(images, start=1.0, **options)
    for i in range(3):
        assert columns(events, i) == loop_events(images[i], 1.0, **options)


def test_an_image_alone_gives_the_streams_it_gives_among_others(monkeypatch):
    images = pictures(9)
    whole = simulate_events(images, noise_rate=20.0, seed=1)
    part = simulate_events(images[[7, 2]], noise_rate=20.0, seed=1, indices=[7, 2])
    assert columns(part, 0) == columns(whole, 7)
    assert columns(part, 1) == columns(whole, 2)
    monkeypatch.setattr("sastc.data.events.CHUNK_PIXELS", 130)
    chunks = simulate_events(images, noise_rate=20.0, seed=1)
    assert [columns(chunks, i) for i in range(9)] == [columns(whole, i) for i in range(9)]
    other = simulate_events(images, noise_rate=20.0, seed=2)
    assert columns(other, 0) != columns(whole, 0)


def test_streams_are_sorted_and_within_the_sensor_and_the_time():
    events = simulate_events(pictures(4), duration=50_000, noise_rate=100.0)
    assert events.offsets[0] == 0
    assert events.offsets[-1] == len(events.t) == len(events.x) == len(events.y) == len(events.p)
    crowded = simulate_events(pictures(4, height=2, width=2), amplitude=0.0, duration=5, noise_rate=1e7)
    for i in range(4):
        assert columns(events, i) == sorted(columns(events, i))
        assert columns(crowded, i) == sorted(columns(crowded, i))
        assert len(set(columns(crowded, i))) < len(columns(crowded, i)) == 200
    assert (events.height, events.width) == (7, 9)
    for values, low, high in ((events.t, 0, 50_000), (events.x, 0, 9), (events.y, 0, 7), (events.p, 0, 2)):
        assert values.min() >= low
        assert values.max() < high
    assert [a.dtype.name for a in (events.t, events.x, events.y, events.p)] == ["int64", "int16", "int16", "int8"]


def test_still_and_flat_images_give_nothing_but_noise():
    assert len(simulate_events(pictures(2), amplitude=0.0).t) == 0
    flat = torch.full((2, 1, 20, 20), 90, dtype=torch.uint8)
    assert simulate_events(flat).offsets.tolist() == [0, 0, 0]
    noisy = simulate_events(flat, noise_rate=50.0, duration=1_000_000)
    assert np.diff(noisy.offsets).tolist() == [20_000, 20_000]
    one = noisy.stream(1)
    for values, parts in ((one.t, 10), (one.x, 20), (one.y, 20), (one.p, 2)):
        counts = np.histogram(values, parts)[0]
        assert np.abs(counts / (20_000 / parts) - 1).max() < 0.15, "uniform"
    assert len(simulate_events(pictures(0)).t) == 0


def test_a_bright_edge_that_moves_right_gives_on_events_before_it_and_off_events_behind():
    image = torch.zeros(1, 1, 5, 40, dtype=torch.uint8)
    image[..., 10:20] = 255
    levels = int(math.log(1.1 / 0.1) / 0.3)
    events = simulate_events(image, path="circle", amplitude=6.0, samples=400, refractory=0)
    frames = events_to_frames(events, 1)[0, 0]
    assert frames[:, 2].tolist() == frames[:, 3].tolist()
    assert frames.max() <= 2 * levels
    start = draw_words(1, 0, EVENTS, 0)[0] * (2 * math.pi / 2**64)
    crossed = {round(9.5 + 6 * math.cos(start + 2 * math.pi * k / 400)) for k in range(401)}
    assert {x for x in crossed if 4 < x < 15} <= set(np.flatnonzero(frames.sum((0, 1))).tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "line"}, r"path='line': must be one of saccade, circle"),
        ({"threshold": 0.0}, r"threshold=0.0: must be a finite number > 0"),
        ({"samples": 0}, r"samples=0: must be an integer >= 1"),
        ({"duration": 0}, r"duration=0: must be an integer >= 1"),
        ({"refractory": -1}, r"refractory=-1: must be a finite number >= 0"),
        ({"noise_rate": -1.0}, r"noise_rate=-1.0"),
        ({"amplitude": float("nan")}, r"amplitude=nan"),
        ({"indices": [0]}, r"indices: 1 of them, must be one for each of the 3 images"),
    ],
)
def test_bad_arguments_name_field_value_and_range(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_events(pictures(), **options)


def test_images_must_be_bytes():
    with pytest.raises(ValueError, match=r"images: torch.float32 of shape \(2, 1, 4, 4\), must be uint8"):
        simulate_events(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="must be uint8"):
        simulate_events(torch.zeros(1, 4, 4, dtype=torch.uint8))


def test_paths_close_and_keep_their_radius():
    starts = np.array([0.3, 2.0])
    for path in ("saccade", "circle"):
        way = trajectory(path, 30, starts)
        assert way.shape == (31, 2, 2)
        np.testing.assert_allclose(way[0], way[-1], atol=1e-12)
        np.testing.assert_allclose(way[0], np.stack([np.cos(starts), np.sin(starts)], -1))
        np.testing.assert_allclose(way[:-1].mean(0), 0, atol=1e-12)
        assert np.hypot(*way.T).max() <= 1 + 1e-12


# --- frames -----------------------------------------------------------------------------------------


def stream(n, height=13, width=10, seed=0, last=1_000):
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(50, last, n))
    x, y, p = (random.integers(0, high, n) for high in (width, height, 2))
    return Events(t, x.astype(np.int16), y.astype(np.int16), p.astype(np.int8), np.array([0, n]), height, width)


def joined_streams(*streams):
    arrays = (np.concatenate([getattr(s, name) for s in streams]) for name in "txyp")
    return Events(*arrays, np.cumsum([0] + [len(s.t) for s in streams]), streams[0].height, streams[0].width)


@pytest.mark.parametrize("binning", ["time", "count"])
@pytest.mark.parametrize("size", [None, 5, 10])
@pytest.mark.parametrize(("n", "steps"), [(1, 1), (1, 3), (7, 3), (500, 4), (500, 7)])
def test_frames_against_a_loop_over_events(binning, size, n, steps):
    streams = stream(n), stream(n + 3, seed=1)
    frames = events_to_frames(joined_streams(*streams), steps, size, binning)
    assert frames.dtype == np.uint8
    for got, one in zip(frames, streams, strict=True):
        height, width = (one.height, one.width) if size is None else (size, size)
        expected = np.zeros((steps, 2, height, width), dtype=int)
        first, last = int(one.t[0]), int(one.t[-1])
        for k in range(len(one.t)):
            share = (int(one.t[k]) - first) / (last + 1 - first) if binning == "time" else k / len(one.t)
            step = math.floor(share * steps + 1e-9)
            y, x = math.floor(one.y[k] * height / one.height), math.floor(one.x[k] * width / one.width)
            expected[step, one.p[k], y, x] += 1
        assert got.tolist() == expected.tolist()
        assert got.sum() == len(one.t)


def test_equal_counts_are_equal_up_to_one():
    per_frame = events_to_frames(stream(503), 8, binning="count")[0].sum((1, 2, 3), dtype=int)
    assert per_frame.sum() == 503
    assert per_frame.max() - per_frame.min() <= 1


def test_a_span_leaves_out_what_is_outside():
    one = stream(400)
    frames = events_to_frames(one, 3, span=(200, 800))[0]
    assert time_bins(np.array([199, 200, 399, 400, 799, 800]), 3, (200, 800)).tolist() == [-1, 0, 0, 1, 2, 3]
    for step in range(3):
        wanted = ((one.t >= 200 + 200 * step) & (one.t < 400 + 200 * step)).sum()
        assert frames[step].sum() == wanted > 0


def test_counts_saturate_and_empty_streams_are_empty():
    one = stream(400, height=1, width=1)
    assert events_to_frames(one, 1)[0].ravel().tolist() == [(one.p == 0).sum(), (one.p == 1).sum()]
    many = joined_streams(stream(0, 1, 1), stream(1000, 1, 1), stream(0, 1, 1))
    for binning in ("time", "count"):
        frames = events_to_frames(many, 1, binning=binning)
        assert frames.reshape(3, 2).tolist() == [[0, 0], [255, 255], [0, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), r"steps=0: must be an integer >= 1"),
        ((2, 0), r"size=0: must be an integer >= 1"),
        ((2, 4, "even"), r"binning='even': must be one of time, count"),
    ],
)
def test_bad_frames_name_field_value_and_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        events_to_frames(stream(5), *arguments)
    with pytest.raises(ValueError, match=r"span=\(3, 3\): must end after it begins"):
        events_to_frames(stream(5), 2, span=(3, 3))


def test_event_rate_integrates_to_the_number_of_events():
    events = joined_streams(stream(900), stream(300, seed=3))
    seconds, rate = event_rate(events, 11)
    width = (events.t.max() + 1 - events.t.min()) / 1e6 / 11
    assert rate.shape == (2, 11)
    assert rate.sum() * width * 2 == pytest.approx(1200)
    assert rate[1].sum() * width * 2 == pytest.approx((events.p == 1).sum())
    assert seconds[1] - seconds[0] == pytest.approx(width)
    assert seconds[0] == pytest.approx(events.t.min() / 1e6 + width / 2)


# --- the digits, and batches of frames --------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits_dvs", image_size=8, timesteps=3)


def test_digits_become_frames(digits):
    images = load_dataset("digits", image_size=8)
    assert digits.train.images.shape == (1437, 3, 2, 8, 8)
    assert digits.test.images.shape == (360, 3, 2, 8, 8)
    assert (digits.in_channels, digits.image_size, digits.timesteps, images.timesteps) == (2, 8, 3, None)
    assert torch.equal(digits.test.labels, images.test.labels)
    events = simulate_events(images.test.images[40:42], amplitude=1.0, start=-math.pi / 2)
    assert digits.test.images[40:42].tolist() == events_to_frames(events, 3).tolist()
    for p in (0, 1):
        power = (digits.train.images[:, :, p].double() / 255 / digits.std[p]).square().mean().item()
        assert power == pytest.approx(1)
    assert digits.mean == (0.0, 0.0)
    counted = load_dataset("digits_dvs", image_size=8, timesteps=3, binning="count")
    assert not torch.equal(counted.train.images, digits.train.images)
    assert counted.provenance["binning"] == "count"
    few = load_dataset("digits_dvs", image_size=8, timesteps=3, train_subset=60, label_noise=0.5)
    assert torch.equal(few.train.images, digits.train.images[few.train.rows])
    assert few.std == digits.std


def cifar(root):
    """Colour images in CIFAR-10's own shards: three a class to train, one to test."""
    for name, count in (("train", 30), ("test", 10)):
        images = [encode(photo(1000 * count + i)) for i in range(count)]
        write_shard(root / "cifar10" / f"{name}-0.parquet", images, [i % 10 for i in range(count)])
    return root


def test_any_images_become_events(tmp_path):
    root = cifar(tmp_path)
    still, few = (load_dataset("cifar10", root=root, train_subset=n) for n in (None, 10))
    camera = dict(path="circle", noise_rate=5.0, samples=24)
    dataset = to_events(still, 4, "count", seed=3, **camera)
    assert dataset.train.images.shape == (30, 4, 2, 32, 32)
    assert dataset.test.images.shape == (10, 4, 2, 32, 32)
    assert (dataset.timesteps, dataset.in_channels, dataset.classes) == (4, 2, still.classes)
    assert (dataset.crop_padding, dataset.flip) == (still.crop_padding, still.flip)
    assert torch.equal(dataset.train.labels, still.train.labels)
    assert dataset.name == "cifar10_dvs"
    assert dataset.label.endswith("simulated events")
    assert dataset.provenance["simulated"] == camera
    one = simulate_events(still.train.images[7:8], seed=6, indices=[7], **camera)
    assert dataset.train.images[7].tolist() == events_to_frames(one, 4, binning="count")[0].tolist()
    part = to_events(few, 4, "count", seed=3, **camera)
    assert torch.equal(part.train.images, dataset.train.images[few.train.rows])
    again = to_events(replace(still, test=still.train), 4, "count", seed=3, **camera)
    assert not torch.equal(again.test.images, again.train.images), "splits draw on their own"
    x, _, _ = batches(dataset, "train", 6)[0]
    assert x.shape == (4, 6, 2, 32, 32)
    with pytest.raises(ValueError, match=r"cifar10_dvs: must hold static images in memory"):
        to_events(dataset, 4)
    with pytest.raises(ValueError, match="seed=-1: must be an integer >= 0"):
        to_events(still, 4, seed=-1)


def test_scale_of_empty_frames_is_one():
    assert frame_scale(torch.zeros(2, 3, 2, 4, 4, dtype=torch.uint8)) == (1.0, 1.0)


def test_scale_of_frames_is_their_root_mean_square():
    frames = torch.randint(0, 256, (5, 3, 2, 7, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for p, scale in enumerate(frame_scale(frames)):
        assert scale == frames[:, :, p].double().square().mean().sqrt().item() / 255


def test_batches_of_frames_put_time_first(digits):
    x, y, index = batches(digits, "test", 5, train=False)[2]
    assert x.shape == (3, 5, 2, 8, 8)
    assert x.is_contiguous()
    assert index.tolist() == [10, 11, 12, 13, 14]
    assert torch.equal(y, digits.test.labels[10:15])
    for t in range(3):
        for p in (0, 1):
            expected = digits.test.images[10:15, t, p].float() / 255 / digits.std[p]
            torch.testing.assert_close(x[t, :, p], expected)
    assert ((x == 0) == (digits.test.images[10:15].transpose(0, 1) == 0)).all(), "no event stays zero"


def test_ranks_share_a_batch_of_frames(digits):
    whole = batches(digits, "train", 16, drop_last=True)
    shares = [batches(digits, "train", 16, drop_last=True, rank=r, world_size=2) for r in (0, 1)]
    for (x, _, _), (a, _, _), (b, _, _) in zip(whole, *shares, strict=True):
        assert torch.equal(x[:, 0::2], a)
        assert torch.equal(x[:, 1::2], b)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_all_steps_of_an_instance_are_moved_alike(wrap, flip):
    frames = torch.randint(0, 256, (30, 4, 2, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    got = augment(frames, torch.Generator().manual_seed(9), 2, flip, wrap)
    assert got.shape == frames.shape
    generator = torch.Generator().manual_seed(9)
    down, right = 2 - torch.randint(5, (2, 30), generator=generator)
    mirrored = torch.randint(2, (30,), generator=generator)
    for b in range(30):
        expected = np.zeros((4, 2, 6, 7), dtype=np.uint8)
        for i in range(6):
            for j in range(7):
                y, x = i - int(down[b]), j - int(right[b])
                if wrap:
                    expected[:, :, i, j] = frames[b, :, :, y % 6, x % 7]
                elif 0 <= y < 6 and 0 <= x < 7:
                    expected[:, :, i, j] = frames[b, :, :, y, x]
        if flip and mirrored[b]:
            expected = expected[..., ::-1]
        assert got[b].tolist() == expected.tolist()


def test_event_augmentation_is_chosen(digits):
    plain, shifted, rolled = (
        load_dataset("digits_dvs", image_size=8, timesteps=3, event_augment=choice)
        for choice in ("none", "shift", "roll")
    )
    assert [(d.crop_padding, d.flip, d.wrap) for d in (plain, shifted, rolled)] == [
        (0, False, False),
        (1, False, False),
        (1, False, True),
    ]
    assert (digits.crop_padding, digits.flip, digits.wrap) == (1, False, True)
    x, _, index = batches(plain)[0]
    assert torch.equal(x[:, 1] == 0, plain.train.images[index[1]] == 0)
    sums = [batches(d)[0][0].sum((0, 2, 3, 4)) for d in (plain, rolled)]
    torch.testing.assert_close(*sums)


def toy_frames() -> Dataset:
    images = torch.zeros(4, 2, 2, 4, 4, dtype=torch.uint8)
    split = Split(images, torch.arange(4))
    return Dataset("toy", "Toy", tuple("abcd"), split, split, (0.0, 0.0), (1.0, 1.0), 0, False, {})


def test_timesteps_of_a_dataset():
    assert toy_frames().timesteps == 2
    still = Split(torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.arange(4))
    assert replace(toy_frames(), train=still).timesteps is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": 0}, r"timesteps=0: must be an integer >= 1 and <= 1024"),
        ({"timesteps": None}, r"timesteps=None: must be an integer >= 1 and <= 1024"),
        ({"binning": "even"}, r"binning='even': must be one of time, count"),
        ({"event_augment": "spin"}, r"event_augment='spin': must be one of none, shift, roll"),
    ],
)
def test_bad_event_options(options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("digits_dvs", **{"timesteps": 2, **options})
