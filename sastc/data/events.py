"""Event streams: simulated from images, and summed into frames.

An event says that one pixel's brightness has changed by a step: time in microseconds, place (x, y), polarity (1 ON,
0 OFF). Nothing here is recorded by a camera; `sastc.data.event_files` reads recordings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sastc.checks import check_integer, check_number, check_one_of
from sastc.data.dataset import Dataset, Split
from sastc.data.subsets import EVENTS, draw_words
from sastc.fields import choices

CHUNK_PIXELS = 1 << 15  # pixels simulated at a time: their state stays in the processor's cache
TIE = 1e-9  # a path ends where it began and undoes every step: rounding must not decide on the last event
LAST_TIME = 1 << 52  # microseconds, 142 years: products with later times would overflow
FLOOR = 0.1  # intensity, of 1, added before the logarithm: a pixel's dark current


@dataclass(frozen=True, eq=False)
class Events:
    """Event streams of N recordings, one after the other.

    Attributes
    ----------
    t, x, y, p : array
        (E,) each: microseconds (int64, ascending within a stream), column, row (int16), polarity (int8, 1 ON, 0 OFF).
    offsets : array of int64
        (N + 1,); stream i is offsets[i]:offsets[i + 1].
    height, width : int
        Pixels of the sensor.
    """

    t: NDArray[np.int64]
    x: NDArray[np.int16]
    y: NDArray[np.int16]
    p: NDArray[np.int8]
    offsets: NDArray[np.int64]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def check(self) -> None:
        """Make sure that these are events of this sensor.

        Raises ValueError for the first field that is not what the attributes say: names it, the event's index and its
        value.
        """
        check_integer("height", self.height, 1)
        check_integer("width", self.width, 1)
        for field in ("offsets", "t", "x", "y", "p"):
            column, kinds = getattr(self, field), "iub" if field == "p" else "iu"
            if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in kinds:
                array = isinstance(column, np.ndarray)
                found = f"{column.dtype} of shape {column.shape}" if array else type(column).__name__
                raise ValueError(f"{field}: {found}, must be an array of integers of one dimension")
            if field not in ("offsets", "t") and len(column) != len(self.t):
                raise ValueError(f"{field}: {len(column)} values, must be as many as times, {len(self.t)}")
        ends, count = self.offsets, len(self.t)
        if not len(ends) or ends[0] != 0 or ends[-1] != count or (ends[1:] < ends[:-1]).any():
            raise ValueError(f"offsets={ends.tolist()}: must ascend from 0 to {count}, the number of events")
        bounds = {"t": (-LAST_TIME, LAST_TIME), "x": (0, self.width - 1), "y": (0, self.height - 1), "p": (0, 1)}
        for field, (low, high) in bounds.items():
            column = getattr(self, field)
            if count and (column.min() < low or column.max() > high):
                k = int(((column < low) | (column > high)).argmax())
                raise ValueError(f"{field}[{k}]={column[k]}: must be from {low} to {high}")
        back = self.t[1:] < self.t[:-1]
        back[ends[(ends > 0) & (ends < count)] - 1] = False  # a stream may begin before the last one ends
        if back.any():
            k = 1 + int(back.argmax())
            least = f"t[{k - 1}]={self.t[k - 1]}"
            raise ValueError(f"t[{k}]={self.t[k]}: must be at least {least}, times ascend in a stream")

    def stream(self, i: int) -> "Events":
        """Recording `i` alone."""
        if not 0 <= i < len(self):
            raise IndexError(f"stream {i}: must be from 0 to {len(self) - 1}")
        part = slice(self.offsets[i], self.offsets[i + 1])
        ends = np.array([0, part.stop - part.start])
        return Events(self.t[part], self.x[part], self.y[part], self.p[part], ends, self.height, self.width)


def simulate_events(
    images: Tensor | NDArray[np.uint8],
    *,
    path: str = "saccade",
    amplitude: float = 2.0,
    start: float | None = None,
    duration: int = 300_000,
    samples: int = 96,
    threshold: float = 0.3,
    refractory: int = 1_000,
    noise_rate: float = 0.0,
    seed: int = 0,
    indices: Sequence[int] | None = None,
) -> Events:
    """Events that an ideal event camera gives while each image moves before it.

    Every pixel remembers a logarithmic intensity. When the moving image has changed it by `threshold`, the pixel gives
    an event and remembers the new level. Between samples the logarithm is taken as linear in time. Raises ValueError
    for an argument out of range.

    Parameters
    ----------
    images : Tensor or array
        uint8, (N, C, H, W); channels are averaged.
    path : {"saccade", "circle"}
        Three straight moves along an equilateral triangle and back to the start, as in the recordings of N-MNIST
        (Orchard et al. 2015), or once around a circle.
    amplitude : float
        Radius of the circle, in pixels; the triangle's corners lie on it. Intensities between pixels are bilinear,
        those outside the image are of its edge.
    start : float, optional
        Where on the circle all paths start, in radians from the right, downwards; drawn for each image if left out.
    duration, samples : int
        Microseconds of the whole path, and the intervals into which it is cut; in each the image should move by a pixel
        at most.
    threshold : float
        Step of log(intensity + 0.1), intensities in [0, 1].
    refractory : int
        Microseconds after an event in which a pixel gives no other; a step made meanwhile is lost.
    noise_rate : float
        Events a pixel and second added at random places, times and polarities.
    seed : int
        Draws starts and noise.
    indices : sequence of int, optional
        Numbers of the images, 0 ... N - 1 if left out: what is drawn depends on (seed, index) alone, so a part of a set
        gives that part of the whole set's streams.

    Returns
    -------
    Events
        N streams, events ascending in time, then in row, column and polarity.
    """
    images = torch.as_tensor(images)
    if images.dim() != 4 or images.dtype != torch.uint8:
        raise ValueError(f"images: {images.dtype} of shape {tuple(images.shape)}, must be uint8 (N, C, H, W)")
    check_one_of("path", path, ("saccade", "circle"))
    for field, value, low in (("duration", duration, 1), ("samples", samples, 1), ("seed", seed, 0)):
        check_integer(field, value, low)
    check_number("threshold", threshold, 0, open_low=True)
    for field, number in (("amplitude", amplitude), ("refractory", refractory), ("noise_rate", noise_rate)):
        check_number(field, number, 0)
    if start is not None:
        check_number("start", start, None)
    count, _, height, width = images.shape
    indices = range(count) if indices is None else indices
    if len(indices) != count:
        raise ValueError(f"indices: {len(indices)} of them, must be one for each of the {count} images")

    noise = round(noise_rate * height * width * duration / 1e6)
    drawn = [draw_words(1 + noise, seed, EVENTS, int(i)) for i in indices]
    words = np.stack(drawn) if count else np.empty((0, 1), np.uint64)
    starts: NDArray[Any] = words[:, 0] * (2 * np.pi / 2**64) if start is None else np.full(count, float(start))
    size = max(1, CHUNK_PIXELS // (height * width))
    parts = [_noise(words[:, 1:], duration, height * width)]  # columns image, t, place, p
    for first in range(0, count, size):
        chunk = slice(first, first + size)
        motion = trajectory(path, samples, starts[chunk]) * amplitude
        intensity = images[chunk].double().mean(1).numpy() / 255
        image, *found = _crossings(intensity, motion, duration, threshold, refractory)
        parts.append((image + first, *found))
    image, t, place, p = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((p, place, t, image))
    y, x = np.divmod(place[order], width)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(image, minlength=count)))).astype(np.int64)
    return Events(t[order], x.astype(np.int16), y.astype(np.int16), p[order].astype(np.int8), offsets, height, width)


def trajectory(path: str, samples: int, starts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Displacements (samples + 1, N, 2), right and down, of paths on the unit circle that start at angles `starts`."""
    turn = np.arange(samples + 1) / samples
    if path == "circle":
        angle = starts + 2 * np.pi * turn[:, None]
        return np.stack([np.cos(angle), np.sin(angle)], -1)
    leg = np.minimum((3 * turn).astype(int), 2)
    corners = np.exp(1j * (starts + 2 * np.pi / 3 * np.arange(4)[:, None]))  # (4, N), the last is the first
    place = corners[leg] + (3 * turn - leg)[:, None] * (corners[leg + 1] - corners[leg])
    return np.stack([place.real, place.imag], -1)


def _crossings(
    intensity: NDArray[np.float64], motion: NDArray[np.float64], duration: int, threshold: float, refractory: int
) -> tuple[NDArray[np.int64], ...]:
    """Threshold crossings of moving images (n, H, W) as columns image, t, place (y · W + x) and polarity."""
    height, width = intensity.shape[1:]
    reach = int(np.ceil(np.abs(motion).max()))
    padded = np.pad(intensity, ((0, 0), (reach, reach + 1), (reach, reach + 1)), mode="edge")
    # All shifts by whole pixels, a view (n, 2 · reach + 1, 2 · reach + 1, H + 1, W + 1).
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height + 1, width + 1), (1, 2))
    level = _log_view(windows, motion[0])  # log intensity at the last sample
    reference = level.copy()  # log intensity at the last event
    last = np.full(len(level), -np.inf)  # time of the last event
    found = [(np.empty(0, np.int64),) * 3]
    for k in range(1, len(motion)):
        start, length = duration * (k - 1) / (len(motion) - 1), duration / (len(motion) - 1)
        previous, level = level, _log_view(windows, motion[k])
        active = np.flatnonzero(np.abs(level - reference) > threshold + TIE)
        while active.size:  # once for each step that a pixel makes between two samples
            rise = level[active] > reference[active]
            reference[active] += np.where(rise, threshold, -threshold)
            before = previous[active]
            t = np.floor(start + length * (reference[active] - before) / (level[active] - before))
            free = t - last[active] >= refractory
            fired = active[free]
            last[fired] = t[free]
            found.append((fired, t[free], rise[free]))
            active = active[np.abs(level[active] - reference[active]) > threshold + TIE]
    pixel, t, p = (np.concatenate(column).astype(np.int64) for column in zip(*found, strict=True))
    return pixel // (height * width), t, pixel % (height * width), p


def _log_view(windows: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(intensity + floor) of images, each moved by its shift (n, 2) in pixels; (n · H · W,)."""
    reach = windows.shape[1] // 2
    origin = reach - shift[:, ::-1]  # row and column in the padded image that the first pixel looks at
    whole = np.floor(origin).astype(np.int64)
    part_y, part_x = (origin - whole).T[:, :, None, None]
    view = windows[np.arange(len(shift)), whole[:, 0], whole[:, 1]]
    view = view[:, :-1] + part_y * (view[:, 1:] - view[:, :-1])
    view = view[..., :-1] + part_x * (view[..., 1:] - view[..., :-1])
    return np.log(view.ravel() + FLOOR)


def _noise(words: NDArray[np.uint64], duration: int, pixels: int) -> tuple[NDArray[np.int64], ...]:
    """Noise events from random words (N, K): image, t, place and polarity, each from bits of its own."""
    image = np.repeat(np.arange(len(words)), words.shape[1])
    bits = words.ravel()
    t = (bits & np.uint64(2**32 - 1)) % np.uint64(duration)
    place = ((bits >> np.uint64(32)) & np.uint64(2**31 - 1)) % np.uint64(pixels)
    return image, t.astype(np.int64), place.astype(np.int64), (bits >> np.uint64(63)).astype(np.int64)


def events_to_frames(
    events: Events, steps: int, size: int | None = None, binning: str = "time", *, span: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Count the events of every stream in frames.

    Parameters
    ----------
    events : Events
        N streams.
    steps : int
        T, number of frames.
    size : int, optional
        Height and width of the frames. A pixel (x, y) of the sensor counts for (x · size // width, y · size // height):
        counts are summed, none are lost. Left out: the sensor's own height and width.
    binning : {"time", "count"}
        Frames of equal time, or of equally many events up to one.
    span : (int, int), optional
        Microseconds at which the first frame begins and the last ends, for binning by time; events outside are left
        out. By default each stream's first and last event, both counted.

    Returns
    -------
    array of uint8
        (N, T, 2, H, W), OFF events in channel 0, ON events in channel 1; counts above 255 stay 255.

    Raises
    ------
    ValueError
        For an argument out of range, and for events that are none of the sensor, see :meth:`Events.check`.
    """
    events.check()
    check_one_of("binning", binning, choices("binning"))
    check_integer("steps", steps, 1)
    if size is not None:
        check_integer("size", size, 1)
    if span is not None:
        if len(span) != 2 or not all(isinstance(end, Integral) and abs(end) <= LAST_TIME for end in span):
            raise ValueError(f"span={span!r}: must be two whole microseconds, at most {LAST_TIME}")
        if span[1] <= span[0]:
            raise ValueError(f"span={span!r}: must end after it begins")
    height, width = (events.height, events.width) if size is None else (size, size)
    frames = np.zeros((len(events), steps, 2, height, width), dtype=np.uint8)
    for i in range(len(events)):
        one = events.stream(i)
        if not len(one.t):
            continue
        t = one.t.astype(np.int64)
        bins = time_bins(t, steps, span) if binning == "time" else np.arange(len(one.t)) * steps // len(one.t)
        inside = (bins >= 0) & (bins < steps)
        y = one.y.astype(np.int64) * height // events.height
        x = one.x.astype(np.int64) * width // events.width
        place = ((bins * 2 + one.p.astype(np.int64)) * height + y) * width + x
        counts = np.bincount(place[inside], minlength=frames[i].size)
        frames[i] = np.minimum(counts, 255).reshape(frames[i].shape)
    return frames


def time_bins(t: NDArray[np.int64], steps: int, span: tuple[int, int] | None = None) -> NDArray[np.int64]:
    """The frame of equal time for each event at ascending times `t`; not in 0 ... steps - 1 where outside `span`.

    Raises ValueError if there are so many steps that a product with a time overflows.
    """
    start, stop = span or (int(t[0]), int(t[-1]) + 1)
    if steps * max(stop - start, int(t[-1]) - start, start - int(t[0])) >= 1 << 63:
        raise ValueError(f"steps={steps!r}: too many for times from {t[0]} to {t[-1]}")
    return (t - start) * steps // (stop - start)


def event_rate(events: Events, bins: int = 100) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Event-rate curve: middles of `bins` equal intervals in seconds, and events a second and stream, (2, bins).

    The rows are OFF and ON events; time runs from the first event of all streams to the last. Raises ValueError for
    events that are none of the sensor, see :meth:`Events.check`, and where there is none.
    """
    events.check()
    check_integer("bins", bins, 1)
    if not len(events.t):
        raise ValueError("events: none, a rate needs at least one")
    edges = np.linspace(events.t.min(), events.t.max() + 1, bins + 1)
    counts = np.stack([np.histogram(events.t[events.p == p], edges)[0] for p in (0, 1)])
    return (edges[1:] + edges[:-1]) / 2e6, counts / (len(events) * (edges[1] - edges[0]) / 1e6)


def frame_scale(frames: Tensor) -> tuple[float, float]:
    """Root mean square of each polarity's counts in (N, T, 2, H, W), on the scale [0, 1] of uint8 images.

    As a `Dataset`'s std, with mean 0, it scales frames to unit power and leaves a pixel without events at zero.
    """

    def of(counts: Tensor) -> float:  # by their histogram: a copy in float64 would take 16 bytes a count
        times = torch.bincount(counts.flatten(), minlength=256).double()
        return math.sqrt((times @ torch.arange(256.0, dtype=torch.float64).square()).item() / counts.numel()) / 255

    off, on = (of(frames[:, :, p]) for p in (0, 1))
    return off or 1.0, on or 1.0


def to_events(dataset: Dataset, steps: int, binning: str = "time", *, seed: int = 0, **camera: Any) -> Dataset:
    """Turn a set of static images in memory into one of event frames: uint8 (N, T, 2, H, W) for (N, C, H, W).

    T is `steps`; `binning` is that of :func:`events_to_frames`, and `camera` are arguments of :func:`simulate_events`.
    `seed` draws starts and noise, of both splits independently and of each image alone: a subset of the images gives
    that subset of the frames. Labels, classes and augmentation stay as they are.

    CIFAR-10 becomes a small stand-in for DVS-CIFAR10 with ``path="circle"``, which is how its images were moved.

    Raises ValueError for an argument out of range, or a set of sequences or of images that are decoded batch by batch.
    """
    check_integer("seed", seed, 0)
    splits: dict[str, Any] = {}
    for name, words in (("train", 2 * seed), ("test", 2 * seed + 1)):
        split: Split = getattr(dataset, name)
        if not isinstance(split.images, Tensor) or split.images.dim() != 4:
            raise ValueError(f"{dataset.name}: must hold static images in memory")
        events = simulate_events(split.images, seed=words, indices=split.rows.tolist(), **camera)
        splits[name] = replace(split, images=torch.from_numpy(events_to_frames(events, steps, binning=binning)))
    return replace(
        dataset,
        name=f"{dataset.name}_dvs",
        label=f"{dataset.label}, simulated events",
        **splits,
        mean=(0.0, 0.0),
        std=frame_scale(splits["train"].images),
        provenance=dataset.provenance | {"simulated": camera, "seed": seed, "steps": steps, "binning": binning},
    )
