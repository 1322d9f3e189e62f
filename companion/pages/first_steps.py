"""Where attention goes in the first training steps, and which of the two losses pulls the student meanwhile."""

import dataclasses
import html
import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.pages import parts
from sastc.config import SCALES
from sastc.experiments import Experiment
from sastc.records import Run

NEAR = 0.05  # of the way between the bounds: a weight this close to the upper one is at it


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """:func:`parts.frame` of the plan and of those other scales whose runs are recorded, with :func:`facts`.

    The largest scale comes first.
    """
    plans = sorted((plan, *report.record_plans(plan)), key=lambda one: -SCALES.index(one.scale))
    joint = dataclasses.replace(plan, runs=tuple(config for one in plans for config in one.runs))  # and so their data
    rows = parts.frame(joint, results)
    shown = rows.groupby("scale").complete.transform("any") | (rows.scale == plan.scale)
    rows = rows[shown].reset_index(drop=True)
    known = [facts(steps(Run(r.path)), r) if r.complete else {} for r in rows.itertuples()]
    return rows.join(pd.DataFrame(known, index=rows.index, columns=list(FACTS)))


FACTS = {
    "chance": "one over the number of teacher layers",
    "steps": "last step that was recorded, from zero",
    "recorded": "number of steps that were recorded",
    "first": "share of a batch's instances, at the first step, whose largest weight is on the easiest layer",
    "last": "the same at the last step that was recorded",
    "low": "the lowest such share of all recorded steps",
    "quarter": "their lower quartile",
    "three_quarters": "their upper quartile",
    "high": "the highest",
    "top": "the largest value of the mean of the largest weights: 0 uniform, 1 the upper bound",
    "bound": "first recorded step at which the mean of the largest weights is at the upper bound; nan: at none",
    "pull_first": "gradient of β times the feature loss over that of the KD loss, at the first step",
    "pull_last": "the same at the last step that was recorded",
}


def steps(run: Run) -> pd.DataFrame:
    """A row a recorded step: its `step` from zero, `easiest`, the largest weight `top`, and the `pull`.

    `easiest`: share of instances, student layers and time steps whose largest weight is on the teacher layer with the
    least distance. `top`: largest weight of a cell (of the batch's mean), averaged over the cells, on a scale on which
    0 is the uniform weight and 1 the upper bound. `pull`: norm of the student's gradient of β times the feature loss
    over that of the KD loss. No row for a run that did not record its steps.
    """
    found, config = run.measures, run.config
    if "step_number" not in found:
        return pd.DataFrame(columns=["step", "chance", "easiest", "top", "pull"])
    attention = found["step_attention"]  # (K, T, S, A)
    layers = attention.shape[-1]
    _, high = config.attention_bounds(layers)
    kd, feature = found["step_gradient"][:, 0], found["step_gradient"][:, 1]
    return pd.DataFrame(
        dict(
            step=found["step_number"],
            chance=1 / layers,
            easiest=found["step_easiest"].mean((1, 2)),
            top=(attention.max(-1).mean((1, 2)) - 1 / layers) / (high - 1 / layers),
            pull=feature / np.where(kd > 0, kd, np.nan),
        )
    )


def facts(found: pd.DataFrame, row) -> dict[str, float]:
    """The numbers of `FACTS` from a run's :func:`steps`."""
    if found.empty:
        return {}
    at_bound = found.step[found.top >= 1 - NEAR]
    first, last = found.iloc[0], found.iloc[-1]
    low, quarter, three_quarters, high = found.easiest.quantile([0, 0.25, 0.75, 1])
    return dict(
        chance=last.chance, steps=last.step, recorded=len(found), first=first.easiest, last=last.easiest,
        low=low, quarter=quarter, three_quarters=three_quarters, high=high, top=found.top.max(),
        bound=float(at_bound.iloc[0]) if len(at_bound) else math.nan,
        pull_first=first.pull, pull_last=last.pull,
    )  # fmt: skip


def names(rows: pd.DataFrame) -> list[str]:
    """What each run is, in a few words: β, and what differs from the paper's choices."""
    out = []
    for row in rows.itertuples():
        words = [f"β = {row.beta:g}"] + ["no unit length"] * (not row.qk_norm)
        if any(scale != 1 for scale in row.target_scale):
            stage = int(np.argmin(row.target_scale)) + 1
            words.append(f"teacher layer {stage} scaled to {min(row.target_scale):g}")
        out.append(", ".join(words))
    return out


def answer(rows: pd.DataFrame) -> str:
    """How often the largest weight is on the easiest layer, over all recorded steps: a sentence for each setting.

    A smoke test is told only where there is nothing else.
    """
    told, known = [], rows[rows.steps.notna()]
    known = known.assign(name=names(known))
    if not (evidence := known[known.scale != "quick"]).empty:
        known = evidence
    for scale, same in known.groupby("scale", sort=False):
        own = same.teacher_width[(same.teacher_width > 0) & (same.teacher_width != same.width)]
        teacher = f" with a teacher of {report.span(own, '{:g}'.format)} times the width" if len(own) else ""
        runs = report.span(same.groupby("name").size())
        told.append(
            f"{report.SCALE_WORDS[scale].capitalize()}{teacher}, up to step "
            f"{report.span((same.steps + 1).astype(int))}, {runs} run{'s' * (runs != '1')} of each setting: how often "
            f"attention is largest on the easiest layer (chance: {_percent(same.chance)} %)."
        )
        told += [f"{name}: {_course(of)}" for name, of in same.groupby("name", sort=False)]
    return " ".join(told) or "No run has recorded its first steps."


def _percent(shares: pd.Series) -> str:
    return report.span((100 * shares).round(), "{:.0f}".format)


def _course(rows: pd.DataFrame) -> str:
    """What attention does in the runs of one setting, and the losses at first; several seeds as ranges."""
    reached = rows.bound.dropna().astype(int) + 1
    if not rows.qk_norm.iloc[0]:
        bound = f"a weight has no bound below 1, and the largest come up to {_percent(rows.top)} % of the way to it"
    elif len(reached):
        step = report.span(reached)
        bound = f"the largest weights reach their bound in {len(reached)} of {len(rows)}, at step {step}"
    else:
        bound = f"the largest weights come up to {_percent(rows.top)} % of the way from uniform to their bound"
    return (
        f"{_percent(pd.concat([rows.low, rows.high]))} % of cases over all recorded steps, with quartiles of "
        f"{_percent(rows.quarter)} and {_percent(rows.three_quarters)} %; {bound}; at the first step the gradient of β "
        f"times the feature loss is {report.span(rows.pull_first.round(1), '{:g}'.format)} times KD's."
    )


def curves(rows: pd.DataFrame) -> Figure:
    """Share on the easiest layer, largest weight and pull against the training step; a line a run of one scale."""
    plt = figures.plt
    drawing, axes = plt.subplots(1, 3, figsize=(figures.WIDTH, 3.1))
    done = rows[rows.steps.notna()]
    for i, (row, name) in enumerate(zip(done.itertuples(), names(done), strict=True)):
        found = steps(Run(row.path))
        look = dict(color=figures.SERIES[i % 6], marker=figures.SERIES_MARKERS[i % 6], markersize=3, label=name)
        for axis, column, factor in zip(axes, ("easiest", "top", "pull"), (100, 100, 1), strict=True):
            axis.plot(found.step + 1, factor * found[column], **look)
    axes[0].set(title="largest weight on the\neasiest layer (%)", ylim=(0, 103))
    axes[1].set(title="largest weight\n(0 %: uniform, 100 %: bound)", ylim=(0, 103))
    axes[2].set(title="pull of the feature loss\nbeside KD's (times)", yscale="log")
    for axis in axes:
        axis.set(xlabel="training step", xscale="log")
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawing


def table(rows: pd.DataFrame) -> str:
    """HTML table: a row a run."""

    def share(*columns: str):
        def show(r) -> str:
            values = [100 * getattr(r, column) for column in columns]
            return "–" if math.isnan(values[0]) else f"{' to '.join(f'{value:.0f}' for value in values)} %"

        return show

    rows = rows.assign(name=names(rows))
    columns = {
        "run": lambda r: f'{html.escape(r.name)}<br><span class="seeds">{report.SCALE_WORDS[r.scale]}</span>',
        "on the easiest layer, first step": share("first"),
        "at the last step": share("last"),
        "over all steps": share("low", "high"),
        "quartiles over the steps": share("quarter", "three_quarters"),
        "at the bound from step": lambda r: "–" if math.isnan(r.bound) else f"{r.bound + 1:.0f}",
        "pull over KD, first step": "pull_first",
        "pull, last step": "pull_last",
        "record": lambda r: parts.run_links(rows[(rows.run == r.run) & rows.complete]),
    }
    caption = (
        "Shares are of instances, student layers and time steps of a training batch. Half of the recorded steps lie "
        "between the quartiles. At the bound: the mean of the cells' largest weights is within "
        f"{100 * NEAR:.0f} % of it; without unit length the bound is 1, all weight on one layer. Pull: norms of the "
        "student's gradients."
    )
    return parts.table(rows, caption, "first_steps", columns, csv=rows[["name", "scale", *FACTS, "run", "command"]])
