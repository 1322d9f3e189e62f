"""Effect of settings switched one at a time, against the experiment's first setting, over common seeds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.html import interval, table, text
from companion.pages.parts import run_links, switch
from companion.stats import difference, family, flat, signed
from sastc.config import METHODS, RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.records import Run, user_path

BASE = "as preset"
# Settings after which the mismatch score is of other layers or other quantities, so that its change says nothing.
OTHER_SCORE = ("taps", "student_tap", "stm_")


def effects(runs: pd.DataFrame, values: tuple[str, ...] = ("accuracy", "stm")) -> pd.DataFrame:
    """Every switch beside the first setting: a row a switch, a column of differences, one family, for each value.

    `runs` is :func:`companion.pages.parts.frame` of an experiment.
    """
    named = runs.assign(switch=runs.switch.replace("", BASE))
    switches = [name for name in dict.fromkeys(named.switch) if name != BASE]
    found = {value: family(difference(named, name, BASE, "switch", value) for name in switches) for value in values}
    return pd.DataFrame({"switch": switches} | found)


def in_every_method(runs: pd.DataFrame, field: str, values: tuple[str, ...] = ("accuracy", "stm")) -> pd.DataFrame:
    """Other values of a field beside its first one, as :func:`effects`, a row a method and value: ``KD, bf16``."""
    rows = []
    for method, same in runs.groupby("method", sort=False):
        first, *others = dict.fromkeys(same[field])
        switches = {first: ""} | {other: f"{LABELS[method]}, {other}" for other in others}
        rows.append(effects(same.assign(switch=same[field].map(switches)), values))
    every = pd.concat(rows, ignore_index=True)
    return every.assign(**{value: family(every[value]) for value in values})


def gains(runs: pd.DataFrame) -> pd.DataFrame:
    """SASTC less every other method with the same settings: a row a switch, a column of differences, one family, each.

    `runs` is :func:`companion.pages.parts.frame` of an experiment whose switches are run with every method.
    """
    switches = runs.groupby("switch", sort=False)
    found = {o: family(difference(same, "sastc", o) for _, same in switches) for o in METHODS[:-1]}
    return pd.DataFrame({"switch": [name or BASE for name, _ in switches]} | found)


def changed(plan: Experiment) -> list[str]:
    """A line a switch: every setting of a run that it changes, with what that was."""
    first: dict[str, RunConfig] = {}
    lines: dict[str, dict[str, None]] = {}
    for config in plan.runs:
        base = first.setdefault(config.method, config)
        if name := switch(config, base):
            was, now = base.to_dict(relevant=True), config.to_dict(relevant=True)
            fields = [f for f in now if f not in ("seed", "variant") and now[f] != was[f]]
            lines.setdefault(name, {}).update({f"{f} = {_word(now[f])} (was {_word(was[f])})": None for f in fields})
    return [(f"<em>{text(name)}</em>: " if len(f) > 1 else "") + text(", ".join(f)) for name, f in lines.items()]


def verdict_of_each(runs: pd.DataFrame) -> list[str]:
    """A sentence a switch: what its intervals allow to say of SASTC against each other method."""
    found = gains(runs).set_index("switch")
    return [f"<em>{text(name)}</em>: {report.held_up_by(row)}" for name, row in found.iterrows()]


def methods_table(runs: pd.DataFrame, field: str) -> str:
    """HTML table of :func:`in_every_method`, with accuracies and links to the runs."""
    accuracies = runs[runs.complete].groupby(["method", field], sort=False)
    rows = pd.DataFrame([{"method": m, "value": v, "done": done} for (m, v), done in accuracies])
    found = in_every_method(runs, field).set_index("switch")

    def change(row, value: str) -> str:
        name = f"{LABELS[row.method]}, {row.value}"
        if name not in found.index:
            return "–"
        return interval(found.loc[name, value], 3 if value == "stm" else 2, says=value == "accuracy")

    columns = {
        "method": lambda r: LABELS[r.method],
        field: lambda r: text(r.value),
        "accuracy (%)": lambda r: _mean_sd(r.done),
        "change of accuracy (points)": lambda r: change(r, "accuracy"),
        "change of STM": lambda r: change(r, "stm"),
        "runs": lambda r: run_links(r.done),
    }
    caption = (
        "Mean ± standard deviation; changes with 95 % intervals over the seeds (n) that both rows have, beside the "
        "method's first row."
    )
    return table(rows, caption, f"methods-{field}", columns, csv=found.reset_index())


def comparable(switch: str) -> bool:
    """Whether the mismatch score still measures the same after this switch."""
    return not switch.startswith(OTHER_SCORE)


def effects_table(runs: pd.DataFrame) -> str:
    """HTML table of the switches: accuracy, its change, the change of the mismatch score, links to the runs."""
    named = runs.assign(switch=runs.switch.replace("", BASE))
    found = effects(runs)
    base = pd.DataFrame([{"switch": BASE}])
    rows = pd.concat([base, found], ignore_index=True)
    done = named[named.complete]

    def change(row, value: str) -> str:
        if row.switch == BASE:
            return "–"
        if value == "stm" and not comparable(row.switch):
            return '<span class="seeds">other layers or units</span>'
        return interval(getattr(row, value), 4 if value == "stm" else 2)

    columns = {
        "setting": lambda r: text(r.switch),
        "accuracy<br>(%)": lambda r: _mean_sd(done[done.switch == r.switch]),
        "change<br>(points)": lambda r: change(r, "accuracy"),
        "which is": lambda r: "–" if r.switch == BASE else r.accuracy.judgement,
        "change of<br>STM score": lambda r: change(r, "stm"),
        "runs": lambda r: run_links(done[done.switch == r.switch]),
    }
    switched = dict.fromkeys(part.partition(" = ")[0] for switch in found.switch for part in switch.split(", "))
    preset = ", ".join(_preset(runs, name) for name in switched if name != "variant")
    caption = f"Each setting alone, beside the first row, which has {preset}; 95 % intervals over the seeds."
    return table(rows, caption, "choices", columns)


def _preset(runs: pd.DataFrame, name: str) -> str:
    """What the first setting has where a switch has something else."""
    return f"{name} = {_word(runs.iloc[0][name])}"


def _mean_sd(done: pd.DataFrame) -> str:
    """Mean and deviation of the accuracy on one line, however narrow the column."""
    return report.mean_sd(done.accuracy).replace(" ", "\N{NO-BREAK SPACE}")


def _word(value: object) -> str:
    """A setting's value as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def forest(found: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Changes with their intervals: a row a switch, a panel a value."""
    plt = figures.plt
    width = 4.6 if len(titles) == 1 else figures.WIDTH  # a phone shows 4.6 inches whole, with labels that can be read
    size = (width, 0.34 * len(found) + 1.0)
    drawing, axes = plt.subplots(1, len(titles), sharey=True, figsize=size, squeeze=False)
    y = np.arange(len(found))
    for axis, (value, title) in zip(axes[0], titles.items(), strict=True):
        numbers = flat(found[[value]].rename(columns={value: "difference"}))
        mean, half = numbers["mean"].astype(float), numbers.half.astype(float)
        if value == "stm":
            mean = mean.where(found.switch.map(comparable))
        look = dict(fmt="D", color=figures.COLOURS["sastc"], ecolor="black", elinewidth=1.1, capsize=2.5)
        axis.errorbar(mean, y, xerr=half.where(half.notna(), 0), **look)
        axis.axvline(0, color="gray", linewidth=1)
        axis.set(xlabel=title)
    axes[0][0].set_yticks(y, found.switch)
    axes[0][0].set_ylim(len(found) - 0.5, -0.5)  # the first above
    return drawing


def sentences(runs: pd.DataFrame) -> list[str]:
    """What came out, computed."""
    found = effects(runs)
    known = found[[d.judged for d in found.accuracy]]
    if known.empty:
        return ["No setting is recorded with seeds that differ."]
    known = known.assign(said=[d.judgement for d in known.accuracy])
    out = []
    for word in ("better", "worse", "not distinguishable"):
        names = "; ".join(text(s) for s in known[known.said == word].switch)
        out.append(f"Accuracy {word}{' from' if word.startswith('not') else ' than'} the preset's: {names or 'none'}.")
    widths = [d.half for d in known.accuracy]
    out.append(
        f"Half an interval is {min(widths):.1f} to {max(widths):.1f} points wide with "
        f"{' or '.join(str(n) for n in sorted({d.n for d in known.accuracy}))} seeds: a smaller effect would not "
        f"be seen. The words are corrected for {len(found)} differences (Holm)."
    )
    return out


def trained_twice(scale: str, results: str | Path = "results") -> str:
    """What is known of runs trained twice with one seed, by versions that round differently; '' if there are none.

    They are in ``<scale>/trained_twice.csv``: a row a run, its accuracy and the earlier one. Rows count whose later run
    is the one that pages show.
    """
    path = user_path(results) / scale / "trained_twice.csv"
    if not path.is_file():
        return ""
    found = pd.read_csv(path)
    runs = [Run(path.parent / name) for name in found.run]
    shown = {run.name: run.metrics["accuracy"] for run in report.shown_of(runs)}
    found = found[[shown.get(row.run) == row.accuracy for row in found.itertuples()]]
    if found.empty:
        return ""
    change = found.accuracy - found.earlier
    names = dict.fromkeys(run.provenance["data"]["name"] for run in runs if run.name in set(found.run))
    data = " and ".join(names)
    return (
        f"{len(found)} runs ({report.SCALE_WORDS[scale]}, {data}), of this page and others, were trained twice with "
        "the same seed, images and settings, by two versions of the code that differ in how they round. Their "
        f"accuracies differ by {signed(change.mean())} ± {change.std():.2f} points "
        f"(mean and standard deviation, at most {change.abs().max():.2f}), and the later ones are shown: so much of "
        "the scatter between seeds is rounding, and pairing by seed takes little of it away."
    )
