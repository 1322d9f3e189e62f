"""The part of the README that says what comes out, written from the recorded runs: ``python -m companion.readme``."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from companion import report
from companion.html import in_words
from companion.pages import bench, controls, first_steps, table2
from companion.pages.parts import frame
from companion.stats import FEWEST, Difference, difference, signed
from sastc.config import RunConfig
from sastc.experiments import Experiment, load_experiment
from sastc.labels import LABELS
from sastc.records import Run, run_path

README = report.ROOT / "README.md"
BEGIN, END = "## What comes out\n\n", "## Use it\n"
SAID = {"better": "better than", "worse": "worse than", "not distinguishable": "not told from"}
VERDICTS = {bench.HELPS: "better", bench.WORSE: "worse"}


def section(results: str | Path = "results") -> str:
    """Markdown of the part, without its heading."""
    runs = bench.collect(_plan("bench", "slim"), results).query("scale == 'slim'")
    (rows,) = bench.comparisons(bench.leaderboard(runs))
    main = runs[runs.validation == 0]
    changes = controls.changes_of_accuracy(frame(_plan("controls", "slim"), results))
    quarter = frame(_plan("table2", "quarter"), results)
    pairs = [larger(report.same_pair(quarter, *pair)) for pair in report.pairs_of(quarter)]
    if quarter_said := " ".join(filter(None, pairs)):
        quarter_said += " (95 % intervals, not corrected for their number.)"
    said = [*filter(None, [quarter_said]), lead(rows, main, changes)]
    parts = [
        re.sub(
            r"^(.*?\.) ", r"**\1** ", f"{' '.join(said)} No whole run at the paper's scale is made: it needs a GPU."
        ),
        bench_intro(rows, main),
        bench_table(rows),
        "Feature KD here trains each student layer with the teacher layer at the nearest relative depth, all pairs at "
        "once; the paper trains each pair alone and averages the accuracies.",
        "\n".join(_filled(f"- {line}", "  ") for line in bench_words(rows, runs)),
        "All rows of Table 2 that are run, SASTC and what it gains (95 % intervals, uncorrected, from three seeds "
        "on; the book has the other methods, and what the intervals allow to say):",
        table2_table(results),
        attention_words(changes, results),
        "These runs are in bf16. They can tell methods apart on small networks; they do not confirm the paper's "
        "numbers. Not run yet: whole runs at the paper's scale (`python workflow/launch.py --scale paper`, GPU), "
        "CIFAR-100, more than two or three seeds of most other settings, event recordings beyond a part of N-MNIST.",
    ]
    return "\n\n".join(part if part[:2] in ("| ", "- ") else _filled(part) for part in parts) + "\n\n"


def written(text: str, results: str | Path = "results") -> str:
    """The README with the part as the records have it."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + begin + section(results) + end + after


def larger(runs: pd.DataFrame) -> str:
    """What SASTC is worth to a pair at a quarter of the width, in one sentence; '' with fewer than three seeds."""
    if min(difference(runs, "sastc", other).n for other in report.METHODS if other != "sastc") < FEWEST:
        return ""
    done = runs[runs.complete]
    mine = done[done.method == "sastc"]
    first = mine.iloc[0]
    told = report.held_up(runs).replace("the baseline", "a student without a teacher")
    return (
        f"On {report.data_of(runs)}, {LABELS[first.student]} of a quarter of the width after {first.epochs} epochs "
        f"({mine.accuracy.mean():.1f} %, T={first.timesteps}), with a {LABELS[first.teacher]} of the same width as its "
        f"teacher ({table2.teachers(mine)} %), {told}"
    )


def lead(rows: pd.DataFrame, runs: pd.DataFrame, changes: dict[str, Difference]) -> str:
    """What SASTC is worth at the bench's scale, in two sentences."""
    mine = rows[rows.method == "sastc"].iloc[0]
    usual = bench.with_arms(runs).query("longer == 1")
    beside_kd = SAID[VERDICTS.get(mine.verdict, "not distinguishable")]
    fixed = difference(usual, "sastc", "feature_kd")
    judged = {row.method: told for told, which in bench.beside_longer(rows).items() for row, _ in which}
    longer = SAID.get(judged.get("sastc", ""), "not told from")
    uniform = changes["uniform"]
    words = {"better": "more", "worse": "less"}.get(uniform.judgement)
    instead = (
        f"Uniform weights in the place of its learned attention give {abs(uniform.mean):.2f} points {words}."
        if words
        else "Uniform weights in the place of its learned attention are not told from it."
    )
    cost = rows.cost[rows.label == mine.rival].iloc[0]
    return (
        f"At the small scale SASTC is {beside_kd} KD after as many epochs ({signed(mine.gain)} points), "
        f"{SAID[fixed.judgement]} feature KD ({signed(fixed.mean)}), and {longer} KD that is trained for "
        f"{mine.rival.removeprefix('KD, ')} ({signed(mine.gain_as_long)}), which costs {cost:.2f} times as much as "
        f"KD's usual {usual.epochs.iloc[0]}; SASTC costs {mine.cost:.2f} times as much. {instead}"
    )


def bench_intro(rows: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What the bench's runs are of, and what its columns are."""
    done = bench.with_arms(runs[runs.complete]).query("longer == 1")
    seeds = report.span(done.groupby("method").seed.nunique())
    first = done.iloc[0]
    return (
        f"{done.method.nunique()} methods were trained under equal conditions on the original "
        f"{LABELS[first.dataset]}: student {LABELS[first.student]}, teacher {LABELS[first.teacher]}, "
        f"T={first.timesteps} time steps, at the small scale (`scale=slim`): an eighth of the channels, "
        f"{first.epochs} epochs on one subset of 10,000 images, on a CPU. {seeds} seeds, each with a teacher of its "
        f"own that has seen all images ({rows.teachers.iloc[0]} %); for each method the best of seven settings tried "
        "on held-out images. Accuracy in percent, mean ± standard deviation over n seeds; the gain over KD (the "
        "teacher's logits alone) in runs with the same seed and teacher, with its 95 % interval; the cost, processor "
        "time over KD's; and the paper's Table 2, of far larger networks and more images. In the book every number "
        "links to its run."
    )


def bench_table(rows: pd.DataFrame) -> str:
    """The methods that are better than KD, KD, the baseline, and KD trained longer, as a Markdown table."""
    shown = rows[(rows.verdict == bench.HELPS) | ((rows.method == "kd") & (rows.n > 0)) | (rows.method == "baseline")]
    lines = [
        "| method | accuracy (ours) | n | gain over KD | cost | accuracy (the paper) |",
        "|---|---|---|---|---|---|",
    ]
    for r in shown.itertuples():
        config = RunConfig(
            dataset=r.dataset, student=r.student, teacher=r.teacher, method=r.method, timesteps=r.timesteps
        )
        paper = report.paper_accuracy(config) if r.longer == 1 else None
        gain = "–" if r.arm == "kd" else f"{signed(r.gain)} [{signed(r.low)}, {signed(r.high)}]"
        cells = (f"{r.accuracy:.2f} ± {r.sd:.2f}", str(r.n), gain, f"{r.cost:.2f}", f"{paper:.2f}" if paper else "–")
        lines.append(f"| {r.label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bench_words(rows: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """What the table leaves out: verdicts, KD trained longer, settings at the end of their range, SASTC's ideas."""
    main = runs[runs.validation == 0]
    said = {name: ", ".join(rows.label[rows.verdict == name]) for name in bench.SAID}
    told = [f"Better than KD, corrected for {rows.family.iloc[0]} comparisons (Holm): {said[bench.HELPS] or 'none'}."]
    for name, words in ((bench.WORSE, "Worse"), (bench.UNTOLD, "Not told from KD")):
        told += [f"{words}: {said[name]}."] * bool(said[name])
    if said[bench.NO_HELP]:
        told.append(f"Less than half a point better by 95 % intervals (uncorrected): {said[bench.NO_HELP]}.")
    broken, ends = bench.unstable(main).partition(":")[0], bench.at_an_end(runs).partition(":")
    lines = [" ".join([*told, f"{broken}." * bool(broken)]), bench.worth(rows), *bench.converged(main)]
    yardstick = ", KD among them" * any(one.startswith("KD (") for one in ends[2].strip().split("; "))
    lines += [f"{ends[0].rstrip('.')}{yardstick}.", *bench.ideas(main)]
    return [_plain(line) for line in lines if line]


def table2_table(results: str | Path = "results") -> str:
    """SASTC less KD and less feature KD in every row of Table 2 that is run, the largest networks first."""
    heads = ("student & teacher", "T", "runs", "teacher (%)", "n", "SASTC (%)", "− KD", "− feature KD")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for scale in ("quarter", "slim"):
        plan = _plan("table2", scale)
        runs = frame(plan, results)
        for pair in report.pairs_of(runs):
            same = report.same_pair(runs, *pair)
            done = same[same.complete]
            mine = done[done.method == "sastc"]
            if mine.empty:
                continue
            gaps = [difference(same, "sastc", other) for other in ("kd", "feature_kd")]
            of = "tuned" if done.learning_rate.nunique() > 1 else "not tuned"
            if of == "tuned" and pair[0] not in (tried := report.trials_on(scale)):
                of = f"tuned on {in_words([*tried.values()])}"
            _, student, teacher, timesteps = pair
            cells = (
                f"{LABELS[student]} & {LABELS[teacher]}",
                str(timesteps),
                f"{report.data_of(same)}, {report.SCALE_WORDS[scale].removesuffix(' runs')}, {of}",
                table2.teachers(done[done.method != "baseline"]),
                str(len(mine)),
                f"{mine.accuracy.mean():.2f}" + f" ± {mine.accuracy.std():.2f}" * (len(mine) > 1),
                *(gap.words() if gap.n >= FEWEST else signed(gap.mean) for gap in gaps),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def attention_words(changes: dict[str, Difference], results: str | Path = "results") -> str:
    """Where the weights go in Table 2's runs, what other weights do to the accuracy, and the paper's first steps."""
    plans = [_plan("table2", scale) for scale in ("quarter", "slim")]
    runs = [run for plan in plans for run in report.runs_of(plan, results) if run.complete]
    ended = [saturated(run) for run in runs if run.config.method == "sastc"]
    names = {c: controls.WORDS.get(c, c) for c in controls.REPLACED}
    told = ", ".join(f"{name} {changes[c].words()}" for c, name in names.items())
    words = {"better": "more accurate", "worse": "less accurate", "not distinguishable": "not distinguishable"}
    said = {w: [names[c] for c in names if changes[c].judgement == judged] for judged, w in words.items()}
    judged = "; ".join(f"{w}: {in_words(which)}" for w, which in said.items() if which)
    n = report.span({changes[c].n for c in names})
    return (
        f"In {'all' if all(ended) else f'{sum(ended)} of'} {len(ended)} SASTC runs of this table the attention of "
        "every student layer and time step ends at its bound, the largest weight that queries and keys of unit "
        "length allow, on the teacher layer that is easiest to imitate. Other weights in the place of the learned "
        f"ones change the accuracy by (points, the bench's settings and teachers, n={n}): {told}. Corrected for their "
        f"number (Holm): {judged}. {paper_steps(results)}"
    )


def paper_steps(results: str | Path = "results") -> str:
    """Where attention goes in the first steps of the full-width runs with the paper's settings."""
    told = []
    for config in _plan("first_steps", "paper").runs:
        found = first_steps.steps(Run(run_path(config, results)))
        each = found.step == np.arange(len(found))  # later only every few steps are recorded
        medians = [100 * found.easiest[rows].median() for rows in (each, ~each)]
        told.append((not config.qk_norm, f"{medians[0]:.0f} % of cases", f"in {medians[1]:.0f} %", each.sum(), found))
    (_, first, later, steps, found), (_, first_free, later_free, *_) = sorted(told, key=lambda one: one[0])
    return (
        "With the paper's own β, γ and learning rate the full-width VGG-11 was trained for a hundred steps, with a "
        f"teacher of a quarter of its width, one run each. With queries and keys of unit length its largest weight is "
        f"on the easiest layer in {first} (median of the first {steps} steps) and then {later} (median of those "
        f"recorded later, up to step {found.step.max() + 1}); without unit length in {first_free} and then "
        f"{later_free}. Chance is {100 * found.chance.iloc[0]:.0f} %."
    )


def saturated(run: Run) -> bool:
    """Whether the last epoch's largest weight is, in every cell, at its bound and on the easiest layer."""
    attention, distance = (run.measures[name][-1] for name in ("attention", "distance"))
    _, high = run.config.attention_bounds(attention.shape[-1])
    on_easiest = attention.argmax(-1) == distance.argmin(-1)
    return bool(np.all(on_easiest & (attention.max(-1) > 0.99 * high)))


def _plan(name: str, scale: str) -> Experiment:
    return load_experiment(report.ROOT / "experiments" / f"{name}.yaml", scale)


def _plain(text: str) -> str:
    return re.sub("<[^>]+>", "", text).replace("&amp;", "&").replace("&lt;", "<")


def _filled(text: str, indent: str = "") -> str:
    how = dict(subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
    return "\n".join(textwrap.wrap(text, 120, **how))


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
