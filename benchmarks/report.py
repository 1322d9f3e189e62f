"""Measured JSON as text, HTML tables and a figure."""

import html
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

Row = dict[str, Any]

NAMES = {
    "vgg11": "VGG-11",
    "resnet18": "ResNet-18",
    "resnet19": "ResNet-19",
    "resnet34": "ResNet-34",
    "wrn28_4": "WRN-28-4",
}
METHOD_NAMES = {
    "teacher": "teacher",
    "baseline": "baseline",
    "kd": "KD",
    "feature_kd": "feature KD",
    "sastc": "SASTC",
}
MADE = ("started", "commit", "dirty", "command")  # of the provenance, for every case
WHAT = {
    "lif": "One layer of LIF neurons, forward and backward",
    "call": "One call of a layer of 256 neurons, forward and backward: what a call costs before there is work",
    "calibration": "Calibration of given features, forward and backward",
    "kd_step": "A training step of knowledge distillation",
    "sastc_step": "A training step of SASTC",
    "recording": "Recording of the measures",
    "epoch": "A whole epoch",
    "inference": "Inference",
    "imagenet": "Training steps and decoding at ImageNet's size",
    "scaling": "How the cost grows",
}
IMPLEMENTATIONS = {
    "plain": "plain",
    "library": "this library",
    "compiled": "plain, torch.compile",
    "handwritten": "by hand in C++",
    "spikingjelly": "SpikingJelly",
    "snntorch": "snnTorch",
    "decoder": "decoder of JPEGs",
}
AXES = {
    "timesteps": "time steps T",
    "batch_size": "batch size",
    "student_layers": "calibrated student layers",
    "width": "width (1: the paper's)",
}


def load(files: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Records of :mod:`benchmarks.run`.

    Raises
    ------
    FileNotFoundError
        A file is not there; the message says how to make it.
    """
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file} is not there: make it with python benchmarks/run.py --out {file}")
    records = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
    for record in records:
        _one_floor([row for row in record["cases"] if "floor_seconds" in row])
    return records


def _one_floor(rows: Sequence[Row]) -> None:
    """Give rows of one size one memory floor, the least measured: a copy timed in a slow moment is none."""
    for row in rows:
        row["floor_seconds"] = min(r["floor_seconds"] for r in rows if r["input_bytes"] == row["input_bytes"])


def keep(record: dict[str, Any], file: Path, again: Sequence[str]) -> None:
    """Take over from an earlier record in `file` what is not measured `again`, if all else was the same."""
    if not file.is_file():
        return
    old = json.loads(file.read_text(encoding="utf-8"))

    def comparable(found: dict[str, Any]) -> tuple:
        sizes = {name: value for name, value in found["settings"].items() if not name.endswith("repeats")}
        return hardware(found), json.dumps(sizes, sort_keys=True, default=str), found["allocator"]

    if comparable(old) != comparable(record):
        raise SystemExit(f"{file} is of other hardware, sizes or allocator: write to another file with --out")
    cases = {row["case"] for row in old["cases"]} - set(again)
    record["cases"] = [row for row in old["cases"] if row["case"] in cases]
    record["measured"] = {case: made for case, made in measured(old).items() if case in cases}


def measured(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """When, by which commit and by which command every case was measured."""
    made = {name: record["provenance"][name] for name in MADE}
    return record.get("measured") or {row["case"]: made for row in record["cases"]}


def describe(row: Row) -> str:
    """What a row is about: networks, T, sizes."""
    parts = []
    if "student" in row:
        parts.append(" & ".join(NAMES.get(row[key], row[key]) for key in ("student", "teacher") if key in row))
    if row["case"] == "epoch":
        parts.append(f"{row['method'].upper()}, {row['data']}, {row['images']} images")
    if "timesteps" in row:
        parts.append(f"T={row['timesteps']}")
    if "image_size" in row:
        parts.append(f"{row['image_size']} px")
    if row["case"] in ("kd_step", "sastc_step", "calibration", "inference") or "checkpoint" in row:
        parts.append(f"width {row['width']:g}, batch {row['batch_size']}")
    if "checkpoint" in row:
        parts.append("blocks recomputed" if row["checkpoint"] == "blocks" else "all kept")
    if row["implementation"] == "decoder":
        parts.append(f"{row['images']} files of 500 × 375")
    if "against" in row:
        parts.append(f"{AXES[row['against']]} {row['value']:g}")
    return ", ".join(parts)


def cells(row: Row) -> dict[str, str]:
    """The columns of one row as text; what was not measured is left out."""
    line = {"": describe(row), "how": IMPLEMENTATIONS.get(row["implementation"], row["implementation"])}
    if "precision" in row:
        line["numbers"] = f"{row['precision']}, {row['layout'].replace('_', ' ')}"
    if row.get("note"):
        line["note"] = row["note"]
    if "median" not in row:
        return line
    line["median (min)"] = f"{duration(row['median'])} ({duration(row['minimum'])})"
    if "ratio" in row:
        line["speed-up (range)"] = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})"
    if "floor_seconds" in row:
        line["× memory floor"] = f"{row['median'] / row['floor_seconds']:.2f}"
    if "images_per_second" in row:
        line["images/s"] = f"{row['images_per_second']:,.0f}"
    if "flops_per_second" in row:
        line["GFLOP/s"] = f"{row['flops_per_second'] / 1e9:,.1f}"
        line["of peak"] = f"{100 * row['peak_share']:.0f} %"
    if row.get("kept_bytes") is not None:
        line["kept"] = f"{row['kept_bytes'] / 2**20:,.1f} MiB"
    if row.get("peak_bytes") is not None:
        line["peak"] = f"{row['peak_bytes'] / 2**20:,.0f} MiB"
    if "share_of_epoch" in row:
        line["share of an epoch's steps"] = f"{100 * row['share_of_epoch']:.2f} %"
    return line


def duration(seconds: float) -> str:
    """Seconds with a unit that suits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-2 else f"{1e3 * seconds:.3f} ms"


def _columns(lines: Sequence[dict[str, str]]) -> list[str]:
    names = dict.fromkeys(name for line in lines for name in line)
    return sorted(names, key=lambda name: name == "note")  # the longest comes last


def text_table(rows: Sequence[Row]) -> str:
    """A table for the terminal."""
    lines = [cells(row) for row in rows]
    names = _columns(lines)
    grid = [names, *([line.get(name, "") for name in names] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    return "\n".join("  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in grid)


def html_table(record: dict[str, Any], case: str) -> str:
    """One case of one record as an HTML table, the hardware in its caption; a sentence where it was not measured.

    Rows about the same thing stand below its name; what was not timed says why.
    """
    lines = [cells(row) for row in record["cases"] if row["case"] == case]
    if not lines:
        return f"<p>Not measured here: <code>python benchmarks/run.py --only {case}</code>.</p>"
    names = [name for name in _columns(lines) if name not in ("", "note")]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = ""
    for about, group in itertools.groupby(lines, key=lambda line: line[""]):
        if about:
            body += f'<tr class="group"><th colspan="{len(names)}">{html.escape(about)}</th></tr>'
        for line in group:
            shown = {name: html.escape(line.get(name, "")) for name in names}
            if "note" in line:
                shown["how"] += f' <span class="seeds">{html.escape(line["note"])}</span>'
            body += "<tr>" + "".join(f"<td>{text}</td>" for text in shown.values()) + "</tr>"
    caption = f"{WHAT[case]}. {html.escape(hardware(record))}."
    return (
        f'<div class="table-box"><table class="results measured"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def yardstick(record: dict[str, Any]) -> str:
    """HTML sentence: the library's neurons against the same by hand; empty where they were not measured together."""
    rows: dict[tuple, dict[str, Row]] = {}
    for row in record["cases"]:
        if row["case"] in ("lif", "call") and "median" in row:
            key = (row["case"], row["precision"], row["timesteps"], row["layout"])
            rows.setdefault(key, {})[row["implementation"]] = row
    both = {key: [np.array(found[name]["seconds"]) for name in ("library", "handwritten")]
            for key, found in rows.items() if "handwritten" in found}  # fmt: skip
    times = {key: float(np.median(ours / theirs)) for key, (ours, theirs) in both.items()}
    parts = []
    for precision in ("fp32", "bf16"):
        if layers := [times[key] for key in times if key[:2] == ("lif", precision)]:
            parts.append(f"{min(layers):.2f} to {max(layers):.2f} times as long in {precision}")
    if not parts:
        return ""
    text = f"On {hardware(record)}: a layer takes {' and '.join(parts)} as the same by hand (medians of the rounds)"
    for key in times:
        if key[0] == "call":
            neurons = math.prod(rows[key]["library"]["shape"][1:])
            more = 1e6 * float(np.median(np.subtract(*both[key])))
            text += f". At {neurons} neurons, where the call is all there is, {times[key]:.2f} times: "
            text += f"{more:.0f} µs more a layer and training step for options, layouts and checks"
    return f"<p>{html.escape(text)}.</p>"


STEPS = "results/benchmarks/steps"  # of benchmarks/steps.py, one file a kind of processor
KINDS = {"amx": "AMX", "avx512_bf16": "AVX-512 with bf16", "avx512": "AVX-512 without bf16", "avx2": "AVX2"}


def steps_table(record: dict[str, Any]) -> str:
    """HTML table of a record of :mod:`benchmarks.steps`."""
    head = ["method", "before", "now", "speed-up (range)", "at most", "convolutions", "of the peak"]
    head += ["images/s, one run", "side by side"]
    body = ""
    order = list(METHOD_NAMES)
    rows = sorted(
        record["cases"],
        key=lambda row: (row["precision"], row["width"], row["student"], order.index(row["method"])),
    )
    for about, group in itertools.groupby(rows, key=_about_steps):
        body += f'<tr class="group"><th colspan="{len(head)}">{html.escape(about)}</th></tr>'
        for row in group:
            convolutions = row["convolution_share"] * row["seconds_now"]
            peak = row["convolution_rate"] / row["peak_rate"] if "peak_rate" in row else None  # older records have none
            cells = [
                METHOD_NAMES.get(row["method"], row["method"]),
                duration(row["seconds_before"]),
                duration(row["seconds_now"]),
                f"{row['ratio']:.2f} ({row['ratio_low']:.2f}–{row['ratio_high']:.2f})",
                f"{row['seconds_before'] / convolutions:.2f}",
                f"{100 * row['convolution_share']:.0f} %",
                f"{100 * peak:.0f} %" if peak else "–",
                f"{row['one_run']:,.0f}",
                f"{row['side_by_side']:,.0f}",
            ]
            body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    made = record["provenance"]
    commits = dict.fromkeys((row.get("commit") or made["commit"] or "unknown")[:10] for row in record["cases"])
    changed = " with changes" * bool(made["dirty"])
    caption = (
        f"{KINDS.get(record['processor'], record['processor'])}: {hardware(record)}; commit "
        f"{', '.join(commits)}{changed} against {record['against']}, {made['started'][:10]}."
    )
    return (
        f'<div class="table-box"><table class="results measured"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _about_steps(row: Row) -> str:
    pair = " & ".join(NAMES.get(row[key], row[key]) for key in ("student", "teacher"))
    return f"{pair}, T={row['timesteps']}, width {row['width']:g}, {row['precision']}"


def hardware(record: dict[str, Any]) -> str:
    """Device, threads and torch in a few words."""
    made = record["provenance"]
    threads = f", {made['threads']} thread{'s' * (made['threads'] != 1)}" if made["device_type"] == "cpu" else ""
    return f"{made['device']}{threads}, torch {made['versions']['torch']}"


def facts(record: dict[str, Any]) -> str:
    """HTML list: where, when and with what a record was measured."""
    peers = ", ".join(f"{name} {found or 'not installed'}" for name, found in record["peers"].items())
    entries = {
        "Hardware": hardware(record),
        "Copy, in the last session": f"{record['copy_bandwidth'] / 1e9:.1f} GB/s read and written",
        "Other packages": peers,
        "Memory allocator": ", ".join(f"{n}={v or 'unset'}" for n, v in record["allocator"].items()),
    }
    for (started, commit, dirty, command), cases in _sessions(record).items():
        changed = " with changes" * bool(dirty)
        made = f"{started}, commit {commit or 'unknown'}{changed}: {command}"
        entries[", ".join(cases)] = made + _peaks(record, cases)
    if any(row.get("kept_bytes", 0) > row.get("peak_bytes", math.inf) for row in record["cases"]):
        entries["Kept by plain loops, to be measured again"] = (
            "this record counts what is freed before the backward pass, the reset after the last step: two tensors for "
            "every layer of neurons, so that some rows have more kept than their peak"
        )
    return "<ul>" + "".join(f"<li>{name}: {html.escape(str(value))}</li>" for name, value in entries.items()) + "</ul>"


def _peaks(record: dict[str, Any], cases: Sequence[str]) -> str:
    """The best matrix products of the session that measured these cases, by which their shares of the peak are."""
    rows = [row for row in record["cases"] if row["case"] in cases and "peak_share" in row]
    peaks = {row["precision"]: row["flops_per_second"] / row["peak_share"] / 1e9 for row in rows}
    rates = ", ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in peaks.items())
    return rates and f"; peak (the best matrix product then): {rates}"


def _sessions(record: dict[str, Any]) -> dict[tuple, list[str]]:
    """The cases that were measured together."""
    sessions: dict[tuple, list[str]] = {}
    for case, made in measured(record).items():
        key = tuple(made[name] for name in MADE)
        sessions.setdefault(key, []).append(case)
    return sessions


def spread(record: dict[str, Any]) -> float:
    """How sure a time is: the median, over all rows, of (slowest - fastest) / median of the same thing repeated."""
    rows = [row for row in record["cases"] if len(row.get("seconds", ())) > 1]
    return float(np.median([(max(r["seconds"]) - r["minimum"]) / r["median"] for r in rows])) if rows else float("nan")


def scaling_figure(record: dict[str, Any]) -> Figure:
    """Time against T, batch, calibrated layers and width: the plain implementation and the library, on log scales."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    rows = [row for row in record["cases"] if row["case"] == "scaling"]
    figure, axes = plt.subplots(2, 2, figsize=(7.0, 5.4))
    looks = {"plain": dict(color="#7a7a7a", marker="s", linestyle="--"), "library": dict(color="#d55e00", marker="D")}
    for axis, (quantity, label) in zip(axes.flat, AXES.items(), strict=True):
        for name, look in looks.items():
            found = [r for r in rows if r["against"] == quantity and r["implementation"] == name]
            values, medians = [r["value"] for r in found], [r["median"] for r in found]
            mode = f", {found[0]['precision']}" if found else ""
            axis.plot(values, medians, **look, label=IMPLEMENTATIONS[name] + mode)
            for r in found:
                axis.plot([r["value"]] * 2, [r["minimum"], max(r["seconds"])], color=look["color"], linewidth=1)
        ticks = sorted({r["value"] for r in rows if r["against"] == quantity})
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.set_xticks(ticks, [f"{t:g}" if t >= 1 else f"1/{1 / t:g}" for t in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    for axis, quantity in zip(axes.flat, AXES, strict=True):
        axis.set_ylabel(f"seconds a {'calibration' if quantity == 'student_layers' else 'step'}")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, title=hardware(record), title_fontsize=9)
    return figure
