"""Running time and memory: ours, each on its hardware, and the paper's, in tables of their own."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sastc import figures, report
from sastc.config import METHODS
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.pages.parts import frame, paper, run_links, table, text
from sastc.records import Run

KEYS = ["dataset", "student", "teacher", "timesteps"]
SECONDS = ["train_seconds_per_epoch", "inference_seconds"]
MEMORY = "peak_memory_bytes"


def ours(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """One row a recorded run: seconds an epoch and for the test split, peak memory, numbers of images, device.

    Older records hold neither the time of inference nor the memory: ``nan``.
    """
    runs = frame(plan, results)
    runs = runs[runs.complete]
    facts = [Run(path).provenance for path in runs.path]
    device = [f"{f['device']}, {f['threads']} thread{'s' * (f['threads'] > 1)}" for f in facts]
    images = {n: [f.get("data", {}).get(n, 0) for f in facts] for n in ("train_images", "test_images")}
    return runs.reindex(columns=[*KEYS, "method", "seed", "run", *SECONDS, MEMORY]).assign(device=device, **images)


def papers() -> pd.DataFrame:
    """The paper's seconds an epoch on CIFAR (unit assumed), in the same columns; the method's teacher or ''."""
    times = paper("training_time_cifar")
    wide = times.pivot(index=[*KEYS, "method"], columns="phase", values="seconds_per_epoch").reset_index()
    return wide.rename(columns={"train": SECONDS[0], "infer": SECONDS[1]}).rename_axis(columns=None)


def relative(times: pd.DataFrame) -> pd.DataFrame:
    """Every mean time beside KD's of its student, teacher and T: ``over_kd``; a baseline stands beside each KD."""
    mean = times.groupby([*KEYS, "method"], sort=False)[SECONDS].mean().reset_index()
    kd = mean[mean.method == "kd"].set_index(KEYS)[SECONDS[0]].rename("kd")
    taught = mean[mean.method != "baseline"].merge(kd, on=KEYS, how="left")
    base = mean[mean.method == "baseline"].drop(columns="teacher")
    base = base.merge(kd.reset_index(), on=["dataset", "student", "timesteps"], how="inner")
    both = pd.concat([base, taught], ignore_index=True)
    return both.assign(over_kd=both[SECONDS[0]] / both.kd).drop(columns="kd")


def ours_table(times: pd.DataFrame) -> str:
    """HTML table of our times: a row for each student, teacher, T, method and device, seeds linked to their runs."""
    keys = [*KEYS, "method", "device", "train_images", "test_images"]
    groups = times.groupby(keys, sort=False)
    rows = groups[[*SECONDS, MEMORY]].mean().join(groups.size().rename("n")).reset_index()
    order = [*METHODS]
    rows = rows.assign(taught_by=rows.teacher.where(rows.method != "baseline", ""))
    by = ["dataset", "student", "timesteps", "taught_by", "method"]
    rows = rows.sort_values(by, key=lambda c: c.map(order.index) if c.name == "method" else c)

    def seeds(row) -> str:
        return run_links(times[np.logical_and.reduce([times[k] == getattr(row, k) for k in keys])])

    columns = {
        "student &amp; teacher": lambda r: LABELS[r.student] + (f" &amp; {LABELS[r.taught_by]}" if r.taught_by else ""),
        "T": "timesteps",
        "method": lambda r: LABELS[r.method],
        "images,<br>train / test": lambda r: f"{r.train_images:,} / {r.test_images:,}",
        "training<br>(s an epoch)": SECONDS[0],
        "inference<br>(s)": SECONDS[1],
        "peak memory<br>(MiB)": lambda r: _mebibytes(getattr(r, MEMORY)),
        "on": "device",
        "runs": seeds,
    }
    data = " and ".join(LABELS[d] for d in dict.fromkeys(rows.dataset))
    if rows.device.nunique() == 1:
        del columns["on"]
        data += f" on {rows.device.iloc[0]}"
    caption = (
        f"Ours, {data}: means over all epochs and seeds; inference is of all test images. Training includes the "
        "batches on which the mismatch score is measured, for which the baseline, too, calls the teacher. Memory is "
        "the most that torch's tensors took on a GPU; on a CPU it is the largest resident set of the whole process, "
        "Python and its libraries included. A dash: recorded before this was measured."
    )
    return table(rows, caption, "time-ours", columns)


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
    return table(pairs, caption, "time-paper", columns, csv=rows)


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
    return table(both, "The paper's text and its ImageNet table.", "time-paper-totals", columns)


def ratio_figure(times: pd.DataFrame) -> Figure:
    """Time of an epoch beside KD's: ours on the left, the paper's on the right; a mark each student, teacher and T."""
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
    axes[0].set_ylabel("time of an epoch\nbeside KD's (times)")
    return drawing


def sentences(times: pd.DataFrame) -> list[str]:
    """What came out, computed; only ratios are compared across hardware."""
    if times.empty:
        return ["No run is recorded."]
    out = []
    mine, theirs = relative(times), relative(papers())
    for method in ("feature_kd", "sastc"):
        values = [rows[rows.method == method].over_kd.dropna() for rows in (mine, theirs)]
        words = [
            f"{v.median():.2f} times KD's in the middle ({v.min():.2f} to {v.max():.2f}, {len(v)} cases)"
            if len(v)
            else "–"
            for v in values
        ]
        out.append(f"An epoch of {LABELS[method]} takes {words[0]} here, {words[1]} in the paper's appendix.")
    known = times.dropna(subset=MEMORY).groupby([*KEYS, "method"])[MEMORY].mean() / 2**20
    theirs = paper("running_time_memory").set_index("quantity").value
    if len(known):
        out.append(
            f"Peak memory of a run here: {known.min():,.0f} to {known.max():,.0f} MiB. The paper's text says "
            f"{theirs['gpu_memory_min']:g} to {theirs['gpu_memory_max']:g} GB of GPU memory, for all methods together."
        )
    devices = sorted(set(times.device))
    out.append(
        f"Our times are from {'; '.join(devices)}. Runs share the machine with each other, so single times are "
        "uncertain."
    )
    return out


def benchmarks(folder: Path | None = None) -> pd.DataFrame:
    """Steps, epochs and inference measured by ``benchmarks/run.py``: with device; empty without a record."""
    rows = []
    for path in sorted((folder or report.ROOT / "results" / "benchmarks").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        device = record["provenance"]["device"]
        wanted = [r for r in record["cases"] if r["case"] in ("kd_step", "sastc_step", "epoch", "inference")]
        rows += [r | {"device": device, "file": path.name} for r in wanted if "median" in r]
    columns = ["case", "implementation", "student", "teacher", "method", "timesteps", "batch_size", "precision"]
    columns += ["median", "minimum", "kept_bytes", "peak_bytes", "device", "file"]
    return pd.DataFrame(rows).reindex(columns=columns)


def benchmarks_table(folder: Path | None = None) -> str:
    """HTML table of :func:`benchmarks`, or a sentence with the command that makes them."""
    rows = benchmarks(folder)
    if rows.empty:
        return "<p>No benchmark is recorded; <code>python benchmarks/run.py</code> makes one.</p>"

    def networks(row) -> str:
        return " &amp; ".join(LABELS.get(n, n) for n in (row.student, row.teacher) if isinstance(n, str))

    def size(value: float) -> str:
        return text(value / 2**20) if pd.notna(value) else "–"

    columns = {
        "what": lambda r: r.case.replace("_", " "),
        "networks": networks,
        "T": lambda r: f"{r.timesteps:.0f}" if pd.notna(r.timesteps) else "–",
        "how": "implementation",
        "precision": lambda r: text(r.precision if isinstance(r.precision, str) else None),
        "median (s)": lambda r: f"{r.median:.3g}",
        "kept for the backward pass (MiB)": lambda r: size(r.kept_bytes),
        "peak (MiB)": lambda r: size(r.peak_bytes),
        "on": "device",
    }
    return table(rows, "Ours, measured apart from any run, interleaved and repeated.", "time-benchmarks", columns)
