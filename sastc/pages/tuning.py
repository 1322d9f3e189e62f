"""Learning rate and β, chosen on validation images: what each value gives, and what the feature loss then does."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sastc import figures
from sastc.config import METHODS, RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.pages import parts
from sastc.records import Run

FIELDS = {"learning_rate": "learning rate", "beta": "weight β of the feature loss"}


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """:func:`parts.frame` with what each run says of itself.

    `se`: standard error of the accuracy, in points, from the number of validation images alone. `loss_ratio`: β times
    the feature loss over the KD loss. `gradient_ratio`: norm of the feature term's gradient on the student over that
    of the KD term. `cosine`: between those two gradients. `projectors`: share of the feature term's squared gradient
    that falls on projectors and SASTC's attention. The first is of the first epoch, the others are means over epochs.
    """
    rows = parts.frame(plan, results).assign(planned=True)
    return rows.assign(**pd.DataFrame([_facts(r) for r in rows.itertuples()], index=rows.index))


def _facts(row) -> dict[str, float]:
    facts = dict.fromkeys(("se", "loss_ratio", "gradient_ratio", "cosine", "projectors"), math.nan)
    if not row.complete:
        return facts
    run = Run(row.path)
    share = row.accuracy / 100
    facts["se"] = 100 * math.sqrt(share * (1 - share) / run.provenance["data"]["test_images"])
    history = run.history
    if "feature_loss" in history:
        facts["loss_ratio"] = float(row.beta * history.feature_loss[0] / history.kd_loss[0])
    if "gradient_feature" in history:
        kd, feature, helpers = (history[f"gradient_{n}"] for n in ("kd", "feature", "projectors"))
        facts["gradient_ratio"] = float((feature / kd).mean())
        facts["projectors"] = float((helpers**2 / (helpers**2 + feature**2)).mean())
        facts["cosine"] = float(history.gradient_cosine.mean())
    return facts


def record(rows: pd.DataFrame, method: str, field: str) -> float:
    """The value that the runs of record have."""
    first = rows.iloc[0]
    same = dict(dataset=first.dataset, student=first.student, teacher=first.teacher, scale=first.scale)
    return getattr(RunConfig(method=method, **same), field)


def along(rows: pd.DataFrame, method: str, field: str, recorded: bool = True) -> pd.DataFrame:
    """The runs of a method that differ in `field` alone; the other field has its value of record."""
    other = next(name for name in FIELDS if name != field)
    chosen = rows[(rows.method == method) & (rows.complete | (not recorded))]
    if method in RunConfig.fields()[other].metadata["applies"]:
        chosen = chosen[chosen[other] == record(rows, method, other)]
    return chosen.sort_values(field)


def methods_of(field: str) -> list[str]:
    """Methods that a field applies to."""
    return [m for m in METHODS if m in RunConfig.fields()[field].metadata["applies"]]


def curves(rows: pd.DataFrame) -> Figure:
    """Validation accuracy against either field, a line a method; bars are two standard errors of the images."""
    plt = figures.plt
    drawing, axes = plt.subplots(1, len(FIELDS), figsize=(7.0, 3.3), sharey=True)
    for axis, (field, words) in zip(axes, FIELDS.items(), strict=True):
        methods = methods_of(field)
        for i, method in enumerate(methods):
            data = along(rows, method, field)
            look = dict(color=figures.COLOURS[method], marker=figures.MARKERS[method], label=LABELS[method])
            x = data[field] * 1.04 ** (i - (len(methods) - 1) / 2)  # beside each other
            axis.errorbar(x, data.accuracy, 2 * data.se, capsize=2.5, **look)
        known = sorted(rows[field][rows.complete & rows.method.isin(methods)].unique())
        axis.axvline(record(rows, "sastc", field), color="black", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel=words)
        axis.set_xticks(known, [f"{v:g}" for v in known])
        axis.minorticks_off()
    axes[0].set_ylabel("validation accuracy (%)")
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    return drawing


def table(rows: pd.DataFrame) -> str:
    """HTML table: a row a run."""
    columns = {
        "method": lambda r: LABELS[r.method],
        "learning<br>rate": lambda r: f"{r.learning_rate:g}",
        "β": lambda r: f"{r.beta:g}" if r.method in methods_of("beta") else "",
        "validation<br>accuracy (%)": lambda r: f"{r.accuracy:.2f} ± {r.se:.2f}" if r.complete else "–",
        "β × feature<br>/ KD loss,<br>first epoch": "loss_ratio",
        "gradient on<br>the student,<br>feature / KD": "gradient_ratio",
        "cosine<br>of the two": lambda r: parts.signed(r.cosine),
        "on projectors<br>(and<br>attention)": lambda r: (
            "–" if np.isnan(r.projectors) else f"{100 * r.projectors:.0f} %"
        ),
        "STM (ln)": "stm",
        "run": lambda r: parts.run_links(rows[(rows.run == r.run) & rows.complete]),
    }
    names = [*FIELDS, "method", "accuracy", "se", "loss_ratio", "gradient_ratio", "cosine", "projectors", "stm", "run"]
    caption = "± one standard error from the number of images; gradients once an epoch, means over the epochs."
    return parts.table(rows, caption, "tuning", columns, csv=rows[[*names, "command"]])


def sentences(rows: pd.DataFrame) -> list[str]:
    """For either field and every method: the best value, and whether the value of record can be told from it.

    Values that are planned and not run are named.
    """
    out = []
    for field, words in FIELDS.items():
        for method in methods_of(field):
            data, used = along(rows, method, field), record(rows, method, field)
            if len(data) < 2 or used not in data[field].to_numpy():
                continue
            best = data.loc[data.accuracy.idxmax()]
            ours = data[data[field] == used].iloc[0]
            gap, error = best.accuracy - ours.accuracy, math.hypot(best.se, ours.se)
            missing = sorted(set(along(rows, method, field, recorded=False)[field]) - set(data[field]))
            lacking = f" ({', '.join(f'{v:g}' for v in missing)} not run)" if missing else ""
            head = f"{LABELS[method]}, {words}: best of {len(data)}{lacking} is {best[field]:g} ({best.accuracy:.2f} %)"
            if best[field] == used:
                out.append(f"{head}, which the runs of record have.")
            else:
                told = "more" if gap > 2 * error else "less"
                out.append(
                    f"{head}; the runs of record have {used:g}, {gap:.2f} points lower, "
                    f"{told} than two standard errors ({2 * error:.2f})."
                )
    return out or ["Nothing is recorded yet."]


def pull(rows: pd.DataFrame) -> list[str]:
    """What the feature loss does to the student beside the KD loss, at the settings of record."""
    out = []
    for method in methods_of("beta"):
        data = along(rows, method, "beta")
        data = data[data.learning_rate == record(rows, method, "learning_rate")].dropna(subset="cosine")
        if len(data):
            low, high = data.iloc[0], data.iloc[-1]
            helpers = "projectors and attention" if method == "sastc" else "projectors"
            out.append(
                f"{LABELS[method]}: from β = {low.beta:g} to {high.beta:g} the feature term's gradient on the student "
                f"{_moves(low.gradient_ratio, high.gradient_ratio)} times the KD term's, and the cosine between the "
                f"two {_moves(low.cosine, high.cosine)}. {100 * data.projectors.mean():.0f} % of its squared gradient "
                f"falls on {helpers}, which are thrown away after training."
            )
    return [line.replace("-", "−") for line in out]


def _moves(first: float, last: float) -> str:
    first, last = f"{first:.2f}", f"{last:.2f}"
    return f"stays at {first}" if first == last else f"goes from {first} to {last}"


def schedule(rows: pd.DataFrame) -> str:
    """A sentence: after which epochs the learning rate drops here, and in the runs of record."""
    first = rows.iloc[0]
    same = RunConfig(dataset=first.dataset, student=first.student, teacher=first.teacher, scale=first.scale)
    here, there = (
        ([round(m * c.epochs) for m in c.milestones], int(c.epochs)) for c in (first, same)
    )  # as RunConfig.learning_rate_at rounds
    told = [f"after epochs {', '.join(map(str, drops))} of {epochs}" for drops, epochs in (here, there)]
    shares = [[drop / epochs for drop in drops] for drops, epochs in (here, there)]
    shape = ": rounded to whole epochs, the schedule has another shape" if shares[0] != shares[1] else ""
    return f"The learning rate drops {told[0]} here, and {told[1]} in the runs of record{shape}."
