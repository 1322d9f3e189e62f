"""The claims of the paper as data: its words, its evidence, and which of our runs are compared how."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from companion.pages import controls, energy, fisher, forensics, forensics_costs, sam
from companion.pages.parts import paper
from companion.pages.table6 import as_preset
from companion.stats import Difference, difference, paired
from sastc.calibration import layer_pairs
from sastc.config import METHODS
from sastc.labels import LABELS
from sastc.records import Run

OTHERS = METHODS[:-1]
VISIBLE = 0.01  # a standard deviation of a weight below which we say that weights do not differ; they sum to 1


class Comparison(NamedTuple):
    """A difference of one cell that favours the claim where it is positive, and what it is of.

    `what` is the two sides, a comma, and the cell: networks, T, data where they are not the dataset itself, settings.
    Cells of one :attr:`group` share a teacher or runs; `shared` names it where that is not the cell without its T.
    """

    what: str
    difference: Difference
    shared: str = ""

    @property
    def group(self) -> str:
        """What cells have in common that share a teacher or runs: networks and settings, or nothing but the claim."""
        return self.shared or re.sub(r", T=\d+", "", self.what.partition(", ")[2])


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    `compare` makes the comparisons from the runs (:func:`companion.pages.parts.frame`) of experiment `page`.
    `statement` names the row of :func:`companion.pages.forensics.counterexamples` that counts the paper's cells;
    `paper` tells its evidence in other words, and `printed` is then the number of its comparisons. A claim that
    something happens somewhere (`some`) holds if it does in one cell, others if they do in all. There is no verdict
    with fewer than `least` cells. `front` are the words for the front page, '' for a claim that is not shown there, and
    `rival` whom SASTC beats by the claim. Values of different networks that cannot be averaged have no `pool`. What the
    paper does not claim, but its readers would ask, is a question of `ours`.
    """

    name: str
    words: str
    page: str
    compare: Callable[[pd.DataFrame], Sequence[Comparison]]
    statement: str = ""
    paper: Callable[[], str] = str
    printed: Callable[[], int] = int
    some: bool = False
    unit: str = "points"
    digits: int = 2
    least: int = 1
    pool: bool = True
    front: str = ""
    rival: str = ""
    ours: bool = False

    def evidence(self) -> str:
        """The paper's evidence in words."""
        if told := self.paper():
            return told
        row = _said().loc[self.statement]
        return f"{row.cells - row.against} of {row.cells} cells"

    def cells(self) -> int:
        """The number of such comparisons in the paper."""
        return self.printed() or (int(_said().cells[self.statement]) if self.statement else 0)


@cache
def _said() -> pd.DataFrame:
    return forensics.counterexamples().set_index("statement")


# Comparisons

TEACHERS = ("teacher", "noise_teacher", "subset_teacher")  # what a baseline does not have
SHARES = {"train_fraction": "of the images", "label_noise": "wrong labels"}
TRAINED_ON = {"same_subset": "the same", "full": "all", "same_noise": "the same", "clean": "clean ones"}


def pairs(
    runs: pd.DataFrame,
    one: str = "sastc",
    others: Sequence[str] = OTHERS,
    value: str = "accuracy",
    sign: int = 1,
    by: Sequence[str] = (),
) -> list[Comparison]:
    """`one` less each of the `others` (times `sign`) for every student, teacher and T, and every value of `by`.

    A baseline belongs to every teacher of its student.
    """
    found = []
    keys = ["dataset", "student", "teacher", "timesteps", *by]
    for other in others:
        for key, _ in runs[runs.method != "baseline"].groupby(keys, sort=False):
            at = dict(zip(keys, key, strict=True))
            same = np.logical_and.reduce([runs[k] == v for k, v in at.items() if k not in TEACHERS])
            taught = np.logical_and.reduce([runs[k] == at[k] for k in TEACHERS if k in at])
            rows = runs[same & (taught | (runs.method == "baseline"))]
            extra = "".join(f", {_setting(k, at[k])}" for k in by)
            what = f"{LABELS[one]} − {LABELS[other]}, {_cell(at, rows)}{extra}"
            whole = {"clean", "full"} & set(at.values())  # one teacher, whatever share of the images its students have
            shared = f"{at['student']} & {at['teacher']}, one teacher" if whole else ""
            found.append(Comparison(what, difference(rows, one, other, value=value).times(sign), shared))
    return found


def _setting(name: str, value: Any) -> str:
    """A setting of a comparison in a reader's words: ``25 % of the images``, ``batch size 64``."""
    if name in SHARES:
        return f"{100 * value:g} % {SHARES[name]}"
    return f"teacher trained on {TRAINED_ON[value]}" if value in TRAINED_ON else f"{name.replace('_', ' ')} {value}"


def _teachers(rows: pd.DataFrame) -> pd.Series | None:
    """Which training of a teacher each seed has; ``None`` if that is not known."""
    if not {"teacher_seed", "data_seed"} <= set(rows):
        return None
    first = rows[rows.method != "baseline"].drop_duplicates("seed").set_index("seed")
    return pd.Series(list(zip(first.teacher_seed, first.data_seed, strict=True)), first.index)


def _cell(at: dict, rows: pd.DataFrame) -> str:
    """Networks and T, and what data the runs of these rows are on where that is not CIFAR-10: ``, JPEG copy``."""
    known = rows.data[rows.complete] if "data" in rows else []
    names = dict.fromkeys(re.sub(r"^CIFAR-10\b(?!0)( \((.*)\))?", r"\2", name) for name in known)
    parts = (
        f"{LABELS[at['student']]} & {LABELS[at['teacher']]}",
        f"T={at['timesteps']}",
        " and ".join(filter(None, names)),
    )
    return ", ".join(filter(None, parts))


def with_teachers(runs: pd.DataFrame) -> pd.DataFrame:
    """SASTC's runs, each with a second row: the accuracy of its own teacher as method ``teacher``."""
    done = runs[runs.complete & (runs.method == "sastc")]
    taught = [Run(path).provenance.get("teacher", {}).get("accuracy", np.nan) for path in done.path]
    return pd.concat([done, done.assign(method="teacher", accuracy=taught)], ignore_index=True)


def above_teacher(runs: pd.DataFrame, by: Sequence[str] = ()) -> list[Comparison]:
    """SASTC less its own teacher, where both are trained on the same images."""
    same = (runs.train_fraction == 1) | (runs.subset_teacher == "same_subset")
    return pairs(with_teachers(runs[same]), others=["teacher"], by=by)


def across_steps(
    values: pd.DataFrame, value: str, sign: int, others: Sequence[str] = OTHERS, few: int = 2, many: int = 7
) -> list[Comparison]:
    """SASTC at few steps beside other methods at many, over seeds; `sign` 1 if more is better for the claim."""
    found = []
    ours = values[(values.method == "sastc") & (values.timesteps == few)].assign(side="a")
    keys = [k for k in ("dataset", "student", "teacher") if k in values]
    for other in others:
        theirs = values[(values.method == other) & (values.timesteps == many)].assign(side="b")
        for key, mine in ours.groupby(keys, sort=False):
            at = dict(zip(keys, key, strict=True))
            same = [theirs[k] == v for k, v in at.items() if k != "teacher" or other != "baseline"]
            both = pd.concat([mine, theirs[np.logical_and.reduce(same)]]).assign(complete=True)
            pair = f"{LABELS[at['student']]} & {LABELS[at['teacher']]}"
            sides = (f"SASTC at T={few}", f"{LABELS[other]} at T={many}")[::sign]  # as the difference is taken
            gap = difference(both, "a", "b", "side", value).times(sign)
            found.append(Comparison(f"{' − '.join(sides)}, {pair}", gap))
    return found


def hard_for_feature_kd(runs: pd.DataFrame) -> list[Comparison]:
    """KD less feature KD where the paper names it."""
    wide = (runs.student == "wrn16_2") & runs.teacher.isin(["resnet19", ""])
    return pairs(runs[(runs.dataset == "cifar100") | wide], "kd", ["feature_kd"])


def on_imagenet(runs: pd.DataFrame, one: str = "sastc", others: Sequence[str] = OTHERS) -> list[Comparison]:
    """Methods on ImageNet itself, ResNet-18."""
    return pairs(runs[(runs.student == "resnet18") & (runs.dataset == "imagenet")], one, others)


def single_pairs(runs: pd.DataFrame) -> list[Comparison]:
    """KD less distillation of each single pair of layers."""
    found = []
    keys = ["student", "teacher", "feature_pairs"]
    for (student, teacher, layers), _ in runs[runs.method == "feature_kd"].groupby(keys):
        same = runs[(runs.student == student) & (runs.teacher == teacher)]
        rows = same[(same.method == "kd") | ((same.method == "feature_kd") & (same.feature_pairs == layers))]
        what = f"KD − layers {layers}, {LABELS[student]} & {LABELS[teacher]}"
        found.append(Comparison(what, difference(rows, "kd", "feature_kd")))
    return found


def not_one_to_one(runs: pd.DataFrame) -> list[Comparison]:
    """Each single pair of layers less the pair of equal relative depth of the same student layer."""
    found = []
    single = runs[(runs.method == "feature_kd") & runs.feature_pairs.str.fullmatch(r"\d+-\d+")]
    for (student, teacher), rows in single.groupby(["student", "teacher"]):
        layers = [tuple(map(int, name.split("-"))) for name in rows.feature_pairs.unique()]
        depths = (max(s for s, _ in layers), max(a for _, a in layers))
        matched = {s + 1: a + 1 for s, a in layer_pairs("one_to_one", *depths)}
        for s, a in layers:
            if a != matched[s]:
                gap = difference(rows, f"{s}-{a}", f"{s}-{matched[s]}", "feature_pairs")
                found.append(
                    Comparison(f"layers {s}-{a} − {s}-{matched[s]}, {LABELS[student]} & {LABELS[teacher]}", gap)
                )
    return found


def better_when_lower(runs: pd.DataFrame, by: str = "method") -> list[Comparison]:
    """For every pair and T: rank correlation of a low mismatch score with accuracy over all values of `by`, by seed.

    Spearman's, for each seed over the runs that it has; 1 where the order of accuracies is that of the scores, lowest
    first. Fewer than three runs of a seed say nothing; all seeds are over the same values.
    """
    found, done = [], runs[runs.complete].dropna(subset=["stm", "accuracy"])
    for key, rows in done.groupby(["dataset", "student", "teacher", "timesteps"], sort=False):
        at = dict(zip(("dataset", "student", "teacher", "timesteps"), key, strict=True))
        rows = rows[rows.groupby("seed")[by].transform("nunique") > 2]
        rows = rows[rows.groupby(by).seed.transform("nunique") == rows.seed.nunique()]  # all seeds over the same
        of_seed = {
            seed: controls.rank_correlation(-same.stm.to_numpy(float), same.accuracy.to_numpy(float)).item()
            for seed, same in rows.groupby("seed")
            if len(same) > 2
        }
        what = f"rank correlation over {by.replace('_', ' ')}s, {_cell(at, rows)}"
        gap = paired(pd.Series(of_seed, dtype=float), 0.0, _teachers(rows))
        found.append(Comparison(what, replace(gap, least=-1.0, most=1.0)))
    return found


def over_methods(runs: pd.DataFrame) -> list[Comparison]:
    """:func:`better_when_lower` of the bench's runs: no trials, and none that is trained longer than the others."""
    main = runs[runs.validation == 0]
    return better_when_lower(main[main.epochs == main.epochs.mode().iloc[0]])


def barely_lower(runs: pd.DataFrame) -> list[Comparison]:
    """By how much KD's and feature KD's score lies above the middle between the baseline's and SASTC's.

    So "barely" means: by less than half of what SASTC lowers it, as in all cells of the paper's Table 5.
    """
    found, keys = [], ["dataset", "student", "teacher", "timesteps"]
    for key, _ in runs[runs.method == "sastc"].groupby(keys, sort=False):
        at = dict(zip(keys, key, strict=True))
        rows = runs[runs.complete & np.logical_and.reduce([runs[k] == at[k] for k in keys if k != "teacher"])]
        rows = rows[(rows.teacher == at["teacher"]) | (rows.method == "baseline")]
        of = {m: rows[rows.method == m].set_index("seed").stm for m in METHODS}
        middle, teachers = (of["baseline"] + of["sastc"]) / 2, _teachers(rows)
        found += [
            Comparison(
                f"{LABELS[m]} − middle of baseline and SASTC, {_cell(at, rows)}", paired(of[m], middle, teachers)
            )
            for m in METHODS[1:3]
        ]
    return found


def attention_controls(runs: pd.DataFrame) -> list[Comparison]:
    """Accuracy with learned weights less that with every replacement."""
    named, cell = runs.assign(control=controls.names(runs)), _cell(runs.iloc[0].to_dict(), runs)
    return [
        Comparison(f"learned − {controls.WORDS.get(c, c)}, {cell}", difference(named, controls.LEARNED, c, "control"))
        for c in controls.REPLACED
    ]


def most_alike(runs: pd.DataFrame) -> list[Comparison]:
    """For every pair and T: in how many cells the largest weight is on the layer most similar by CKA, beside chance.

    In percent of the cells, which are student layers and time steps; chance is one of the teacher's layers.
    """
    found, done = [], runs[runs.complete & (runs.method == "sastc") & (runs.attention == controls.LEARNED)]
    for key, rows in done.groupby(["dataset", "student", "teacher", "timesteps"], sort=False):
        at = dict(zip(("dataset", "student", "teacher", "timesteps"), key, strict=True))
        facts = pd.DataFrame([controls.facts(Run(path)) for path in rows.path], rows.seed)
        chance = facts.chance.iloc[0]
        share = paired(facts.likest, facts.chance, _teachers(rows))
        share = replace(share, least=-chance, most=1 - chance).times(100)
        found.append(Comparison(f"share of cells − chance, {_cell(at, rows)}", share))
    return found


def attention_differs(runs: pd.DataFrame) -> list[Comparison]:
    """Standard deviation of learned weights between time steps and between instances, less :data:`VISIBLE`."""
    found = []
    done = runs[runs.complete & (runs.method == "sastc")]
    for key, rows in done.groupby(["dataset", "student", "teacher", "timesteps"], sort=False):
        at = dict(zip(("dataset", "student", "teacher", "timesteps"), key, strict=True))
        facts = pd.DataFrame([controls.facts(Run(path)) for path in rows.path], rows.seed)
        found += [
            Comparison(
                f"deviation {column.replace('_', ' ')} − {VISIBLE:g}, {_cell(at, rows)}",
                paired(facts[column], VISIBLE, _teachers(rows)),
            )
            for column in ("between_steps", "between_images")
        ]
    return found


def few_images(runs: pd.DataFrame, others: Sequence[str]) -> list[Comparison]:
    """SASTC less others with a part of the images; with all they are cells of Table 2."""
    return pairs(runs[runs.train_fraction < 1], others=others, by=("train_fraction", "subset_teacher"))


def teacher_of_few(runs: pd.DataFrame) -> list[Comparison]:
    """SASTC less its teacher that saw the same 25 or 50 % of the images."""
    few = runs[runs.train_fraction.isin([0.25, 0.5]) & (runs.subset_teacher == "same_subset")]
    return above_teacher(few, ("train_fraction",))


def growing_gain(runs: pd.DataFrame) -> list[Comparison]:
    """SASTC's gain over KD with fewer images less that with the next larger part, teacher trained on the same."""
    same = runs[runs.complete & ((runs.subset_teacher == "same_subset") | (runs.train_fraction == 1))]
    found, keys = [], ["dataset", "student", "teacher", "timesteps"]
    for key, rows in same[same.method.isin(["kd", "sastc"])].groupby(keys, sort=False):
        at = dict(zip(keys, key, strict=True))
        wide = rows.pivot_table(index="seed", columns=["method", "train_fraction"], values="accuracy")
        parts = sorted(set(rows.train_fraction))
        gain = {p: wide["sastc"][p] - wide["kd"][p] for p in parts if all((m, p) in wide for m in ("sastc", "kd"))}
        for small, large in zip(list(gain)[:-1], list(gain)[1:], strict=True):
            found.append(
                Comparison(
                    f"gain at {small:g} − {large:g}, {_cell(at, rows)}",
                    paired(gain[small], gain[large], _teachers(rows)),
                )
            )
    return found


def noisy(runs: pd.DataFrame, others: Sequence[str]) -> list[Comparison]:
    """SASTC less others with wrong labels."""
    return pairs(runs[runs.label_noise > 0], others=others, by=("label_noise", "noise_teacher"))


def teacher_of_noisy(runs: pd.DataFrame) -> list[Comparison]:
    """SASTC less its teacher trained on the same wrong labels."""
    return above_teacher(runs[(runs.label_noise > 0) & (runs.noise_teacher == "same_noise")], ("label_noise",))


def events(runs: pd.DataFrame) -> list[Comparison]:
    """SASTC less the others on events, on equal terms."""
    students = as_preset(runs[runs.method != "teacher"])
    return pairs(students[students.teacher_input == students.teacher_input.iloc[0]])


def betas(runs: pd.DataFrame) -> list[Comparison]:
    """SASTC less KD at every β."""
    found = []
    for (dataset, beta), mine in runs[runs.method == "sastc"].groupby(["dataset", "beta"]):
        rows = pd.concat([mine, runs[(runs.method == "kd") & (runs.dataset == dataset)]])
        gap = difference(rows, "sastc", "kd")
        found.append(Comparison(f"SASTC − KD, {LABELS[dataset]}, β={beta:g}", gap, LABELS[dataset]))  # KD's runs
    return found


def likeness(runs: pd.DataFrame) -> list[Comparison]:
    """Correlation of SASTC's maps with their teacher's, less other methods'."""
    return [Comparison(f"SASTC − {LABELS[o]}", d) for o, d in sam.differences(sam.likeness_of(runs)).items()]


def fisher_last(runs: pd.DataFrame) -> list[Comparison]:
    """Log₁₀ of the others' last trace less SASTC's."""
    return [Comparison(f"{LABELS[o]} − SASTC", -d) for o, d in fisher.log_differences(fisher.traces_of(runs)).items()]


def share_of_ann(runs: pd.DataFrame) -> list[Comparison]:
    """What SASTC's energy leaves of its ANN teacher's, in percent of that."""

    def of_teacher(run: Run) -> float:
        name = run.provenance.get("teacher", {}).get("run")
        counted = energy.layers(run.path.with_name(name)) if name else None
        return np.nan if counted is None else counted.energy_nj.sum() / 1e3

    counted, found = energy.counts(runs[runs.method == "sastc"]), []
    ann = np.array([of_teacher(Run(path)) for path in counted.path], dtype=float)
    counted = counted.assign(saved=100 * (1 - counted.energy_uj / ann))
    for key, rows in counted.groupby(["student", "teacher", "timesteps"], sort=False):
        at = dict(zip(("student", "teacher", "timesteps"), key, strict=True))
        saved = paired(rows.set_index("seed").saved, 0.0, _teachers(rows))
        found.append(Comparison(f"ANN − SASTC, {_cell(at, rows)}", replace(saved, most=100.0)))
    return found


def energy_at_equal_steps(runs: pd.DataFrame) -> list[Comparison]:
    """What SASTC's energy is below another method's at equal T, in percent of that."""
    rows = energy.differences(energy.counts(runs))
    return [
        Comparison(f"{LABELS[r.other]} − SASTC, {LABELS[r.student]}, T={r.timesteps}", -r.difference)
        for r in rows.itertuples()
    ]


def seconds(runs: pd.DataFrame) -> pd.DataFrame:
    """With `seconds` an epoch: of the CPU, which another load changes less, or of the clock where a GPU trained."""
    found = []
    for run in map(Run, runs.path):
        clock = run.provenance["device_type"] != "cpu"
        column = "train_seconds" if clock else "train_cpu_seconds"
        found.append(run.history[column].mean() if column in run.history else np.nan)
    return runs.assign(seconds=found)


# The paper's evidence


def _above(name: str, one: str, other: str) -> str:
    table = paper(name)
    keys = [c for c in ("noise_fraction", "train_fraction") if c in table]
    wide = table[table[keys[0]].between(0, 1, "neither")].pivot(index=keys[0], columns="method", values="accuracy")
    return f"{(wide[one] > wide[other]).sum()} of {len(wide)} cells"


def _median_gain(other: str) -> str:
    from companion.pages import forensics_digits

    gains = forensics_digits.gains_beside_errors().set_index("against")
    row = _said().loc[f"Table 2: SASTC is above {LABELS[other]}"]
    median = gains.loc[LABELS[other], "median_gain"]
    return f"{row.cells - row.against} of {row.cells} cells, median gain {median:.2f}"


def _anns() -> str:
    known = forensics.all_values()
    ann = known[known.method == "teacher_ann"].accuracy
    best = known[(known.method == "sastc") & (known.student == "ResNet-18") & (known.teacher == "ResNet-32x4")].accuracy
    static = paper("sota_static")
    (cited,) = static.query("method == 'ANN' and dataset == 'CIFAR-10'").accuracy
    ten = static.query("method == 'SASTC' and dataset == 'CIFAR-10'").accuracy
    return (
        f"CIFAR-10: {ten.min():.2f} to {ten.max():.2f}, another paper's ResNet-19 {cited:.2f}; CIFAR-100: "
        f"ResNet-18 & ResNet-32x4 {best.min():.2f} to {best.max():.2f}, its teacher {ann.min():.2f} or {ann.max():.2f}"
    )


def _imagenet(methods: Sequence[str] = METHODS) -> str:
    found = paper("imagenet_accuracy").query("architecture == 'ResNet-18'").set_index("method").accuracy
    return ", ".join(f"{LABELS[m]} {found[m]:.2f}" for m in methods)


def _neuromorphic() -> str:
    table = paper("neuromorphic_accuracy")
    best = table[table.method != "SASTC"].groupby("dataset").accuracy.max()
    mine = table[table.method == "SASTC"].set_index("dataset").accuracy
    return "; ".join(f"{d}: {mine[d]:.2f}, next {best[d]:.2f}" for d in mine.index)


def _mismatches() -> pd.DataFrame:
    keys = ["dataset", "student", "teacher", "method"]
    table = paper("stm_scores").query("table == 5").set_index(keys).stm_score
    return table.unstack()


def _barely() -> str:
    wide = _mismatches()
    drops = [(wide.baseline - wide[m]) / (wide.baseline - wide.sastc) for m in ("kd", "feature_kd")]
    share = 100 * pd.concat(drops)
    return f"{share.min():.0f} to {share.max():.0f} % of what SASTC lowers it by".replace("-", "−")


def _beta() -> str:
    table = paper("beta_sensitivity").query("quantity == 'gain_over_kd_at_optimum'")
    return "at the best β " + ", ".join(f"+{r.value:.2f} ({r.dataset})" for r in table.itertuples())


def _betas_drawn() -> int:
    """How many values of β the paper draws, over all pairs."""
    found = paper("beta_sensitivity").pivot(index="dataset", columns="quantity", values="value")
    return int(((found.beta_max - found.beta_min) / found.beta_step + 1).sum())


def _shares_of_ann() -> str:
    table = paper("energy").query("source == 'text_claim_2'")
    return ", ".join(f"{r.energy_percent_of_ann:.2f} % at T={r.timesteps:.0f}" for r in table.itertuples())


def _equal_steps() -> str:
    ratios = forensics_costs.same_step_costs().filter(like="over").to_numpy()
    return f"its table: {ratios.min():.2f} to {ratios.max():.2f} times the others' energy"


def _accuracies_across() -> str:
    found = forensics_costs.energies().set_index(["method", "timesteps"]).accuracy
    return f"{found['sastc', 2]:.2f} beside {', '.join(f'{found[m, 7]:.2f}' for m in OTHERS)}"


def _hours() -> str:
    found = paper("running_time_memory").set_index(["method", "timesteps"]).value
    return f"{found['sastc', 2]:.1f} h beside {found['kd', 7]:.1f} and {found['feature_kd', 7]:.1f} h"


# The claims, in the paper's order

RIVALS = {
    "baseline": ("the student alone", "baseline", ""),
    "kd": ("KD", "logits only", ""),
    "feature_kd": ("feature KD", "fixed layer pairs", " (ours: all pairs of layers of equal depth in one run)"),
}

CLAIMS = (
    *(
        Claim(f"above_{other}", f"SASTC is more accurate than {LABELS[other]} on CIFAR{own}", "table2",
              partial(pairs, others=[other]), f"Table 2: SASTC is above {LABELS[other]}",
              paper=partial(_median_gain, other), front=f"SASTC beats {rival} ({kind})", rival=rival)
        for other, (rival, kind, own) in RIVALS.items()
    ),
    Claim("hard_for_feature_kd", "Feature KD is worse than KD on CIFAR-100 and for WRN-16-2 & ResNet-19", "table2",
          hard_for_feature_kd, "Table 2: feature KD is below KD on CIFAR-100 and for WRN-16-2 & ResNet-19"),
    Claim("above_ann", "Students surpass ANNs on CIFAR-10 and CIFAR-100 (ours: their own teachers, trained on the same "
          "images)", "table2",
          above_teacher, paper=_anns, rival="its own teacher",
          front="SASTC surpasses its ANN teacher (of the same images)",
          printed=lambda: len(paper("sota_static").query("method == 'SASTC' and dataset.str.startswith('CIFAR')"))),
    Claim("imagenet", "SASTC is more accurate than the others on ImageNet", "table3", on_imagenet, paper=_imagenet,
          printed=lambda: 3, pool=False),
    Claim("imagenet_feature_kd", "Feature KD is worse than KD on ImageNet", "table3",
          partial(on_imagenet, one="kd", others=["feature_kd"]), paper=partial(_imagenet, ("feature_kd", "kd")),
          printed=lambda: 1),
    Claim("negative", "Some single pairs of layers are worse than KD (negative regularisation)", "figure2",
          single_pairs, paper=lambda: "bars of Figure 2, without numbers", some=True,
          printed=lambda: int(paper("negative_regularization").query("fact == 'pair_count'").value.sum())),
    Claim("one_to_one", "Matching layers of equal depth is not optimal: another teacher layer does better", "figure2",
          not_one_to_one, paper=lambda: "bars of Figure 2, without numbers", some=True),
    Claim("mismatch", "SASTC has the lowest mismatch score", "stm", partial(pairs, value="stm", sign=-1),
          "Table 5: SASTC has the lowest mismatch", printed=lambda: 3 * len(_mismatches()), unit="lower", digits=4,
          pool=False),
    Claim("mismatch_of_others", "KD and feature KD barely lower the mismatch score (here: by less than half of what "
          "SASTC lowers it)", "stm", barely_lower, paper=_barely, printed=lambda: 2 * len(_mismatches()), unit="above",
          digits=4, pool=False),
    Claim("mismatch_and_accuracy", "A lower mismatch score means a better model (over the bench's methods)",
          "bench", over_methods, paper=lambda: "Tables 2 and 5", unit="(1: same order)", least=2),
    Claim("mismatch_and_accuracy_of_betas", "A lower mismatch score means a better model (over values of β)", "beta",
          lambda r: better_when_lower(r[r.method == "sastc"], "beta"), paper=lambda: "not shown",
          unit="(1: same order)"),
    Claim("most_alike", "Attention's largest weight lies on the most similar layer (ours: by centred kernel alignment)",
          "attention", most_alike, paper=lambda: "no measure is reported", unit="% of cells"),
    Claim("attention_differs", "Attention differs between time steps and instances (here: a weight's standard "
          f"deviation is above {VISIBLE:g})", "attention", attention_differs, paper=lambda: "maps of single images",
          unit="above", digits=4),
    Claim("controls", "Learned weights give a higher accuracy than uniform, random, untrained and CKA weights",
          "controls", attention_controls, paper=lambda: "no control is reported", least=len(controls.REPLACED),
          front="Learned attention weights beat their replacements", ours=True, pool=False),
    Claim("neuromorphic", "SASTC is the best on neuromorphic data (ours: beside the other methods)", "table6", events,
          paper=_neuromorphic, pool=False,
          printed=lambda: len(paper("neuromorphic_accuracy").query("method != 'SASTC'"))),
    Claim("noise_kd", "SASTC is more accurate than KD with noisy labels", "table7", partial(noisy, others=["kd"]),
          "Table 7: SASTC is above KD under noise"),
    Claim("noise_feature_kd", "SASTC is more accurate than feature KD with noisy labels", "table7",
          partial(noisy, others=["feature_kd"]), "Table 7: SASTC is above KD under noise",
          paper=partial(_above, "noisy_labels", "sastc", "feature_kd")),
    Claim("noise_teacher", "SASTC is more accurate than its teacher with noisy labels (teacher trained on them too)",
          "table7", teacher_of_noisy, "Table 7: SASTC is above its ANN teacher under noise"),
    Claim("maps", "SASTC's activation maps are closer to its teacher's than other methods' are", "sam", likeness,
          paper=lambda: "pictures in Figure 3", unit="", pool=False),
    Claim("fisher", "Fisher information is lower after training with SASTC (the paper: falls faster)", "fisher",
          fisher_last, paper=lambda: "curves in the appendix", unit="(log₁₀)", pool=False),
    Claim("few_kd", "SASTC is more accurate than KD with few images", "fewshot", partial(few_images, others=["kd"]),
          paper=partial(_above, "few_shot", "sastc", "kd"), printed=lambda: 3),
    Claim("few_feature_kd", "SASTC is more accurate than feature KD with few images", "fewshot",
          partial(few_images, others=["feature_kd"]), paper=partial(_above, "few_shot", "sastc", "feature_kd"),
          printed=lambda: 3),
    Claim("few_teacher", "SASTC is more accurate than its teacher with 25 and 50 % of the images (teacher trained on "
          "the same)", "fewshot", teacher_of_few, "few-shot: SASTC is above its ANN teacher with 25 % and 50 %"),
    Claim("few_gain", "SASTC's gain over KD grows as images get fewer", "fewshot", growing_gain,
          "few-shot: the gain over KD grows as images get fewer"),
    Claim("batch_size", "SASTC is more accurate than KD and baseline at every batch size", "batchsize",
          partial(pairs, others=["baseline", "kd"], by=("batch_size",)),
          "batch-size table: SASTC is above KD and baseline",
          printed=lambda: 2 * int(_said().cells["batch-size table: SASTC is above KD and baseline"]), least=4,
          pool=False),
    Claim("beta", "SASTC is more accurate than KD for nearly every β", "beta", betas, paper=_beta, least=2,
          printed=_betas_drawn),
    Claim("energy_of_ann", "SASTC takes a small part of its ANN teacher's energy (here: less than the teacher's)",
          "energy", share_of_ann, paper=_shares_of_ann, unit="% of it saved", digits=1, printed=lambda: 3),
    Claim("energy_across", "SASTC at T=2 needs less energy than the others at T=7", "energy",
          lambda r: across_steps(energy.counts(r), "energy_uj", -1),
          "energy table: SASTC at T=2 needs less than the others at T=7", unit="µJ less", pool=False),
    Claim("energy_at_equal_steps", "SASTC saves energy beside the other methods at equal T (the paper compares T=2 "
          "with T=7 instead)", "energy", energy_at_equal_steps, paper=_equal_steps, unit="% less", digits=1,
          printed=lambda: forensics_costs.same_step_costs().filter(like="over").size, ours=True, pool=False),
    Claim("accuracy_across", "SASTC at T=2 is more accurate than the others at T=7", "energy",
          lambda r: across_steps(r[r.complete], "accuracy", 1), paper=_accuracies_across, printed=lambda: 3,
          pool=False),
    Claim("time_across", "SASTC at T=2 trains faster than KD and feature KD at T=7", "energy",
          lambda r: across_steps(seconds(r[r.complete]), "seconds", -1, METHODS[1:3]), paper=_hours,
          unit="s an epoch less (on a CPU, CPU seconds)", printed=lambda: 2, pool=False),
)  # fmt: skip
