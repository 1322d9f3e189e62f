"""Which distillation method is worth it? All methods under equal conditions: gain over KD, cost, verdict."""

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from companion import figures, report
from companion.html import in_words, rows_table
from companion.pages import parts, runtime
from companion.sizing import SIZES
from companion.stats import FEWEST, LEVEL, NO_INTERVAL, Difference, difference, holm
from companion.stats import family as family_of
from sastc.config import SCALES, RunConfig
from sastc.experiments import Experiment
from sastc.labels import LABELS
from sastc.labels import shown as shown_as
from sastc.methods import REGISTRY
from sastc.records import Run

GROUP = ["scale", "dataset", "student", "teacher", "timesteps"]
YARDSTICK = "kd"
SMOKE = "quick"  # the scale that shows that a method trains, and nothing else
FALL = 5.0  # points by which training accuracy may fall below its best so far in a run that is called stable
WORTH = 0.5  # points: what is surely less is called no help
HELPS, NO_HELP, WORSE = "helps", f"does not help (less than {WORTH:g} points)", "does not help (worse than KD)"
UNTOLD, TOO_FEW, DIVERGED, MISSING = "cannot be told", "nothing can be said yet", "diverged", "not run"
JUDGED = {
    HELPS: "better than KD",
    WORSE: "worse than KD",
    NO_HELP: f"less than {WORTH:g} points better than KD by their intervals (uncorrected)",
    UNTOLD: "cannot be told from KD",
    TOO_FEW: f"fewer than {FEWEST} seeds",
    DIVERGED: "diverged",
    MISSING: "not run",
}
SAID = {name: JUDGED[name] for name in (HELPS, WORSE, NO_HELP, UNTOLD, DIVERGED)}  # with the methods' names


def collect(plan: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """:func:`parts.frame` of the plan, and of those other scales of which anything is recorded, largest scale first.

    Added are `label`, `colour` and `marker` of the method; `device` and number of tested `images` as the run names
    them; `taught`, the accuracy of the run's teacher; `cpu_seconds` of an epoch; the training loss of the first and the
    last epoch (`first_loss` and `last_loss`), and its training accuracy (`trained`); `fell`, by how many points that
    was below its best so far, at most; and `weights`: those of the method's own settings that are not as
    published, and a learning rate that is not the scale's, '' for none.
    """
    plans = sorted((plan, *report.record_plans(plan)), key=lambda one: -SCALES.index(one.scale))
    joint = dataclasses.replace(plan, runs=tuple(config for one in plans for config in one.runs))  # and so their data
    rows = parts.frame(joint, results)
    facts = [_facts(config, row) for config, row in zip(joint.runs, rows.itertuples(), strict=True)]
    rows = pd.concat([rows, pd.DataFrame(facts, index=rows.index)], axis=1)
    shown = rows.groupby("scale").complete.transform("any") | (rows.scale == plan.scale)
    return rows[shown].reset_index(drop=True)


def _facts(config: RunConfig, row: Any) -> dict[str, Any]:
    kind = config.method_class
    own = {n: v for n, v in config.changed.items() if n in (*kind.options, *kind.fields, "learning_rate")}
    if "beta" in config.scaled and "beta" in kind.fields:  # a preset of ours
        own |= dict(beta=config.beta)
    facts: dict[str, Any] = dict(label=kind.label, colour=kind.colour, marker=kind.marker)
    facts |= dict(weights=", ".join(f"{name} = {shown_as(value)}" for name, value in own.items()))
    numbers = ("cpu_seconds", "first_loss", "last_loss", "trained", "fell", "images", "taught")
    facts |= dict(device="") | dict.fromkeys(numbers, np.nan)
    if row.complete:
        run = Run(row.path)
        facts |= dict(device=f"{run.provenance['device']}, {run.provenance['threads']}")
        facts |= dict(images=run.provenance.get("data", {}).get("test_images", np.nan))
        facts |= dict(taught=(run.provenance.get("teacher") or {}).get("accuracy", np.nan))
        history = run.history if run.has("history.csv") else pd.DataFrame()
        if "train_cpu_seconds" in history:
            facts |= dict(cpu_seconds=history.train_cpu_seconds.mean())
        if "train_accuracy" in history:
            facts |= dict(fell=(history.train_accuracy.cummax() - history.train_accuracy).max())
            facts |= dict(trained=history.train_accuracy.iloc[-1])
        if "train_loss" in history:
            facts |= dict(first_loss=history.train_loss.iloc[0], last_loss=history.train_loss.iloc[-1])
    return facts


# What SASTC adds to another method of the bench: that method, and the idea by which the two differ.
IDEAS = (
    ("feature_kd", "attention over all pairs of layers, in the place of fixed pairs"),
    (
        "semckd",
        "every time step by itself, in the place of their mean (SASTC also pools larger maps by their maximum, SemCKD "
        "by their mean)",
    ),
)


# Statistics


def verdict(gain: float, half: float, n: int, corrected: float) -> str:
    """What a gain over KD allows to say: its 95 % interval over `n` common seeds, and its corrected p-value."""
    if n == 0:
        return MISSING
    if n < FEWEST:
        return TOO_FEW
    if not half > 0:
        return UNTOLD  # equal differences have no interval
    if corrected < LEVEL:
        return HELPS if gain > 0 else WORSE
    return NO_HELP if gain + half < WORTH else UNTOLD


def leaderboard(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a method of each scale, dataset, student, teacher and T, the largest gain over KD first, longer runs last.

    `n` runs with mean `accuracy` and `sd`, `weights` as in :func:`collect`; `gain` over KD with the interval from `low`
    to `high` over `pairs` common seeds; its `p`, and `p_holm` corrected within the `family`: the methods other than KD
    that have at least three common seeds and an interval here. `cost`: CPU seconds of the training over KD's, median,
    `cost_low` and `cost_high` the range over seeds. Runs of KD that are trained longer than the others are rows of
    their own, ``longer`` times as long; they are no methods and in no family. `gain_as_long` is the gain over that of
    them whose cost is the least that is not below the method's (`rival` has its label), with half its interval and
    its common seeds.
    """
    main = runs[runs.validation == 0]
    boards = [_board(dict(zip(GROUP, key, strict=True)), rows) for key, rows in main.groupby(GROUP, sort=False)]
    return pd.concat(boards, ignore_index=True)


def with_arms(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with how many times as `longer` they are trained as most, in label and `arm`, the method's name if not."""
    usual = rows.epochs.mode().iloc[0]
    other = rows.epochs != usual
    epochs = rows.epochs.map("{:g} epochs".format)
    arm = rows.method.where(~other, rows.method + ", " + epochs)
    return rows.assign(longer=rows.epochs / usual, arm=arm, label=rows.label.where(~other, rows.label + ", " + epochs))


def _board(case: dict[str, Any], rows: pd.DataFrame) -> pd.DataFrame:
    rows = with_arms(rows)
    done = rows[rows.complete]
    by_arm = rows.assign(method=rows.arm)
    taught = done.taught.dropna()
    teachers = report.span(taught, "{:.1f}".format) if len(taught) else ""
    costs = runtime.relative(by_arm[rows.complete]).groupby("method") if YARDSTICK in set(done.arm) else {}
    found = []
    for arm, own in rows.groupby("arm", sort=False):
        first, known = own.iloc[0], own[own.complete]
        data = " and ".join(dict.fromkeys((done if len(done) else rows).data))
        d = Difference() if arm == YARDSTICK else difference(by_arm, arm, YARDSTICK)
        row = (
            case
            | dict(data=data, teachers=teachers)
            | {k: first[k] for k in ("method", "arm", "label", "weights", "colour", "marker")}
        )
        row |= dict(n=len(known), accuracy=known.accuracy.mean(), sd=known.accuracy.std(), gain=d.mean, half=d.half)
        judged = d.n >= FEWEST and first.longer == 1
        row |= dict(low=d.low, high=d.high, pairs=d.n, p=d.p if judged else np.nan)
        times = costs.get_group(arm) if arm in getattr(costs, "groups", ()) else pd.DataFrame()
        if len(times):  # a row a device, each beside its own KD
            row |= dict(cost=np.average(times.over_kd, weights=times.n) * first.longer)
            row |= dict(cost_low=times.lowest.min() * first.longer, cost_high=times.highest.max() * first.longer)
        else:
            row |= dict.fromkeys(("cost", "cost_low", "cost_high"), np.nan)
        row |= dict(longer=first.longer, lost=int(own.diverged.notna().sum()))
        found.append(row | dict(runs=" ".join(known.run), commands="; ".join(own.command)))
    board = pd.DataFrame(found)
    board = board.assign(p_holm=holm(board.p), family=int(board.p.notna().sum()))
    board["verdict"] = [verdict(r.gain, r.half, r.pairs, r.p_holm) for r in board.itertuples()]
    board.loc[(board.verdict == MISSING) & (board.n > 0), "verdict"] = TOO_FEW  # run, but not with KD's seeds
    board.loc[(board.verdict == MISSING) & (board.lost > 0), "verdict"] = DIVERGED
    board.loc[(board.method == YARDSTICK) | (board.longer != 1), "verdict"] = ""
    board = board.join(pd.DataFrame([_as_long(r, board, by_arm) for r in board.itertuples()], index=board.index))
    first = (board.arm == YARDSTICK) & (board.n > 0)
    order = board.gain.mask(first, 0.0)
    board = board.assign(order=order, longest=board.longer.where(board.longer != 1, 0.0))
    return board.sort_values(["longest", "order"], ascending=[True, False], kind="stable").drop(
        columns=["order", "longest"]
    )


def _as_long(row: Any, board: pd.DataFrame, by_arm: pd.DataFrame) -> dict[str, Any]:
    """A method's gain over the cheapest KD that is trained for at least its time; a twentieth less is as long."""
    rivals = board[(board.method == YARDSTICK) & (board.n > 0) & (board.cost >= 0.95 * row.cost)].nsmallest(1, "cost")
    if row.method == YARDSTICK or not len(rivals) or rivals.arm.iloc[0] == YARDSTICK:  # whose gain has a column
        return dict(rival="", gain_as_long=np.nan, half_as_long=np.nan, pairs_as_long=0)
    d = difference(by_arm, row.arm, rivals.arm.iloc[0])
    return dict(rival=rivals.label.iloc[0], gain_as_long=d.mean, half_as_long=d.half, pairs_as_long=d.n)


# Sentences


def case(row: Any) -> str:
    """What a comparison's rows share: ``CIFAR-10, VGG-11 & ResNet-19, teacher at 91.2 %, T = 2, small-scale runs``."""
    pair = f"{LABELS[row.student]} & {LABELS[row.teacher]}" + f", teacher at {row.teachers} %" * bool(row.teachers)
    return f"{row.data}, {pair}, T = {row.timesteps}, {report.SCALE_WORDS[row.scale]}"


def comparisons(board: pd.DataFrame) -> list[pd.DataFrame]:
    """The boards that can tell: not of the smoke test, and at least one method has a verdict from three seeds."""
    boards = [rows for _, rows in board[board.scale != SMOKE].groupby(GROUP, sort=False)]
    return [rows for rows in boards if rows.verdict.isin([HELPS, NO_HELP, WORSE, UNTOLD]).any()]


def answer(board: pd.DataFrame) -> list[str]:
    """A headline for every comparison: which methods are better than KD, and than KD trained for as long as they."""
    found = comparisons(board)
    if not found:
        return [
            "Nothing can be said yet. No comparison has been run at a scale that could tell, with three seeds beside "
            "KD's. The quick runs are a smoke test: short, on small images of digits, to see that all methods train."
        ]
    out = []
    for rows in found:
        better = in_words(list(rows.label[rows.verdict == HELPS])) or "no method"
        told = "; ".join(
            f"{judged}: {in_words([row.label for row, _ in which])}" for judged, which in beside_longer(rows).items()
        )
        longer = f" Beside KD that is trained for at least as long as they take: {told}." * bool(told)
        out.append(f"Better than KD after as many epochs: {better} ({case(rows.iloc[0])}).{longer}")
    return [html.escape(line, quote=False) for line in out]


def details(board: pd.DataFrame) -> list[str]:
    """Which methods do not help and which cannot be told, by a fixed rule, and :func:`worth`; for each comparison.

    Methods without a verdict are counted; the table names them.
    """
    out = []
    found = comparisons(board)
    for rows in found:
        rows = rows[rows.longer == 1]
        of = {name: list(rows.label[rows.verdict == name]) for name in JUDGED}
        told = [f"{words}: {', '.join(of[name])}" for name, words in SAID.items() if of[name] and name != HELPS]
        lacking = len(of[TOO_FEW]) + len(of[MISSING])
        told += [f"no verdict yet: {lacking} of {len(rows)} methods"] * bool(lacking)
        said = "; ".join(told) + f" ({case(rows.iloc[0])})" * (len(found) > 1)
        if told:
            out.append(html.escape(f"{said[0].upper()}{said[1:]}.", quote=False))
        out += [html.escape(line, quote=False) for line in [worth(rows)] if line]
    return out


def beside_longer(rows: pd.DataFrame) -> dict[str, list[tuple[Any, Difference]]]:
    """Judgement of the gain over KD that is trained for as long to methods: the row of each, and that gain.

    Corrected for their number, a family of its own.
    """
    known = rows[rows.pairs_as_long >= FEWEST]
    gaps = family_of(Difference(r.gain_as_long, r.half_as_long, r.pairs_as_long) for r in known.itertuples())
    found: dict[str, list[Any]] = {"better": [], "worse": [], "not told from it": [], NO_INTERVAL: []}
    for row, gap in zip(known.itertuples(), gaps, strict=True):
        told = "not told from it" if gap.judgement == "not distinguishable" else gap.judgement
        found[told].append((row, gap))
    return {told: which for told, which in found.items() if which}


def worth(rows: pd.DataFrame) -> str:
    """A sentence: the gains over KD that is trained for as long, with intervals; '' where there is no such KD."""
    found = beside_longer(rows)
    if not found:
        return ""
    known = rows[rows.pairs_as_long >= FEWEST]
    cheap = list(rows.label[(rows.verdict == HELPS) & (rows.rival == "") & (0.95 * rows.cost <= 1)])  # see _as_long
    s = "s" * (len(cheap) == 1)
    itself = f" {in_words(cheap)} cost{s} at most a twentieth more than KD and need{s} no longer one." * bool(cheap)
    epochs = [rival.rpartition(", ")[2].removesuffix(" epochs") for rival in known.sort_values("cost").rival.unique()]
    told = "; ".join(
        f"{judged}: {', '.join(f'{row.label} {gap.words()}, n={gap.n}' for row, gap in which)}"
        for judged, which in found.items()
    )
    return (
        f"Gain over KD that is trained for at least as long as the method takes ({in_words(epochs)} epochs): {told} "
        f"(points, {report.SCALE_WORDS[known.scale.iloc[0]]}; corrected for {len(known)} "
        f"comparison{'s' * (len(known) > 1)}, Holm).{itself}"
    )


def smoke(runs: pd.DataFrame) -> str:
    """Whether every method of the smoke test trains: its loss falls, and it is more often right than by chance."""
    rows = runs[(runs.scale == SMOKE) & (runs.validation == 0)]
    done = rows[rows.complete]
    if done.empty:
        return "The smoke test is not run: no method has been seen to train here."
    chance = np.array([100 / SIZES[dataset][-1] for dataset in done.dataset])
    trains = (done.last_loss < done.first_loss) & (done.accuracy > chance)
    wrong = sorted(set(done.label[~trains]))
    which = f" These do not: {', '.join(wrong)}." if wrong else ""
    epochs = report.span(done.epochs.astype(int))
    return (
        f"A smoke test and no comparison: {done.method.nunique()} of {rows.method.nunique()} methods were trained on "
        f"{' and '.join(LABELS[d] for d in dict.fromkeys(done.dataset))} for {epochs} epochs, and "
        f"{int(trains.sum())} of {len(done)} runs train: their loss falls from the first epoch to the last, and their "
        f"accuracy is above chance.{which} Nothing about the worth of a method follows from it."
    )


def ideas(runs: pd.DataFrame) -> list[str]:
    """What each of SASTC's two ideas is worth: SASTC less the method that lacks it, where three seeds are run."""
    out = []
    for _, rows in runs[(runs.scale != SMOKE) & (runs.validation == 0)].groupby(GROUP, sort=False):
        rows = with_arms(rows).query("longer == 1")
        gaps = family_of([difference(rows, "sastc", other) for other, _ in IDEAS])
        told = [
            f"{idea} (SASTC − {LABELS[other]}): {gap.words()} points, {gap.judgement}, n={gap.n} {gap.unit}"
            f"{_rates(rows, 'sastc', other)}"
            for (other, idea), gap in zip(IDEAS, gaps, strict=True)
            if gap.n >= FEWEST
        ]
        if told:
            first = rows[rows.complete].iloc[0]
            where = f"{LABELS[first.student]} & {LABELS[first.teacher]}, {report.SCALE_WORDS[first.scale]}"
            out.append(html.escape(f"What SASTC's ideas are worth here ({where}): {'; '.join(told)}.", quote=False))
    return out


def _rates(rows: pd.DataFrame, one: str, other: str) -> str:
    """What two methods differ in besides: their learning rates, each the best tried; '' if they are the same."""
    rates = [report.span(rows.learning_rate[rows.method == method], "{:g}".format) for method in (one, other)]
    return f" (with learning rates {rates[0]} and {rates[1]})" * (rates[0] != rates[1])


def converged(runs: pd.DataFrame) -> list[str]:
    """That KD still learns after the epochs that are compared, where KD trained longer is surely more accurate."""
    out = []
    for _, rows in runs[(runs.scale != SMOKE) & (runs.validation == 0)].groupby(GROUP, sort=False):
        rows = with_arms(rows)
        own = rows[(rows.method == YARDSTICK) & rows.complete]
        arms = own.groupby("epochs").arm.first()
        by_arm = rows.assign(method=rows.arm)
        gaps = [difference(by_arm, arm, YARDSTICK) for arm in arms if arm != YARDSTICK]
        if not gaps or not all(gap.n >= FEWEST and gap.low > 0 for gap in gaps):
            continue
        own = own[own.groupby("seed").epochs.transform("nunique") == len(arms)]
        base, means = own[own.longer == 1], own.groupby("epochs").accuracy.mean()
        told = [f"{accuracy:.1f} % after {epochs:g}" for epochs, accuracy in means.items()]
        if base.trained.notna().all():
            told[0] += f" ({base.trained.mean():.1f} % on its training images, as they are augmented)"
        out.append(
            f"After {base.epochs.iloc[0]:g} epochs KD has not converged ({report.SCALE_WORDS[base.scale.iloc[0]]}): it "
            f"reaches {', '.join(told)}. Gains after as many epochs are of how fast a method learns as much as of how "
            "well."
        )
    return out


def unstable(runs: pd.DataFrame) -> str:
    """A sentence: the methods whose training breaks down midway at the settings compared; '' where none does."""
    ended = runs.complete | runs.diverged.notna()
    told, tried = [], set(runs.scale[runs.validation > 0])
    ended_runs = runs[ended & (runs.scale != SMOKE) & (runs.validation == 0)]
    for (label, scale), own in ended_runs.groupby(["label", "scale"], sort=False):
        if broken := int(((own.fell > FALL) | own.diverged.notna()).sum()):
            told.append((scale, f"{html.escape(label)}, {broken} of {len(own)} ({report.SCALE_WORDS[scale]})"))
    if not told:
        return ""
    rule = (
        " The rule takes the settings of the best trial, of one seed and half the epochs; another learning rate may "
        "give such a method more."
    )
    return (
        f"Training breaks down midway in runs of {'; '.join(words for _, words in told)}: training accuracy falls by "
        f"more than {FALL:g} points below its best so far, or the loss is no longer finite."
    ) + rule * any(scale in tried for scale, _ in told)


def family(board: pd.DataFrame) -> str:
    """A sentence: what is corrected for."""
    sizes = report.span(rows.family.iloc[0] for rows in comparisons(board)) if comparisons(board) else 0
    return (
        "The family of a comparison is every method but KD that has an interval from at least "
        f"{FEWEST} seeds on that student, teacher, T and scale (now {sizes}). Their p-values, of Student's t on the "
        "differences of each seed, are corrected by Holm's step-down method, so that the chance of one wrong "
        f"“better” or “worse” in a family is at most {100 * LEVEL:.0f} %. Another student or teacher: another family."
    )


# Tables


def sortable(
    frame: pd.DataFrame,
    caption: str,
    name: str,
    columns: Mapping[str, tuple[str | None, Callable[[Any], str]]],
    filters: Sequence[str] = (),
    of: str = "rows",
    csv: pd.DataFrame | None = None,
) -> str:
    """HTML table that is filtered, sorted and downloaded in the page, as the one of all runs, with CSV and JSON.

    Parameters
    ----------
    columns : mapping
        Heading to a column of the frame, by whose values it is sorted, or ``None`` for the text, and a function from a
        row to HTML.
    filters : sequence of str
        Headings of the columns that get a filter.
    of : str
        What the rows are.
    csv : pandas.DataFrame, optional
        What the downloads of the whole table hold, if not the frame.
    """
    whole = frame if csv is None else csv
    heads = [f'<th scope="col"{" data-filter" if c in filters else ""}>{c}</th>' for c in columns]
    body = []
    for row in frame.itertuples(index=False):
        cells = []
        for i, (head, (column, show)) in enumerate(columns.items()):
            value = getattr(row, column) if column else None
            known = "" if value is None or pd.isna(value) else str(value)
            data = f' data-head="{head}"' + (f' data-value="{html.escape(known)}"' if column else "")
            start, end = ("<td", "</td>") if i else ('<th scope="row"', "</th>")
            cells.append(f"{start}{data}>{show(row)}{end}")
        body.append(cells)
    caption = f"{caption} The whole table: {downloads(whole, name)}"
    box = f' tabindex="0" role="region" aria-label="{name}"'
    return (
        f'<div class="all-runs" data-name="{name}" data-of="{of}">'
        f"{rows_table(caption, heads, body, kind='results measured cards', box=box)}</div>"
        '<script src="../_static/all-runs.js" defer></script>'
    )


def downloads(frame: pd.DataFrame, name: str) -> str:
    """Links to a frame as CSV and as JSON."""
    json = frame.to_json(orient="records", force_ascii=False).encode()
    return f"{report.download_csv(frame, name)} {report.download(json, f'{name}.json', 'application/json', 'JSON')}"


def table(board: pd.DataFrame, runs: pd.DataFrame) -> str:
    """The leaderboard as HTML, a table a comparison: those with a verdict first, then the largest scale.

    A comparison of which nothing is run, or KD alone, is left out. Below the tables stand what is not run, and all
    comparisons in one file.
    """
    judged = {rows.index[0] for rows in comparisons(board)}
    boards = [rows for _, rows in board.groupby(GROUP, sort=False) if rows.n[rows.method != YARDSTICK].any()]
    boards = sorted(boards, key=lambda rows: rows.index[0] not in judged) or [board]
    known = [rows[(rows.n > 0) | (rows.verdict == DIVERGED)] if rows.n.any() else rows for rows in boards]

    def method(row) -> str:
        weights = f'<br><span class="seeds">{html.escape(row.weights)}</span>' if row.weights else ""
        return f'<a href="#method-{row.method}">{html.escape(row.label)}</a>{weights}'

    def accuracy(row) -> str:
        deviation = f" ± {row.sd:.2f}" if row.n > 1 else ""
        return f"{row.accuracy:.2f}{deviation}<br>{links(row)}" if row.n else "–"

    def interval(row) -> str:
        width = f" [{parts.signed(row.low)}, {parts.signed(row.high)}]" if row.half > 0 else ""
        corrected = "" if pd.isna(row.p_holm) else f'<br><span class="seeds">corrected p {_p(row.p_holm)}</span>'
        return f"{parts.signed(row.gain)}{width}{corrected}"

    def cost(row) -> str:
        several = f'<br><span class="seeds">{row.cost_low:.2f}–{row.cost_high:.2f}</span>' if row.n > 1 else ""
        return f"{row.cost:.2f}{several}" if row.cost > 0 else "–"

    def as_long(row) -> str:
        gain = Difference(row.gain_as_long, row.half_as_long, row.pairs_as_long)
        return f"{gain.words()}<br>({html.escape(row.rival)})" if gain.n else "–"

    def links(row) -> str:
        return parts.run_links(runs[runs.complete & runs.run.isin(row.runs.split())])

    columns: dict[str, tuple[str | None, Callable[[Any], str]]] = {
        "method": ("label", method),
        "accuracy (%)": ("accuracy", accuracy),
        "gain over KD (points)": ("gain", interval),
        "verdict": ("verdict", lambda r: html.escape(r.verdict)),
        "cost over KD": ("cost", cost),
        "gain over KD of its cost": ("gain_as_long", as_long),
    }
    note = (
        "Test accuracy after the last epoch, mean ± standard deviation over the seeds below it. Gain over KD: mean "
        "difference of runs with the same seed, and its 95 % interval, uncorrected. Cost: CPU seconds of the training "
        "over KD's on the same machine, median (and range) over seeds. A method leads to its formula; below it stand "
        "weights that are not as published, and a learning rate that is not the scale's."
    )
    longer = "gain over KD of its cost"
    if any(rows.pairs_as_long.any() for rows in known):
        note += " Gain over KD of its cost: over KD that is trained for at least as long as the method takes, or a "
        note += "twentieth less; a dash where that is KD itself, or no KD is trained so long."
    shown = []
    for rows in known:
        rows = rows.assign(verdict=rows.verdict.mask(rows.arm == YARDSTICK, "compared with"))
        own = {html.escape(n): c for n, c in columns.items() if n != longer or rows.pairs_as_long.any()}
        name = "-".join(["bench", *map(str, rows.iloc[0][GROUP])])
        caption = f"<strong>{html.escape(case(rows.iloc[0]))}.</strong>"
        shown.append(sortable(rows, caption, name, own, ["verdict"], csv=rows.drop(columns=["colour", "marker"])))
    absent = [rows[(rows.n == 0) & (rows.verdict != DIVERGED)] for rows in boards if rows.n.any()]
    missing = [
        f"{html.escape(case(rows.iloc[0]))}: {'; '.join(map(_missing, rows.itertuples()))}"
        for rows in absent
        if len(rows)
    ]
    lines = f"<p>Not run:</p>{parts.bullets(missing)}" if missing else ""
    if len(known) > 1:
        everything = pd.concat(known).drop(columns=["colour", "marker"])
        lines += f"<p>All comparisons: {downloads(everything, 'bench')}</p>"
    return f"<p>{note}</p>{''.join(shown)}{lines}"


def _missing(row: Any) -> str:
    commands = html.escape(row.commands.replace("; ", "\n"), quote=True)
    return f'<span class="missing" title="{commands}">{html.escape(row.label)}</span>'


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def chart(rows: pd.DataFrame) -> Figure:
    """Gain over KD against cost of one comparison; bars are the 95 % intervals; KD lies where the lines cross.

    A dashed line leads from KD to those runs of it that are trained longer. Marks that stand apart are named beside
    them, the others in a legend.
    """
    plt = figures.plt
    drawing, axis = plt.subplots(figsize=(figures.WIDTH, 4.0))
    axis.axhline(0, color=figures.COLOURS[YARDSTICK], linewidth=1)
    axis.axvline(1, color=figures.COLOURS[YARDSTICK], linewidth=1)
    gains = rows.gain.mask(rows.arm == YARDSTICK, 0.0)
    rows = rows.assign(gain=gains)[gains.notna() & (rows.cost > 0)]
    own = rows[rows.method == YARDSTICK].sort_values("cost")
    if len(own) > 1:
        axis.plot(own.cost, own.gain, color=figures.COLOURS[YARDSTICK], linewidth=1, linestyle="--")
    for row in rows.itertuples():
        bar = row.half if row.half > 0 else None
        look = dict(color=row.colour, marker=row.marker, markersize=6.5, label=row.label)
        look |= dict(zorder=2 if row.longer != 1 else 3)
        axis.errorbar(row.cost, row.gain, bar, linestyle="none", elinewidth=1, capsize=2, **look)
    axis.set(xlabel="CPU time of the training over KD's", ylabel="gain over KD (points)")
    alone = _apart(rows)
    for row in rows[alone].itertuples():
        place = (6, -12) if row.method == YARDSTICK else (7, 3)  # below the dashed line
        axis.annotate(row.label, (row.cost, row.gain), place, textcoords="offset points", fontsize=8)
    handles = dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
    shown = rows.label[~alone]
    drawing.legend([handles[name][0] for name in shown], shown, loc="outside right upper", fontsize=8)
    axis.set_xlim(right=rows.cost.max() + 0.28 * np.ptp(rows.cost))  # room for a name
    return drawing


def _apart(rows: pd.DataFrame) -> np.ndarray:
    """Which marks of the chart have room for their name to the right: none above or below it, as far as it reaches."""
    x, y = (rows[name].to_numpy(float) for name in ("cost", "gain"))
    x, y = (v / (np.ptp(v) or 1.0) for v in (x, y))
    right = x[None] - x[:, None]
    near = (right > -0.03) & (right < 0.25) & (np.abs(y[None] - y[:, None]) < 0.05)
    return near.sum(1) == 1  # itself


def overview(rows: pd.DataFrame) -> Figure:
    """Gain over KD of every method of one comparison, the largest on top, its cost beside it, its accuracy behind.

    Bars are 95 % intervals. Filled marks: KD, and where the rule gives a verdict; hollow ones: where it gives none.
    """
    gains = rows.gain.mask(rows.arm == YARDSTICK, 0.0)
    rows = rows.assign(gain=gains)[gains.notna()].sort_values("gain", kind="stable").reset_index(drop=True)
    size = (figures.WIDTH, 0.25 * len(rows) + 0.9)
    drawing, (left, right) = figures.plt.subplots(1, 2, sharey=True, figsize=size, width_ratios=(3, 1))
    for axis, start in ((left, 0), (right, 1)):
        axis.axvline(start, color=figures.COLOURS[YARDSTICK], linewidth=1)
        axis.grid(False, axis="y")
    for y, row in enumerate(rows.itertuples()):
        fill = "full" if row.verdict in (HELPS, WORSE, NO_HELP) or row.arm == YARDSTICK else "none"
        look = dict(color=row.colour, marker=row.marker, markersize=6.5, linestyle="none", fillstyle=fill)
        bar = row.half if row.half > 0 else None
        left.errorbar(row.gain, y, xerr=bar, elinewidth=1, capsize=2, **look)
        right.plot(row.cost, y, **look)
    left.set(xlabel="gain over KD (points)", ylim=(-0.7, len(rows) - 0.3))
    left.set_yticks(range(len(rows)), rows.label)
    right.set(xlabel="cost over KD", xlim=(0, 1.12 * rows.cost.max() if rows.cost.notna().any() else None))
    behind = right.secondary_yaxis("right")
    behind.set_yticks(range(len(rows)), [f"{value:.2f} %" for value in rows.accuracy])
    behind.tick_params(length=0)
    return drawing


def overviews(board: pd.DataFrame) -> str:
    """HTML of :func:`overview` of each comparison that can tell; '' where none can."""
    found = []
    for i, rows in enumerate(comparisons(board), 1):
        alt = (
            f"Gain in test accuracy over KD, its 95 % interval, the training's CPU time over KD's, and the accuracy: "
            f"{case(rows.iloc[0])}. Filled marks: the rule of the page gives a verdict; hollow ones: it gives none."
        )
        found.append(parts.figure(overview(rows), f"bench-overview-{i}", alt))
    return "".join(found)


# Trials on validation images


def trials(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a method whose settings are tried: how many trials, those that ended, the best, and what each gave.

    `error`: two standard errors of an accuracy from the number of validation images alone.
    """
    tried = runs[runs.validation > 0].sort_values("accuracy", ascending=False, kind="stable")
    rows = []
    for (scale, method), own in tried.groupby(["scale", "method"], sort=False):
        ended = own[own.complete | own.diverged.notna()]
        row = dict(scale=scale, method=method, label=own.label.iloc[0], planned=len(own), ended=len(ended))
        best = own.iloc[0]
        row |= dict(best=best.accuracy, setting=_setting(best), error=np.nan)
        if best.complete and best.images > 0:
            share = best.accuracy / 100
            row |= dict(error=200 * np.sqrt(share * (1 - share) / best.images))
        found = [f"{_setting(r)}: {f'{r.accuracy:.2f}' if r.complete else 'diverged'}" for r in ended.itertuples()]
        rows.append(row | dict(found="; ".join(found)))
    return pd.DataFrame(
        rows, columns=["scale", "method", "label", "planned", "ended", "best", "setting", "error", "found"]
    )


def tried(runs: pd.DataFrame) -> str:
    """A sentence: the best trials beside those of KD and the baseline; '' where these are not known."""
    best = trials(runs).dropna(subset="best").drop_duplicates("method").set_index("method")
    if not {YARDSTICK, "baseline"} < set(best.index):
        return ""
    first = [*best.index.drop([YARDSTICK, "baseline"])[:3], YARDSTICK, "baseline"]
    told = [f"{row.label} {row.best:.2f} %" for row in best.loc[first].itertuples()]
    return (
        f"In the trials that choose each method's settings, on images held out of the training set, one seed each, the "
        f"best are {', '.join(told[:-2])}; the best of {told[-2]} and of the {told[-1].lower()}. That is no verdict."
    )


def at_an_end(runs: pd.DataFrame) -> str:
    """A sentence: of which methods the best trial lies at an end of the values tried; '' without trials.

    Of every setting with several values the smallest and the largest are its ends.
    """
    tried = runs[(runs.validation > 0) & (runs.complete | runs.diverged.notna())]
    told, known = [], 0
    for _, own in tried.groupby(["scale", "method"], sort=False):
        kind, best = REGISTRY.get(own.method.iloc[0]), own.loc[own.accuracy.fillna(-1.0).idxmax()]
        names = [*(kind.options if kind else ()), *({"beta"} & set(kind.fields if kind else ())), "learning_rate"]
        ends = []
        for name in names:
            values = own[name].dropna()
            if values.nunique() > 2 and best[name] in (values.min(), values.max()):
                ends.append(f"{name} {shown_as(best[name])}")
        known += 1
        told += [f"{own.label.iloc[0]} ({', '.join(ends)})"] * bool(ends)
    if not known:
        return ""
    return html.escape(
        f"The best trial lies at an end of the values tried for {len(told)} of {known} methods: {'; '.join(told)}. "
        "Values beyond may give them more."
        if told
        else f"The best trial of all {known} methods lies between others.",
        quote=False,
    )


def _setting(row: Any) -> str:
    return row.weights or "nothing changed"


def trials_table(runs: pd.DataFrame) -> str:
    """HTML of :func:`trials`, the best first, or a sentence where none is planned."""
    rows = trials(runs)
    if rows.empty:
        return "<p>No trials are planned at the scales shown.</p>"
    columns = {
        "method": "label",
        "trials": lambda r: f"{r.ended} of {r.planned}",
        "best trial (%)": lambda r: (
            f"{r.best:.2f} [{r.best - r.error:.2f}, {r.best + r.error:.2f}]" if r.error > 0 else parts.text(r.best)
        ),
        "with": lambda r: html.escape(r.setting),
        "the others (%)": lambda r: html.escape(r.found.partition("; ")[2]),
    }
    caption = (
        "Accuracy on images held out of the training set, one seed, half the epochs; brackets: two standard errors "
        "either way, from the number of these images alone. The best of several looks better than it is."
    )
    taught = runs.taught[(runs.validation > 0) & runs.complete].dropna()
    caption += f" The teacher: {report.span(taught, '{:.2f}'.format)} %." if len(taught) else ""
    tried, rest = rows[rows.ended > 0], rows[rows.ended == 0]
    ended, planned, each = rows.ended.sum(), rows.planned.sum(), report.span(rows.planned)
    plan = f"<p>{ended} of the {planned} planned trials are recorded; a method has {each} planned.</p>"
    left = f"<p>Not tried yet: {html.escape(', '.join(rest.label))}.</p>" if len(rest) else ""
    return plan + (parts.table(tried, caption, "bench-trials", columns) if len(tried) else "") + left
