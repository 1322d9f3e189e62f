"""Temporal Fisher information over training (Appendix 1, Fig. 1)."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.html import table
from companion.pages.parts import frame, run_links
from companion.stats import Difference, difference, family
from sastc.config import METHODS
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.records import Run

OF_RUN = ("student", "teacher", "method", "seed", "teacher_seed", "data_seed", "run")


def traces(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """Every recorded trace of an experiment, long: a row for each run, epoch and t."""
    return traces_of(frame(plan, results))


def traces_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The same of the runs of :func:`companion.pages.parts.frame`."""
    rows = []
    for row in runs[runs.complete].itertuples():
        fisher = Run(row.path).measures.get("fisher")  # (E, T)
        if fisher is None:
            continue
        for (epoch, t), value in np.ndenumerate(fisher):
            rows.append([*(getattr(row, name) for name in OF_RUN), epoch + 1, t + 1, float(value)])
    return pd.DataFrame(rows, columns=[*OF_RUN, "epoch", "t", "trace"])


def panels(values: pd.DataFrame) -> Figure:
    """One panel a method, one line a time step, darker for later steps: :func:`of_seeds`."""
    plt = figures.plt
    methods = [m for m in METHODS if m in set(values.method)]
    drawing, axes = plt.subplots(
        1, len(methods), sharey=True, figsize=(min(1.75 * len(methods) + 0.8, figures.WIDTH), 2.8), squeeze=False
    )
    for axis, method in zip(axes[0], methods, strict=True):
        chosen = values[values.method == method]
        steps = sorted(chosen.t.unique())
        for t in steps:
            line = chosen[chosen.t == t].groupby("epoch").trace.mean()
            look = dict(color=figures.COLOURS[method], marker=figures.MARKERS[method])
            axis.plot(line.index, line, alpha=0.25 + 0.75 * t / len(steps), label=f"t = {t}", **look)
        axis.set_yscale("log")
        axis.set(xlabel="epoch", title=LABELS[method])
        axis.legend(fontsize=8)
    axes[0][0].set_ylabel("trace of the Fisher information")
    return drawing


def summary(values: pd.DataFrame) -> pd.DataFrame:
    """For every method and seed: the trace with all steps after the first and the last epoch, and their ratio.

    `highest` is the epoch after which it is highest.
    """
    last_step = values[values.t == values.groupby("run").t.transform("max")]
    rows = []
    for (method, seed, run), chosen in last_step.groupby(["method", "seed", "run"]):
        line = chosen.sort_values("epoch").trace.to_numpy()
        late = values[(values.run == run) & (values.epoch == values.epoch.max()) & (values.t == 1)].trace.sum()
        rows.append(dict(method=method, seed=seed, run=run, first=line[0], last=line[-1], change=line[-1] / line[0],
                         highest=int(line.argmax()) + 1, one_step=late))  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "seed", "run", "first", "last", "change", "highest", "one_step"])
    return frame.sort_values("method", key=lambda c: c.map(METHODS.index), kind="stable").reset_index(drop=True)


def summary_table(values: pd.DataFrame, place: str) -> str:
    """HTML table of :func:`summary`, a row a run; `place` is :func:`companion.pages.parts.place`."""
    columns = {
        "method": lambda r: LABELS[r.method],
        "first epoch": lambda r: f"{r.first:.3g}",
        "last epoch": lambda r: f"{r.last:.3g}",
        "change (×)": lambda r: f"{r.change:.3g}",
        "last epoch, one step": lambda r: f"{r.one_step:.3g}",
        "run": lambda r: run_links(pd.DataFrame([r])),
    }
    caption = f"Trace of the empirical Fisher information after an epoch, with one step or all T steps. {place}"
    return table(summary(values), caption, "fisher", columns)


def log_differences(values: pd.DataFrame, one: str = "sastc") -> dict[str, Difference]:
    """Log₁₀ of the last trace of one method less every other's, paired over seeds, by the other."""
    rows = summary(values)
    draws = values.drop_duplicates("run").set_index("run")[["teacher_seed", "data_seed"]]
    rows = rows.assign(accuracy=np.log10(rows["last"]), complete=True).join(draws, on="run")
    others = [m for m in METHODS if m != one and m in set(rows.method)]
    return dict(zip(others, family(difference(rows, one, other) for other in others), strict=True))


def of_seeds(values: pd.DataFrame) -> str:
    """Of what each method's numbers are: ``one seed``, or ``means over 2 to 3 seeds``."""
    n = set(values.groupby("method").run.nunique())
    return "one seed of each method" if n <= {1} else f"means over {report.span(n)} seed{'s' * (n != {1})}"


def sentences(values: pd.DataFrame) -> list[str]:
    """What came out, computed."""
    if values.empty:
        return ["No run with Fisher information is recorded."]
    out = []
    means = summary(values).groupby("method")["last"].mean()
    order = means.sort_values()
    out.append(
        f"After the last epoch, from low to high ({of_seeds(values)}): "
        + ", ".join(f"{LABELS[m]} {v:.3g}" for m, v in order.items())
        + "."
    )
    if "baseline" in means:
        below = [LABELS[m] for m in METHODS if m in means and means[m] < means["baseline"]]
        out.append(f"Below the baseline: {', '.join(below) or 'none'}; the paper says: all methods of distillation.")
    verdicts = {"better": "lower", "worse": "higher"}
    for other, d in log_differences(values).items():
        says = (-d).judgement
        width = f"{10**d.low:.2f} to {10**d.high:.2f}; " if d.judged else ""
        out.append(
            f"SASTC's trace divided by {LABELS[other]}'s is {10**d.mean:.2f} ({width}n={d.n}: "
            f"{verdicts.get(says, says)})."
        )
    courses = summary(values).groupby("method", sort=False)
    told = "; ".join(f"{LABELS[method]} {_course(rows)}" for method, rows in courses)
    out.append(f"From the first epoch to the last of {values.epoch.max()}: {told}.")
    out.append("The paper says that it decreases during training, fastest with SASTC.")
    return out


def _course(rows: pd.DataFrame) -> str:
    """Which way the trace of one method's runs goes, by what factor, and after which epoch it is highest."""
    up, n = int((rows.change > 1).sum()), len(rows)
    way = "rises" if up == n else "falls" if up == 0 else f"rises in {up} of {n} runs"
    factor = report.span(rows.change.round(2), "{:.2f}".format)
    return f"{way} (× {factor}; highest after epoch {report.span(rows.highest)})"


def spread(values: pd.DataFrame) -> str:
    """A sentence: by what factor the last trace differs between seeds."""
    last = summary(values).groupby("method")["last"].agg(["min", "max", "size"])
    several = last[last["size"] > 1]
    if several.empty:
        return "One seed of each method at most: how much seeds differ is not known, so their order is no result."
    n, most = report.span(several["size"]), (several["max"] / several["min"]).max()
    return f"Between the {n} seeds of one method the last trace differs by a factor of up to {most:.2f}."
