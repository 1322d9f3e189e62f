"""Figure 2: a student trained with one fixed pair of layers at a time, beside KD and SASTC."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion.figures import COLOURS, series
from companion.html import interval, rows_table
from companion.pages import grid, parts
from companion.stats import difference, family
from sastc.calibration import layer_pairs
from sastc.config import RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS


class Panel(NamedTuple):
    """One student and teacher: the runs of KD, SASTC and of feature KD with one pair, and what the paper says."""

    letter: str
    title: str
    students: int
    teachers: int
    runs: pd.DataFrame
    facts: pd.DataFrame


def sizes(facts: pd.DataFrame) -> tuple[int, int]:
    """Numbers of student and teacher layers of a panel of the paper."""
    counts = facts.set_index("fact").value
    return int(counts["candidate_student_layers"]), int(counts["candidate_target_layers"])


def wanted(plan: Experiment) -> Iterator[RunConfig]:
    """A run for each bar and line of the paper's figure, with the settings of the plan's first run."""
    template = plan.runs[0]
    dataset = grid.dataset_for("cifar10", template)
    for (_, student, teacher), facts in grid.published("negative_regularization").groupby(
        ["panel", "student", "teacher"]
    ):
        base = template.replace(dataset=dataset, student=student, teacher=teacher, taps="stem_and_stages")
        yield from (base.replace(method=method) for method in ("kd", "sastc"))
        for s, a in layer_pairs("all", *sizes(facts)):
            yield base.replace(method="feature_kd", feature_pairs=f"{s + 1}-{a + 1}")


def collect(plan: Experiment, results: str | Path = "results") -> tuple[pd.DataFrame, list[Panel]]:
    """All runs of the page, and the paper's panels, run or not."""
    runs = grid.filled(plan, wanted(plan), results)
    runs = runs[runs.method != "teacher"]
    single = runs.feature_pairs.str.fullmatch(r"\d+-\d+").where(runs.method == "feature_kd", False)
    layers = runs.feature_pairs.where(single, "0-0").str.split("-", expand=True).astype(int)
    runs = runs.assign(snn_layer=layers[0], ann_layer=layers[1])
    panels = []
    for (letter, student, teacher), facts in grid.published("negative_regularization").groupby(
        ["panel", "student", "teacher"]
    ):
        chosen = runs[(runs.student == student) & (runs.teacher == teacher)]
        title = f"({letter}) {LABELS[student]} & {LABELS[teacher]}"
        panels.append(Panel(letter, title, *sizes(facts), chosen, facts))
    return runs, panels


def effects(panel: Panel) -> pd.DataFrame:
    """Each pair's accuracy and its difference from KD over common seeds: one row a pair, and one for SASTC (0, 0)."""
    runs, rows = panel.runs, []
    kd = runs[runs.method == "kd"]
    keys = [(0, 0), *((s + 1, a + 1) for s, a in layer_pairs("all", panel.students, panel.teachers))]
    for s, a in keys:
        method = "feature_kd" if s else "sastc"
        own = runs[(runs.method == method) & (runs.snn_layer == s) & (runs.ann_layer == a)]
        gap = difference(pd.concat([own, kd]), method, "kd")
        row = dict(snn_layer=s, ann_layer=a, accuracy=own.accuracy.mean(), difference=gap)
        rows.append(row | dict(minus_kd=gap.mean, n=gap.n, judgement="", runs=" ".join(own[own.complete].run)))
    found = pd.DataFrame(rows)
    found = found.assign(difference=family(found.difference))
    return found.assign(judgement=[d.judgement for d in found.difference])


def table(panel: Panel) -> str:
    """HTML table: student layers down, teacher layers across; the accuracy and its difference from KD."""
    data = effects(panel).set_index(["snn_layer", "ann_layer"])

    def cell(s: int, a: int, method: str) -> str:
        own = panel.runs[(panel.runs.method == method) & (panel.runs.snn_layer == s) & (panel.runs.ann_layer == a)]
        gap = ""
        if method != "kd" and data.n[s, a]:
            gap = f"<br>{interval(data.difference[s, a], says=True)}"
        return grid.cell(own) + gap

    layers = range(1, panel.teachers + 1)
    body = [[f"student layer {s}", *(cell(s, a, "feature_kd") for a in layers)] for s in range(1, panel.students + 1)]
    body.append(["for comparison", *(f"{LABELS[m]}: {cell(0, 0, m)}" for m in ("kd", "sastc"))])
    caption = (
        f"{panel.title}. Test accuracy in percent; below it the difference from KD in percentage points "
        "with its 95 % interval over common seeds. Layer 1 is the stem."
    )
    heads = ["feature KD with", *(f"teacher layer {a}" for a in layers)]
    csv = data.drop(columns=["minus_kd", "n"]).reset_index()
    return rows_table(caption, heads, body, f"figure2_{panel.letter}", csv)


def bars(panels: list[Panel]) -> Figure:
    """Grouped bars as in Figure 2, drawn from the KD line: upward helps, downward hurts. Panels that are run."""
    drawn = [(panel, data) for panel in panels if (data := effects(panel)).query("snn_layer > 0").n.any()]
    figure, axes = plt.subplots(len(drawn) or 1, 1, figsize=(7.0, 2.9 * (len(drawn) or 1)), squeeze=False)
    for axis, (panel, data) in zip(axes[:, 0], drawn, strict=False):
        width = 0.8 / panel.teachers
        for a in range(1, panel.teachers + 1):
            rows = data[data.ann_layer == a]
            x = rows.snn_layer + (a - (panel.teachers + 1) / 2) * width
            hatch = ["", "//", "..", "xx", "--"][(a - 1) % 5]
            look = dict(color=series(a - 1)["color"], hatch=hatch, edgecolor="white", label=f"teacher layer {a}")
            axis.bar(x, rows.minus_kd, 0.92 * width, yerr=[d.half for d in rows.difference], capsize=2, **look)
        axis.axhline(0, color=COLOURS["kd"], label="KD")
        sastc = data[data.snn_layer == 0].minus_kd.iloc[0]
        if np.isfinite(sastc):
            axis.axhline(sastc, color=COLOURS["sastc"], linestyle="--", label="SASTC")
        axis.set_xticks(range(1, panel.students + 1), [f"student\nlayer {s}" for s in range(1, panel.students + 1)])
        axis.grid(False, axis="x")
        axis.set(title=panel.title, ylabel="accuracy − KD (points)")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure


def sentences(panel: Panel) -> list[str]:
    """Which pairs hurt, and what became of the pairs and layers that the paper names."""
    data = effects(panel)
    pairs, sastc = data[data.snn_layer > 0], data.iloc[0]
    run = pairs[pairs.n > 0]
    if run.empty:
        return [f"{panel.title} is not run."]
    known = run[[d.judged for d in run.difference]]
    hurt = known[known.judgement == "worse"]
    certain = f"the 95 % interval of {len(hurt)} of {len(known)} lies below zero" if len(known) else "no intervals"
    lines = [
        f"{panel.title}: {int((run.minus_kd < 0).sum())} of {len(run)} pairs are below KD, from "
        f"{parts.signed(run.minus_kd.min())} to {parts.signed(run.minus_kd.max())} points ({certain})."
    ]
    if sastc.n:
        above = int((run.accuracy > sastc.accuracy).sum())
        lines.append(f"{above} of {len(run)} fixed pairs end above SASTC, which is {parts.signed(sastc.minus_kd)} "
                     f"points from KD ({sastc.judgement}).")  # fmt: skip
    matched = {s + 1: a + 1 for s, a in layer_pairs("one_to_one", panel.students, panel.teachers)}
    accuracy = run.set_index(["snn_layer", "ann_layer"]).accuracy
    for fact in panel.facts[panel.facts.fact == "better_than_one_to_one_matching"].itertuples():
        s, a = int(fact.snn_layer), int(fact.ann_layer)
        same = s, matched[s]
        if (s, a) not in accuracy:
            continue
        place = int((accuracy > accuracy[s, a]).sum()) + 1
        words = f"The paper finds student layer {s} better with teacher layer {a} than with the one at the same " \
                f"relative depth; here this pair ranks {place} of {len(accuracy)}"  # fmt: skip
        if same == (s, a):
            words += ", and is here itself the pair at that depth"
        elif same in accuracy:
            gap = parts.signed(accuracy[s, a] - accuracy[same])
            words += f", {gap} points from that pair, {s}-{same[1]}"
        lines.append(words + ".")
    poor = sorted({int(v) for v in panel.facts.snn_layer[panel.facts.fact == "very_poor_for_all_targets"]})
    if poor:
        means = run.groupby("snn_layer").minus_kd.mean()
        told = ", ".join(f"layer {s} {parts.signed(v)}" for s, v in means.items())
        lines.append(f"The paper finds all pairs of student layers {' and '.join(map(str, poor))} very poor. Mean "
                     f"difference from KD here: {told}.")  # fmt: skip
    return lines
