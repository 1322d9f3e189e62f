"""Energy of one inference: our counts beside the paper's table."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.html import interval, table, text
from companion.pages.forensics_costs import energies, same_step_costs
from companion.pages.parts import frame, run_link
from companion.stats import family, paired, signed
from sastc.config import METHODS
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.records import Run

KEYS = ["student", "teacher", "timesteps", "method"]


def layers(path: Path) -> pd.DataFrame | None:
    """A run's ``energy.csv``; ``None`` where there is none."""
    run = Run(path)
    return run.energy if run.has("energy.csv") else None


def counts(runs: pd.DataFrame) -> pd.DataFrame:
    """Operations and energy of the runs of :func:`companion.pages.parts.frame`: a row a run with an ``energy.csv``.

    `mac_energy_nj` is the part of the layers that multiply: those whose input is no spikes.
    """
    columns = ["macs", "acs", "energy_nj", "special_energy_nj"]
    names = [*KEYS, "seed", "teacher_seed", "data_seed", "run", "path", "accuracy"]
    rows = [
        {n: row[n] for n in names}
        | {c: counted[c].sum() for c in columns}
        | {"mac_energy_nj": counted.energy_nj[counted.macs > 0].sum()}
        for row in runs[runs.complete.astype(bool)].to_dict("records")
        if (counted := layers(row["path"])) is not None
    ]
    found = pd.DataFrame(rows, columns=[*names, *columns, "mac_energy_nj"])
    return found.assign(energy_uj=found.energy_nj / 1e3, special_energy_uj=found.special_energy_nj / 1e3)


def totals(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """:func:`counts` of an experiment's runs and of their teachers."""
    taught = frame(dataclasses.replace(plan, runs=(*plan.runs, *plan.teachers)), results)
    return counts(taught.assign(timesteps=taught.timesteps.where(taught.method != "teacher", 1)))


def summary(counted: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds for every student, teacher, T and method; energy relative to KD's at equal T and to the ANN's."""
    values = ["accuracy", "macs", "acs", "energy_uj", "special_energy_uj"]
    groups = counted.groupby(KEYS, sort=False)
    mean = groups[values].mean().join(groups.size().rename("n")).reset_index()
    order = {method: i for i, method in enumerate((*METHODS, "teacher"))}
    mean = mean.sort_values(["student", "timesteps", "method"], key=lambda c: c.map(order) if c.name == "method" else c)

    def beside(row: pd.Series, method: str) -> float:
        if method == "teacher":
            found = mean[(mean.method == method) & (mean.teacher == row.teacher)]
        else:
            found = mean[(mean.method == method) & (mean.student == row.student) & (mean.timesteps == row.timesteps)]
        return row.energy_uj / found.energy_uj.iloc[0] if len(found) and found.energy_uj.iloc[0] > 0 else np.nan

    over = {f"over_{m}": [beside(row, m) for _, row in mean.iterrows()] for m in ("kd", "teacher")}
    return mean.assign(**over).reset_index(drop=True)


def ours_table(counted: pd.DataFrame, place: str) -> str:
    """HTML table of our counts; every seed links to its run. `place` is :func:`companion.pages.parts.place`."""
    rows = summary(counted)

    def seeds(row) -> str:
        chosen = counted[np.logical_and.reduce([counted[k] == getattr(row, k) for k in KEYS])]
        return " ".join(run_link(run.run, run.seed) for run in chosen.itertuples())

    def name(row) -> str:
        return LABELS[row.student or row.teacher]

    columns = {
        "network": name,
        "T": lambda r: "–" if r.method == "teacher" else str(r.timesteps),
        "method": lambda r: LABELS[r.method],
        "accuracy<br>(%)": "accuracy",
        "MAC<br>(10⁶)": lambda r: text(r.macs / 1e6),
        "AC<br>(10⁶)": lambda r: text(r.acs / 1e6),
        "energy<br>(µJ)": "energy_uj",
        "at 77 fJ<br>(µJ)": "special_energy_uj",
        "beside<br>KD's": lambda r: text(r.over_kd),
        "of ANN's<br>(%)": lambda r: text(100 * r.over_teacher),
        "seeds": seeds,
    }
    taught = " and ".join(LABELS[name] for name in dict.fromkeys(rows.teacher) if name)
    caption = "Operations and energy of one test image, mean over the seeds that are named, and energy "
    caption += f"relative to KD's at equal T; the teacher is {taught}. {place}"
    return table(rows, caption, "energy-ours", columns, kind="results cards")


def papers_table() -> str:
    """HTML table of the paper's energies, with the same ratios computed from them."""
    rows = energies().assign(timesteps=lambda r: r.timesteps.fillna(0).astype(int))
    kd = rows[rows.method == "kd"].set_index("timesteps").total_energy_uj
    ann = rows[rows.method == "teacher_ann"].total_energy_uj.iloc[0]
    rows = rows.assign(over_kd=rows.total_energy_uj / rows.timesteps.map(kd), of_ann=100 * rows.total_energy_uj / ann)
    columns = {
        "networks": lambda r: " &amp; ".join(n for n in (r.student, r.teacher) if n),
        "T": lambda r: str(r.timesteps or "–"),
        "method": lambda r: LABELS.get(r.method, LABELS["teacher"]),
        "accuracy (%)": "accuracy",
        "energy (µJ)": "total_energy_uj",
        "of KD's at this T": "over_kd",
        "of the ANN's (%)": "of_ann",
    }
    return table(rows[[*KEYS, "accuracy", "total_energy_uj", "over_kd", "of_ann"]],
                 "The paper's: ResNet-18 & ResNet-32x4 on CIFAR-100, full width.", "energy-paper", columns)  # fmt: skip


def _of_each_method(counted: pd.DataFrame, timesteps: int, seed: int) -> pd.DataFrame:
    """One run of each method, by method: those of the first student at this T with this seed."""
    chosen = counted[(counted.timesteps == timesteps) & (counted.seed == seed) & (counted.method != "teacher")]
    chosen = chosen[chosen.student == chosen.student.iloc[0]] if len(chosen) else chosen
    chosen = chosen.drop_duplicates("method").set_index("method")
    return chosen.loc[[m for m in METHODS if m in chosen.index]]


def layer_figure(counted: pd.DataFrame, timesteps: int, seed: int = 0) -> Figure | None:
    """Energy (top) and input rate of every layer at one T, a mark a method; ``None`` without a run."""
    plt = figures.plt
    chosen = _of_each_method(counted, timesteps, seed)
    methods = list(chosen.index)
    if not methods:
        return None
    drawing, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(7.0, 4.6))
    for i, method in enumerate(methods):
        rows = layers(chosen.path[method])
        look = dict(color=figures.COLOURS[method], marker=figures.MARKERS[method], label=LABELS[method])
        x = np.arange(len(rows))
        place = x + 0.8 * ((i + 0.5) / len(methods) - 0.5)
        rates = rows.input_rate.where(rows.input == "spikes")
        for axis, values in ((top, rows.energy_nj), (bottom, 100 * rates)):
            axis.plot(place, values, linestyle="none", clip_on=False, **look)
    top.set_yscale("log")
    top.set(ylabel="energy (nJ)")
    bottom.set(ylabel="input spikes per\nneuron and step (%)", xlabel="layer, in the order of computation")
    bottom.set_xticks(x, rows.layer.str.removeprefix("stages."), rotation=40, ha="right")
    bottom.set_ylim(bottom=0)
    title = f"{LABELS[chosen.student.iloc[0]]}, T={timesteps}, seed {seed}"
    top.legend(ncols=len(methods), loc="lower center", bbox_to_anchor=(0.5, 1.0), title=title)
    return drawing


def layer_table(counted: pd.DataFrame, timesteps: int, place: str, seed: int = 0) -> str:
    """HTML table of what :func:`layer_figure` draws, folded: operations, rate and energy of every layer."""
    chosen = _of_each_method(counted, timesteps, seed)
    if chosen.empty:
        return ""
    rows = pd.concat([layers(row.path).assign(method=method, run=row.run) for method, row in chosen.iterrows()])
    columns = {
        "layer": lambda r: r.layer.removeprefix("stages."),
        "method": lambda r: LABELS[r.method],
        "input": "input",
        "not zero<br>(%)": lambda r: text(100 * r.input_rate),
        "MAC<br>(10³)": lambda r: text(r.macs / 1e3),
        "AC<br>(10³)": lambda r: text(r.acs / 1e3),
        "energy<br>(nJ)": "energy_nj",
        "at 77 fJ<br>(nJ)": "special_energy_nj",
    }
    caption = f"Operations and energy of every layer, T={timesteps}, seed {seed}: one test image, sums over the steps. "
    caption += place
    numbers = table(rows.sort_index(kind="stable"), caption, "energy-layers", columns)
    return f"<details><summary>The numbers of every layer</summary>{numbers}</details>"


def images(counted: pd.DataFrame) -> str:
    """On how many test images operations were counted, in words."""
    from sastc.train import ENERGY_IMAGES

    tested = {int(Run(path).measures["confusion"].sum()) for path in counted.path}
    return " or ".join(f"{n:,}" for n in sorted({min(n, ENERGY_IMAGES) for n in tested})) or "no"


def differences(counted: pd.DataFrame, value: str = "energy_uj") -> pd.DataFrame:
    """SASTC's energy less every other method's at equal T, in percent of the other's, over common seeds.

    Or another `value` of :func:`counts`, such as ``acs``.
    """
    rows = []
    for (student, timesteps), group in counted[counted.method != "teacher"].groupby(
        ["student", "timesteps"], sort=False
    ):
        keys = ["seed", "teacher_seed", "data_seed"]
        mine = group[group.method == "sastc"].set_index(keys)[value]
        teachers = pd.Series(mine.index.droplevel("seed").to_flat_index(), mine.index)
        for other in [m for m in METHODS[:-1] if {m, "sastc"} <= set(group.method)]:
            on = keys if other != "baseline" else keys[:1]
            theirs = group[group.method == other].set_index(on)[value]
            beside = theirs.reindex(mine.index if len(on) > 1 else mine.index.get_level_values("seed"))
            gain = paired(100 * (mine / beside.to_numpy() - 1), 0.0, teachers)
            rows.append(dict(student=student, timesteps=timesteps, other=other, difference=gain))
    found = pd.DataFrame(rows, columns=["student", "timesteps", "other", "difference"])
    return found.assign(difference=family(found.difference))


def differences_table(counted: pd.DataFrame, place: str) -> str:
    """HTML table of :func:`differences`."""
    columns = {
        "student": lambda r: LABELS[r.student],
        "T": "timesteps",
        "SASTC beside": lambda r: LABELS[r.other],
        "difference (%)": lambda r: interval(r.difference, 1),
    }
    caption = (
        "Energy of SASTC's networks minus another method's, in percent of the other's; 95 % intervals over seeds. "
    )
    caption += place
    return table(differences(counted), caption, "energy-differences", columns)


def share(counted: pd.DataFrame) -> str:
    """What students take of their teacher's energy; '' where none is known."""
    rows = summary(counted)
    known = 100 * rows.over_teacher[rows.over_teacher.notna() & (rows.method != "teacher")]
    told = f"Spiking students take {known.min():.1f} to {known.max():.1f} % of their teacher's energy."
    return told if len(known) else ""


def sentences(counted: pd.DataFrame) -> Sequence[str]:
    """SASTC's energy beside KD's at every T, here and in the paper."""
    out, gains = [], differences(counted)
    kd = gains[gains.other == "kd"]
    if len(kd):
        each = "; ".join(
            f"T={t}: {signed(d.mean, 1)} % ({d.n} seed{'s' * (d.n > 1)})"
            for t, d in zip(kd.timesteps, kd.difference, strict=True)
        )
        out.append(f"SASTC's energy relative to KD's at equal T, {each}.")
        known, paper = [d for d in kd.difference if d.judged], same_step_costs().sastc_over_kd
        more = sum(d.low > 0 for d in known)
        judged = f"The interval over seeds lies above zero in {more} of {len(known)} cases" if len(known) else (
            "No case has seeds that differ"
        )  # fmt: skip
        out.append(
            f"{judged}; in the paper's table SASTC takes {paper.min():.2f} to {paper.max():.2f} times KD's energy."
        )
        out.append(additions(counted))
    return out


def additions(counted: pd.DataFrame) -> str:
    """How much of KD's energy are multiplications, and SASTC's additions beside KD's, at every T."""
    gains = differences(counted, "acs")
    cases = gains[gains.other == "kd"]
    shares, told, same = [], [], True
    for student, timesteps, d in zip(cases.student, cases.timesteps, cases.difference, strict=True):
        mean = counted[(counted.student == student) & (counted.timesteps == timesteps)].groupby("method")
        mean = mean[["energy_nj", "mac_energy_nj", "macs"]].mean()
        same &= bool(np.isclose(mean.macs["sastc"], mean.macs["kd"]))
        shares.append((mean.mac_energy_nj["kd"], mean.energy_nj["kd"]))
        told.append(f"{1 + d.mean / 100:.2f} (T={timesteps})")
    part, whole = (f"{nj / 1e3:.2f}" for nj in shares[0])
    percent = report.span({round(100 * part / whole) for part, whole in shares})
    return (
        f"The ratio depends on what the layers take whose input is no spikes: {percent} % of KD's energy here "
        f"({part} of {whole} µJ at T={cases.timesteps.iloc[0]}) are their multiplications, "
        f"{'as many' if same else 'not as many'} in SASTC's networks as in KD's. In additions alone, which follow the "
        f"spikes, SASTC takes {', '.join(told)} times KD's."
    )
