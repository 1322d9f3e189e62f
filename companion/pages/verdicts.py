"""One line a claim of the paper: its evidence, ours, and a verdict by stated rules."""

import dataclasses
import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from companion import report
from companion.html import interval, table
from companion.pages.parts import frame, page_name
from companion.pages.verdicts_claims import CLAIMS, Claim, Comparison
from companion.stats import FEWEST, Difference, family, over, pooled
from sastc.config import SCALES
from sastc.experiments import Experiment, load_experiment
from sastc.records import Run, user_path

PAPERS_DATA = ("cifar10", "cifar100", "imagenet", "dvs_gesture", "dvs_cifar10")
ALONE = 5  # seeds of a cell, below which it decides nothing alone, for or against
RULES = {
    "not run": "No run: <strong>open</strong>.",
    "other data": "The runs are on other images than the paper's, such as digits: <strong>open</strong>. A JPEG copy "
    "of the paper's images counts as the paper's.",
    "too few": f"Too few cells count: <strong>open</strong>. A cell is one student, teacher, T and setting; it counts "
    f"with {FEWEST} seeds or more that differ. Claims about every batch size or nearly every β need two values, the "
    "claim about every replacement of the weights needs all four.",
    "did not hold": "The pooled effect of two cells or more is below zero, or every cell's interval is: <strong>did "
    "not hold</strong>.",
    "not always": "A cell is below zero, corrected for the claim's number of cells, while the pooled effect is not: "
    "<strong>not always</strong>, or <strong>not shown</strong> where no cell is above zero.",
    "held": "The pooled effect or every cell's interval is above zero: <strong>held</strong>, in the cells that are "
    "run.",
    "undecided": "Otherwise: <strong>open</strong>.",
}
METHOD = (
    "Intervals are 95 % ones, Student's t over seeds. The pooled effect of a claim is the mean over its cells, each "
    "counted once whatever its seeds, with Student's t on the means of the cells (a random-effects mean); one cell is "
    "its own. Cells that share a teacher (a pair of networks on the same data at several T) or runs (SASTC's beside "
    "three methods) "
    "are no independent evidence: the interval is at least that of a mean over such groups, with one error in each. "
    "Scores, energies and seconds of different networks are not averaged, nor are differences from methods that a "
    "claim names together. What is said of the cells of a claim is corrected by Holm's method for their number, as on "
    "all pages where differences answer one question together, so that one of many that misses zero by chance decides "
    "nothing.",
    "A claim that something happens <em>somewhere</em> is the mirror image: it held if a cell is above zero, "
    "corrected; it did not hold if all intervals are below.",
    f"One cell of fewer than {ALONE} seeds decides nothing alone, for a claim or against it: a second cell must say "
    "the same, of the same scale or of smaller networks.",
    "The largest networks lead: a claim is judged at the largest scale at which enough cells count, and what smaller "
    "ones say stands below it. No cell and no pooled effect mixes scales.",
)

MARKS = {"held": "✓", "did not hold": "✗", "not always": "≠"}  # shape says what colour says
ORDER = ("held", "did not hold", "not always", "undecided", "too few", "other data", "not run")  # of the page


@dataclasses.dataclass(frozen=True)
class Found:
    """Our evidence for a claim at one scale; `smaller` has that of smaller scales at which a cell counts.

    `page` is the name of the page with our runs, '' where there is none; `source` says what they are runs of, and
    `datasets` has those with enough seeds to count.
    """

    claim: Claim
    comparisons: Sequence[Comparison] = ()
    papers_data: bool = False
    scale: str = "paper"
    page: str = ""
    source: str = ""
    datasets: tuple[str, ...] = ()
    smaller: tuple["Found", ...] = ()

    @property
    def known(self) -> list[Comparison]:
        """The comparisons that are run."""
        return [c for c in self.comparisons if c.difference.n > 0]

    @property
    def counted(self) -> list[Comparison]:
        """The cells that count, corrected for their number."""
        cells = [c for c in self.comparisons if c.difference.judged and c.difference.n >= FEWEST]
        return [c._replace(difference=d) for c, d in zip(cells, family(c.difference for c in cells), strict=True)]

    @property
    def pooled(self) -> Difference:
        """The mean effect over the cells that count, where they can be averaged."""
        cells = self.counted if self.claim.pool or len(self.counted) == 1 else []
        return pooled([c.difference for c in cells], [c.group for c in cells])

    @property
    def sides(self) -> tuple[list[str], list[str], list[str]]:
        """Which counted cells are above zero, below, and neither; corrected."""
        said = {c.what: c.difference.judgement for c in self.counted}
        above, below = ([what for what, word in said.items() if word == w] for w in ("better", "worse"))
        return above, below, [what for what in said if what not in (*above, *below)]


def verdict(found: Found) -> tuple[str, str]:
    """The verdict in words, and the name of the rule that gave it, see :data:`RULES`."""
    if not found.known:
        return "open", "not run"
    if not found.papers_data:
        return "open", "other data"
    cells = [d for _, d, _ in found.counted]
    if len(cells) < max(found.claim.least, 1):
        return "open", "too few"
    smaller = [d.judgement for one in found.smaller for _, d, _ in one.counted]

    def decide(word: str) -> bool:
        said = [d for d in cells if d.judgement == word]
        return len(said) > 1 or any(d.n >= ALONE or word in smaller for d in said)

    better, worse = (len(cells) > 1 or decide(word) for word in ("better", "worse"))  # whether there is enough
    all_above, all_below = better and all(d.low > 0 for d in cells), worse and all(d.high < 0 for d in cells)
    effect, rule = found.pooled.judgement, "undecided"
    if found.claim.some:
        rule = "held" if decide("better") else "did not hold" if all_below else rule
    elif all_below or (worse and effect == "worse"):
        rule = "did not hold"
    elif decide("worse"):
        rule = "not always"
    elif all_above or (better and effect == "better"):
        rule = "held"
    word = "not shown" if rule == "not always" and not found.sides[0] else "open" if rule == "undecided" else rule
    return word if found.scale == "paper" or word == "open" else f"{word} here", rule


def reason(found: Found) -> str:
    """How a claim's cells lie, or the rule that keeps it from a verdict."""
    _, rule = verdict(found)
    if rule in ("not run", "other data"):
        return rule
    if rule == "too few":
        m, most = len(found.counted), max(d.n for _, d, _ in found.known)
        return f"{m} cell{'s' * (m != 1)} count{'s' * (m == 1)} (at most {most} seed{'s' * (most > 1)} each)"
    m, (above, below, _) = len(found.counted), found.sides
    if (
        rule == "held"
        and m > 1
        and found.pooled.judgement != "better"
        and all(c.difference.low > 0 for c in found.counted)
    ):
        return f"the interval of each of {m} cells is above zero"
    if not above and not below:
        return "the interval includes zero" if m == 1 else f"none of {m} cells differs from zero"
    if m == 1:
        few = f"; of {found.counted[0].difference.n} seeds, it decides nothing alone" * (rule == "undecided")
        return f"its one cell is {'above' if above else 'below'} zero{few}"
    return f"{len(above)} of {m} cells above zero" + f", {len(below)} below" * bool(below)


def effect(found: Found) -> str:
    """The pooled effect in words; '' where no cell counts."""
    d = found.pooled
    if not d.n or found.claim.some:
        return ""
    m, groups = len(found.counted), len({c.group for c in found.counted})
    over = f"{m} cells" if m > 1 else "one cell"
    over += f" in {groups} independent group{'s' * (groups > 1)}" * (groups < m)
    return f"pooled {d.words(found.claim.digits)} {found.claim.unit}".rstrip() + f" ({over})"


def mark(found: Found, why: bool = False) -> str:
    """A claim's verdict as an HTML mark: a sign, a word and a colour; an open one with the reason if `why`."""
    word, rule = verdict(found)
    text = f"{word}: {reason(found)}" if why and word == "open" else word
    if word.startswith("not shown"):
        text = word.replace("shown", f"shown, worse in {len(found.sides[1])} of {len(found.counted)}", 1)
    kind = {"held": "held", "did not hold": "failed", "not always": "failed"}.get(rule, "open")
    return f'<span class="verdict {kind}"><span aria-hidden="true">{MARKS.get(rule, "?")}</span> {text}</span>'


def coverage(found: Found) -> list[str]:
    """What stands below a verdict: how the cells lie, the pooled effect, and the paper's number of comparisons."""
    printed = found.claim.cells()
    told = f"the paper: {printed or 'no'} comparison{'s' * (printed != 1)}"
    return [reason(found), *filter(None, [effect(found)]), *([told] if found.counted and found.papers_data else [])]


def ours(found: Found, source: bool = True) -> str:
    """Our evidence as HTML: every comparison if they are few, else how they fall; and what it is of, if `source`."""
    known, claim = found.known, found.claim
    if not known:
        return "no run"
    of = f'<br><span class="seeds">{html.escape(found.source)}</span>' if source and found.source else ""
    for small in found.smaller:
        told = "; ".join(filter(None, (f"{small.source}: {verdict(small)[0]}", reason(small), effect(small))))
        of += f'<br><span class="seeds">{html.escape(told)}</span>'
    if len(known) <= 4:
        common, own = in_common([c.what for c in known])
        lines = [interval(d, claim.digits, claim.unit) for _, d, _ in known]
        short = [re.sub(r" & [^,:]+", "", what) for what in own]
        own = short if len(set(short)) == len(own) else own
        own = [re.sub("(?<!,) ", "\N{NO-BREAK SPACE}", html.escape(f"{what}:")) + " " if what else "" for what in own]
        lines = [what + line for what, line in zip(own, lines, strict=True)]
        return "<br>".join(filter(None, (html.escape(common), *lines))) + of
    means = [d.mean for _, d, _ in known]
    n = report.span({d.n for _, d, _ in known})
    text = (
        f"{sum(m > 0 for m in means)} of {len(known)} means above zero, "
        f"median {np.median(means):+.{claim.digits}f} {claim.unit} (n={n})"
    ).replace("-", "−")
    above, below_zero, _ = found.sides
    if m := len(found.counted):
        text += f"; {m} cell{'s' * (m > 1)} count{'s' * (m == 1)}: "
        text += f"{len(above)} above zero, {len(below_zero)} below, corrected"
    return text + of


def in_common(names: Sequence[str]) -> tuple[str, list[str]]:
    """What all names say, and what each says beside; names are lists with commas: ``SASTC − KD, VGG-11, T=2``."""
    lists = [name.split(", ") for name in names]
    same = [part for part in lists[0] if all(part in other for other in lists)]
    return ", ".join(same), [", ".join(part for part in own if part not in same) for own in lists]


def names(comparisons: Sequence[Comparison]) -> list[str]:
    """What each comparison is of, without what all have in common, and without teachers where none is needed."""
    if len(comparisons) == 1:
        whole = comparisons[0].what
        return [re.sub(r" & [^,]+", "", whole.partition(", ")[2]) or whole]
    own = in_common([c.what for c in comparisons])[1]
    sides_ = [name.partition(" − ") for name in own]
    if len({left for left, _, _ in sides_}) == 1 and all(right for _, _, right in sides_):
        own = [right for _, _, right in sides_]  # learned − uniform: uniform
    short = [re.sub(r" & [^,]+", "", name) for name in own]
    return short if len(set(short)) == len(set(own)) else own


# Evidence


def plans(plan: Experiment, changes: Mapping, results: str | Path = "results") -> list[Experiment]:
    """The runs that claims are judged by: those of the plan, and of the scales of which anything is recorded.

    The largest scale is first; quick runs are judged alone.
    """
    if plan.scale == "quick":
        return [plan]
    recorded = [s for s in SCALES if s != "quick" and (user_path(results) / s).is_dir()]
    scales = [s for s in reversed(SCALES) if s in (plan.scale, *recorded)]
    return [load_experiment(report.ROOT / "experiments" / f"{plan.name}.yaml", s, dict(changes)) for s in scales]


def claims(plan: Experiment, changes: Mapping, results: str | Path = "results") -> list[Found]:
    """Our evidence for all claims, each at the largest scale at which enough cells count; quick pages show quick."""
    scales = [one.scale for one in plans(plan, changes, results)]
    known: dict[tuple[str, str], tuple[Experiment, pd.DataFrame]] = {}
    out = []
    for claim in CLAIMS:
        evidence = []
        for scale in scales:
            if (claim.page, scale) not in known:
                path = report.ROOT / "experiments" / f"{claim.page}.yaml"
                of_page = load_experiment(path, scale, dict(changes))
                known[claim.page, scale] = of_page, frame(of_page, results) if of_page.runs else pd.DataFrame()
            evidence.append(_evidence(claim, *known[claim.page, scale]))
        leads = [f for f in evidence if len(f.counted) >= max(claim.least, 1)]
        leads = leads or [max(evidence, key=lambda f: (len(f.counted), len(f.known)))]
        out.append(dataclasses.replace(leads[0], smaller=tuple(f for f in leads[1:] if f.counted)))
    return out


def _evidence(claim: Claim, plan: Experiment, runs: pd.DataFrame) -> Found:
    done = runs[runs.complete] if len(runs) else pd.DataFrame(columns=["path", "dataset"])
    comparisons = claim.compare(runs) if len(done) else []
    names = {f"{Run(path).provenance['data']['name']}, {report.SCALE_WORDS[plan.scale]}" for path in done.path}
    in_book = plan.scale == "quick" or plan.scale in plan.of_record
    shown = in_book and any(d.n for _, d, _ in comparisons)
    page = page_name(claim.page, "quick" if plan.one_page else plan.scale) if shown else ""
    own_data = set(done.dataset) <= set(PAPERS_DATA)
    seeds = done.groupby("dataset", sort=False).seed.nunique() if len(done) else pd.Series(dtype=int)
    enough = tuple(seeds.index[seeds >= FEWEST])
    return Found(claim, comparisons, own_data, plan.scale, page, "; ".join(sorted(names)), enough)


# HTML


def verdicts_table(found: Sequence[Found]) -> str:
    """HTML table, one line a claim, those that are decided first; its CSV has a row for every comparison."""
    found = sorted(found, key=lambda one: ORDER.index(verdict(one)[1]))
    rows = pd.DataFrame(dict(claim=f.claim.words, paper=f.claim.evidence(), place=i) for i, f in enumerate(found))
    sources = {f.source for f in found if f.source}
    columns = {  # few enough that ours is in sight
        "claim": lambda r: f'{html.escape(r.claim)}<br><span class="seeds">{_paper(found[r.place].claim)}</span>',
        "verdict": lambda r: said(found[r.place]),
        "ours": lambda r: ours(found[r.place], len(sources) > 1) + _link(found[r.place].page),
    }
    every = [
        dict(
            claim=f.claim.words,
            paper=f.claim.evidence(),
            verdict=verdict(f)[0],
            rule=verdict(f)[1],
            scale=one.scale,
            unit=f.claim.unit,
            what=what,
            difference=d,
            p_holm=d.corrected,
        )
        for f in found
        for one in (f, *f.smaller)
        for what, d, _ in _every(one)
    ]
    caption = "Claims of the paper, its evidence below each, and questions of ours. A positive difference favours the "
    caption += "claim. Brackets hold "
    caption += f"95 % intervals over {over(d for f in found for _, d, _ in f.known)}."
    caption += f" Ours: {html.escape(*sources)}." if len(sources) == 1 else ""
    return table(rows, caption, "verdicts", columns, csv=pd.DataFrame(every))


def _paper(claim: Claim) -> str:
    return "A question of ours; the paper: " * claim.ours + html.escape(claim.evidence())


def _every(found: Found) -> list[Comparison]:
    corrected = {c.what: c for c in found.counted}
    every = [corrected.get(c.what, c) for c in found.comparisons] or [Comparison("not run", Difference())]
    return [*every, Comparison("pooled", found.pooled)] if found.pooled.n else every


def said(found: Found) -> str:
    """A claim's verdict as HTML, the reason and the coverage below."""
    return "<br>".join([mark(found), *(f'<span class="seeds">{line}</span>' for line in coverage(found))])


def _link(page: str) -> str:
    return f' <a href="{page}.html">runs</a>' if page else ""


def summary(found: Sequence[Found]) -> str:
    """How many claims of the paper got which verdict, the open ones by the reason; then the same of our questions."""
    told = []
    for words, some in (
        ("claim{} of the paper", [f for f in found if not f.claim.ours]),
        ("question{} of ours", [f for f in found if f.claim.ours]),
    ):
        if some:
            told.append(f"Of {len(some)} {words.format('s' * (len(some) > 1))}, {_tally(some)}.")
    return " ".join(told)


def _tally(found: Sequence[Found]) -> str:
    decided = sorted(map(verdict, found), key=lambda pair: (ORDER.index(pair[1]), pair[0]))
    words, why = Counter(word for word, _ in decided), Counter(rule for word, rule in decided if word == "open")
    told = ", ".join(f"{n} {word.replace('not always', 'did not always hold')}" for word, n in words.items())
    reasons = {
        "undecided": "whose intervals include zero, disagree, or are of one cell with few seeds",
        "too few": f"with too few cells of {FEWEST} seeds",
        "other data": "on other data than the paper's",
    }
    return told + (f" ({', '.join(f'{n} {reasons.get(rule, rule)}' for rule, n in why.items())})" if why else "")
