"""Guided examples for the explorer: states of it that show something, found in the recorded runs by their settings.

Given to :func:`sastc.explore` as ``examples=find_examples``. An example that no run shows is left out.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sastc.attention import attention_bounds
from sastc.config import RunConfig
from sastc.labels import shown
from sastc.records import Run

SATURATED = 0.95  # of the images' rows at the bound
GAP = 0.1  # in CKA, between the layer most alike and the one that is cheapest to imitate

NEEDED = ("attention", "attention_instance", "distance", "cka", "student_layers", "teacher_layers")

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What examples need of a run, read once."""

    run: Run
    config: RunConfig
    measures: dict[str, np.ndarray]


def find_examples(runs: Sequence[Run]) -> list[Example]:
    """The examples that these runs show: of those with weights that their own MLPs have learned, and distances."""
    found = []
    for run in runs:
        if run.config.attention == "learned" and run.has("measures.npz"):
            arrays = run.measures
            if "distance" in arrays:
                found.append(Seen(run, run.config, {name: arrays[name] for name in NEEDED if name in arrays}))
    makers: tuple[Callable[[list[Seen]], Example | None], ...] = (saturated, no_unit_length, noisy_teacher)
    return [example for make in (*makers, scaled_targets, ease_against_cka) if (example := make(found))]


def saturated(runs: list[Seen]) -> Example | None:
    """Learned weights that stay at their bound from the earliest epoch on."""
    best: tuple[tuple, Example] | None = None
    for run in runs:
        config, measures = run.config, run.measures
        if not config.qk_norm or "attention_instance" not in measures:
            continue
        weights = measures["attention_instance"]  # (E, P, T, S, A)
        low, high = attention_bounds(weights.shape[-1], True, config.score_scale)
        share = (weights.max(-1) >= high - 0.01 * (high - low)).mean((1, 2, 3))  # (E,)
        below = np.flatnonzero(share < SATURATED)
        first = int(below[-1]) + 1 if len(below) else 0
        if first == len(share):
            continue
        images = f"{share[-1]:.0%} of the rows of the {weights.shape[1]} recorded images".replace("%", "\u00a0%")
        look = (
            f"From epoch {first + 1} on nothing moves: in {images}, the highest weight is at {high:.3f}, "
            "the most that is possible. Play the epochs, change the time step, look at one image."
        )
        found = dict(title="Weights at their bound", look=look, state=_state(run))
        order = (len(config.changed), first / len(share))
        if best is None or order < best[0]:
            best = (order, found)
    return best[1] if best else None


def no_unit_length(runs: list[Seen]) -> Example | None:
    """The run without unit length whose weights go furthest beyond the bound that unit length sets."""
    found = [run for run in runs if not run.config.qk_norm]
    if not found:
        return None
    run = max(found, key=lambda run: run.measures["attention"][-1].max())
    weights = run.measures["attention"][-1]
    _, high = attention_bounds(weights.shape[-1], True, run.config.score_scale)
    if weights.max() <= high:
        return None
    beside = _same_but(run, runs, qk_norm=True)
    look = (
        f"Queries and keys keep their length, so no bound holds: weights reach {weights.max():.2f}, "
        f"and {weights.min():.2f}. With unit length {high:.2f} is the most"
        f"{', as in the run beside it' if beside else ''}."
    )
    return dict(title="Without unit length", look=look, state=_state(run, beside))


def noisy_teacher(runs: list[Seen]) -> Example | None:
    """Beside a clean teacher one that has learned wrong labels: another layer is cheapest, and the weights follow."""
    noisy = [run for run in runs if run.config.noise_teacher == "same_noise" and run.config.label_noise]
    for run in sorted(noisy, key=lambda run: -run.config.label_noise):
        beside = _same_but(run, runs, noise_teacher="clean")
        if beside is None or _last(beside, "distance").shape != _last(run, "distance").shape:
            continue
        (cheap, weight), (cheap_before, weight_before) = (_choices(r) for r in (run, beside))
        followed = (cheap != cheap_before) & (weight == cheap) & (weight_before == cheap_before)
        if not followed.any():
            continue
        layers = run.measures["teacher_layers"]
        now, before = (_commonest(layers[choice[followed]]) for choice in (cheap, cheap_before))
        look = (
            f"A: the teacher has learned {run.config.label_noise:.0%} wrong labels; B: a clean teacher. ".replace(
                "%", "\u00a0%"
            )
            + f"Its {now} becomes the cheapest to imitate (clean: {before}), and the highest weight moves there "
            f"in {followed.sum()} of {len(followed)} rows. All other settings are the same."
        )
        return dict(title="A teacher with wrong labels", look=look, state=_state(run, beside))
    return None


def scaled_targets(runs: list[Seen]) -> Example | None:
    """Targets made larger or smaller by a factor, which changes what is cheap and nothing of what they mean."""
    for run in runs:
        beside = _same_but(run, runs, target_scale=()) if run.config.target_scale else None
        if beside is None:
            continue
        (cheap, weight), (cheap_before, weight_before) = (_choices(r) for r in (run, beside))
        look = (
            f"A: the teacher's features are scaled by {shown(run.config.target_scale)} before they become targets, "
            f"which leaves their meaning as it is; B: not scaled. The cheapest layer changes in "
            f"{(cheap != cheap_before).sum()} of {len(cheap)} rows, the highest weight in "
            f"{(weight != weight_before).sum()}."
        )
        return dict(title="Scaled targets", look=look, state=_state(run, beside))
    return None


def ease_against_cka(runs: list[Seen]) -> Example | None:
    """The student layer whose cheapest and most alike teacher layers are furthest apart in CKA."""
    found: tuple[tuple, Example] | None = None
    for run in runs:
        if "cka" not in run.measures:
            continue
        distance, cka = _last(run, "distance"), _last(run, "cka")
        cheap, weight = _choices(run)
        alike = cka.argmax(-1)
        gap = cka.max(-1) - np.take_along_axis(cka, cheap[:, None], -1)[:, 0]
        s = int(gap.argmax())
        order = (len(run.config.changed), -gap[s])
        if gap[s] < GAP or (found and order >= found[0]):
            continue
        student, teachers = run.measures["student_layers"][s], run.measures["teacher_layers"]
        where = {int(cheap[s]): "the cheap one", int(alike[s]): "the one most alike"}
        look = (
            f"{student}: {teachers[cheap[s]]} is cheapest to imitate (distance {distance[s, cheap[s]]:.2g}), but "
            f"{teachers[alike[s]]} orders the images most alike (CKA {cka[s, alike[s]]:.2f}, against "
            f"{cka[s, cheap[s]]:.2f}). The highest weight is on {teachers[weight[s]]}, "
            f"{where.get(int(weight[s]), 'neither of them')}. The similarity matrices of {student} and "
            f"{teachers[alike[s]]} are open."
        )
        state = _state(run) | {"cell": [s, int(alike[s])]}
        found = (order, dict(title="Ease and CKA disagree", look=look, state=state))
    return found[1] if found else None


def _state(seen: Seen, beside: Seen | None = None) -> dict[str, Any]:
    return {"run": seen.run.name} | ({"run2": beside.run.name} if beside else {})


def _same_but(seen: Seen, runs: list[Seen], **settings: Any) -> Seen | None:
    """The run that has these settings, and all others of `seen`."""
    path = seen.run.path.parent / seen.config.replace(**settings).name
    return next((other for other in runs if other.run.path == path), None)


def _last(run: Seen, name: str) -> np.ndarray:
    """(S, A): after the last epoch, mean of the time steps."""
    return run.measures[name][-1].mean(0)


def _choices(run: Seen) -> tuple[np.ndarray, np.ndarray]:
    """(S,) and (S,): the teacher layers with the smallest distance and with the highest weight."""
    return _last(run, "distance").argmin(-1), _last(run, "attention").argmax(-1)


def _commonest(names: np.ndarray) -> str:
    values, counts = np.unique(names, return_counts=True)
    return str(values[counts.argmax()])
