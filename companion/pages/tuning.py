"""Learning rate and β, chosen on validation images: what each value gives, and what the feature loss then does."""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.html import in_words, rows_table
from companion.pages import parts
from sastc.config import METHODS, RunConfig
from sastc.experiments import Experiment, load_experiment
from sastc.labels import LABELS
from sastc.records import Run

FIELDS = {
    "learning_rate": "learning rate",
    "beta": "weight β of the feature loss",
    "kl_weight": "weight of the KL term",
}
SIGNS = {"learning_rate": "learning<br>rate", "beta": "β", "kl_weight": "weight<br>of KL"}
FACTS = ("images", "error", "loss_ratio", "gradient_ratio", "cosine", "projectors")


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """:func:`parts.frame` with what each run says of itself.

    `images`: validation images. `error`: two standard errors of the accuracy, in points, from their number alone.
    `loss_ratio`: β times the feature loss over the KD loss, in the first epoch. The others are means over epochs.
    `gradient_ratio`: norm of the feature term's gradient on the student over that of the KD term. `cosine`: between
    those two gradients. `projectors`: share of the feature term's squared gradient that falls on projectors and SASTC's
    attention.
    """
    rows = parts.frame(plan, results).assign(planned=True)
    return rows.assign(**pd.DataFrame([_facts(r) for r in rows.itertuples()], index=rows.index))


def _facts(row) -> dict[str, float]:
    facts = dict.fromkeys(FACTS, math.nan)
    if not row.complete:
        return facts
    run = Run(row.path)
    share, facts["images"] = row.accuracy / 100, run.provenance["data"]["test_images"]
    facts["error"] = 2 * 100 * math.sqrt(share * (1 - share) / facts["images"])
    history = run.history
    if "feature_loss" in history:
        facts["loss_ratio"] = float(row.beta * history.feature_loss[0] / history.kd_loss[0])
    if "gradient_feature" in history:
        kd, feature, helpers = (history[f"gradient_{n}"] for n in ("kd", "feature", "projectors"))
        facts["gradient_ratio"] = float((feature / kd).mean())
        facts["projectors"] = float((helpers**2 / (helpers**2 + feature**2)).mean())
        facts["cosine"] = float(history.gradient_cosine.mean())
    return facts


def preset(rows: pd.DataFrame, method: str) -> RunConfig:
    """The settings of the scale, which runs have that name no others."""
    first = rows.iloc[0]
    same = dict(dataset=first.dataset, student=first.student, teacher=first.teacher, scale=first.scale)
    return RunConfig(method=method, **same)


def along(rows: pd.DataFrame, method: str, field: str, recorded: bool = True) -> pd.DataFrame:
    """The runs of a method that differ in `field` alone; the other fields have their presets."""
    chosen = rows[(rows.method == method) & (rows.complete | (not recorded))]
    for other in FIELDS:
        if other != field and method in methods_of(other):
            chosen = chosen[chosen[other] == getattr(preset(rows, method), other)]
    return chosen.sort_values(field)


def methods_of(field: str) -> list[str]:
    """Methods that a field applies to."""
    return [m for m in METHODS if field in RunConfig(method=m).to_dict(relevant=True)]


def tried(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The fields of which a method has several values, run or planned, each with these methods."""
    several = {f: [m for m in methods_of(f) if along(rows, m, f, recorded=False)[f].nunique() > 1] for f in FIELDS}
    return {field: methods for field, methods in several.items() if methods}


def curves(rows: pd.DataFrame) -> Figure:
    """Validation accuracy against either field, a line a method; bars are ± the error."""
    plt = figures.plt
    fields = tried(rows)
    drawing, axes = plt.subplots(1, len(fields), figsize=(7.0, 3.3), sharey=True, squeeze=False)
    for axis, (field, methods) in zip(axes[0], fields.items(), strict=True):
        for i, method in enumerate(methods):
            data = highest(rows, method, field) if joint(rows) else along(rows, method, field)
            look = dict(color=figures.COLOURS[method], marker=figures.MARKERS[method], label=LABELS[method])
            x = data[field] * 1.04 ** (i - (len(methods) - 1) / 2)  # beside each other
            axis.errorbar(x, data.accuracy, data.error, capsize=2.5, **look)
        known = sorted(rows[field][rows.complete & rows.method.isin(methods)].unique())
        axis.axvline(getattr(preset(rows, "sastc"), field), color="black", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel=FIELDS[field])
        axis.set_xticks(known, _apart(known))
        axis.minorticks_off()
    axes[0, 0].set_ylabel("validation accuracy (%)")
    drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(METHODS))
    return drawing


def _apart(values: list[float]) -> list[str]:
    """Labels of ticks on a log axis, without those that would run into the one before."""
    labels, last, factor = [], 0.0, (max(values, default=1.0) / min(values, default=1.0)) ** 0.19
    for value in values:
        labels.append(f"{value:g}" if value >= factor * last else "")
        last = value if labels[-1] else last
    return labels


def highest(rows: pd.DataFrame, method: str, field: str) -> pd.DataFrame:
    """Of the runs of a method with the same value of `field`, the most accurate, whatever the other fields are."""
    done = rows[(rows.method == method) & rows.complete]
    return done.sort_values("accuracy").drop_duplicates(field, keep="last").sort_values(field)


def errors(rows: pd.DataFrame) -> str:
    """Sentences: what points, brackets and bars are."""
    images = report.span(rows.images.dropna(), "{:,.0f}".format) if rows.images.notna().any() else "no"
    points = "Each point is the best of a method's trials with that value. " if joint(rows) else ""
    error = f"two standard errors either way, from the number of validation images ({images}) alone"
    return f"{points}Brackets and bars: {error}."


def table(rows: pd.DataFrame, place: str) -> str:
    """HTML table: a row a run; `place` is :func:`parts.place`."""
    columns = {
        "method": lambda r: LABELS[r.method],
        **{
            SIGNS[field]: lambda r, field=field: f"{getattr(r, field):g}" if r.method in methods_of(field) else ""
            for field in tried(rows)
        },
        "validation accuracy (%)": lambda r: (
            f"{r.accuracy:.2f} [{r.accuracy - r.error:.2f},\N{NO-BREAK SPACE}{r.accuracy + r.error:.2f}]"
            if r.complete
            else "–"
            if np.isnan(r.diverged)
            else f"diverged in epoch {r.diverged:.0f}"
        ),
        "loss, feature / KD": "loss_ratio",
        "gradient, feature / KD": "gradient_ratio",
        "cosine": lambda r: parts.signed(r.cosine),
        "on projectors": lambda r: "–" if np.isnan(r.projectors) else f"{100 * r.projectors:.0f} %",
        "run": lambda r: parts.run_links(rows[(rows.run == r.run) & rows.complete]),
    }
    names = [*FIELDS, "method", "accuracy", *FACTS, "stm", "run"]
    caption = (
        f"{errors(rows)} Loss: β times the feature loss over the KD loss, in the first epoch. Gradients are means over "
        "the epochs: norm on the student of the feature term's over the KD term's, cosine of the two, and the share of "
        f"the feature term's squared gradient that falls on projectors and attention. {place}"
    )
    return parts.table(rows, caption, "tuning", columns, csv=rows[[*names, "command"]])


def _each(of: Mapping[str, Any]) -> str:
    """What each method has: ``3 for Baseline and KD, 7 for SASTC``, ``3 for every method``."""
    methods: dict[Any, list[str]] = {}
    for method, value in of.items():
        methods.setdefault(value, []).append(LABELS[method])
    whole = len(methods) == 1 and len(of) == len(METHODS)
    return ", ".join(f"{value} for {'every method' if whole else in_words(names)}" for value, names in methods.items())


def effort(rows: pd.DataFrame) -> str:
    """Sentences: how many trials each method has, and how many values of each setting."""
    methods = [m for m in METHODS if m in set(rows.method)]
    trials = {m: int((rows.method == m).sum()) for m in methods}
    told = [f"Trials: {_each(trials)}."]
    for field, of in tried(rows).items():
        told.append(
            f"Values of the {FIELDS[field]}: {_each({m: rows[field][rows.method == m].nunique() for m in of})}."
        )
    more = "Of more trials the best is more likely a good one." if len(set(trials.values())) > 1 else ""
    return " ".join(filter(None, [*told, more]))


def used(rows: pd.DataFrame) -> str:
    """A sentence: the settings of Table 2's runs at this scale, which are presets or those of the best trials here.

    Where its rows differ in that, each kind is told of those that have it.
    """
    scale, fields = rows.scale.iloc[0], list(tried(rows))
    cells: dict[tuple, list[RunConfig]] = {}
    for config in load_experiment(report.ROOT / "experiments" / "table2.yaml", scale).runs:
        if config.method in set(rows.method) and config.dataset == rows.dataset.iloc[0]:
            cells.setdefault((config.student, config.timesteps), []).append(config)
    kinds: dict[str, list[RunConfig]] = {}
    for configs in cells.values() if fields else ():
        kinds.setdefault(_used(rows, configs, fields), []).extend(configs)
    told = [
        (f" of {'; '.join(report.named(configs))}" if len(kinds) > 1 else "") + f" have {kind}"
        for kind, configs in kinds.items()
    ]
    return f"Table 2's {report.SCALE_WORDS[scale]}{'. Those'.join(told)}." if told else ""


def _used(rows: pd.DataFrame, configs: Sequence[RunConfig], fields: Sequence[str]) -> str:
    best = rows[rows.complete].sort_values("accuracy").drop_duplicates("method", keep="last").set_index("method")
    have = [(c.method, f, getattr(c, f)) for c in configs for f in fields if c.method in methods_of(f)]
    if all(value == getattr(preset(rows, method), field) for method, field, value in have):
        kind = "the preset of every method"
    elif all(method in best.index and value == best.loc[method, field] for method, field, value in have):
        kind = "the settings of every method's best trial here"
    else:
        kind = "settings of their own"
    told = []
    for field in fields:
        values: dict[str, dict[str, None]] = {}  # in the order of the file, each once
        for method, of, value in have:
            if of == field:
                values.setdefault(method, {})[f"{value:g}"] = None
        if values:
            told.append(f"{FIELDS[field]} {_each({m: in_words(list(v)) for m, v in values.items()})}")
    return f"{kind}: {'; '.join(told)}"


def joint(rows: pd.DataFrame) -> bool:
    """Whether there are trials that change two settings of a method at once."""
    alone = {run for f, methods in tried(rows).items() for m in methods for run in along(rows, m, f, False).run}
    return not set(rows.run) <= alone


def rates_and_weights(rows: pd.DataFrame, place: str) -> str:
    """HTML table: accuracy by learning rate and β, each method that has both below its name; '' without such trials."""
    methods = [m for m in methods_of("beta") if m in set(rows.method)]
    shown = rows[rows.method.isin(methods)]
    if not joint(shown):
        return ""
    weights = sorted(shown.beta.unique())

    def cell(found: pd.DataFrame) -> str:
        if found.empty:
            return ""
        row = found.iloc[0]
        told = f"{row.accuracy:.2f}" if row.complete else "not run" if np.isnan(row.diverged) else "diverged"
        top = row.complete and row.accuracy == shown[shown.method == row.method].accuracy.max()
        return f"<strong>{told}</strong>" if top else told

    body = []
    for method in methods:
        ours = shown[shown.method == method]
        for rate in sorted(ours.learning_rate.unique()):
            cells = (cell(ours[(ours.learning_rate == rate) & (ours.beta == beta)]) for beta in weights)
            body.append([LABELS[method], f"{rate:g}", *cells])
    heads = ["method", "learning rate", *(f"β = {beta:g}" for beta in weights)]
    caption = f"Validation accuracy (%) by learning rate and β; the best of a method in bold, empty: not tried. {place}"
    return rows_table(caption, heads, body)


def sentences(rows: pd.DataFrame) -> list[str]:
    """For either field and every method: the best value, all others at their presets, and if the preset is as good.

    The error of a difference is that of two runs on images of their own, though both see the same. Values that are
    planned and not run are named.
    """
    out = []
    for field, methods in tried(rows).items():
        words = FIELDS[field]
        for method in methods:
            data, used = along(rows, method, field), getattr(preset(rows, method), field)
            if len(data) < 2 or used not in data[field].to_numpy():
                continue
            best = data.loc[data.accuracy.idxmax()]
            ours = data[data[field] == used].iloc[0]
            gap, error = best.accuracy - ours.accuracy, math.hypot(best.error, ours.error)
            others = along(rows, method, field, recorded=False).query("not complete")
            lacking = "".join(
                f" ({', '.join(f'{v:g}' for v in values)} {why})"
                for why, values in (
                    ("diverged", others[field][others.diverged.notna()]),
                    ("not run", others[field][others.diverged.isna()]),
                )
                if len(values)
            )
            head = f"{LABELS[method]}, {words} alone: "
            head += f"best of {len(data)}{lacking} is {best[field]:g} ({best.accuracy:.2f} %)"
            if best[field] == used:
                out.append(f"{head}, the preset.")
            else:
                told = "more" if gap > error else "less"
                low, high = (f"{gap + sign * error:.2f}".replace("-", "−") for sign in (-1, 1))
                lower = f"{gap:.2f} [{low}, {high}] points lower, {told} than the error"
                out.append(f"{head}; the preset, {used:g}, is {lower}.")
    return out or ["Nothing is recorded yet."]


def pull(rows: pd.DataFrame) -> list[str]:
    """What the feature loss does to the student beside the KD loss: ranges over β, at the preset learning rate."""
    out = []
    for method in methods_of("beta"):
        data = along(rows, method, "beta").dropna(subset="cosine")
        if len(data):
            helpers = "projectors and attention" if method == "sastc" else "projectors"
            ratio, cosine = (report.span(data[n].round(2), "{:.2f}".format) for n in ("gradient_ratio", "cosine"))
            share = report.span((100 * data.projectors).round(), "{:.0f}".format)
            out.append(
                f"{LABELS[method]}, β = {', '.join(f'{b:g}' for b in data.beta)}, means over the epochs: the feature "
                f"term's gradient on the student is {ratio} times the KD term's, the cosine between the two is "
                f"{cosine}, and {share} % of the feature term's squared gradient falls on {helpers}, which are thrown "
                "away after training."
            )
    return [line.replace("-", "−") for line in out]


def seeds(rows: pd.DataFrame, results: str | Path = "results") -> str:
    """A sentence: how much the seeds of runs with the preset differ, beside the bars here."""
    found: dict[str, list[float]] = {}
    files = (report.ROOT / "experiments" / f"{name}.yaml" for name in ("table2", "variants"))
    every = list(dict.fromkeys(config for path in files for config in load_experiment(path, rows.scale[0]).runs))
    for config, run in zip(every, report.recorded(every, results), strict=True):
        if run and config.identity == preset(rows, config.method).replace(seed=config.seed).identity:
            found.setdefault(config.method, []).append(run.metrics["accuracy"])
    spread = {method: np.std(values, ddof=1) for method, values in found.items() if len(values) > 1}
    if not spread:
        return "How much seeds differ is not known: no method has two with the preset."
    told = ", ".join(f"{LABELS[method]} {sd:.2f} (n={len(found[method])})" for method, sd in spread.items())
    more = [LABELS[method] for method, sd in spread.items() if 2 * sd > rows.error.mean()]
    return (
        f"Standard deviation over the seeds of runs with the preset, in points on the test images: {told}. "
        f"A bar here reaches {rows.error.mean():.2f} points either way; two such standard deviations are more than "
        f"that for {' and '.join(more) or 'no method'}."
    )


def on_all_images(rows: pd.DataFrame, results: str | Path = "results") -> str:
    """A sentence: test accuracy of Table 2's students at this scale that have the settings of a method's best trial.

    They are trained on all images, for the epochs of the scale, with a teacher that is.
    """
    plan = load_experiment(report.ROOT / "experiments" / "table2.yaml", rows.scale[0])
    done = rows[rows.complete].sort_values("accuracy").drop_duplicates("method", keep="last").set_index("method")
    told, teachers, waiting = {}, {}, []
    for config, run in zip(plan.runs, report.recorded(plan.runs, results), strict=True):
        same = all(getattr(config, name) == rows[name].iloc[0] for name in ("student", "teacher", "timesteps"))
        fields = [f for f in FIELDS if config.method in methods_of(f)]
        if (
            not same
            or config.method not in done.index
            or any(getattr(config, f) != done.loc[config.method, f] for f in fields)
        ):
            continue
        if run is None:
            waiting.append(config.method)
            continue
        told.setdefault(config.method, []).append(run.metrics["accuracy"])
        if teacher := run.provenance.get("teacher"):
            teachers[teacher["run"]] = teacher["accuracy"]
    if not told or not joint(rows):
        return ""
    means = sorted(told.items(), key=lambda item: -np.mean(item[1]))
    words = ", ".join(f"{LABELS[m]} {np.mean(values):.2f} % (n={len(values)})" for m, values in means)
    missing = [LABELS[m] for m in dict.fromkeys(waiting) if m not in told]
    return (
        f"On all images, with the settings of a method's best trial: {words}; test images, last epoch."
        + (f" Teacher: {report.span(teachers.values(), '{:.2f} %'.format)}." if teachers else "")
        + (f" Not run yet: {', '.join(missing)}." if missing else "")
    )


def beside_table2(plan: Experiment, results: str | Path = "results") -> str:
    """HTML: what trials say of the β of Table 2 at this scale, and what runs with the best settings give.

    Feature KD and SASTC may need different β, so one value for both may favour one of them. '' without such trials,
    and where no run of Table 2 has the preset's β.
    """
    files = report.ROOT / "experiments"
    trials = {s: load_experiment(files / "tuning.yaml", s) for s in (plan.scale, "quarter")}
    rows = {scale: collect(one, results) for scale, one in trials.items() if one.runs}
    weighted = [c for c in plan.runs if c.method in methods_of("beta")]
    bench = load_experiment(files / "bench.yaml", plan.scale)
    held_out = tuple(c for c in bench.runs if c.validation and c.method in methods_of("beta"))
    sources = [rows[plan.scale]] if plan.scale in rows else []
    sources += [collect(dataclasses.replace(bench, runs=held_out), results)] if sources and held_out else []
    told = " ".join(filter(None, map(_one_beta, sources)))
    if not told or not (shared := [c for c in weighted if c.beta == preset(rows[plan.scale], "sastc").beta]):
        return ""
    which = "in these runs" if len(shared) == len(weighted) else f"for {'; '.join(report.named(shared))}"
    page = parts.page_link("tuning", plan.scale, "The trials")
    if larger := on_all_images(rows["quarter"], results) if plan.scale != "quarter" else "":
        told += f" At a quarter of the width: {larger[0].lower()}{larger[1:]}"
        page += f" and {parts.page_link('tuning', 'quarter', 'those at a quarter of the width')}"
    return f'<p class="scale-note"><strong>β is not tuned {which}.</strong> {told} {page}.</p>'


def _one_beta(rows: pd.DataFrame) -> str:
    """How far feature KD and SASTC with the preset β are below their best, and from each other with either."""
    said, best_of, ours_of = [], {}, {}
    for method in ("sastc", "feature_kd"):
        data, used = along(rows, method, "beta"), preset(rows, method).beta
        if len(data) < 2 or used not in set(data.beta):
            return ""
        top, ours = data.loc[data.accuracy.idxmax()], data[data.beta == used].iloc[0]
        gap, error = top.accuracy - ours.accuracy, math.hypot(top.error, ours.error)
        best_of[method], ours_of[method] = top.accuracy, ours.accuracy
        bounds = f"[{parts.signed(gap - error)}, {parts.signed(gap + error)}]".replace("+", "")
        name = LABELS[method] if method == "sastc" else "feature KD"
        said.append(f"{name} is {gap:.2f} {bounds} points below its best of {len(data)} (β = {top.beta:g})")
    first, data = rows.iloc[0], " and ".join(dict.fromkeys(rows.data[rows.complete]))
    pair = f"{LABELS[first.student]} & {LABELS[first.teacher]}, T = {first.timesteps}"
    gaps = [parts.signed(of["sastc"] - of["feature_kd"]) for of in (ours_of, best_of)]
    return (
        f"In trials on {data} ({html.escape(pair)}; images held out of the training set, one seed, {first.epochs} "
        f"epochs) with β = {used:g} {' and '.join(said)}. SASTC minus feature KD: {gaps[0]} points there with β = "
        f"{used:g}, {gaps[1]} with each at its best."
    )


def best(rows: pd.DataFrame) -> list[str]:
    """A sentence a method, most accurate first: its best trial and how many it had; whether it ends the range."""
    out = []
    done = rows[rows.complete].sort_values("accuracy", ascending=False)
    for method, trials in done.groupby("method", sort=False):
        top, fields = trials.iloc[0], [f for f in tried(rows) if method in methods_of(f)]
        planned = rows[rows.method == method]
        ended = planned[planned.complete | planned.diverged.notna()]
        lost = len(ended) - len(trials)
        setting = ", ".join(f"{FIELDS[f]} {top[f]:g}{_at_the_end(ended[f], top[f])}" for f in fields)
        out.append(
            f"{LABELS[method]}, best of {len(ended)} of {len(planned)} trials"
            + (f", {lost} of which diverged" if lost else "")
            + f": {setting} ({top.accuracy:.2f} %)."
        )
    return out


def findings(rows: pd.DataFrame) -> str:
    """HTML: :func:`best`, of all settings at once, and :func:`sentences`, of one setting at a time."""
    kinds = {
        "The best of all trials of each method, whatever settings it has:": best(rows),
        "One setting of a method at a time, its others at the preset; its best trial may differ in several:": (
            sentences(rows)
        ),
    }
    return "".join(f"<p>{words}</p>{parts.bullets(lines)}" for words, lines in kinds.items() if lines)


def _at_the_end(values: pd.Series, value: float) -> str:
    """Words where the values that were tried end at this one, so that a better one may lie beyond."""
    if values.nunique() < 2 or value not in (ends := {values.min(): "smallest", values.max(): "largest"}):
        return ""
    return f", the {ends[value]} tried"


def schedule(rows: pd.DataFrame) -> str:
    """A sentence: how the learning rate runs here, and with the preset."""
    first, same = rows.iloc[0], preset(rows, "sastc")
    if first.schedule == "triangle":
        return (
            f"The learning rate rises over the first {100 * first.schedule_peak:.0f} % of {first.epochs} epochs and "
            f"falls to zero; with the preset it does so over {same.epochs} epochs and all images."
        )
    here, there = (
        ([round(m * c.epochs) for m in c.milestones], int(c.epochs)) for c in (first, same)
    )  # as RunConfig.learning_rate_at rounds
    told = [f"after epochs {', '.join(map(str, drops))} of {epochs}" for drops, epochs in (here, there)]
    shares = [[drop / epochs for drop in drops] for drops, epochs in (here, there)]
    shape = ": rounded to whole epochs, the schedule has another shape" if shares[0] != shares[1] else ""
    return f"The learning rate drops {told[0]} here, and {told[1]} with the preset{shape}."
