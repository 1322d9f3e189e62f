"""The first sentence of every page of results: its answer, in words that the intervals choose."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from companion import report
from companion.pages import choices, energy, figure2, fisher, forensics_costs, runtime, sam, stm, sweeps, tuning
from companion.pages.table6 import as_preset
from companion.stats import FEWEST, Difference, difference, family, signed
from sastc.config import METHODS
from sastc.labels import LABELS

AGAINST = {"baseline": "the baseline", "kd": "KD", "feature_kd": "feature KD", "teacher": "its teacher"}


def tally(
    found: Iterable[Difference],
    better: str = "more accurate",
    worse: str = "less accurate",
    than: str = "",
    of: str = "",
) -> str:
    """How differences fall by their intervals: ``more accurate in 2 of 3, not distinguishable in 1``; '' for none.

    With what they are taken from, and what there are several `of`: ``more accurate than KD in 2 of 3 pairs, ...``.
    """
    known = [d for d in found if d.n > 0]
    said = Counter(d.judgement for d in known)
    words = {"better": (better, "than"), "worse": (worse, "than")}
    words["not distinguishable"] = ("not distinguishable", "from")
    told = [(*words[says], said.pop(says)) for says in words if says in said]
    told += [("not judged", "beside", said.total())] * bool(said)  # too few seeds, or seeds that do not differ
    whole = f" of {len(known)} {of}".rstrip()
    first = [f"{word}{f' {to} {than}' * bool(than)} in {n}{whole}" for word, to, n in told[:1]]
    return ", ".join(first + [f"{word} in {n}" for word, _, n in told[1:]])


def _n(found: Iterable[Difference]) -> str:
    """The numbers of pairs behind differences: ``n=3 to 5``."""
    return f"n={report.span({d.n for d in found if d.n})}"


def beside(d: Difference, better: str, worse: str) -> str:
    """A single difference in words: ``higher than``, ``not distinguishable from``, or that it is not judged."""
    words = {"better": f"{better} than", "worse": f"{worse} than", "not distinguishable": "not distinguishable from"}
    return words.get(d.judgement, "not judged beside")


def by_method(found: Mapping[str, Sequence[Difference]], of: str = "", **words: str) -> str:
    """The same for several other methods: ``more accurate than KD in 2 of 2; ...``; what is not run is left out."""
    told: list[str] = []
    for other, rows in found.items():
        told += filter(None, [tally(rows, than=AGAINST[other], of=of * (not told), **words)])
    return f"{'; '.join(told)} ({_n(d for rows in found.values() for d in rows)})" if told else ""


def sweep(of: sweeps.Sweep, panels: Sequence[sweeps.Panel]) -> str:
    """SASTC against KD at the values of a setting, panel by panel."""
    told = []
    for panel in panels:
        gaps = sweeps.differences(of, panel)  # without the value at which nothing is changed
        every = gaps.difference[(gaps.other == "kd") & (gaps.value != of.neutral)]
        beside_kd = [d for d in every if d.n >= FEWEST] or list(every)
        text = tally(beside_kd, than="KD" * (not told), of=of.values * (not told))
        few = [d.n for d in every if 0 < d.n < FEWEST] if text and len(beside_kd) < len(every) else []
        if few:
            text += f"; {len(few)} more with too few seeds to judge (n={report.span(few)})"
        *_, kind = panel.title.rpartition(": ") if ": " in panel.title else ("",)
        if text:
            told.append(f"{text} ({', '.join(filter(None, (kind, _n(beside_kd))))})")
    return f"SASTC is {'; '.join(told)}." if told else f"SASTC is not compared with KD at any of several {of.values}."


def beta(panels: Sequence[sweeps.Panel]) -> str:
    """The best weight, and SASTC against KD over all of them."""
    known = [p for p in panels if p.runs[p.runs.complete & (p.runs.method == "sastc")].value.nunique() > 1]
    if not known:
        return "Fewer than two values of β are run."
    return f"{sweeps.optimum(known[0])} {sweep(sweeps.BETA, known)}"


def mismatch(runs: pd.DataFrame) -> str:
    """SASTC's score against every other method's, over pairs of networks."""
    gaps = stm.differences(runs).values()
    rows = {other: [of[other] for of in gaps] for other in METHODS[:-1]}
    told = by_method(rows, better="higher", worse="lower", of="pairs of networks")
    return f"SASTC's mismatch score is {told}, by 95 % intervals." if told else "Not run."


def traces(values: pd.DataFrame) -> str:
    """SASTC's last trace of the Fisher information against every other method's."""
    if values.empty:
        return "No run with Fisher information is recorded."
    rows = fisher.log_differences(values)
    if rows and all(d.n == 1 for d in rows.values()):
        ratios = [f"{10**d.mean:.2f} times that of {AGAINST[other]}" for other, d in rows.items()]
        return f"One seed each, so no interval: after the last epoch SASTC's trace is {', '.join(ratios)}."
    told = []
    for other, d in rows.items():
        if d.n:
            ratio = f"ratio {10**d.mean:.2f}" + f" [{10**d.low:.2f}, {10**d.high:.2f}]" * d.judged
            told.append(f"{beside(d, 'higher', 'lower')} that of {AGAINST[other]} ({ratio}, n={d.n})")
    if not told:
        return "SASTC's trace is not compared with another method's."
    return f"After the last epoch SASTC's trace of the Fisher information is {', '.join(told)}."


def energies(counted: pd.DataFrame) -> str:
    """What students take of their teacher's energy, and SASTC's beside KD's at equal T."""
    if counted.empty:
        return "No run with counted energy is recorded."
    gains = energy.differences(counted)
    gaps = gains.difference[gains.other == "kd"]
    told = tally(gaps, "higher", "lower", "KD's", "cases")
    beside_kd = f"At equal T, SASTC's energy is {told} ({_n(gaps)})." if told else ""
    return f"{energy.share(counted)} {beside_kd}".strip() or "No student and teacher are recorded together."


def maps(values: pd.DataFrame) -> str:
    """Whether SASTC's maps are closer to the teacher's than other methods'."""
    told = []
    for other, d in sam.differences(values).items():
        if d.n:
            told.append(f"{beside(d, 'higher', 'lower')} that of {AGAINST[other]} ({d.words()}, n={d.n})")
    if not told:
        return "SASTC's maps are not compared with another method's."
    return f"The correlation of SASTC's map with its teacher's is {', '.join(told)}."


def times(measured: pd.DataFrame) -> str:
    """The time of SASTC's epochs beside KD's, here and in the paper's appendix."""
    found = [s for s in runtime.sentences(measured) if s.startswith(f"An epoch of {LABELS['sastc']}")]
    return found[0].partition(" Each seed")[0] if found else "No time is recorded."


def one_setting(found: pd.DataFrame, what: str) -> str:
    """What a change of one setting does to the accuracy of every method; `found` is of :mod:`choices`."""
    told = tally(found.accuracy, "higher", "lower", "that without it", "methods")
    known = [d.mean for d in found.accuracy if d.n > 0]
    if not told:
        return f"{what} is not run."
    span = f"{signed(min(known))} to {signed(max(known))} points"
    return f"The accuracy with {what} is {told} (mean change {span}, {_n(found.accuracy)})."


def other_choices(gains: pd.DataFrame) -> str:
    """Whether SASTC still gains over each other method when every method has the other setting."""
    others = gains[gains.switch != choices.BASE]
    told = by_method({other: list(others[other]) for other in METHODS[:-1]}, of="other settings")
    return f"Where every method has the same other setting, SASTC is {told}." if told else "Not run."


def tuned(rows: pd.DataFrame) -> str:
    """The best trial of each method, where several settings are tried at once; else how often the preset is best."""
    done = rows[rows.complete]
    if tuning.joint(rows) and done.method.nunique() > 1:
        of_each = done.groupby("method").accuracy.agg(["max", "min"]).sort_values("max", ascending=False)
        told = [f"{LABELS[m]} {best:.2f} % (worst {worst:.2f} %)" for m, best, worst in of_each.itertuples()]
        trials = report.span(rows.groupby("method").size(), "{:.0f}".format)
        lost = int(rows.diverged.notna().sum())
        beside = f"; {lost} of all {len(rows)} diverged" * bool(lost)
        return f"Best of {trials} trials of every method, on held-out images: {', '.join(told)}{beside} (n=1 each)."
    said = [s for s in tuning.sentences(rows) if "best of" in s]
    best, near = sum(s.endswith("the preset.") for s in said), sum("less than the error" in s for s in said)
    if not said:
        return "Nothing is recorded yet."
    return (
        f"{len(said)} settings were tuned, each of one method. The preset is the best value tried in {best} and within "
        f"the error of the best in {near}; in {len(said) - best - near} another value is better by more than the error "
        f"({' and '.join(dict.fromkeys(done.data))}, one seed each)."
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
    gaps = {other: family(difference(same, "sastc", other) for same in groups) for other in METHODS[:-1]}
    return f"On ImageNet SASTC is {by_method(gaps) or 'not compared with another method'}."


def event_data(shown: pd.DataFrame) -> str:
    """SASTC against the others on recorded events, with a teacher that sees the mean frame."""
    done = as_preset(shown)
    done = done[done.complete] if len(done) else done
    if done.empty:
        return "No run on recorded events is shown."
    rows = done[(done.student != "") & (done.teacher_input == "mean_frame")]
    said = []
    for dataset, same in rows.groupby("dataset", sort=False):
        told = []
        for other, d in zip(METHODS, family(difference(same, "sastc", other) for other in METHODS[:-1]), strict=False):
            if d.n:
                says = beside(d, "more accurate", "less accurate")
                told.append(f"{says} {AGAINST[other]} ({d.words()} points, n={d.n})")
        said.append(f"On recorded events ({LABELS[dataset]}) SASTC is {', '.join(told) or 'not compared'}.")
    return " ".join(said)


def the_papers_numbers() -> str:
    """What a reader may take from the paper's own tables."""
    return " ".join(forensics_costs.conclusions()[:2])
