"""Differences between runs, paired by seed: their means, their intervals, and what those allow to say.

Intervals are shown as 95 % ones. What is said of several differences that answer one question together (the cells of a
claim, SASTC beside one other method in all rows of a table, all settings of a page) follows from Holm's correction for
their number, see :func:`family`: the one rule for multiplicity of all pages.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtr, stdtr, stdtrit  # not scipy.stats, which takes a second to import

NO_INTERVAL = "cannot say from equal differences"
FEWEST = 3  # units (seeds or teachers) below which nothing is said, whatever the interval
LEVEL = 0.05
CELLS = "cells"  # the unit of a pooled mean: each has its own seeds


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference, half of its 95 % interval (``nan`` where there is none), and the number `n` of its units.

    `unit` says what those are: ``seeds``, ``seeds with one teacher``, or ``teachers``, see :func:`paired`; ``cells`` of
    a mean of :func:`pooled`.
    `corrected` is its p-value after the correction of :func:`family`, ``nan`` for a difference that stands alone.
    `least` and `most` are the ends of what is possible, for a share or a correlation: no interval goes beyond them.
    """

    mean: float = math.nan
    half: float = math.nan
    n: int = 0
    unit: str = dataclasses.field(default="seeds", compare=False)
    corrected: float = dataclasses.field(default=math.nan, compare=False)
    least: float = dataclasses.field(default=-math.inf, compare=False)
    most: float = dataclasses.field(default=math.inf, compare=False)

    def __neg__(self) -> "Difference":
        return self.times(-1)

    def times(self, factor: float) -> "Difference":
        """The same in another unit, or the other way round."""
        least, most = sorted((factor * self.least, factor * self.most))
        return dataclasses.replace(self, mean=factor * self.mean, half=abs(factor) * self.half, least=least, most=most)

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return max(self.mean - self.half, self.least)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return min(self.mean + self.half, self.most)

    @property
    def judged(self) -> bool:
        """Whether there is an interval: one without width is none."""
        return bool(self.half > 0 and math.isfinite(self.half) and math.isfinite(self.mean))

    @property
    def judgement(self) -> str:
        """What it allows to say: nothing from fewer than three seeds, and nothing where there is no interval."""
        if self.n == 0:
            return "not run"
        if self.n < FEWEST and self.unit != CELLS:
            units = self.unit.split()[0]
            return f"cannot say from {f'one {units[:-1]}' if self.n == 1 else f'two {units}'}"
        if not self.judged:
            return NO_INTERVAL
        inside = abs(self.mean) <= self.half if math.isnan(self.corrected) else self.corrected >= LEVEL
        return "not distinguishable" if inside else "better" if self.mean > 0 else "worse"

    @property
    def p(self) -> float:
        """Two-sided p of Student's t-test that the difference is zero; ``nan`` without an interval."""
        if self.n < 2 or not self.judged:
            return math.nan
        return float(2 * stdtr(self.n - 1, -abs(self.mean) * stdtrit(self.n - 1, 0.975) / self.half))

    def bounds(self, digits: int = 2) -> str:
        """The interval, to stand behind the mean: `` [+0.10, +1.35]``; nothing where there is none."""
        return f" [{signed(self.low, digits)}, {signed(self.high, digits)}]" if self.judged else ""

    def words(self, digits: int = 2) -> str:
        """Mean and interval: ``+0.72 [+0.09, +1.35]``."""
        return signed(self.mean, digits) + self.bounds(digits)


def signed(value: float, digits: int = 2) -> str:
    """A difference: ``+0.50``, ``−0.50``, or a dash."""
    return f"{value:+.{digits}f}".replace("-", "−") if np.isfinite(value) else "–"


def paired(a: pd.Series, b: pd.Series | float, teachers: pd.Series | None = None) -> Difference:
    """Mean of ``a - b`` over the pairs that both have, with Student's t interval on the differences of each pair.

    `a` and `b` are indexed by pair; a number stands for the same value in all pairs. There is no interval for fewer
    than two pairs, and where they do not differ: three equal differences do not show that a fourth would be the same.
    Equal is to single precision of the values, in which measures are recorded.

    `teachers` says of each pair which training of a teacher it is of. Students of one teacher share its luck, so they
    are no independent draws of "a teacher and its student": with several teachers the unit is the teacher (a random
    effect). The differences are averaged over each teacher's students first, every teacher counts the same, and `n` is
    the number of teachers; one student each is the simple case. This is exact for teachers with as many students each,
    and needs no estimate of either variance; for unequal numbers the scatter of the means still holds both. With one
    teacher the interval is over its students' seeds, and says nothing of other teachers: "with one teacher".
    """
    both = pd.concat({"a": a, "b": pd.Series(b, a.index) if np.isscalar(b) else b}, axis=1).dropna()
    unit = "seeds"
    if teachers is not None and len(both):
        of_pair = teachers.reindex(both.index)
        unit = "teachers" if of_pair.nunique() > 1 else "seeds with one teacher"
        both = both.groupby(of_pair).mean() if of_pair.nunique() > 1 else both
    gaps, n = (both.a - both.b).to_numpy(float), len(both)
    if n == 0:
        return Difference()
    return Difference(float(gaps.mean()), _half(gaps, both.abs().max(axis=None)), n, unit)


def _half(values: np.ndarray, largest: float) -> float:
    """Half of Student's t interval of the mean; nan where values, of what is as large as `largest`, do not differ."""
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    differ = deviation > 1e-6 * largest
    return float(stdtrit(len(values) - 1, 0.975) * deviation / math.sqrt(len(values))) if differ else math.nan


def difference(runs: pd.DataFrame, one: str, other: str, key: str = "method", value: str = "accuracy") -> Difference:
    """:func:`paired` by seed: `value` of the complete runs whose `key` is `one`, less that where it is `other`.

    `runs` holds one student, teacher and T. Where columns `teacher_seed` and `data_seed` tell which training of the
    teacher a run is of, pairs have the same, and it is their unit. A baseline has no teacher: it stands beside the
    students of all teachers with its seed.

    Raises
    ------
    ValueError
        There is more than one run of a seed (and teacher): the runs differ in something else, which a mean would hide.
    """
    done = runs[runs.complete & runs[key].isin([one, other])]
    known = {"teacher_seed", "data_seed", "method"} <= set(done)
    taught = (done.method != "baseline") if known else pd.Series(False, done.index)
    draw = ["teacher_seed", "data_seed"] if taught.any() else []
    done = done.assign(**{name: done[name].where(taught, 0) for name in draw})
    twice = done[done.duplicated([key, "seed", *draw])]
    if len(twice):
        first = twice.iloc[0]
        raise ValueError(f"{key} {first[key]!r} has more than one run of seed {first.seed}: must be one a seed")
    sides = [done[done[key] == name] for name in (one, other)]
    for i, rows in enumerate(sides):  # a baseline takes the teachers of the other side
        if draw and len(rows) and not taught[rows.index].any():
            sides[i] = rows.drop(columns=draw).merge(sides[1 - i][["seed", *draw]].drop_duplicates(), on="seed")
    a, b = (rows.set_index(["seed", *draw])[value].astype(float) for rows in sides)
    teachers = a.index.droplevel("seed").to_flat_index() if draw else None
    return paired(a, b, None if teachers is None else pd.Series(teachers, a.index))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values of one family; ``nan`` is no member and stays.

    The i-th smallest of m is multiplied by m − i + 1; no corrected value is smaller than one before it, or above 1
    (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    known = sorted((p, i) for i, p in enumerate(values) if np.isfinite(p))
    corrected, least = [np.nan] * len(values), 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        corrected[i] = least
    return corrected


def family(found: Iterable[Difference]) -> list[Difference]:
    """Differences that are read together, so that what is said of them holds for all at once.

    The chance that any of them is called better or worse where there is no difference is at most 5 %
    (:func:`holm`). Their intervals stay as they are.
    """
    found = list(found)
    return [dataclasses.replace(d, corrected=p) for d, p in zip(found, holm([d.p for d in found]), strict=True)]


def pooled(found: Iterable[Difference], groups: Sequence[str] | None = None) -> Difference:
    """The mean effect over cells that have an interval, with cells as units: a random-effects mean.

    Every cell counts the same, and the interval is Student's t on the means of the cells. Their scatter holds both
    what the effect differs between cells and what the seeds of each leave open, so no variance has to be estimated
    apart; the price is a wide interval for two or three cells. `n` is the number of cells; one cell is its own mean.

    `groups` names for each cell what it shares with others, such as a teacher, or SASTC's runs beside several methods:
    the scatter of such cells says nothing of the error in that. The same is then computed with groups as units, within
    which means and halves of intervals are averaged as if the cells had one error, and the wider interval of the two
    counts.
    """
    found = list(found)
    cells = [(group, d) for group, d in zip(groups or range(len(found)), found, strict=True) if d.judged]
    if len(cells) < 2:
        return cells[0][1] if cells else Difference()
    of: dict[Any, list[Difference]] = {}
    for group, d in cells:
        of.setdefault(group, []).append(d)
    means = np.array([d.mean for _, d in cells])
    by_group = np.array([np.mean([(d.mean, d.half) for d in same], 0) for same in of.values()])  # means and halves
    shared = float(by_group[0, 1]) if len(of) == 1 else _half(by_group[:, 0], np.abs(by_group[:, 0]).max())
    half = np.fmax(_half(means, np.abs(means).max()), shared)
    least, most = max(d.least for _, d in cells), min(d.most for _, d in cells)
    return Difference(float(means.mean()), float(half), len(means), CELLS, least=least, most=most)


def over(found: Iterable[Difference]) -> str:
    """What the intervals of differences are over, in words: ``n seeds with one teacher``."""
    units = dict.fromkeys(d.unit for d in found if d.n)
    return " or ".join(f"n {unit}" for unit in units) or "n seeds"


@dataclasses.dataclass(frozen=True)
class Images:
    """Of how many test images one of two networks alone is right, `first` and `second`: McNemar's exact test."""

    first: int
    second: int

    @property
    def p(self) -> float:
        """Two-sided: how often a fair coin would fall so unevenly on the images on which just one of them is right."""
        n = self.first + self.second
        return min(1.0, 2 * float(bdtr(min(self.first, self.second), n, 0.5))) if n else 1.0

    def __add__(self, other: "Images") -> "Images":
        return Images(self.first + other.first, self.second + other.second)


def images(a: np.ndarray, b: np.ndarray) -> Images:
    """:class:`Images` of two networks; `a` and `b` say of each test image, shape (M,), whether the network is right.

    It asks whether these two networks differ on images like these, and nothing of other seeds. Several pairs of
    networks are pooled by adding their counts (``+``): still a test of these networks, each pair with its own coin.
    """
    return Images(int((a & ~b).sum()), int((b & ~a).sum()))


def spread(values: np.ndarray) -> float:
    """Standard deviation (n − 1) along the first axis, averaged over the others; ``nan`` for a single value."""
    return float(values.std(0, ddof=1).mean()) if len(values) > 1 else np.nan


def flat(rows: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns of numbers for each column of differences: ``difference`` gives ``mean, half, n``.

    A column of another name gives ``<name>_mean`` and so on.
    """
    parts = []
    for name in rows.columns:
        column = rows[name]
        if any(isinstance(v, Difference) for v in column):
            start = "" if name == "difference" else f"{name}_"
            numbers = [(d.mean, d.half, d.n) if isinstance(d, Difference) else (np.nan,) * 3 for d in column]
            parts.append(pd.DataFrame(numbers, rows.index, [f"{start}{part}" for part in ("mean", "half", "n")]))
        else:
            parts.append(column.to_frame())
    return pd.concat(parts, axis=1) if parts else rows
