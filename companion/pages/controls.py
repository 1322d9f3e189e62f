"""Does attention match semantics, or take the easy way? Learned weights against controls."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.html import in_words, interval, plain, table, text
from companion.pages.choices import effects
from companion.pages.parts import run_links
from companion.stats import FEWEST, NO_INTERVAL, Difference, family, over, paired, signed, spread
from sastc.attention import attention_bounds
from sastc.records import Run

LEARNED = "learned"
REPLACED = ("uniform", "random", "untrained", "cka")

SAID = {  # of the accuracy with a replacement
    "better": "more accurate",
    "worse": "less accurate",
    "not distinguishable": "not distinguishable",
    NO_INTERVAL: "no interval",
    "few": "of too few seeds to judge",
    "not run": "not run",
}

WORDS = {
    "cka": "CKA",
    "detach_sim = true": "learned, no loss through them",
    "target_norm = layer": "learned, equal variances",
}


def names(runs: pd.DataFrame) -> pd.Series:
    """Name of every run's control: where its weights come from, or what else is switched."""
    return runs.switch.replace("", LEARNED).str.replace("attention = ", "", regex=False)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation along the last axis, ties shared; ``nan`` where one side has no order."""
    a, b = (pd.DataFrame(x.reshape(-1, x.shape[-1])).rank(axis=1).to_numpy().reshape(x.shape) for x in (one, other))
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), size, out=np.full(size.shape, np.nan), where=size > 0)


def facts(run: Run) -> dict[str, float]:
    """Where a run's weights go after the last epoch; shares are of cells, one for each student layer and time step.

    `easiest` and `likest`: the highest weight is on the layer with the lowest distance, or the highest CKA; ``nan``
    where weights are equal. `easiest_is_likest`: those two layers are one. `bound`: the highest weight is within 1 %
    of the largest that is possible. `entropy`: of single images' weights, over ln A.
    """
    measures, config = run.measures, run.config
    eta, distance, cka = (measures[n][-1] for n in ("attention", "distance", "cka"))  # (T, S, A)
    instance = measures["attention_instance"][-1].astype(float)  # (P, T, S, A)
    teachers = eta.shape[-1]
    low, high = config.attention_bounds(teachers)
    ordered = bool((eta.max(-1) - eta.min(-1) > 1e-6).all())
    top, easy, like = eta.argmax(-1), distance.argmin(-1), cka.argmax(-1)
    entropy = -(instance * np.log(np.maximum(instance, 1e-12))).sum(-1) / math.log(teachers)
    correlation = rank_correlation(eta, cka)
    return {
        "cells": top.size,
        "chance": 1 / teachers,
        "easiest": float((top == easy).mean()) if ordered else np.nan,
        "likest": float((top == like).mean()) if ordered else np.nan,
        "easiest_is_likest": float((easy == like).mean()),
        "rank_correlation": float(np.nanmean(correlation)) if np.isfinite(correlation).any() and ordered else np.nan,
        "bound": float((eta.max(-1) >= high - 0.01 * (high - low)).mean()),
        "entropy": float(entropy.mean()),
        "distance": float(distance.mean()),
        "between_steps": spread(eta),
        "between_images": spread(instance),
    }


def likeness(runs: Sequence[Run]) -> str:
    """Sentence: how often the highest weight is on the teacher layer of highest CKA."""
    found = [facts(run) for run in runs]
    cells = sum(f["cells"] for f in found)
    if not cells:
        return ""
    like = sum(round(f["likest"] * f["cells"]) for f in found if not math.isnan(f["likest"]))
    chance = sum(f["chance"] * f["cells"] for f in found) / cells
    return (
        f"It lies on the layer that is most similar by centred kernel alignment (CKA) in {like} of {cells}; "
        f"{chance * cells:.0f} would be chance. Cells of one run are not independent: the page of controls has the "
        "test."
    )


def table_of_facts(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a recorded run: its control, seed, accuracy, :func:`facts` and the mean weight of each teacher layer."""
    rows = []
    for row in runs.assign(control=names(runs))[runs.complete].itertuples():
        run = Run(row.path)
        weights = run.measures["attention"][-1].mean((0, 1))
        layers = [str(n) for n in run.measures["teacher_layers"]]
        rows.append(dict(control=row.control, seed=row.seed, run=row.run, accuracy=row.accuracy, **facts(run),
                         **{f"weight_{n}": float(w) for n, w in zip(layers, weights, strict=True)}))  # fmt: skip
    return pd.DataFrame(rows)


def between_seeds(runs: pd.DataFrame) -> pd.Series:
    """Mean deviation of a cell's weight between seeds, by control; ``nan`` for a single seed."""
    done = runs.assign(control=names(runs))[runs.complete]
    found = {}
    for control, rows in done.groupby("control", sort=False):
        stack = np.stack([Run(p).measures["attention"][-1] for p in rows.path])
        found[control] = spread(stack)
    return pd.Series(found, dtype=float)


def changes_of_accuracy(runs: pd.DataFrame) -> dict[str, Difference]:
    """Accuracy with every control less that with learned weights, see :func:`effects`, by the control's name.

    Weights from elsewhere are one family; other changes of learned weights answer another question, and are another.
    """
    changes = effects(runs, ("accuracy",))
    found = dict(zip(names(changes), changes.accuracy, strict=True))
    parts = ([c for c in found if (c in REPLACED) == replaced] for replaced in (True, False))
    judged = {c: d for part in parts for c, d in zip(part, family(found[c] for c in part), strict=True)}
    return {c: judged[c] for c in found}


def families(runs: pd.DataFrame) -> str:
    """A sentence: what is corrected for, and which judgements another grouping would change; '' where all are one."""
    changes = changes_of_accuracy(runs)
    known = {c: d for c, d in changes.items() if d.judged}
    sizes = [sum((c in REPLACED) == replaced for c in known) for replaced in (True, False)]
    if not all(sizes):
        return ""
    together = dict(zip(known, family(known.values()), strict=True))
    other = [
        f"{WORDS.get(c, c)} ({d.judgement}, corrected p {d.corrected:.3f})"
        for c, d in together.items()
        if d.judgement != known[c].judgement
    ]
    return (
        f"What is said is corrected (Holm) for the {sizes[0]} kinds of weights from elsewhere, and apart from them for "
        f"the {sizes[1]} other change{'s' * (sizes[1] > 1)} of learned weights. As one family of {sum(sizes)}, "
        + (f"these would be judged otherwise: {', '.join(other)}." if other else "all would be judged the same.")
    )


def controls_table(runs: pd.DataFrame) -> str:
    """HTML of two tables, a row a control: the accuracy, and where the weight goes."""
    known = table_of_facts(runs)
    means = known.drop(columns=["run", "seed"]).groupby("control", sort=False).mean()
    changes = changes_of_accuracy(runs)
    layers = [c for c in means if c.startswith("weight_")]

    def share(column: str):
        return lambda r: "–" if math.isnan(getattr(r, column)) else f"{100 * getattr(r, column):.0f} %"

    first = {"weights": lambda r: text(WORDS.get(r.control, r.control))}
    accuracies = first | {
        "accuracy (%)": lambda r: report.mean_sd(known[known.control == r.control].accuracy),
        "change from learned (points)": lambda r: interval(changes[r.control]) if r.control in changes else "–",
        "runs": lambda r: run_links(known[known.control == r.control]),
    }
    places = first | {
        **{f"η of {c.removeprefix('weight_')}": c for c in layers},
        "entropy / ln A": "entropy",
        "at the bound": share("bound"),
        "on the easiest": share("easiest"),
        "on the most similar": share("likest"),
        "rank correlation with CKA": lambda r: signed(r.rank_correlation),
    }
    rows = means.reset_index()
    caption = (
        "Means over the seeds, after the last epoch: weight η of each teacher layer, and the share of cells (student "
        "layers × time steps) whose largest weight is at its bound, on the layer easiest to imitate, and on the layer "
        "most similar by CKA."
    )
    told = f"Test accuracy, mean ± sd over the seeds; changes with 95 % intervals over {over(changes.values())}."
    return table(rows, told, "controls", accuracies) + table(rows, caption, "controls-weights", places)


def spread_table(runs: pd.DataFrame) -> str:
    """HTML table: how much η differs between time steps, images and seeds."""
    means = table_of_facts(runs).groupby("control", sort=False)[["between_steps", "between_images"]].mean()
    rows = means.join(between_seeds(runs).rename("between_seeds")).reset_index()
    digits = {n: lambda r, n=n: plain(getattr(r, n)) for n in rows.columns[1:]}
    columns = {"weights": lambda r: text(WORDS.get(r.control, r.control))} | {
        n.replace("_", " "): f for n, f in digits.items()
    }
    return table(rows, "Standard deviations of η, averaged over cells.", "controls-spread", columns)


def weights_figure(runs: pd.DataFrame) -> Figure:
    """Mean weight of each teacher layer: a panel a control, a mark a seed, the uniform weight as a red line."""
    plt = figures.plt
    known = table_of_facts(runs)
    layers = [c for c in known if c.startswith("weight_")]
    controls = list(dict.fromkeys(known.control))
    columns = min(4, len(controls))
    rows = -(-len(controls) // columns)
    drawing, axes = plt.subplots(rows, columns, sharey=True, figsize=(7.0, 1.9 * rows + 0.3), squeeze=False)
    for axis in axes.flat[len(controls) :]:
        axis.set_visible(False)
    for axis, control in zip(axes.flat, controls, strict=False):
        chosen = known[known.control == control]
        for seed, weights in zip(chosen.seed, chosen[layers].to_numpy(), strict=True):
            axis.plot(
                weights, color=figures.COLOURS["sastc"], marker="osD^v*"[seed % 6], linewidth=0.8, label=f"seed {seed}"
            )
        axis.axhline(chosen.chance.iloc[0], color="red", linewidth=1)
        axis.set_xticks(range(len(layers)), [c.removeprefix("weight_") for c in layers], rotation=30, ha="right")
        axis.set(title=WORDS.get(control, control).replace(", ", ",\n"), ylabel="mean η" if axis in axes[:, 0] else "")
    axes.flat[0].legend(fontsize=7)
    return drawing


def _judged(values: pd.Series, chance: float) -> tuple[str, str]:
    """A share over seeds in words, and what can be said of it beside chance."""
    share, found = f"{100 * values.mean():.0f} %", paired(values, chance)
    if found.n > 1 and not found.judged:
        return share, "in every run, which gives no interval"
    says = found.judgement
    words = {"better": "more than chance", "worse": "less than chance"}
    return share, words.get(says, f"{says} from chance" if says == "not distinguishable" else says)


def sentences(runs: pd.DataFrame) -> list[str]:
    """The page's question, answered as far as the seeds allow."""
    known = table_of_facts(runs) if runs.complete.any() else pd.DataFrame({"control": []})
    learned = known[known.control == LEARNED]
    if len(learned) < 2:
        return ["Fewer than two runs with learned weights are recorded: nothing can be said."]
    chance, out = float(learned.chance.mean()), []
    easy, says_easy = _judged(learned.easiest, chance)
    like, says_like = _judged(learned.likest, chance)
    out.append(
        f"Learned weights are highest on the layer that is easiest to imitate in {easy} of cells ({says_easy}) and "
        f"on the layer most similar by CKA in {like} ({says_like}; chance is {100 * chance:.0f} %). Those two are the "
        f"same layer in {100 * learned.easiest_is_likest.mean():.0f} % of cells."
    )
    random = known[(known.control == "random") & known.easiest.notna()]
    if len(random):
        word, says = _judged(random.easiest, chance)
        more = " So weight makes a layer easy, too, by training its projector more." * (says == "more than chance")
        out.append(
            f"Weights drawn at random, which cannot follow anything, are highest on the easiest layer in {word} of "
            f"cells ({says}).{more}"
        )
    normed = known[known.control == "target_norm = layer"]
    if len(normed):
        word, says = _judged(normed.easiest, chance)
        out.append(f"With teacher layers of equal variance the learned weights are on the easiest in {word} ({says}).")
    for control, change in changes_of_accuracy(runs).items():
        if change.n:
            name = WORDS.get(control, control)
            out.append(
                f"{name[0].upper()}{name[1:]}, minus learned weights: {change.words()} points of accuracy "
                f"(n={change.n}: {change.judgement})."
            )
    out += [told] if (told := families(runs)) else []
    spreads = {"time steps": learned.between_steps.mean(), "images of one run": learned.between_images.mean()}
    spreads = {name: v for name, v in spreads.items() if np.isfinite(v)} | {"seeds": between_seeds(runs)[LEARNED]}
    told = [f"{plain(v)} between {name}" for name, v in spreads.items()]
    low, high = attention_bounds(round(1 / chance))
    tiny = f" Its bounds are {low:.2f} and {high:.2f}: it is all but the same for every image, step and seed."
    same = tiny if max(spreads.values()) < 0.01 * (high - low) else ""
    out.append(f"The standard deviation of a learned weight is {', '.join(told[:-1])} and {told[-1]}.{same}")
    return out


def answer(runs: pd.DataFrame) -> str:
    """The top of the page, by a fixed rule: where learned weights go, and their accuracy beside every replacement's."""
    known = table_of_facts(runs) if runs.complete.any() else pd.DataFrame({"control": []})
    learned = known[known.control == LEARNED]
    if len(learned) < 2:
        return "Cannot say: fewer than two runs with learned weights are recorded."
    chance = float(learned.chance.mean())
    easy, like = ("{} of cells ({})".format(*_judged(learned[c], chance)) for c in ("easiest", "likest"))
    always = (learned.easiest == 1).all()
    where = "always" if always else f"in {easy}"
    changes = changes_of_accuracy(runs)
    told: dict[str, list[str]] = {says: [] for says in SAID}
    seeds, most = set(), 0.0
    for control in REPLACED:
        change = changes.get(control, Difference())
        says = "few" if 0 < change.n < FEWEST else change.judgement
        told[says].append(WORDS.get(control, control))
        seeds |= {change.n} - {0, 1}
        most = max(most, -change.low) if says == "not distinguishable" else most
    n = f" (n={report.span(seeds)})" if seeds else ""
    beside = "; ".join(f"{SAID[says]}: {in_words(which)}" for says, which in told.items() if which)
    adds = f" To those not distinguishable learned weights add at most {most:.2f} points." if most else ""
    return (
        f"Attention is {where} largest on the teacher layer that is easiest to imitate, and on the layer most similar "
        f"by CKA in {like}; chance is {100 * chance:.0f} %. Accuracy with other weights than the learned{n}: {beside}."
        f"{adds}"
    )
