"""Running time and memory: ours, each on its hardware, and the paper's, in tables of their own."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.pages.parts import frame, paper, run_links, table, text
from sastc.config import METHODS
from sastc.experiments import Experiment, load_experiment
from sastc.labels import LABELS
from sastc.records import Run

KEYS = ["dataset", "student", "teacher", "timesteps"]
SECONDS = ["train_seconds_per_epoch", "inference_seconds"]
MEMORY = "peak_memory_bytes"
DAILY = ("kd", "sastc")
STEPS = {"kd_step": "KD", "sastc_step": "SASTC"}
COSTS = (  # settings by which one training step costs another time than the next; those of the data are images
    *("width", "teacher_width", "batch_size", "precision", "memory_format", "checkpoint", "accumulate", "taps"),
    *("student_tap", "stm_batches", "attention", "attention_steps", "mlp_dim", "target_norm", "gamma", "surrogate"),
)


def ours(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """One row a recorded run: seconds an epoch and for the test split, memory, data, numbers of images, device, day.

    `cpu_seconds` are those of all threads in an epoch of training. Older records hold neither them, nor the time of
    inference, nor the memory: ``nan``.
    """
    return _measured(frame(plan, results))


def _measured(runs: pd.DataFrame) -> pd.DataFrame:
    """The complete ones of :func:`companion.pages.parts.frame` as :func:`ours`."""
    runs = runs[runs.complete]
    facts = [Run(path).provenance for path in runs.path]
    histories = [run.history if (run := Run(path)).has("history.csv") else {} for path in runs.path]
    cpu = [h["train_cpu_seconds"].mean() if "train_cpu_seconds" in h else np.nan for h in histories]
    device = [f"{f['device']}, {f['threads']} thread{'s' * (f['threads'] > 1)}" for f in facts]
    images = {n: [f.get("data", {}).get(n, 0) for f in facts] for n in ("train_images", "test_images")}
    columns = [*KEYS, "method", "seed", "data", "run", *SECONDS, MEMORY, *COSTS]
    day = [f.get("started", "")[:10] for f in facts]
    return runs.reindex(columns=columns).assign(device=device, day=day, cpu_seconds=cpu, **images)


def papers() -> pd.DataFrame:
    """The paper's seconds an epoch on CIFAR (unit assumed), in the same columns; the method's teacher or ''."""
    times = paper("training_time_cifar")
    wide = times.pivot(index=[*KEYS, "method"], columns="phase", values="seconds_per_epoch").reset_index()
    return wide.rename(columns={"train": SECONDS[0], "infer": SECONDS[1]}).rename_axis(columns=None)


def relative(times: pd.DataFrame) -> pd.DataFrame:
    """Time of an epoch relative to KD's of the same student, teacher, T, data, seed and device: ``over_kd``.

    A row is one student, teacher, T, method, data and device; ``over_kd`` is the median over its seeds, ``lowest`` and
    ``highest`` the range over `n` seeds. Ratios are of CPU seconds, which another load changes less, over the seeds
    of which both runs recorded them (``on_cpu``), and `left_out` counts the others; where there is none, of wall-clock
    seconds. A baseline stands beside each KD.
    """
    columns = [*KEYS, "method", "seed", "data", "device", "cpu_seconds", SECONDS[0]]
    papers = dict(seed=0, data="", device="", cpu_seconds=np.nan)  # which says nothing of these
    rows = times.assign(**{name: value for name, value in papers.items() if name not in times})[columns]
    same = ["dataset", "student", "timesteps", "seed", "data", "device"]
    kd = rows[rows.method == "kd"].drop(columns="method")
    taught = rows[rows.method != "baseline"].merge(kd, on=[*same, "teacher"], suffixes=("", "_kd"))
    base = rows[rows.method == "baseline"].drop(columns="teacher").merge(kd, on=same, suffixes=("", "_kd"))
    both = pd.concat([base, taught], ignore_index=True)
    cpu = both.cpu_seconds / both.cpu_seconds_kd
    both = both.assign(ratio=cpu.fillna(both[SECONDS[0]] / both[f"{SECONDS[0]}_kd"]), cpu=cpu.notna())
    case = [*KEYS, "method", "data", "device"]
    both = both.assign(out=both.groupby(case).cpu.transform("any") & ~both.cpu)
    found, left_out = both[~both.out].groupby(case, sort=False), both.groupby(case).out.sum().rename("left_out")
    ratios = found.ratio.agg(over_kd="median", lowest="min", highest="max")
    return ratios.join([found.cpu.sum().rename("on_cpu"), found.size().rename("n"), left_out]).reset_index()


def ours_table(times: pd.DataFrame) -> str:
    """HTML table of our times: a row for each student, teacher, T, method, data and device, with links to its runs."""
    keys = [*KEYS, "method", "data", "device", "train_images", "test_images"]
    groups = times.groupby(keys, sort=False)
    rows = groups[[*SECONDS, "cpu_seconds", MEMORY]].mean().join(groups.size().rename("n")).reset_index()
    rows = rows.merge(relative(times).drop(columns="n"), on=[*KEYS, "method", "data", "device"], how="left")
    order = [*METHODS]
    rows = rows.assign(taught_by=rows.teacher.where(rows.method != "baseline", ""))
    by = ["dataset", "student", "timesteps", "data", "taught_by", "method"]
    rows = rows.sort_values(by, key=lambda c: c.map(order.index) if c.name == "method" else c)

    def of(row) -> pd.DataFrame:
        return times[np.logical_and.reduce([times[k] == getattr(row, k) for k in keys])]

    def cpu(row) -> str:
        known = of(row).dropna(subset="cpu_seconds").seed
        which = "" if len(known) in (0, row.n) else f' <span class="seeds">seed {" ".join(map(str, known))}</span>'
        return text(row.cpu_seconds) + which

    def over_kd(row) -> str:
        if row.method in ("baseline", "kd"):  # a baseline has no teacher, so it has a ratio to each of several
            return ""
        span = f'<span class="seeds">({text(row.lowest)}–{text(row.highest)})</span>'
        return f"{text(row.over_kd)} {span}" if pd.notna(row.over_kd) else "–"

    columns = {
        "student &amp; teacher": lambda r: LABELS[r.student] + (f" &amp; {LABELS[r.taught_by]}" if r.taught_by else ""),
        "T": "timesteps",
        "data": "data",
        "method": lambda r: LABELS[r.method],
        "images, train / test": lambda r: f"{r.train_images:,} / {r.test_images:,}",
        "CPU s an epoch": cpu,
        "time over KD's": over_kd,
        "wall s an epoch": SECONDS[0],
        "wall s to test": SECONDS[1],
        "peak memory (MiB)": lambda r: _mebibytes(getattr(r, MEMORY)),
        "on": "device",
        "day": lambda r: _days(of(r)),
        "runs": lambda r: run_links(of(r)),
    }
    data = " and ".join(dict.fromkeys(rows.data))
    if rows.data.nunique() == 1:
        del columns["data"]
    if times.day.nunique() == 1:
        del columns["day"]
    if rows.device.nunique() == 1:
        del columns["on"]
        data += f" on {rows.device.iloc[0]}"
    if len(rows[["train_images", "test_images"]].drop_duplicates()) == 1:
        del columns["images, train / test"]
        data += f", {rows.train_images.iloc[0]:,} training and {rows.test_images.iloc[0]:,} test images"
    caption = (
        f"Ours, {data}: means over all epochs and seeds; the test is of all test images, once. CPU seconds are those "
        "of all threads, of the seeds beside them where not all runs recorded them; wall seconds are those of the "
        "clock. Time over KD's: median and range over the seeds that have CPU seconds in both runs; where none has, of "
        "wall seconds; both are of the same data. Compare these ratios: seconds of other days, data or machines do not "
        "compare. Training includes the "
        "batches on which the mismatch score is measured, for which the baseline, too, calls the teacher. Memory is "
        "the most that torch's tensors took on a GPU; on a CPU it is the largest resident set of the whole process, "
        "Python and its libraries included. A dash: recorded before this was measured."
    )
    return table(rows, caption, "time-ours", columns, kind="results cards")


def _days(times: pd.DataFrame) -> str:
    """The days on which runs were started, the first and the last."""
    return report.span(filter(None, times.day)) if times.day.any() else "–"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.0f}" if pd.notna(value) else "–"


def papers_table() -> str:
    """HTML table of the paper's seconds an epoch, training / inference: a row for each student, teacher and T."""
    rows = papers()
    cells = {
        m: rows[rows.method == m].set_index(["dataset", "student", "timesteps", "teacher"])[SECONDS] for m in METHODS
    }
    pairs = rows[rows.method != "baseline"][["dataset", "student", "teacher", "timesteps"]].drop_duplicates()

    def cell(row, method: str) -> str:
        key = (row.dataset, row.student, row.timesteps, "" if method == "baseline" else row.teacher)
        known = key in cells[method].index
        return "&nbsp;/&nbsp;".join(text(float(v)) for v in cells[method].loc[key]) if known else "–"

    columns = {
        "student &amp; teacher": lambda r: f"{r.student} &amp; {r.teacher}",
        "data": "dataset",
        "T": "timesteps",
        **{LABELS[m]: lambda r, m=m: cell(r, m) for m in METHODS},
    }
    hardware = paper("hyperparameters").query("name == 'gpu_servers'").value.iloc[0]
    caption = (
        f"The paper's seconds an epoch, training / inference: full width, one of its servers ({hardware}). No unit is "
        "printed; seconds are assumed. A dash: not printed."
    )
    return table(pairs, caption, "time-paper", columns, csv=rows, kind="results cards")


def papers_totals() -> str:
    """HTML table of the hours and gigabytes in the paper's text, and its times on ImageNet."""
    rows = paper("running_time_memory")[
        ["dataset", "student", "teacher", "quantity", "method", "timesteps", "value", "unit"]
    ]
    net = paper("training_time_imagenet").rename(columns={"architecture": "student", "time": "value"})
    net = net.assign(quantity=net.phase + " time", teacher="")[rows.columns]
    both = pd.concat([rows, net], ignore_index=True)
    columns = {
        "student &amp; teacher": lambda r: r.student + (f" &amp; {r.teacher}" if r.teacher else ""),
        "data": "dataset",
        "quantity": lambda r: r.quantity.replace("_", " "),
        "method": lambda r: LABELS.get(r.method, "–"),
        "T": lambda r: f"{r.timesteps:.0f}" if np.isfinite(r.timesteps) else "–",
        "value": lambda r: f"{r.value:g} {r.unit}",
    }
    return table(both, "The paper's text and its ImageNet table.", "time-paper-totals", columns, kind="results cards")


def ratio_figure(times: pd.DataFrame) -> Figure:
    """Time of an epoch relative to KD's: ours left, the paper's right; a mark each student, teacher and T."""
    plt = figures.plt
    drawing, axes = plt.subplots(1, 2, sharey=True, figsize=(7.0, 3.2))
    random = np.random.default_rng(0)
    for axis, rows, title in zip(axes, (relative(times), relative(papers())), ("ours", "the paper's"), strict=True):
        for i, method in enumerate(METHODS):
            values = rows[rows.method == method].over_kd.dropna()
            places = i + random.uniform(-0.18, 0.18, len(values))
            look = dict(color=figures.COLOURS[method], marker=figures.MARKERS[method], linestyle="none", alpha=0.75)
            axis.plot(places, values, **look)
            if len(values):
                axis.hlines(values.median(), i - 0.3, i + 0.3, color="black", linewidth=1.2)
        axis.axhline(1, color="gray", linewidth=0.8)
        axis.set_xticks(range(len(METHODS)), [LABELS[m] for m in METHODS])
        axis.set_title(title)
    axes[0].set_ylabel("time of an epoch\nrelative to KD's")
    return drawing


def sentences(times: pd.DataFrame) -> list[str]:
    """What came out, computed; only ratios are compared across hardware."""
    if times.empty:
        return ["No run is recorded."]
    out = []
    mine, theirs = relative(times), relative(papers())
    for method in ("feature_kd", "sastc"):
        here, there = (rows[rows.method == method] for rows in (mine, theirs))
        told = [
            f"{v.over_kd.median():.2f} times KD's (median of {len(v)} case{'s' * (len(v) > 1)}; "
            f"{v.lowest.min():.2f} to {v.highest.max():.2f}{seeds})"
            if len(v)
            else "–"
            for v, seeds in ((here, " over single seeds"), (there, ""))
        ]
        out.append(
            f"An epoch of {LABELS[method]} takes {told[0]} here, {told[1]} in the paper's appendix.{_seeds(here)}"
        )
    longer = theirs[theirs.method == "sastc"].set_index("timesteps").over_kd > 1
    steps = " and ".join(f"T = {t}" for t in sorted(set(longer.index[~longer])))
    out.append(
        f"By the paper's appendix an epoch of SASTC takes longer than KD's in {longer.sum()} of {len(longer)} cases"
        + (f"; the others are at {steps}." if steps else ".")
    )
    known = times.dropna(subset=MEMORY).groupby([*KEYS, "method"])[MEMORY].mean() / 2**20
    theirs = paper("running_time_memory").set_index("quantity").value
    if len(known):
        out.append(
            f"Peak memory of a run here: {known.min():,.0f} to {known.max():,.0f} MiB. The paper's text says "
            f"{theirs['gpu_memory_min']:g} to {theirs['gpu_memory_max']:g} GB of GPU memory, for all methods together."
        )
    devices = sorted(set(times.device))
    out.append(
        f"Our times are from {'; '.join(devices)}. Runs shared the machine with each other and with other work. "
        "Wall-clock seconds hold that load; CPU seconds hold a part of it, and differ between days, machines and "
        "versions: compare ratios to KD with the same data and T. Older records have wall-clock seconds alone."
    )
    return out


def same_step(plan: Experiment, results: str | Path = "results") -> str:
    """By how much CPU seconds of the same step differ between days, of all recorded runs at this scale; '' if unknown.

    The step of KD that differs most; beside it stands SASTC's ratio to KD on the same two days.
    """
    files = sorted((report.ROOT / "experiments").glob("*.yaml"))
    every = dict.fromkeys(c for path in files for c in load_experiment(path, plan.scale).runs if c.method in DAILY)
    times = _measured(frame(dataclasses.replace(plan, runs=tuple(every)), results)) if every else pd.DataFrame()
    if times.empty:
        return ""
    step = [*KEYS, *COSTS, "train_images", "device"]
    daily = (
        times.groupby([*step, "day", "data", "method"])
        .cpu_seconds.agg(["mean", "min", "max", "size"])
        .dropna()
        .reset_index()
    )
    kd, sastc = (daily[daily.method == method].drop(columns="method") for method in DAILY)
    both = kd.merge(sastc, on=[*step, "day", "data"], suffixes=("", "_sastc")).sort_values("mean")
    of_step = both.groupby(step)
    known = (of_step["mean"].max() / of_step["mean"].min())[of_step.day.nunique() > 1]
    if known.empty:
        return ""
    rows = of_step.get_group(known.idxmax())
    low, high = rows.iloc[0], rows.iloc[-1]
    told = " and ".join(
        f"{r['mean']:.2f} s ({r['min']:.2f} to {r['max']:.2f}, n={r['size']}) on {r.day} with {r.data}"
        for r in (low, high)
    )
    ratios = " and ".join(f"{r.mean_sastc / r['mean']:.2f}" for r in (low, high))
    return (
        f"The same training takes other CPU seconds on another day: an epoch of KD ({LABELS[low.student]} and "
        f"{LABELS[low.teacher]}, T={low.timesteps}, {low.train_images:,} images) {told}, {known.max():.2f} times as "
        f"many. SASTC's take {ratios} times KD's of the same day."
    )


def _seeds(ratios: pd.DataFrame) -> str:
    """Which of our runs a sentence counts: pairs of one seed, by the seconds that both recorded."""
    if ratios.empty:
        return ""
    cpu, n, out = (int(ratios[name].sum()) for name in ("on_cpu", "n", "left_out"))
    kinds = [f"{cpu} by CPU seconds"] * (cpu > 0) + [f"{n - cpu} by wall-clock seconds"] * (n > cpu)
    said = f" Each seed is compared with KD's: {' and '.join(kinds)}"
    rest = f"; {out} left out, in which a run has wall-clock seconds alone and other seeds of the case have both"
    return f"{said}{rest * (out > 0)}."


def benchmarks(folder: Path | None = None) -> pd.DataFrame:
    """Training steps of this library, as ``benchmarks/run.py`` measured them, with device; empty without a record.

    Of the layouts in memory only the one that is fast; all that was measured has a page of its own.
    """
    rows = []
    for path in sorted((folder or report.ROOT / "results" / "benchmarks").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        device = record["provenance"]["device"]
        ours = [r for r in record["cases"] if r["case"] in STEPS and r.get("layout") == "channels_last"]
        rows += [r | {"device": device, "file": path.name} for r in ours if r["implementation"] == "library"]
    columns = ["case", "student", "teacher", "timesteps", "width", "batch_size", "precision"]
    columns += ["median", "minimum", "kept_bytes", "peak_bytes", "device", "file"]
    frame = pd.DataFrame(rows).reindex(columns=columns)
    return frame.sort_values(["device", "student", "width", "precision", "timesteps", "case"], kind="stable")


def benchmarks_table(folder: Path | None = None) -> str:
    """HTML table of :func:`benchmarks`, or a sentence with the command that makes them."""
    rows = benchmarks(folder)
    if rows.empty:
        return "<p>No benchmark is recorded; <code>python benchmarks/run.py</code> makes one.</p>"
    columns = {
        "networks": lambda r: f"{LABELS[r.student]} &amp; {LABELS[r.teacher]}",
        "width": lambda r: f"{r.width:g}",
        "batch": "batch_size",
        "precision": "precision",
        "T": "timesteps",
        "step": lambda r: STEPS[r.case],
        "median (s)": lambda r: f"{r.median:.3g}",
        "kept (MiB)": lambda r: _mebibytes(r.kept_bytes),
        "peak (MiB)": lambda r: _mebibytes(r.peak_bytes),
    }
    caption = (
        "One training step, measured apart from any run, interleaved and repeated, on "
        f"{' and '.join(dict.fromkeys(rows.device))}. Kept: for the backward pass."
    )
    return table(rows, caption, "time-benchmarks", columns, kind="results cards")
