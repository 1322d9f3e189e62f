"""One line a claim of the paper: its evidence, ours, and a verdict by stated rules."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sastc import report
from sastc.config import METHODS
from sastc.experiments import Experiment, load_experiment
from sastc.labels import LABELS
from sastc.pages import controls, energy, fisher, forensics, forensics_costs, forensics_digits, sam
from sastc.pages.parts import difference, frame, interval, paper, table
from sastc.records import Run

PAPERS_DATA = ("cifar10", "cifar100", "imagenet", "dvs_gesture", "dvs_cifar10")
RULES = {
    "not run": "no run at this scale: cannot say",
    "other data": "the runs are not on the paper's data (digits, or other images; a JPEG copy counts): cannot say "
    "at this scale",
    "one seed": "no comparison has two seeds: cannot say",
    "held": "every 95 % interval of two or more seeds is on the claim's side of zero: held, in the cells that are run",
    "did not hold": "one of them is wholly on the other side: did not hold",
    "open": "otherwise, since intervals hold zero: cannot say",
}


class Comparison(NamedTuple):
    """A difference that favours the claim where it is positive: mean, half its 95 % interval, number of seeds."""

    what: str
    mean: float
    half: float
    n: int


@dataclass(frozen=True)
class Claim:
    """A claim with both sides' evidence; ``some`` claims hold if one comparison does, others if all do.

    `page` is the name of the page with our runs, '' where there is none; `source` says what they are runs of.
    """

    words: str
    paper: str
    page: str
    comparisons: Sequence[Comparison] = ()
    papers_data: bool = False
    some: bool = False
    unit: str = "points"
    scale: str = "paper"
    source: str = ""
    digits: int = 2


def verdict(claim: Claim) -> tuple[str, str]:
    """The verdict and the name of the rule that gave it, see :data:`RULES`."""
    known = [c for c in claim.comparisons if c.n > 0]
    if not known:
        return "cannot say", "not run"
    if not claim.papers_data:
        return "cannot say at this scale", "other data"
    several = [c for c in known if c.n > 1]
    if not several:
        return "cannot say", "one seed"
    on_side, against = ([sign * c.mean > c.half for c in several] for sign in (1, -1))
    held, failed = (any(on_side), all(against)) if claim.some else (all(on_side), any(against))
    rule = "did not hold" if failed else "held" if held else "open"
    word = "cannot say" if rule == "open" else rule
    return word if claim.scale == "paper" else f"{word} at this scale", rule


def ours(claim: Claim) -> str:
    """Our evidence as HTML: every comparison if they are few, else how they fall."""
    known = [c for c in claim.comparisons if c.n > 0]
    if not known:
        return "no run"
    source = f'<br><span class="seeds">{html.escape(claim.source)}</span>' if claim.source else ""
    if len(known) <= 3:
        each = "<br>".join(f"{html.escape(c.what)}: {interval(c.mean, c.half, c.n, claim.digits)}" for c in known)
        return f"{each} {claim.unit}{source}"
    means, seeds = [c.mean for c in known], [c.n for c in known]
    several = [c for c in known if c.n > 1]
    above, below = (sum(sign * c.mean > c.half for c in several) for sign in (1, -1))
    n = f"n={min(seeds)}" + (f" to {max(seeds)}" if max(seeds) > min(seeds) else "")
    text = (
        f"{sum(m > 0 for m in means)} of {len(known)} differences on the claim's side, "
        f"median {np.median(means):+.{claim.digits}f} {claim.unit} ({n})"
    )
    if several:
        intervals = f"{len(several)} interval{'s' * (len(several) > 1)}"
        text += f"; of {intervals} {above} wholly on its side, {below} wholly on the other"
    return text.replace("-", "−") + source


# Comparisons


def pairs(runs: pd.DataFrame, one: str, other: str, value: str = "accuracy", sign: int = 1, by: Sequence[str] = ()):
    """`one` less `other` (times `sign`) for every student, teacher and T, and for every value of the settings `by`.

    A baseline belongs to every teacher of its student.
    """
    found = []
    keys = ["dataset", "student", "teacher", "timesteps", *by]
    for key, _ in runs[runs.method != "baseline"].groupby(keys, sort=False):
        at = dict(zip(keys, key, strict=True))
        same = np.logical_and.reduce([runs[k] == v for k, v in at.items() if k not in ("teacher", "noise_teacher")])
        taught = np.logical_and.reduce([runs[k] == at[k] for k in ("teacher", "noise_teacher") if k in at])
        rows = runs[same & (taught | (runs.method == "baseline"))]
        mean, half, n = difference(rows, value, "method", one, other)
        name = f"{LABELS[at['student']]} & {LABELS[at['teacher']]}, T={at['timesteps']}"
        extra = "".join(f", {k.replace('_', ' ')} {at[k]}" for k in by)
        found.append(Comparison(f"{LABELS[one]} − {LABELS[other]}, {name}{extra}", sign * mean, half, n))
    return found


def with_teachers(runs: pd.DataFrame) -> pd.DataFrame:
    """SASTC's runs, each with a second row: the accuracy of its own teacher as method ``teacher``."""
    done = runs[runs.complete & (runs.method == "sastc")]
    taught = [Run(path).provenance.get("teacher", {}).get("accuracy", np.nan) for path in done.path]
    return pd.concat([done, done.assign(method="teacher", accuracy=taught)], ignore_index=True)


def across_steps(values: pd.DataFrame, value: str, sign: int, few: int = 2, many: int = 7) -> list[Comparison]:
    """SASTC at few steps beside every method at many, over seeds; `sign` 1 if more is better for the claim."""
    found = []
    ours_ = values[(values.method == "sastc") & (values.timesteps == few)].assign(side="a")
    for other in ("baseline", "kd", "feature_kd"):
        theirs = values[(values.method == other) & (values.timesteps == many)].assign(side="b")
        for student in [s for s in dict.fromkeys(ours_.student) if s in set(theirs.student)]:
            both = pd.concat([ours_[ours_.student == student], theirs[theirs.student == student]])
            both = both.drop_duplicates(["side", "seed"]).assign(complete=True)
            mean, half, n = difference(both, value, "side", "a", "b")
            what = f"SASTC, T={few} − {LABELS[other]}, T={many}, {LABELS[student]}"
            found.append(Comparison(what, sign * mean, half, n))
    return found


def single_pairs(runs: pd.DataFrame) -> list[Comparison]:
    """KD less distillation of each single pair of layers."""
    found = []
    for (student, teacher, layers), _ in runs[runs.method == "feature_kd"].groupby(
        ["student", "teacher", "feature_pairs"]
    ):
        same = runs[(runs.student == student) & (runs.teacher == teacher)]
        rows = same[(same.method == "kd") | ((same.method == "feature_kd") & (same.feature_pairs == layers))]
        what = f"KD − layers {layers}, {LABELS[student]} & {LABELS[teacher]}"
        found.append(Comparison(what, *difference(rows, "accuracy", "method", "kd", "feature_kd")))
    return found


def attention_controls(runs: pd.DataFrame) -> list[Comparison]:
    """Accuracy with learned weights less that with each control's."""
    named = runs.assign(control=controls.names(runs))
    wanted = [c for c in ("uniform", "random", "untrained") if c in set(named.control)]
    return [Comparison(f"learned − {c}", *difference(named, "accuracy", "control", "learned", c)) for c in wanted]


# Claims


def claims(plan: Experiment, changes: Mapping, results: str | Path = "results") -> list[Claim]:
    """All claims, in the paper's order."""
    paths = [path for n in NAMES if (path := report.ROOT / "experiments" / f"{n}.yaml").exists()]
    plans = {path.stem: load_experiment(path, plan.scale, dict(changes)) for path in paths}
    runs = {name: frame(p, results) for name, p in plans.items() if p.runs}
    said = forensics.counterexamples().set_index("statement")
    gains = forensics_digits.gains_beside_errors().set_index("against")
    out: list[Claim] = []

    def add(words: str, papers: str, page: str, make: Callable[[pd.DataFrame], list[Comparison]], **more) -> None:
        known = runs.get(page)
        done = known[known.complete] if known is not None else pd.DataFrame(columns=["path", "dataset"])
        comparisons = make(known) if len(done) else []
        source = sorted({f"{Run(path).provenance['data']['name']}, {plan.scale}" for path in done.path})
        in_book = plan.scale == "quick" or plan.scale in plans[page].of_record
        shown = page if plan.scale == "quick" else f"{page}_{plan.scale}"  # as workflow/plan.py names it
        more |= dict(page=shown if in_book and any(c.n for c in comparisons) else "", comparisons=comparisons)
        more |= dict(papers_data=set(done.dataset) <= set(PAPERS_DATA), scale=plan.scale, source="; ".join(source))
        out.append(Claim(words, papers, **more))

    def cells(statement: str) -> str:
        row = said.loc[statement]
        return f"{row.cells - row.against} of {row.cells} cells"

    for other in METHODS[:3]:
        median = gains.loc[LABELS[other], "median_gain"]
        found = f"{cells(f'Table 2: SASTC is above {LABELS[other]}')}, median gain {median:.2f}"
        add(f"SASTC is more accurate than {LABELS[other]} on CIFAR", found, "table2",
            lambda r, o=other: pairs(r, "sastc", o))  # fmt: skip
    statement = "Table 2: feature KD is below KD on CIFAR-100 and for WRN-16-2 & ResNet-19"
    add("Feature KD is worse than KD on CIFAR-100 and for WRN-16-2 & ResNet-19", cells(statement), "table2",
        lambda r: pairs(r[(r.dataset == "cifar100") | ((r.student == "wrn16_2") & r.teacher.isin(["resnet19", ""]))],
                        "kd", "feature_kd"))  # fmt: skip
    known = forensics.all_values()
    ann = known[known.method == "teacher_ann"].accuracy
    best = known[(known.method == "sastc") & (known.student == "ResNet-18") & (known.teacher == "ResNet-32x4")].accuracy
    add("Students surpass ANNs on CIFAR-10 and CIFAR-100 (the paper cites a ResNet-19; ours beside their own teachers)",
        f"ResNet-18 & ResNet-32x4: {best.min():.2f} to {best.max():.2f}, its teacher {ann.min():.2f} or "
        f"{ann.max():.2f}",
        "table2", lambda r: pairs(with_teachers(r), "sastc", "teacher"))  # fmt: skip
    imagenet = paper("imagenet_accuracy").query("architecture == 'ResNet-18'").set_index("method").accuracy
    printed = ", ".join(f"{LABELS[m]} {imagenet[m]:.2f}" for m in METHODS)
    add("SASTC is more accurate than the others on ImageNet", printed, "table3",
        lambda r: [c for o in METHODS[:3] for c in pairs(r[r.student == "resnet18"], "sastc", o)])  # fmt: skip
    add("Some single pairs of layers are worse than KD (negative regularisation)", "bars of Figure 2, without numbers",
        "figure2", single_pairs, some=True)  # fmt: skip
    add("SASTC has the lowest mismatch score", cells("Table 5: SASTC has the lowest mismatch"), "stm",
        lambda r: [c for o in METHODS[:3] for c in pairs(r, "sastc", o, "stm", -1)],
        unit="lower", digits=4)  # fmt: skip
    add("Attention finds the layers that match: learned weights help", "no control is reported", "controls",
        attention_controls)  # fmt: skip
    add("SASTC is the best on neuromorphic data (ours: beside the other methods)", _neuromorphic(),
        "table6", _events)  # fmt: skip
    noisy = lambda r: r[r.label_noise > 0]  # noqa: E731
    add("SASTC is more accurate than KD with noisy labels", cells("Table 7: SASTC is above KD under noise"), "table7",
        lambda r: pairs(noisy(r), "sastc", "kd", by=("label_noise", "noise_teacher")))  # fmt: skip
    add("SASTC is more accurate than its teacher with noisy labels (teacher trained on them too)",
        cells("Table 7: SASTC is above its ANN teacher under noise"), "table7",
        lambda r: pairs(with_teachers(noisy(r)[noisy(r).noise_teacher == "same_noise"]), "sastc", "teacher",
                        by=("label_noise",)))  # fmt: skip
    add(
        "SASTC looks at what its teacher looks at, more than others do",
        "pictures in Figure 3",
        "sam",
        _likeness,
        unit="",
    )
    add("Fisher information falls lower with SASTC", "curves in the appendix", "fisher", _fisher, unit="(log₁₀)")
    add("SASTC is more accurate than KD with few images", cells("few-shot: SASTC is above KD"), "fewshot",
        lambda r: pairs(r, "sastc", "kd", by=("train_fraction",)))  # fmt: skip
    add("SASTC is more accurate than KD and baseline at every batch size",
        cells("batch-size table: SASTC is above KD and baseline"), "batchsize",
        lambda r: [c for o in ("baseline", "kd") for c in pairs(r, "sastc", o, by=("batch_size",))])  # fmt: skip
    add("SASTC is more accurate than KD for nearly every β", _beta(), "beta", _betas)
    add("SASTC at T=2 needs less energy than the others at T=7",
        cells("energy table: SASTC at T=2 needs less than the others at T=7"), "energy",
        lambda r: across_steps(energy.counts(r), "energy_uj", -1), unit="µJ less")  # fmt: skip
    costs = forensics_costs.energies().set_index(["method", "timesteps"]).accuracy
    add("SASTC at T=2 is more accurate than the others at T=7",
        f"{costs['sastc', 2]:.2f} beside {', '.join(f'{costs[m, 7]:.2f}' for m in METHODS[:3])}", "energy",
        lambda r: across_steps(r[r.complete], "accuracy", 1))  # fmt: skip
    hours = paper("running_time_memory").set_index(["method", "timesteps"]).value
    add("SASTC at T=2 trains faster than KD and feature KD at T=7",
        f"{hours['sastc', 2]:.1f} h beside {hours['kd', 7]:.1f} and {hours['feature_kd', 7]:.1f} h", "table2",
        lambda r: across_steps(r[r.complete], "train_seconds_per_epoch", -1)[1:], unit="s an epoch less")  # fmt: skip
    return out


NAMES = (
    "table2",
    "table3",
    "table6",
    "figure2",
    "stm",
    "controls",
    "table7",
    "sam",
    "fisher",
    "fewshot",
    "batchsize",
    "beta",
    "energy",
)


def _neuromorphic() -> str:
    table = paper("neuromorphic_accuracy")
    best = table[table.method != "SASTC"].groupby("dataset").accuracy.max()
    mine = table[table.method == "SASTC"].set_index("dataset").accuracy
    return "; ".join(f"{d}: {mine[d]:.2f}, next {best[d]:.2f}" for d in mine.index)


def _events(runs: pd.DataFrame) -> list[Comparison]:
    students = runs[runs.method != "teacher"]
    same_input = students[students.teacher_input == students.teacher_input.iloc[0]]
    return [c for o in METHODS[:3] for c in pairs(same_input, "sastc", o)]


def _beta() -> str:
    table = paper("beta_sensitivity").query("quantity == 'gain_over_kd_at_optimum'")
    return "at the best β " + ", ".join(f"+{r.value:.2f} ({r.dataset})" for r in table.itertuples())


def _betas(runs: pd.DataFrame) -> list[Comparison]:
    found = []
    for (student, beta), mine in runs[runs.method == "sastc"].groupby(["student", "beta"]):
        kd = runs[(runs.method == "kd") & (runs.student == student)]
        rows = pd.concat([mine, kd])
        found.append(Comparison(f"β={beta:g}", *difference(rows, "accuracy", "method", "sastc", "kd")))
    return found


def _likeness(runs: pd.DataFrame) -> list[Comparison]:
    values = sam.likeness_of(runs)
    others = [m for m in METHODS[:3] if m in set(values.method)]
    return [
        Comparison(f"SASTC − {LABELS[o]}", *difference(values, "correlation", "method", "sastc", o)) for o in others
    ]


def _fisher(runs: pd.DataFrame) -> list[Comparison]:
    rows = fisher.log_differences(fisher.traces_of(runs))
    return [Comparison(f"{LABELS[r.other]} − SASTC", -r.mean, r.half, r.n) for r in rows.itertuples()]


def verdicts_table(found: Sequence[Claim]) -> str:
    """HTML table, one line a claim; its CSV has a row for every comparison."""
    rows = pd.DataFrame(dict(claim=c.words, paper=c.paper, place=i) for i, c in enumerate(found))
    columns = {
        "claim": "claim",
        "the paper's evidence": "paper",
        "ours": lambda r: ours(found[r.place]) + _link(found[r.place].page),
        "verdict": lambda r: '<span class="ours">{}</span> <span class="seeds">{}</span>'.format(
            *verdict(found[r.place])
        ),
    }
    every = [
        dict(claim=c.words, paper=c.paper, verdict=verdict(c)[0], rule=verdict(c)[1], unit=c.unit, **one._asdict())
        for c in found
        for one in (c.comparisons or [Comparison("not run", np.nan, np.nan, 0)])
    ]
    caption = "Claims of the paper; a positive difference is on the claim's side."
    return table(rows, caption, "verdicts", columns, csv=pd.DataFrame(every))


def _link(page: str) -> str:
    return f' <a href="{page}.html">runs</a>' if page else ""


def summary(found: Sequence[Claim]) -> str:
    """How many claims got which verdict."""
    said = pd.Series([verdict(c)[0] for c in found]).value_counts()
    return f"{len(found)} claims: " + ", ".join(f"{n} {word}" for word, n in said.items()) + "."
