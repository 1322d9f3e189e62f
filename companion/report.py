"""From recorded runs to the book: the paper's numbers beside ours, tables, and footers that name the runs."""

import dataclasses
import html
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.closing import closing as closing
from companion.closing import data_name as data_name
from companion.closing import data_names as data_names
from companion.closing import facts_list as _facts
from companion.closing import footer as footer
from companion.closing import recorded as recorded
from companion.closing import rerun_box as rerun_box
from companion.closing import retired as retired
from companion.closing import runs_of as runs_of
from companion.closing import shown_of as shown_of
from companion.html import download as download
from companion.html import download_csv as download_csv
from companion.html import in_words, interval, plain, rows_table
from companion.stats import FEWEST, Difference, difference, family, over, signed, spread
from sastc.config import DISTIL, METHODS, RunConfig
from sastc.experiments import Experiment, load_experiment
from sastc.labels import LABELS
from sastc.records import Run

ROOT = Path(__file__).parents[1]
PAIR = ("dataset", "student", "teacher", "timesteps")
_NAMES = {"baseline": "the baseline", "kd": "KD", "feature_kd": "feature KD"}
SCALE_WORDS = {  # for readers
    "quick": "smoke test",
    "slim": "small-scale runs",
    "quarter": "quarter-width runs",
    "paper": "the paper's scale",
}
FIELDS = ("dataset", "student", "teacher", "method", "timesteps", "seed", "teacher_seed", "data_seed")
FILES = ("config.json", "provenance.json", "history.csv", "energy.csv", "metrics.json")  # offered on a run's page


# The paper's numbers


def paper_accuracy(config: RunConfig, dataset: str | None = None) -> float | None:
    """Accuracy that Table 2 prints for a run's student, teacher, method and T; ``None`` if it has no such cell.

    `dataset` asks for another dataset's column, for example CIFAR-10's beside a run on digits.
    """
    table = pd.read_csv(ROOT / "paper" / "cifar_accuracy.csv")
    teacher = "" if config.method == "baseline" else LABELS[config.teacher]
    rows = table[
        (table.dataset == LABELS[dataset or config.dataset])
        & (table.student == LABELS.get(config.student, ""))
        & (table.teacher.fillna("") == teacher)
        & (table.method == config.method)
        & (table.timesteps == config.timesteps)
    ]
    return float(rows.accuracy.iloc[0]) if len(rows) else None


# Tables


def collect(experiment: Experiment, results: str | Path = "results") -> pd.DataFrame:
    """One row a run of the experiment: what it is, its accuracy (``nan`` if not run), its name, `data` and command."""
    rows = []
    for config, run in zip(experiment.runs, recorded(experiment.runs, results), strict=True):
        metrics = run.metrics if run else {}
        row = {name: getattr(config, name) for name in FIELDS}
        row |= {name: metrics.get(name, np.nan) for name in ("accuracy", "last_accuracy", "best_accuracy", "stm")}
        row |= {"run": config.name, "data": data_name(config, run)}
        rows.append(row | {"complete": run is not None, "command": config.command})
    return pd.DataFrame(rows)


def data_of(runs: pd.DataFrame) -> str:
    """The data of the complete ones of some runs, or of all if none is, in words."""
    done = runs[runs.complete]
    return " and ".join(dict.fromkeys((done if len(done) else runs).data))


def mean_sd(values: Sequence[float], digits: int = 2) -> str:
    """``95.10 ± 0.30`` over seeds; no deviation for a single value, a dash for none."""
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return "–"
    deviation = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{digits}f}{deviation}"


def pairs_of(runs: pd.DataFrame) -> list[tuple[str, str, str, int]]:
    """Every dataset, student, teacher and T that a distillation is run for, in the experiment's order."""
    keys = runs[runs.method != "baseline"][list(PAIR)].drop_duplicates()
    return list(keys.itertuples(index=False, name=None))


def one_of_each(experiment: Experiment, results: str | Path = "results") -> list[Run]:
    """The recorded runs of all methods that share student, teacher, T and seed with the experiment's first run."""
    first = experiment.runs[0]
    same = [c for c in experiment.runs if all(getattr(c, n) == getattr(first, n) for n in (*PAIR, "seed"))]
    return [run for run in recorded(same, results) if run]


def with_record(experiment: Experiment, results: str | Path = "results") -> list[Run]:
    """The experiment's runs, recorded or not, after those of record at the other scales that it names."""
    of_record = [run for plan in record_plans(experiment) for run in runs_of(plan, results) if run.complete]
    return of_record + runs_of(experiment, results)


def record_plans(experiment: Experiment) -> list[Experiment]:
    """The experiment at the other scales whose runs of record it shows."""
    others = [scale for scale in experiment.of_record if scale != experiment.scale]
    return [load_experiment(ROOT / "experiments" / f"{experiment.name}.yaml", scale) for scale in others]


def run_summary(run: Run) -> str:
    """HTML facts of one run: accuracy, the paper's value, mismatch, teacher, parameters."""
    config, metrics, provenance = run.config, run.metrics, run.provenance
    last, best = metrics["last_accuracy"], metrics["best_accuracy"]
    facts = {"Test accuracy": f"<strong>{last:.2f} %</strong> after the last epoch; best {best:.2f} % in epoch "
             f"{metrics['best_epoch']} of {metrics['epochs']}"}  # fmt: skip
    if config.method != "teacher":
        same = config.dataset in ("cifar10", "cifar100")
        papers = [config.dataset] if same else ["cifar10", "cifar100"]
        values = [f"{v:.2f} % on {LABELS[d]}" for d in papers if (v := paper_accuracy(config, d)) is not None]
        if not config.changed:  # the paper has no such run
            other = "" if same and config.scale == "paper" else "; not comparable: other networks, images and schedule"
            facts["The paper's Table 2"] = ", ".join(values) + other if values else "no such cell"
    if "stm" in metrics:
        epochs = min(10, metrics["epochs"])
        facts["STM score"] = f"{metrics['stm']:.3f}, mean of the last {epochs} epochs"
    if teacher := provenance.get("teacher"):
        page = f"../teacher/{teacher['run']}.html"
        facts["Teacher"] = f'<a href="{page}">{LABELS[config.teacher]}</a>, {teacher["accuracy"]:.2f} %'
    facts["Parameters"] = f"{metrics['parameters']:,}"
    told = [f"{metrics['train_seconds_per_epoch']:.2f} s an epoch of training"]
    if "inference_seconds" in metrics:  # older records have neither this nor the memory
        told.append(f"{metrics['inference_seconds']:.2f} s for the test split")
    facts["Time"] = f"{', '.join(told)}, on {html.escape(provenance['device'])}"
    if "peak_memory_bytes" in metrics:
        where = "on the GPU" if provenance["device_type"] == "cuda" else "of the whole process"
        facts["Peak memory"] = f"{metrics['peak_memory_bytes'] / 2**20:,.0f} MiB {where}"
    files = [name for name in FILES if run.has(name)]
    facts["Files"] = " ".join(download(run.read(name), f"{run.name}-{name}", "text/plain", name) for name in files)
    return _facts(facts)


def size(experiment: Experiment) -> list[str]:
    """What the experiment's runs change of the paper's scale, in words; several values of a setting as a range.

    What differs between datasets is told of each of them, in the last words.
    """
    datasets = list(dict.fromkeys(config.dataset for config in experiment.runs))
    of_each = [_size([c for c in experiment.runs if c.dataset == dataset]) for dataset in datasets]
    shared = [word for word in of_each[0] if all(word in words for words in of_each)] if of_each else []
    own: dict[str, list[str]] = {}
    for dataset, words in zip(datasets, of_each, strict=True):
        own.setdefault(", ".join(word for word in words if word not in shared), []).append(LABELS[dataset])
    told = "; ".join(f"on {' and '.join(names)}: {words}" for words, names in own.items() if words)
    return [*shared, told] if told else shared


def _size(runs: Sequence[RunConfig]) -> list[str]:
    """The same of runs on one dataset."""
    from companion.sizing import SIZES

    images = SIZES[runs[0].dataset][0]
    ours: dict[str, set] = {}
    papers: dict[str, set] = {}
    scaled = {name for config in runs for name in config.scaled}
    for config in runs:
        for name in scaled & config.to_dict(relevant=True).keys():
            here, there = config.scaled.get(name, (getattr(config, name),) * 2)
            ours.setdefault(name, set()).add(here)
            papers.setdefault(name, set()).add(there)
    if "train_subset" in ours or (runs[0].scale != "paper" and min(c.train_fraction for c in runs) < 1):
        ours["train_subset"] = {round((c.train_subset or images) * (1 - c.validation) * c.train_fraction) for c in runs}
    words = []
    if "width" in ours:
        words.append(f"{span(ours['width'], _fraction)} of the channels")
    if all(widths := {config.teacher_width for config in runs}):  # 0: as the student's
        words.append(f"teachers with {span(widths, _fraction)} of the channels")
    if "train_subset" in ours:
        words.append(f"{span(ours['train_subset'], '{:,}'.format)} of {images:,} training images")
    if "epochs" in ours:
        words.append(f"{span(ours['epochs'])} epoch{'s' * (ours['epochs'] != {1})}")
    if "precision" in ours:
        words.append(" and ".join(sorted(ours["precision"])))
    for name, sign in dict(learning_rate="learning rate", beta="β", gamma="γ").items():
        if name in ours:
            here, there = (span(values[name], "{:g}".format) for values in (ours, papers))
            words += [f"{sign} = {here} instead of {there}"] * (here != there)
    return words


def span(values: Iterable, show: Callable[[Any], str] = str) -> str:
    """One value, or the lowest and the highest."""
    low, high = min(values := set(values)), max(values)
    return show(low) if low == high else f"{show(low)} to {show(high)}"


def _fraction(value: float) -> str:
    """A width as it is spoken of: ``1/8``."""
    return str(Fraction(value).limit_denominator(64))


def scale_note(experiment: Experiment, results: str | Path = "results") -> str:
    """HTML note on what results at this scale can show: of the runs that are recorded, or planned where none is."""
    recorded = runs_of(experiment, results)
    done = tuple(run.config for run in recorded if run.complete)
    experiment = dataclasses.replace(experiment, runs=done or experiment.runs)
    sets = {config.dataset for config in experiment.runs}
    if sets and sets <= {"digits", "digits_dvs"}:
        widths = span({c.width for c in experiment.runs}, _fraction)
        epochs = span({config.epochs for config in experiment.runs})
        text = (
            "<strong>A smoke test: digits are not CIFAR-10.</strong> "
            f"These runs train networks with {widths} of the paper's channels "
            f"for {epochs} epochs on small images of handwritten digits. They show that every part works. They do not "
            "test the paper's claims."
        )
    elif experiment.scale in ("slim", "quarter"):
        words = SCALE_WORDS[experiment.scale].capitalize()
        text = f"<strong>{words}: compare the methods, not the paper's numbers.</strong> "
        told = ", ".join(words := size(experiment))
        text += f"{told[:1].upper() if told[:1].isascii() else told[:1]}{told[1:]}; "  # γ is not Γ
        held_out = sum(bool(config.validation) for config in experiment.runs)
        others = len(experiment.runs) - held_out
        text += f"{held_out} of {held_out + others} runs are " if held_out and others else ""
        text += "tested on images held out of the training set" if held_out else "tested on all test images"
        text += ", the others on all test images. " if held_out and others else ". "
        tried = f"runs/tuning_{experiment.scale}" in (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")
        tried &= experiment.notebook != "tuning"
        if tried and sets <= {"cifar10", "cifar100"} and any("learning rate" in word for word in words):
            text += f'<a href="tuning_{experiment.scale}.html">Other learning rates and β</a> were tried. '
        rows = _rows(experiment.runs)
        if tuned := [row for row in rows if len({c.learning_rate for c in row}) > 1 and not held_out]:
            of = f" of {'; '.join(named(c for row in tuned for c in row))}" * (len(tuned) < len(rows))
            text += f"Every method{of} has learning rate and weights of its own best trial. "
            tried = trials_on(experiment.scale)
            if new := [LABELS[name] for name in sorted(sets) if name not in tried]:
                there = in_words([*tried.values()])
                text += f"No trial is run on {in_words(new)}: settings there are those of {there}. "
        kinds: dict[tuple[str, ...], list] = {}
        for row in rows:
            if len({c.seed for c in row}) > 1:
                subset = len({c.data_seed for c in row}) == 1 and any(
                    c.train_subset or c.train_fraction < 1 for c in row
                )
                one = len({c.teacher_seed for c in row}) == 1
                kinds.setdefault((*["teacher"] * one, *["subset"] * subset), []).append(row)
        for what, same in kinds.items():
            of = f" of {'; '.join(named(c for row in same for c in row))}" * (len(same) < len(rows))
            words = " and ".join(f"one {name}" for name in what).replace("subset", "subset of the images")
            text += (
                f"All seeds of a pair{of} share {words}: the intervals do not cover variation between "
                f"{' or '.join(f'{name}s' for name in what)}. "
            ) * bool(what)
        if any("JPEG copy" in name for name in data_names(recorded)):
            text += 'The <a href="../data.html">data page</a> explains the JPEG copy.'
    else:
        text = f"<strong>{SCALE_WORDS[experiment.scale].capitalize()}</strong>"
        text += f": {', '.join(words)}." if (words := size(experiment)) else "."
    return f'<p class="scale-note">{" ".join([text.strip(), *networks(experiment)])}</p>'


def trials_on(scale: str) -> dict[str, str]:
    """The datasets on which settings are tried at a scale, with their names for readers."""
    runs = load_experiment(ROOT / "experiments" / "tuning.yaml", scale).runs
    return {config.dataset: LABELS[config.dataset] for config in runs}


def networks(experiment: Experiment) -> list[str]:
    """A sentence that names the networks and time steps, unless they are so many that the tables do it better."""
    pairs = named(experiment.runs)
    return [f"Student &amp; teacher: {'; '.join(pairs)}."] if 0 < len(pairs) <= 3 else []


def named(configs: Iterable[RunConfig]) -> list[str]:
    """Student, teacher and time steps of the distillations among some runs: ``VGG-11 &amp; ResNet-19 at T = 2, 3``."""
    steps: dict[str, set[int]] = {}
    for config in configs:
        if config.method in DISTIL:  # a baseline belongs to every teacher
            steps.setdefault(f"{LABELS[config.student]} &amp; {LABELS[config.teacher]}", set()).add(config.timesteps)
    return [f"{pair} at T = {', '.join(map(str, sorted(of_pair)))}" for pair, of_pair in steps.items()]


def _rows(configs: Iterable[RunConfig]) -> list[list[RunConfig]]:
    """The distillations among some runs, by dataset, student, teacher and T."""
    found: dict[tuple, list[RunConfig]] = {}
    for config in configs:
        if config.method in DISTIL:
            found.setdefault(tuple(getattr(config, name) for name in PAIR), []).append(config)
    return list(found.values())


# Comparisons


def same_pair(runs: pd.DataFrame, dataset: str, student: str, teacher: str, timesteps: int) -> pd.DataFrame:
    """The runs of one dataset, student, teacher and T; a baseline belongs to every teacher."""
    rows = runs[(runs.dataset == dataset) & (runs.student == student) & (runs.timesteps == timesteps)]
    return rows[(rows.teacher == teacher) | (rows.method == "baseline")]


def differences_table(runs: pd.DataFrame) -> str:
    """HTML table: SASTC against each other method for every student, teacher and T."""
    others, body, frame = [m for m in METHODS if m != "sastc"], [], []
    pairs = pairs_of(runs)
    columns = {o: family(difference(same_pair(runs, *pair), "sastc", o) for pair in pairs) for o in others}
    several = runs[runs.complete].data.nunique() > 1 or runs.dataset.nunique() > 1
    for i, pair in enumerate(pairs):
        found = {other: column[i] for other, column in columns.items()}
        key = dict(zip(PAIR, pair, strict=True))
        frame += [key | dict(other=other, difference=d, judgement=d.judgement) for other, d in found.items()]
        name = f"{LABELS[key['student']]} &amp; {LABELS[key['teacher']]}"
        name += f'<br><span class="seeds">{data_of(same_pair(runs, *pair))}</span>' * several
        body.append([name, str(key["timesteps"]), *(interval(d, says=True) for d in found.values())])
    units = over(d for column in columns.values() for d in column)
    caption = (
        f"Differences of test accuracy in percentage points: mean and 95 % interval over {units}; the words are "
        "corrected for the number of differences in a column (Holm)."
    )
    heads = ["student &amp; teacher", "T", *(f"SASTC −<br>{LABELS[m]}" for m in others)]
    return rows_table(caption, heads, body, "differences", frame, kind="results cards")


def _judged(runs: pd.DataFrame, first: RunConfig) -> list[tuple[str, str, int]]:
    """Student, teacher and T of the first config, and of all others whose SASTC has two seeds or more."""
    done = runs[runs.complete & (runs.method == "sastc") & (runs.dataset == first.dataset)]
    seeds = done.groupby(["student", "teacher", "timesteps"], sort=False).seed.nunique()
    return list(dict.fromkeys([(first.student, first.teacher, first.timesteps), *seeds[seeds > 1].index]))


def held_up(runs: pd.DataFrame) -> str:
    """A sentence: what the intervals of one student, teacher and T allow to say of SASTC against each other method."""
    return held_up_by({other: difference(runs, "sastc", other) for other in _NAMES})


def held_up_by(found: Mapping[str, Difference]) -> str:
    """The same of differences, by the other method."""
    phrases = {
        "not run": "not compared with",
        "not distinguishable": "not distinguishable from",
        "better": "better than",
        "worse": "worse than",
    }
    run = {name: found[other] for other, name in _NAMES.items() if found[other].n}
    if run and {d.n for d in run.values()} == {1}:
        gaps = " and ".join(f"{d.words()} points against {name}" for name, d in run.items())
        return f"One seed decides nothing: SASTC has {gaps} (n=1)."
    told = []
    for other, name in _NAMES.items():
        d = found[other]
        unknown = d.judgement.replace("cannot say", "not to be judged") + " against"
        told.append(f"{phrases.get(d.judgement, unknown)} {name}" + f" ({d.words()} points, n={d.n})" * (d.n > 0))
    return f"SASTC is {', '.join(told[:-1])}, and {told[-1]}."


def headlines(runs: pd.DataFrame, experiment: Experiment, results: str | Path = "results") -> dict[str, str]:
    """What the front page says of the results, by name: sentences, and ``results_short``, an HTML table."""
    first = experiment.runs[0]
    judged = {key: same_pair(runs, first.dataset, *key) for key in _judged(runs, first)}
    shown = {key: of_pair for key, of_pair in judged.items() if key[-1] == first.timesteps}
    heads = ["method"]
    for (student, teacher, _), of_pair in shown.items():
        seeds = span(of_pair[of_pair.complete].groupby("method").seed.nunique()) if of_pair.complete.any() else 0
        name = f"{LABELS[student]} &amp;<br>{LABELS[teacher]}"
        of = f"{data_of(of_pair)}, " * (runs[runs.complete].data.nunique() > 1)
        heads.append(f'{name} <span class="seeds">{of}n={seeds}</span>')
    rows = []
    for method in METHODS:
        cells = [LABELS[method]]
        for (student, teacher, _), of_pair in shown.items():
            printed = paper_accuracy(first.replace(student=student, teacher=teacher, method=method), "cifar10")
            paper = f'<span class="paper">paper {printed:.2f}</span>' if printed is not None else ""
            value = mean_sd(of_pair[of_pair.complete & (of_pair.method == method)].accuracy)
            cells.append(f'<span class="ours">{value}</span>{paper}')
        rows.append(cells)
    data = " and ".join(data_names(runs_of(experiment, results))) or LABELS[first.dataset]
    caption = (
        f"Test accuracy (%) at T={first.timesteps}, mean ± standard deviation over n seeds: {data}, "
        f"{SCALE_WORDS[first.scale]}. The paper's values are for CIFAR-10 and full networks; its feature KD differs "
        "from ours."
    )
    return {
        "held_up": held_up_in(list(judged.values())),
        "results_short": rows_table(caption, heads, rows),
    }


def held_up_in(pairs: Sequence[pd.DataFrame]) -> str:
    """The same of several pairs: in how many SASTC beats each other method, in how many it loses, and by how much."""
    if len(pairs) == 1:
        return held_up(pairs[0])
    told, units = [], set()
    for other, name in _NAMES.items():
        found = [d for d in family(difference(rows, "sastc", other) for rows in pairs) if d.n >= FEWEST]
        if not found:
            continue
        said = Counter(d.judgement for d in found)
        loses = f" and loses to it in {said['worse']}" * (said["worse"] > 0)
        means = [d.mean for d in found]
        units |= {d.n for d in found}
        of = f"{len(found)}{' combinations of networks and T' * (not told)}"
        told.append(f"{name} in {said['better']} of {of}{loses} ({signed(min(means))} to {signed(max(means))})")
    if not told:
        return "SASTC is not compared with another method over several seeds."
    return (
        f"SASTC beats {', '.join(told)}. This counts 95 % intervals over seeds (n={span(units)}), corrected "
        "for their number; brackets hold the lowest and the highest mean difference in points of accuracy."
    )


# Attention


def ease_or_meaning(runs: Sequence[Run], question: bool = False) -> str:
    """Sentences: how often attention is at its upper bound, and on the teacher layer that is easiest to imitate.

    Controls, whose weights are not learned, are left out. With `question` they end with how much the weights differ
    between images and time steps.
    """
    learned = [run for run in runs if run.config.attention == "learned"]
    all_learned, runs = len(learned) == len(runs), learned
    cells = easiest = at_bound = 0
    by_data: dict[str, tuple[int, int]] = {}  # on the easiest layer, of all
    favourites: dict[str, int] = {}
    bounds, images, steps = set(), [], []
    for run in runs:
        measures, config = run.measures, run.config
        attention, distance = measures["attention"][-1], measures["distance"][-1]  # (T, S, A)
        low, high = config.attention_bounds(attention.shape[-1])
        near = 0.01 * (high - low)
        best = attention.argmax(-1)
        cells += best.size
        on_easiest = int((best == distance.argmin(-1)).sum())
        easiest += on_easiest
        so_far, of = by_data.get(config.dataset, (0, 0))
        by_data[config.dataset] = so_far + on_easiest, of + best.size
        at_bound += int((attention.max(-1) >= high - near).sum())
        bounds.add(high)
        images.append(spread(measures["attention_instance"][-1]))  # of (P, T, S, A)
        steps.append(spread(attention))
        for layer in measures["teacher_layers"][best.ravel()]:
            favourites[str(layer)] = favourites.get(str(layer), 0) + 1
    if not cells:
        return "No SASTC run is recorded."
    layers = ", ".join(f"{name} in {n}" for name, n in sorted(favourites.items(), key=lambda item: -item[1]))
    if len(favourites) == 1:
        layers = f"always {layers.split()[0]}"
    bound = f"the largest weight possible ({span(bounds, '{:.2f}'.format)} of 1)"
    known = {name: np.nanmean(s) for name, s in (("images", images), ("time steps", steps)) if np.isfinite(s).any()}
    hardly = "hardly differed" if all(v < 0.01 for v in known.values()) else "differed"
    sizes = " and ".join(np.format_float_positional(v, 1, fractional=False, trim="-") for v in known.values())
    differ = f" The weights {hardly} between {' or '.join(known)} (standard deviation {sizes})." if question else ""
    where = f"In all {len(runs)} SASTC runs" if len(runs) > 1 else "In the one SASTC run"
    where += "" if all_learned else " with learned weights"
    if easiest == at_bound == cells:
        return (
            f"{where}, for every student layer and time step ({cells} cases), attention "
            f"gave {bound} to the teacher layer that is easiest to imitate ({layers}).{differ}"
        )
    sets = ", ".join(f"{n} of {of} on {LABELS[name]}" for name, (n, of) in by_data.items())
    sets = f" ({sets})" if len(by_data) > 1 else ""
    return (
        f"{where} there are {cells} cases, one for each student layer and time step. In {at_bound} of them attention "
        f"gave {bound}, to within 1 %; in {easiest} the highest weight lies on the teacher layer with the lowest "
        f"distance, the easiest to imitate{sets}. The layers with the highest weight: {layers}.{differ}"
    )


def attention_spread_table(runs: Sequence[Run]) -> str:
    """HTML table: how much attention differs from uniform, between time steps, images and classes."""
    names = ("run", "from uniform", "between time steps", "between images", "between classes")
    body, frame = [], []
    for run in runs:
        measures, config = run.measures, run.config
        instance = measures["attention_instance"][-1]  # (P, T, S, A)
        spreads = [
            np.sqrt(np.mean((measures["attention"][-1] - 1 / instance.shape[-1]) ** 2)),
            spread(measures["attention"][-1]),
            spread(instance),
            np.nanstd(measures["attention_class"][-1], axis=0, ddof=1).mean(),
        ]
        pair = f"{LABELS[config.student]} &amp; {LABELS[config.teacher]}, T={config.timesteps}, seed {config.seed}"
        body.append([f'<th scope="row" class="whole">{pair}</th>', *map(plain, spreads)])
        frame.append(dict(zip(names, (run.name, *spreads), strict=True)))
    caption = "Spread of the attention weights η after the last epoch."
    return rows_table(caption, [name.replace(" ", "<br>", 1) for name in names], body, "attention-spread", frame)
