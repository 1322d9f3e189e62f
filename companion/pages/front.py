"""The front page: two sentences that follow the verdicts, and the claims that matter with their intervals."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

from companion import report
from companion.html import in_words
from companion.pages.parts import page_name
from companion.pages.verdicts import Found, in_common, mark, names, reason, verdict
from companion.stats import signed
from sastc.config import SCALES
from sastc.experiments import Experiment, load_experiment
from sastc.labels import LABELS
from sastc.records import Run

NETWORKS = {"quick": "tiny", "slim": "small", "quarter": "quarter-width", "paper": "full-size"}
ROW = 18  # pixels of one interval; twice that where its numbers stand above it, see custom.css


def chosen(found: Sequence[Found]) -> list[Found]:
    """Those that the front page shows."""
    return [one for one in found if one.claim.front]


def axis(claims: Sequence[Found]) -> tuple[float, float, list[int]]:
    """Lowest and highest value of a common scale, with some room, and its ticks."""
    known = [c.difference for claim in claims for c in claim.known]
    ends = [end for d in known for end in ((d.low, d.high) if d.judged else (d.mean,))]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.04 * (high - low) or 1.0
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if (high - low) / s <= 5)
    return low - room, high + room, [step * k for k in range(int(low // step) + 1, int(high // step) + 1)]


def plot(claim: Found, low: float, high: float, ticks: Sequence[int]) -> str:
    """SVG of a claim's comparisons, one below the other: a dot and its interval, filled where the verdict counts it.

    Lengths are in percent, so that it fits any column and rows of any height while dots and lines keep their size.
    """

    def x(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    known, (above, below, _) = claim.known, claim.sides
    rows = len(known)
    parts = [f'<line class="tick" x1="{x(t)}" x2="{x(t)}" y1="0" y2="100%"/>' for t in ticks if t]
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="100%"/>')
    for i, (what, d, _) in enumerate(known):
        y = f"{100 * (i + 0.5) / rows:.2f}%"
        if d.judged:
            parts.append(f'<line class="reach" x1="{x(d.low)}" x2="{x(d.high)}" y1="{y}" y2="{y}"/>')
        outside = "outside" if what in (*above, *below) else "inside"
        parts.append(f'<circle class="{outside}" cx="{x(d.mean)}" cy="{y}" r="4.5"/>')
    gaps = [comparison.difference for comparison in known]
    told = "; ".join(f"{name}: {d.words()} points, n={d.n}" for name, d in zip(names(known), gaps, strict=True))
    size = f'width="100%" height="{ROW * rows}" style="--rows:{rows}"'
    return f'<svg role="img" aria-label="{html.escape(told)}" {size}>{"".join(parts)}</svg>'


def scale_of(low: float, high: float, ticks: Sequence[int]) -> str:
    """SVG with the numbers of the common scale."""
    texts = "".join(
        f'<text x="{100 * (t - low) / (high - low):.2f}%" y="12" text-anchor="middle">{signed(t, 0) if t else 0}</text>'
        for t in ticks
    )
    return f'<svg aria-hidden="true" width="100%" height="16">{texts}</svg>'


def seeds(claim: Found) -> str:
    """What a claim's intervals are from: seeds, comparisons, what :func:`names` leaves out; then smaller scales."""
    known = claim.known
    if not known:
        return "not run"
    n, m = report.span({d.n for _, d, _ in known}), len(known)
    told = f"n={n} seeds, {m} comparison{'s' * (m > 1)} (the paper: {claim.claim.cells() or 'none'})"
    cells = [c.what.partition(", ")[2] for c in known]
    shared = in_common(cells)[0] if m > 1 else ""
    told += f"; {', '.join(filter(None, (report.SCALE_WORDS[claim.scale], shared)))}"
    return "; ".join((told, *(f"{report.SCALE_WORDS[one.scale]}: {reason(one)}" for one in claim.smaller)))


def claims_list(found: Sequence[Found], folder: str = "runs/") -> str:
    """HTML list of the chosen claims: words, the paper's evidence, verdict, n, and a plot of the intervals.

    `folder` leads from the page to the pages of results.
    """
    claims = chosen(found)
    low, high, ticks = axis(claims)
    head = (
        '<div class="claims-head" aria-hidden="true"><span>Claim</span><span>Verdict here</span><span>'
        "Difference in test accuracy (points), 95 % interval; filled: not zero, corrected for their number (Holm)"
        f"{scale_of(low, high, ticks)}</span></div>"
    )
    rows = []
    for claim in claims:
        known = claim.known
        title = html.escape(claim.claim.front)
        title = f'<a href="{folder}{claim.page}.html">{title}</a>' if claim.page else title
        labels = "".join(f"<li>{html.escape(name)}</li>" for name in (names(known) if known else []))
        values = "".join(f"<li>{d.words()} <small>n={d.n}</small></li>" for _, d, _ in known)
        paper = told if len(told := claim.claim.evidence()) < 60 else f"{claim.claim.cells()} cells"
        drawn = plot(claim, low, high, ticks) if known else ""
        rows.append(
            f'<li class="claim"><div class="said"><strong>{title}</strong>'
            f"<small>The paper: {html.escape(paper)}</small></div>"
            f'<div class="judged">{mark(claim, why=True)}<small>{seeds(claim)}</small></div>'
            f'<div class="intervals"><ul aria-hidden="true">{labels}</ul>{drawn}'
            f'<ul class="values" aria-hidden="true">{values}</ul></div></li>'
        )
    return f'<div class="claims">{head}<ul class="claims-rows">{"".join(rows)}</ul></div>'


def lead(found: Sequence[Found], runs: Sequence[Run], place: str) -> str:
    """HTML of :func:`headline` for the front page."""
    return f'<p class="lead-answer">{headline(found, runs, place)}</p>'


def setup(plan: Experiment, found: Sequence[Found]) -> str:
    """HTML line: what our runs are, what they do not test, and where everything is."""
    links = {
        "All verdicts": f"runs/{page_name('verdicts', plan.scale)}.html",
        "How a verdict is made": f"runs/{page_name('verdicts', plan.scale)}.html#how-a-verdict-is-made",
        "All runs": "every_run.html",
        "Attention explorer": "runs/explorer.html",
    }
    told = " · ".join(f'<a href="{address}">{words}</a>' for words, address in links.items())
    words = report.size(load_experiment(report.ROOT / "experiments" / "table2.yaml", leading(plan, found)))
    ours = ", ".join(word for word in words if re.search("channels|images|epochs", word)) or "the paper's size"
    copied = [c.difference for f in chosen(found) for c in f.known if "JPEG copy" in c.what]
    if copied:
        shared = ", all seeds of a pair with one teacher" * all(d.unit == "seeds with one teacher" for d in copied)
        ours += f"; rows of a JPEG copy are earlier runs on lossy images{shared}"
    return f'<p class="setup">Ours: {ours}. This does not test the paper\'s numbers (full networks). {told}</p>'


def leading(plan: Experiment, found: Sequence[Found]) -> str:
    """The largest scale at which a claim of the headline is judged; the plan's if none is."""
    return max((f.scale for f in chosen(found) if f.claim.rival and f.counted), key=SCALES.index, default=plan.scale)


def place(plan: Experiment, found: Sequence[Found]) -> str:
    """What the headline's runs are of: ``On CIFAR-10 with small networks``."""
    scale = leading(plan, found)
    of = dict.fromkeys(d for f in chosen(found) if f.claim.rival and f.scale == scale for d in f.datasets)
    return f"On {in_words([LABELS[d] for d in of or [plan.runs[0].dataset]])} with {NETWORKS[scale]} networks"


def sastc_runs(plan: Experiment, found: Sequence[Found], results: str | Path = "results") -> list[Run]:
    """SASTC's runs of the headline's scale: those of the page on attention, or of Table 2 where that has none."""
    for name in ("attention", "table2"):
        shown = load_experiment(report.ROOT / "experiments" / f"{name}.yaml", leading(plan, found))
        runs = [run for run in report.runs_of(shown, results) if run.complete and run.config.method == "sastc"]
        if runs:
            return runs
    return []


# The headline


def headline(found: Sequence[Found], runs: Sequence[Run], place: str) -> str:
    """Whom SASTC beats, by the verdicts; and what its attention picks, and whether that matters.

    `place` says what the runs of the largest scale are of, by which the first sentence goes; `runs` are SASTC's of that
    scale, whose attention is counted.
    """
    claims, judged = chosen(found), ("held", "did not hold", "not always", "undecided")
    beats = [claim for claim in claims if claim.claim.rival and verdict(claim)[1] in judged]
    scales = sorted({claim.scale for claim in beats}, key=SCALES.index, reverse=True)
    subjects = [f"{place}, SASTC", *(f"With {NETWORKS[scale]} networks it" for scale in scales[1:])]
    said = [_first([c for c in beats if c.scale == s], who) for s, who in zip(scales, subjects, strict=False)]
    first, *smaller = said or ["No verdict is possible yet: too little is run."]
    attention = _second(next((c for c in claims if not c.claim.rival), None), runs, (scales or [""])[0])
    return " ".join(filter(None, (first, attention, *smaller)))


def _first(beats: Sequence[Found], subject: str) -> str:
    """Whom the `subject` beats, whom not, and of whom it is not known."""
    wins, fails, others = [], [], []
    for claim in beats:
        m, rule, above, rival = len(claim.counted), verdict(claim)[1], len(claim.sides[0]), claim.claim.rival
        if rule == "held" and above == m:
            wins.append(f"{rival} in all {m} comparisons" if m > 1 else f"{rival} {_alone(claim)}")
        elif rule == "held" and claim.pooled.judgement != "better":
            wins.append(f"{rival} in each of {m} comparisons (uncorrected)")
        elif rule == "held":
            mean = f"{claim.pooled.words(claim.claim.digits)} {claim.claim.unit}".strip()
            wins.append(f"{rival} on average over {m} comparisons ({mean}, and in {above} of them singly)")
        elif rule == "did not hold":
            fails.append(f"{rival} ({above} of {m})" if m > 1 else f"{rival} {_alone(claim)}")
        elif above and m > 1:
            wins.append(f"{rival} in {above} of {m}" + " and not always" * (rule == "not always"))
        else:
            others.append(rival)
    said = [f"beats {in_words(wins)}"] * bool(wins)
    said += [f"{'but ' if wins else ''}{'not' if wins else 'does not beat'} {in_words(fails, 'or')}"] * bool(fails)
    said += [f"{'and ' * bool(said)}is not shown to beat {in_words(others, 'or')}"] * bool(others)
    return f"{subject} {', '.join(said)}."


def _alone(claim: Found) -> str:
    """A claim's one comparison: ``(+0.99 [+0.62, +1.37] points, n=3)``."""
    return f"({claim.pooled.words(claim.claim.digits)} {claim.claim.unit}, n={claim.pooled.n})"


def _second(claim: Found | None, runs: Sequence[Run], scale: str) -> str:
    cells = easiest = 0
    for run in runs:
        best = run.measures["attention"][-1].argmax(-1)  # (T, S, A)
        cells += best.size
        easiest += int((best == run.measures["distance"][-1].argmin(-1)).sum())
    if not cells:
        return ""
    how = "always picks" if easiest == cells else f"in {100 * easiest / cells:.0f} % of cases picks"
    text = f"There its attention {how} the teacher layer that is easiest to imitate"
    if claim is None or len(claim.counted) < claim.claim.least:
        return f"{text}."
    short = dict(zip((c.what for c in claim.counted), names(claim.counted), strict=True))
    cell = in_common([c.what.partition(", ")[2] for c in claim.counted])[0]  # one, of which the controls are run
    n = ", ".join(filter(None, (re.sub(r" & [^,]+", "", cell), f"n={report.span({d.n for _, d, _ in claim.counted})}")))
    n += f", {report.SCALE_WORDS[claim.scale]}" * (claim.scale != scale)
    better, worse, same = ([short[what] for what in side] for side in claim.sides)
    told = [f"more accurate than {in_words(better)}"] * bool(better) + [f"less accurate than {in_words(worse)}"] * bool(
        worse
    )
    told += [f"not distinguishable from {in_words(same, 'or')}"] * bool(same)
    if not better and not worse:
        return f"{text}; replacing its weights makes no distinguishable difference in accuracy ({n})."
    return f"{text}; learned weights are {', '.join(told)} weights ({n})."
