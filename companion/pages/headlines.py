"""The first sentence of every page of results: its answer, in words that the intervals choose."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from companion import report
from companion.pages import choices, energy, figure2, fisher, forensics_costs, parts, runtime, sweeps, tuning
from companion.pages.table6 import as_preset
from sastc.config import METHODS
from sastc.labels import LABELS

Difference = tuple[float, float, int]  # mean, half its 95 % interval, seeds
AGAINST = {"baseline": "the baseline", "kd": "KD", "feature_kd": "feature KD", "teacher": "its teacher"}


def tally(found: Iterable[Difference], better: str = "more accurate", worse: str = "less accurate") -> str:
    """How differences fall by their intervals: ``more accurate in 2 of 3, not distinguishable in 1``; '' for none."""
    known = [difference for difference in found if difference[2] > 0]
    said = Counter(report.judge(*difference) for difference in known)
    words = {"better": better, "worse": worse, "not distinguishable": "not distinguishable"}
    told = [(words[says], said.pop(says)) for says in words if says in said]
    told += [("without an interval", said.total())] * bool(said)  # one seed, or seeds that do not differ
    first = f" of {len(known)}"
    return ", ".join(f"{word} in {n}{first if i == 0 else ''}" for i, (word, n) in enumerate(told))


def beside(difference: Difference, better: str, worse: str) -> str:
    """A single difference in words: ``higher than``, ``not distinguishable from``, or that it has no interval."""
    words = {"better": f"{better} than", "worse": f"{worse} than", "not distinguishable": "not distinguishable from"}
    return words.get(report.judge(*difference), "without an interval beside")


def by_method(found: dict[str, Iterable[Difference]], **words: str) -> str:
    """The same for several other methods: ``than KD: ...; than feature KD: ...``; what is not run is left out."""
    told = {AGAINST[other]: tally(list(rows), **words) for other, rows in found.items()}
    return "; ".join(f"against {name} {text}" for name, text in told.items() if text)


def sweep(of: sweeps.Sweep, panels: Sequence[sweeps.Panel]) -> str:
    """SASTC against KD at the values of a setting, panel by panel."""
    told = []
    for panel in panels:
        gaps = sweeps.differences(of, panel)
        gaps = gaps[gaps.other == "kd"]
        text = tally(zip(gaps["mean"], gaps.half, gaps.n, strict=True))
        *_, kind = panel.title.rpartition(": ") if ": " in panel.title else ("",)
        told += [text + f" ({kind})" * bool(kind)] * bool(text)
    if not told:
        return f"No comparison of SASTC with KD is run ({of.words})."
    return f"Compared with KD over the values of “{of.words}”, SASTC is {'; '.join(told)}."


def beta(panels: Sequence[sweeps.Panel]) -> str:
    """The best weight, and SASTC against KD over all of them."""
    known = [p for p in panels if p.runs[p.runs.complete & (p.runs.method == "sastc")].value.nunique() > 1]
    if not known:
        return "Fewer than two values of β are run."
    return f"{sweeps.optimum(known[0])} {sweep(sweeps.BETA, known)}"


def mismatch(runs: pd.DataFrame) -> str:
    """SASTC's score against every other method's, over pairs of networks."""
    found: dict[str, list[Difference]] = {other: [] for other in METHODS[:-1]}
    done = runs[runs.complete]
    keys = ["student", "teacher", "timesteps", "dataset", "resnet18_variant"]
    for _, rows in done.groupby(keys, sort=False):
        for other in found:
            found[other].append(parts.difference(rows, "stm", "method", "sastc", other))
    told = by_method(found, better="higher", worse="lower")
    return f"SASTC's mismatch score is, by 95 % intervals over pairs of networks, {told}." if told else "Not run."


def traces(values: pd.DataFrame) -> str:
    """SASTC's last trace of the Fisher information against every other method's."""
    if values.empty:
        return "No run with Fisher information is recorded."
    rows = fisher.log_differences(values)
    if len(rows) and (rows.n == 1).all():
        ratios = [f"{10**row.mean:.2f} times that of {AGAINST[row.other]}" for row in rows.itertuples()]
        return f"One seed each, so no interval: after the last epoch SASTC's trace is {', '.join(ratios)}."
    told = []
    for row in rows[rows.n > 0].itertuples():
        says = beside((row.mean, row.half, row.n), "higher", "lower")
        low, high = (f"{10 ** (row.mean + sign * row.half):.2f}" for sign in (-1, 1))
        ratio = f"ratio {10**row.mean:.2f}" + f" [{low}, {high}]" * bool(row.half > 0)
        told.append(f"{says} that of {AGAINST[row.other]} ({ratio}, n={row.n})")
    if not told:
        return "SASTC's trace is not compared with another method's."
    return f"After the last epoch SASTC's trace of the Fisher information is {', '.join(told)}."


def energies(counted: pd.DataFrame) -> str:
    """What students take of their teacher's energy, and SASTC's beside KD's at equal T."""
    if counted.empty:
        return "No run with counted energy is recorded."
    rows, gains = energy.summary(counted), energy.differences(counted)
    out = []
    students = rows[rows.over_teacher.notna() & (rows.method != "teacher")]
    if len(students):
        share = 100 * students.over_teacher
        out.append(f"Spiking students take {share.min():.0f} to {share.max():.0f} % of their teacher's energy.")
    kd = gains[gains.other == "kd"]
    if len(kd):
        told = tally(zip(kd["mean"], kd.half, kd.n, strict=True), "higher", "lower")
        span = f"{parts.signed(kd['mean'].min(), 1)} to {parts.signed(kd['mean'].max(), 1)} %"
        out.append(f"Against KD at equal T, SASTC's energy is {told} ({span}).")
    return " ".join(out) or "No student and teacher are recorded together."


def maps(values: pd.DataFrame) -> str:
    """Whether SASTC's maps are closer to the teacher's than other methods'."""
    told = []
    for other in [m for m in METHODS[:-1] if m in set(values.method)]:
        mean, half, n = parts.difference(values, "correlation", "method", "sastc", other)
        if n:
            says = beside((mean, half, n), "higher", "lower")
            told.append(f"{says} that of {AGAINST[other]} ({parts.signed(mean)}{report.bounds(mean, half)}, n={n})")
    if not told:
        return "SASTC's maps are not compared with another method's."
    return f"The correlation of SASTC's map with its teacher's is {', '.join(told)}."


def times(measured: pd.DataFrame) -> str:
    """The time of SASTC's epochs beside KD's, here and in the paper's appendix."""
    found = [s for s in runtime.sentences(measured) if s.startswith(f"An epoch of {LABELS['sastc']}")]
    return found[0].partition(" Each seed")[0] if found else "No time is recorded."


def one_setting(found: pd.DataFrame, what: str) -> str:
    """What a change of one setting does to the accuracy of every method; `found` is of :mod:`choices`."""
    rows = [(r.accuracy_mean, r.accuracy_half, int(r.accuracy_n)) for r in found.itertuples()]
    told = tally(rows, "higher", "lower")
    known = [mean for mean, _, n in rows if n > 0]
    if not told:
        return f"{what} is not run."
    span = f"{parts.signed(min(known))} to {parts.signed(max(known))} points"
    return (
        f"Over {len(known)} method{'s' * (len(known) != 1)}, the accuracy with {what} is {told} (mean change {span})."
    )


def other_choices(gains: pd.DataFrame) -> str:
    """Whether SASTC still gains over each other method when every method has the other setting."""
    others = gains[gains.switch != choices.BASE]
    told = by_method(
        {
            other: [(r[f"{other}_mean"], r[f"{other}_half"], int(r[f"{other}_n"])) for _, r in others.iterrows()]
            for other in METHODS[:-1]
        }
    )
    n = len(others)
    return (
        f"With {n} other choice{'s' * (n != 1)}, made for every method alike, SASTC is {told}." if told else "Not run."
    )


def tuned(rows: pd.DataFrame) -> str:
    """For how many methods and settings the preset is the best value, or within the error of it."""
    said = [s for s in tuning.sentences(rows) if "best of" in s]
    best, near = sum(s.endswith("the preset.") for s in said), sum("less than the error" in s for s in said)
    if not said:
        return "Nothing is recorded yet."
    return (
        f"Of {len(said)} methods and settings, the preset is the best value tried in {best} and within the error of "
        f"the best in {near}; in {len(said) - best - near} another value is better by more than the error (n=1)."
    )


def pairs_of_layers(panels: Sequence[figure2.Panel]) -> str:
    """How many fixed pairs are below KD."""
    return " ".join(s for panel in panels if "not run" not in (s := figure2.sentences(panel)[0])) or "Not run."


def photographs(runs: pd.DataFrame) -> str:
    """Whether anything is run on ImageNet."""
    done = runs[runs.complete & (runs.dataset == "imagenet")]
    if done.empty:
        return "ImageNet is not run: nothing on this page tests the paper's Table 3."
    groups = [same for _, same in done.groupby("student")]
    gaps = {other: [report.paired_difference(same, "sastc", other) for same in groups] for other in METHODS[:-1]}
    return f"On ImageNet SASTC is {by_method(gaps) or 'not compared with another method'}."


def event_data(shown: pd.DataFrame) -> str:
    """SASTC against the others on recorded events, with a teacher that sees the mean frame."""
    done = as_preset(shown)
    done = done[done.complete] if len(done) else done
    if done.empty:
        return "No run on recorded events is shown."
    rows = done[(done.student != "") & (done.teacher_input == "mean_frame")]
    told = []
    for other in METHODS[:-1]:
        mean, half, n = report.paired_difference(rows, "sastc", other)
        if n:
            told.append(
                f"{beside((mean, half, n), 'more accurate', 'less accurate')} {AGAINST[other]} "
                f"({parts.signed(mean)}{report.bounds(mean, half)} points, n={n})"
            )
    return f"On recorded events (N-MNIST) SASTC is {', '.join(told) or 'not compared'}."


def the_papers_numbers() -> str:
    """What a reader may take from the paper's own tables."""
    return " ".join(forensics_costs.conclusions()[:2])
