"""One line a claim of the paper: its evidence, ours, and a verdict by stated rules."""

import html
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from companion import report
from companion.html import interval, table
from companion.pages import controls, energy, fisher, forensics, forensics_costs, forensics_digits, sam
from companion.pages.parts import frame, page_name, paper
from companion.pages.table6 import as_preset
from companion.stats import Difference, difference, paired, widening
from sastc.config import METHODS
from sastc.experiments import Experiment, load_experiment
from sastc.labels import LABELS
from sastc.records import Run

PAPERS_DATA = ("cifar10", "cifar100", "imagenet", "dvs_gesture", "dvs_cifar10")
RULES = {
    "not run": "No run at this scale: <strong>open</strong>.",
    "other data": "The runs are on other images than the paper's, such as digits: <strong>open</strong>. A JPEG copy "
    "of the paper's images counts as the paper's.",
    "too few intervals": "Too few comparisons have an interval: <strong>open</strong>. An interval takes two seeds "
    "that differ. Claims about every batch size or nearly every β need the intervals of two values, the claim about "
    "every replacement of the weights needs all four.",
    "held": "Every 95 % interval is above zero: <strong>held</strong>, in the cells that are run.",
    "did not hold": "At least one interval, widened for the claim's number of intervals, is below zero: "
    "<strong>did not hold</strong>.",
    "undecided": "Otherwise: <strong>open</strong>.",
}

MARKS = {"held": "✓", "did not hold": "✗"}  # shape says what colour says
ORDER = ("held", "did not hold", "undecided", "too few intervals", "other data", "not run")  # of the page


class Comparison(NamedTuple):
    """A difference that favours the claim where it is positive, and what it is of."""

    what: str
    difference: Difference


@dataclass(frozen=True)
class Claim:
    """A claim with both sides' evidence; ``some`` claims hold if one comparison does, others if all do.

    `page` is the name of the page with our runs, '' where there is none; `source` says what they are runs of. There is
    no verdict with fewer than `least` intervals. `printed` is the number of such comparisons in the paper. `front` are
    the words for the front page, '' for a claim that is not shown there, and `rival` whom SASTC beats by the claim.
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
    least: int = 1
    printed: int = 0
    front: str = ""
    rival: str = ""

    @property
    def known(self) -> list[Comparison]:
        """The comparisons that are run."""
        return [c for c in self.comparisons if c.difference.n > 0]

    @property
    def judged(self) -> list[Comparison]:
        """The comparisons that have an interval."""
        return [c for c in self.comparisons if c.difference.judged]


def sides(judged: Sequence[Comparison], widened: bool = False) -> tuple[list[bool], list[bool]]:
    """Which intervals are wholly on the claim's side, and which on the other; as they are, or widened together."""
    found = [d for _, d in judged]
    halves = [d.half * (widening(d.n, len(found)) if widened else 1.0) for d in found]
    above, below = ([sign * d.mean > half for d, half in zip(found, halves, strict=True)] for sign in (1, -1))
    return above, below


def verdict(claim: Claim) -> tuple[str, str]:
    """The verdict and the name of the rule that gave it, see :data:`RULES`.

    Where one interval decides, it is widened, as one of many misses zero by chance. Where all must agree they are not:
    chance would have to strike in every cell that speaks against the claim.
    """
    if not claim.known:
        return "open", "not run"
    if not claim.papers_data:
        return "open", "other data"
    judged = claim.judged
    if len(judged) < claim.least:
        return "open", "too few intervals"
    (above, below), (far_above, far_below) = sides(judged), sides(judged, widened=True)
    held, failed = (any(far_above), all(below)) if claim.some else (all(above), any(far_below))
    if not (held or failed):
        return "open", "undecided"
    rule = "held" if held else "did not hold"
    return rule if claim.scale == "paper" else f"{rule} here", rule


def reason(claim: Claim) -> str:
    """How a claim's intervals lie, or the rule that keeps it from a verdict."""
    _, rule = verdict(claim)
    if rule not in ("held", "did not hold", "undecided"):
        return rule
    m, (above, below) = len(claim.judged), (sum(side) for side in sides(claim.judged))
    if not above and not below:
        return "the interval includes zero" if m == 1 else f"all {m} intervals include zero"
    return f"{above} of {m} interval{'s' * (m > 1)} above zero" + f", {below} below" * (below > 0)


def mark(claim: Claim, why: bool = False) -> str:
    """A claim's verdict as an HTML mark: a sign, a word and a colour; an open one with the reason if `why`."""
    word, rule = verdict(claim)
    text = f"{word}: {reason(claim)}" if why and word == "open" else word
    kind = {"held": "held", "did not hold": "failed"}.get(rule, "open")
    return f'<span class="verdict {kind}"><span aria-hidden="true">{MARKS.get(rule, "?")}</span> {text}</span>'


def coverage(claim: Claim) -> list[str]:
    """What stands below a verdict: how the intervals lie, and how many comparisons the paper has."""
    printed = f"the paper: {claim.printed or 'no'} comparison{'s' * (claim.printed != 1)}"
    return [reason(claim), *([printed] if claim.judged and claim.papers_data else [])]


def ours(claim: Claim, source: bool = True) -> str:
    """Our evidence as HTML: every comparison if they are few, else how they fall; and what it is of, if `source`."""
    known = claim.known
    if not known:
        return "no run"
    of = f'<br><span class="seeds">{html.escape(claim.source)}</span>' if source and claim.source else ""
    if len(known) <= 4:
        common, own = in_common([c.what for c in known])
        lines = [interval(d, claim.digits, claim.unit) for _, d in known]
        short = [re.sub(r" & [^,:]+", "", what) for what in own]
        own = short if len(set(short)) == len(own) else own
        own = [html.escape(f"{what}:").replace(" ", "\N{NO-BREAK SPACE}") + " " if what else "" for what in own]
        lines = [what + line for what, line in zip(own, lines, strict=True)]
        return "<br>".join(filter(None, (html.escape(common), *lines))) + of
    means, seeds = [d.mean for _, d in known], [d.n for _, d in known]
    n = f"n={min(seeds)}" + (f" to {max(seeds)}" if max(seeds) > min(seeds) else "")
    text = (
        f"{sum(m > 0 for m in means)} of {len(known)} differences above zero, "
        f"median {np.median(means):+.{claim.digits}f} {claim.unit} ({n})"
    )
    if judged := claim.judged:
        (above, below), (far_above, far_below) = sides(judged), sides(judged, widened=True)
        text += (
            f"; of {len(judged)} interval{'s' * (len(judged) > 1)} {sum(above)} above zero ({sum(far_above)} if "
            f"widened), {sum(below)} below ({sum(far_below)})"
        )
    return text.replace("-", "−") + of


def in_common(names: Sequence[str]) -> tuple[str, list[str]]:
    """What all names say, and what each says beside; names are lists with commas: ``SASTC − KD, VGG-11, T=2``."""
    lists = [name.split(", ") for name in names]
    same = [part for part in lists[0] if all(part in other for other in lists)]
    return ", ".join(same), [", ".join(part for part in own if part not in same) for own in lists]


def names(comparisons: Sequence[Comparison]) -> list[str]:
    """What each comparison is of, without what all have in common, and without teachers where none is needed."""
    own = in_common([c.what for c in comparisons])[1] if len(comparisons) > 1 else [comparisons[0].what]
    sides_ = [name.partition(" − ") for name in own]
    if len({left for left, _, _ in sides_}) == 1 and all(right for _, _, right in sides_):
        own = [right for _, _, right in sides_]  # learned − uniform: uniform
    own = [re.sub(r"\bcka\b", "CKA", name) for name in own]
    short = [re.sub(r" & [^,]+", "", name) for name in own]
    return short if len(set(short)) == len(set(own)) else own


# Comparisons

TEACHERS = ("teacher", "noise_teacher", "subset_teacher")  # what a baseline does not have


def pairs(runs: pd.DataFrame, one: str, other: str, value: str = "accuracy", sign: int = 1, by: Sequence[str] = ()):
    """`one` less `other` (times `sign`) for every student, teacher and T, and for every value of the settings `by`.

    A baseline belongs to every teacher of its student.
    """
    found = []
    keys = ["dataset", "student", "teacher", "timesteps", *by]
    for key, _ in runs[runs.method != "baseline"].groupby(keys, sort=False):
        at = dict(zip(keys, key, strict=True))
        same = np.logical_and.reduce([runs[k] == v for k, v in at.items() if k not in TEACHERS])
        taught = np.logical_and.reduce([runs[k] == at[k] for k in TEACHERS if k in at])
        rows = runs[same & (taught | (runs.method == "baseline"))]
        found_difference = difference(rows, one, other, value=value).times(sign)
        name = f"{LABELS[at['student']]} & {LABELS[at['teacher']]}, T={at['timesteps']}"
        extra = "".join(f", {k} {at[k]}".replace("_", " ") for k in by)
        found.append(Comparison(f"{LABELS[one]} − {LABELS[other]}, {name}{extra}", found_difference))
    return found


def with_teachers(runs: pd.DataFrame) -> pd.DataFrame:
    """SASTC's runs, each with a second row: the accuracy of its own teacher as method ``teacher``."""
    done = runs[runs.complete & (runs.method == "sastc")]
    taught = [Run(path).provenance.get("teacher", {}).get("accuracy", np.nan) for path in done.path]
    return pd.concat([done, done.assign(method="teacher", accuracy=taught)], ignore_index=True)


def across_steps(
    values: pd.DataFrame, value: str, sign: int, others: Sequence[str] = METHODS[:3], few: int = 2, many: int = 7
) -> list[Comparison]:
    """SASTC at few steps beside other methods at many, over seeds; `sign` 1 if more is better for the claim."""
    found = []
    ours_ = values[(values.method == "sastc") & (values.timesteps == few)].assign(side="a")
    keys = [k for k in ("dataset", "student", "teacher") if k in values]
    for other in others:
        theirs = values[(values.method == other) & (values.timesteps == many)].assign(side="b")
        for key, mine in ours_.groupby(keys, sort=False):
            at = dict(zip(keys, key, strict=True))
            same = [theirs[k] == v for k, v in at.items() if k != "teacher" or other != "baseline"]
            both = pd.concat([mine, theirs[np.logical_and.reduce(same)]]).assign(complete=True)
            gap = difference(both, "a", "b", "side", value).times(sign)
            pair = f"{LABELS[at['student']]} & {LABELS[at['teacher']]}"
            sides = (f"SASTC at T={few}", f"{LABELS[other]} at T={many}")[::sign]  # as the difference is taken
            found.append(Comparison(f"{' − '.join(sides)}, {pair}", gap))
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
        found.append(Comparison(what, difference(rows, "kd", "feature_kd")))
    return found


def attention_controls(runs: pd.DataFrame) -> list[Comparison]:
    """Accuracy with learned weights less that with every replacement."""
    named = runs.assign(control=controls.names(runs))
    return [Comparison(f"learned − {c}", difference(named, controls.LEARNED, c, "control")) for c in controls.REPLACED]


def most_alike(runs: pd.DataFrame) -> list[Comparison]:
    """In how many cells the largest weight is on the layer most similar by CKA, minus what chance would give."""
    known = controls.table_of_facts(runs[controls.names(runs) == controls.LEARNED])
    found = paired(known.likest, known.chance.mean()) if len(known) else Difference()
    return [Comparison("share of cells, less chance", found.times(100))]


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
        source = sorted(
            {f"{Run(path).provenance['data']['name']}, {report.SCALE_WORDS[plan.scale]}" for path in done.path}
        )
        in_book = plan.scale == "quick" or plan.scale in plans[page].of_record
        more |= dict(
            page=page_name(page, "quick" if in_book and plans[page].one_page else plan.scale)
            if in_book and any(d.n for _, d in comparisons)
            else "",
            comparisons=comparisons,
        )
        more |= dict(papers_data=set(done.dataset) <= set(PAPERS_DATA), scale=plan.scale, source="; ".join(source))
        out.append(Claim(words, papers, **more))

    def cells(statement: str) -> str:
        row = said.loc[statement]
        return f"{row.cells - row.against} of {row.cells} cells"

    def count(statement: str) -> int:
        return int(said.loc[statement].cells)

    rivals = dict(baseline="the student alone", kd="KD", feature_kd="feature KD")
    kinds = dict(baseline="baseline", kd="logits only", feature_kd="fixed layer pairs")
    for other in METHODS[:3]:
        median, statement = gains.loc[LABELS[other], "median_gain"], f"Table 2: SASTC is above {LABELS[other]}"
        own = " (ours: all pairs of layers of equal depth in one run)" if other == "feature_kd" else ""
        add(f"SASTC is more accurate than {LABELS[other]} on CIFAR{own}",
            f"{cells(statement)}, median gain {median:.2f}", "table2",
            lambda r, o=other: pairs(r, "sastc", o), printed=count(statement), rival=rivals[other],
            front=f"SASTC beats {rivals[other]} ({kinds[other]})")  # fmt: skip
    statement = "Table 2: feature KD is below KD on CIFAR-100 and for WRN-16-2 & ResNet-19"
    add("Feature KD is worse than KD on CIFAR-100 and for WRN-16-2 & ResNet-19", cells(statement), "table2",
        lambda r: pairs(r[(r.dataset == "cifar100") | ((r.student == "wrn16_2") & r.teacher.isin(["resnet19", ""]))],
                        "kd", "feature_kd"), printed=count(statement))  # fmt: skip
    known = forensics.all_values()
    ann = known[known.method == "teacher_ann"].accuracy
    best = known[(known.method == "sastc") & (known.student == "ResNet-18") & (known.teacher == "ResNet-32x4")].accuracy
    static = paper("sota_static")
    cited = static.query("method == 'SASTC' and dataset in ('CIFAR-10', 'CIFAR-100')")
    (cited_ann,) = static.query("method == 'ANN' and dataset == 'CIFAR-10'").accuracy
    ten = cited[cited.dataset == "CIFAR-10"].accuracy
    add("Students surpass ANNs on CIFAR-10 and CIFAR-100 (ours: their own teachers, one for all seeds of a pair; the "
        "intervals do not cover variation between teachers)",
        f"CIFAR-10: {ten.min():.2f} to {ten.max():.2f}, another paper's ResNet-19 {cited_ann:.2f}; CIFAR-100: "
        f"ResNet-18 & ResNet-32x4 {best.min():.2f} to {best.max():.2f}, its teacher {ann.min():.2f} or {ann.max():.2f}",
        "table2", lambda r: pairs(with_teachers(r), "sastc", "teacher"), rival="its own teacher",
        front="SASTC surpasses its ANN teacher", printed=len(cited))  # fmt: skip
    imagenet = paper("imagenet_accuracy").query("architecture == 'ResNet-18'").set_index("method").accuracy
    printed = ", ".join(f"{LABELS[m]} {imagenet[m]:.2f}" for m in METHODS)
    add("SASTC is more accurate than the others on ImageNet", printed, "table3",
        lambda r: [c for o in METHODS[:3] for c in pairs(r[r.student == "resnet18"], "sastc", o)],
        printed=3)  # fmt: skip
    bars = paper("negative_regularization").query("fact == 'pair_count'").value.sum()
    add("Some single pairs of layers are worse than KD (negative regularisation)", "bars of Figure 2, without numbers",
        "figure2", single_pairs, some=True, printed=int(bars))  # fmt: skip
    add("SASTC has the lowest mismatch score", cells("Table 5: SASTC has the lowest mismatch"), "stm",
        lambda r: [c for o in METHODS[:3] for c in pairs(r, "sastc", o, "stm", -1)],
        unit="lower", digits=4, printed=3 * count("Table 5: SASTC has the lowest mismatch"))  # fmt: skip
    add("Attention's largest weight lies on the layer that is most similar (ours: by centred kernel alignment)",
        "no measure is reported", "controls", most_alike)  # fmt: skip
    add("Learned weights give a higher accuracy than every replacement (uniform, random, untrained, by CKA)",
        "no control is reported", "controls", attention_controls, least=len(controls.REPLACED),
        front="Learned attention beats replaced weights")  # fmt: skip
    add("SASTC is the best on neuromorphic data (ours: beside the other methods)", _neuromorphic(),
        "table6", _events, printed=len(paper("neuromorphic_accuracy").query("method != 'SASTC'")))  # fmt: skip
    noisy = lambda r: r[r.label_noise > 0]  # noqa: E731
    add("SASTC is more accurate than KD with noisy labels", cells("Table 7: SASTC is above KD under noise"), "table7",
        lambda r: pairs(noisy(r), "sastc", "kd", by=("label_noise", "noise_teacher")),
        printed=count("Table 7: SASTC is above KD under noise"))  # fmt: skip
    add("SASTC is more accurate than its teacher with noisy labels (teacher trained on them too)",
        cells("Table 7: SASTC is above its ANN teacher under noise"), "table7",
        lambda r: pairs(with_teachers(noisy(r)[noisy(r).noise_teacher == "same_noise"]), "sastc", "teacher",
                        by=("label_noise",)),
        printed=count("Table 7: SASTC is above its ANN teacher under noise"))  # fmt: skip
    add("SASTC looks at what its teacher looks at, more than others do", "pictures in Figure 3", "sam", _likeness,
        unit="")  # fmt: skip
    add(
        "Fisher information ends lower with SASTC (the paper: falls faster to its final state)",
        "curves in the appendix",
        "fisher",
        _fisher,
        unit="(log₁₀)",
    )
    few = paper("few_shot").query("train_fraction < 1")
    few = few.pivot(index="train_fraction", columns="method", values="accuracy")
    add("SASTC is more accurate than KD with few images", f"{(few.sastc > few.kd).sum()} of {len(few)} cells",
        "fewshot", _few_images, printed=len(few))  # fmt: skip
    statement = "batch-size table: SASTC is above KD and baseline"
    add("SASTC is more accurate than KD and baseline at every batch size", cells(statement), "batchsize",
        lambda r: [c for o in ("baseline", "kd") for c in pairs(r, "sastc", o, by=("batch_size",))],
        least=4, printed=2 * count(statement))  # fmt: skip
    add("SASTC is more accurate than KD for nearly every β", _beta(), "beta", _betas, least=2, printed=_betas_drawn())
    statement = "energy table: SASTC at T=2 needs less than the others at T=7"
    add("SASTC at T=2 needs less energy than the others at T=7", cells(statement), "energy",
        lambda r: across_steps(energy.counts(r), "energy_uj", -1), unit="µJ less",
        printed=count(statement))  # fmt: skip
    costs = forensics_costs.energies().set_index(["method", "timesteps"]).accuracy
    add("SASTC at T=2 is more accurate than the others at T=7",
        f"{costs['sastc', 2]:.2f} beside {', '.join(f'{costs[m, 7]:.2f}' for m in METHODS[:3])}", "energy",
        lambda r: across_steps(r[r.complete], "accuracy", 1), printed=3)  # fmt: skip
    hours = paper("running_time_memory").set_index(["method", "timesteps"]).value
    add("SASTC at T=2 trains faster than KD and feature KD at T=7",
        f"{hours['sastc', 2]:.1f} h beside {hours['kd', 7]:.1f} and {hours['feature_kd', 7]:.1f} h", "table2",
        lambda r: across_steps(_seconds(r[r.complete]), "seconds", -1, METHODS[1:3]),
        unit="s an epoch less (on a CPU, its own seconds)", printed=2)  # fmt: skip
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


def _seconds(runs: pd.DataFrame) -> pd.DataFrame:
    """With `seconds` an epoch: of the CPU, which another load hardly changes, or of the clock where a GPU trained."""
    found = []
    for run in map(Run, runs.path):
        clock = run.provenance["device_type"] != "cpu"
        column = "train_seconds" if clock else "train_cpu_seconds"
        found.append(run.history[column].mean() if column in run.history else np.nan)
    return runs.assign(seconds=found)


def _neuromorphic() -> str:
    table = paper("neuromorphic_accuracy")
    best = table[table.method != "SASTC"].groupby("dataset").accuracy.max()
    mine = table[table.method == "SASTC"].set_index("dataset").accuracy
    return "; ".join(f"{d}: {mine[d]:.2f}, next {best[d]:.2f}" for d in mine.index)


def _events(runs: pd.DataFrame) -> list[Comparison]:
    students = as_preset(runs[runs.method != "teacher"])
    same_input = students[students.teacher_input == students.teacher_input.iloc[0]]
    return [c for o in METHODS[:3] for c in pairs(same_input, "sastc", o)]


def _few_images(runs: pd.DataFrame) -> list[Comparison]:
    few = runs[runs.train_fraction < 1]  # with all images they are cells of Table 2
    return pairs(few, "sastc", "kd", by=("train_fraction", "subset_teacher"))


def _beta() -> str:
    table = paper("beta_sensitivity").query("quantity == 'gain_over_kd_at_optimum'")
    return "at the best β " + ", ".join(f"+{r.value:.2f} ({r.dataset})" for r in table.itertuples())


def _betas_drawn() -> int:
    """How many values of β the paper draws, over all pairs."""
    found = paper("beta_sensitivity").pivot(index="dataset", columns="quantity", values="value")
    return int(((found.beta_max - found.beta_min) / found.beta_step + 1).sum())


def _betas(runs: pd.DataFrame) -> list[Comparison]:
    found = []
    for (dataset, beta), mine in runs[runs.method == "sastc"].groupby(["dataset", "beta"]):
        rows = pd.concat([mine, runs[(runs.method == "kd") & (runs.dataset == dataset)]])
        what = f"SASTC − KD, {LABELS[dataset]}, β={beta:g}"
        found.append(Comparison(what, difference(rows, "sastc", "kd")))
    return found


def _likeness(runs: pd.DataFrame) -> list[Comparison]:
    values = sam.likeness_of(runs)
    others = [m for m in METHODS[:3] if m in set(values.method)]
    return [Comparison(f"SASTC − {LABELS[o]}", difference(values, "sastc", o, value="correlation")) for o in others]


def _fisher(runs: pd.DataFrame) -> list[Comparison]:
    rows = fisher.log_differences(fisher.traces_of(runs))
    return [Comparison(f"{LABELS[other]} − SASTC", -d) for other, d in rows.items()]


def verdicts_table(found: Sequence[Claim]) -> str:
    """HTML table, one line a claim, those that are decided first; its CSV has a row for every comparison."""
    found = sorted(found, key=lambda claim: ORDER.index(verdict(claim)[1]))
    rows = pd.DataFrame(dict(claim=c.words, paper=c.paper, place=i) for i, c in enumerate(found))
    sources = {c.source for c in found if c.source}
    columns = {  # few enough that ours is in sight
        "claim": lambda r: f'{html.escape(r.claim)}<br><span class="seeds">{html.escape(r.paper)}</span>',
        "verdict": lambda r: said(found[r.place]),
        "ours": lambda r: ours(found[r.place], len(sources) > 1) + _link(found[r.place].page),
    }
    every = [
        dict(
            claim=c.words,
            paper=c.paper,
            verdict=verdict(c)[0],
            rule=verdict(c)[1],
            unit=c.unit,
            what=what,
            difference=d,
            half_widened=d.half * widening(d.n, len(c.judged)) if d.judged else np.nan,
        )
        for c in found
        for what, d in (c.comparisons or [Comparison("not run", Difference())])
    ]
    caption = "Claims of the paper, its evidence below each. A positive difference favours the claim. Brackets hold "
    caption += "95 % intervals over n seeds."
    caption += f" Ours: {html.escape(*sources)}." if len(sources) == 1 else ""
    return table(rows, caption, "verdicts", columns, csv=pd.DataFrame(every))


def said(claim: Claim) -> str:
    """A claim's verdict as HTML, the reason and the coverage below."""
    return "<br>".join([mark(claim), *(f'<span class="seeds">{line}</span>' for line in coverage(claim))])


def _link(page: str) -> str:
    return f' <a href="{page}.html">runs</a>' if page else ""


def summary(found: Sequence[Claim]) -> str:
    """How many claims got which verdict, the open ones by the reason."""
    decided = sorted(map(verdict, found), key=lambda pair: ORDER.index(pair[1]))
    words, why = Counter(word for word, _ in decided), Counter(rule for word, rule in decided if word == "open")
    told = ", ".join(f"{n} {word}" for word, n in words.items())
    reasons = {
        "undecided": "with intervals that include zero or disagree",
        "other data": "on other data than the paper's",
    }
    open_ = f" ({', '.join(f'{n} {reasons.get(rule, rule)}' for rule, n in why.items())})" if why else ""
    return f"Of {len(found)} claims of the paper, {told}{open_}."
