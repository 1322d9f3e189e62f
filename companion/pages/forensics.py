"""The paper tested against itself: its claims recomputed from its own tables, and what its digits say.

Everything here reads ``paper/*.csv``; no run is needed. Functions return frames for tables and sentences with numbers
computed from those frames.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from companion.pages.parts import PAPER, paper
from sastc.config import METHODS
from sastc.labels import LABELS

CELL = ["dataset", "student", "teacher", "method", "timesteps"]
HEADLINE = ("CIFAR-100", "ResNet-18", "ResNet-32x4", "sastc", 2)


@dataclass(frozen=True)
class Tables:
    """Table 2 (`cells`) and Table 4 (`others`), so that claims can be asked of a corrected copy too."""

    cells: pd.DataFrame
    others: pd.DataFrame

    def accuracy(self, dataset: str, student: str, teacher: str, method: str, timesteps: int) -> float:
        """One accuracy of Table 2; `teacher` is '' for the baseline."""
        asked = (dataset, student, teacher, method, timesteps)
        found = self.cells[np.logical_and.reduce([self.cells[n] == v for n, v in zip(CELL, asked, strict=True)])]
        if len(found) != 1:
            raise KeyError(f"Table 2 has {len(found)} cells for {asked}")
        return float(found.accuracy.iloc[0])

    def gain(self, dataset: str, student: str, teacher: str, timesteps: int) -> float:
        """SASTC less the baseline in Table 2."""
        base = self.accuracy(dataset, student, "", "baseline", timesteps)
        return self.accuracy(dataset, student, teacher, "sastc", timesteps) - base

    def cited(self, dataset: str, method: str, architecture: str = "", timesteps: int = 0) -> np.ndarray:
        """Accuracies of Table 4, by rising T."""
        rows = self.others[(self.others.dataset == dataset) & (self.others.method == method)]
        rows = rows[rows.architecture == architecture] if architecture else rows
        rows = rows[rows.timesteps == timesteps] if timesteps else rows
        return rows.sort_values("timesteps").accuracy.to_numpy()

    def over(self, dataset: str, other: str, **ours: int | str) -> np.ndarray:
        """SASTC less a cited method of Table 4, paired by T where there are as many rows of both."""
        return self.cited(dataset, "SASTC", **ours) - self.cited(dataset, other)

    def with_headline(self, value: float) -> "Tables":
        """The same tables with another accuracy for CIFAR-100, ResNet-18 & ResNet-32x4, SASTC, T=2."""
        cells, others = self.cells.copy(), self.others.copy()
        cells.loc[np.logical_and.reduce([cells[n] == v for n, v in zip(CELL, HEADLINE, strict=True)]), "accuracy"] = (
            value
        )
        found = (others.dataset == "CIFAR-100") & (others.method == "SASTC") & (others.timesteps == 2)
        others.loc[found, "accuracy"] = value
        return Tables(cells, others)


def tables() -> Tables:
    """The paper's tables as printed."""
    return Tables(paper("cifar_accuracy"), paper("sota_static"))


def wide() -> pd.DataFrame:
    """Table 2 with a column a method: a row for each dataset, student, teacher and T, the baseline in all of them."""
    table = tables().cells
    keys = ["dataset", "student", "teacher", "timesteps"]
    taught = table[table.method != "baseline"].pivot(index=keys, columns="method", values="accuracy")
    base = table[table.method == "baseline"].set_index(["dataset", "student", "timesteps"]).accuracy.rename("baseline")
    return taught.join(base).reset_index()[[*keys, *METHODS]]


# Claims that are numbers


def _imagenet(method: str) -> float:
    table = paper("imagenet_accuracy")
    return float(table[(table.architecture == "ResNet-18") & (table.method == method)].accuracy.iloc[0])


def _neuromorphic(dataset: str) -> float:
    table = paper("neuromorphic_accuracy")
    return float(table[(table.dataset == dataset) & (table.method == "SASTC")].accuracy.iloc[0])


FROM_TABLES: dict[str, Callable[[Tables], float]] = {
    "gain_wrn16_2": lambda t: t.gain("CIFAR-10", "WRN-16-2", "ResNet-19", 2),
    "gain_resnet18": lambda t: t.gain("CIFAR-100", "ResNet-18", "ResNet-32x4", 2),
    "combinations": lambda t: len(t.cells[t.cells.teacher != ""].groupby(["dataset", "student", "teacher"])),
    "imagenet_over_baseline": lambda t: _imagenet("sastc") - _imagenet("baseline"),
    "imagenet_over_kd": lambda t: _imagenet("sastc") - _imagenet("kd"),
    "imagenet_over_feature_kd": lambda t: _imagenet("sastc") - _imagenet("feature_kd"),
    "over_tet_cifar10": lambda t: t.over("CIFAR-10", "TET", timesteps=2).item(),
    "over_tdbn_cifar10": lambda t: t.over("CIFAR-10", "STBP-tdBn", timesteps=2).item(),
    "over_tdbn_cifar100_least": lambda t: t.over("CIFAR-100", "STBP-tdBn").min(),
    "over_tdbn_cifar100_most": lambda t: t.over("CIFAR-100", "STBP-tdBn").max(),
    "over_tet_cifar100_least": lambda t: t.over("CIFAR-100", "TET").min(),
    "over_tet_cifar100_most": lambda t: t.over("CIFAR-100", "TET").max(),
    "over_ann_cifar10": lambda t: t.over("CIFAR-10", "ANN").max(),
    "over_ann_cifar100": lambda t: t.over("CIFAR-100", "ANN").max(),
    "over_tet_imagenet": lambda t: t.over("ImageNet", "TET", architecture="ResNet-34").item(),
    "over_sew_imagenet": lambda t: t.over("ImageNet", "SEW ResNet", architecture="ResNet-34").item(),
    "abstract_cifar10": lambda t: t.cited("CIFAR-10", "SASTC", timesteps=2).item(),
    "abstract_cifar100": lambda t: t.cited("CIFAR-100", "SASTC", timesteps=2).item(),
    "abstract_imagenet": lambda t: t.cited("ImageNet", "SASTC", "ResNet-34").item(),
    "abstract_dvs_gesture": lambda t: _neuromorphic("DVS-Gesture"),
    "abstract_dvs_cifar10": lambda t: _neuromorphic("DVS-CIFAR10"),
}


def agrees(printed: str, computed: float) -> bool:
    """Whether a number, rounded to the digits of the printed one, is that one."""
    digits = len(printed.partition(".")[2])
    return abs(float(printed) - computed) <= 0.5 * 10**-digits + 1e-9


def claimed_numbers(source: Tables | None = None) -> pd.DataFrame:
    """Every number of the text that the tables can be asked for: printed, computed, and whether they agree."""
    claims = pd.read_csv(PAPER / "claims.csv", dtype={"printed": str})
    source = source or tables()
    computed = [float(FROM_TABLES[name](source)) for name in claims.claim]
    agree = [agrees(p, c) for p, c in zip(claims.printed, computed, strict=True)]
    columns = {"statement": claims.statement, "where": claims["where"], "printed": claims.printed}
    return pd.DataFrame(columns | {"from_the_tables": np.round(computed, 2), "agree": agree})


def claimed_numbers_sentence() -> str:
    """How many of the numbers agree, and what those that do not have in common."""
    table = claimed_numbers()
    values = all_values().set_index(CELL).loc[HEADLINE].accuracy
    low, high = values.min(), values.max()
    corrected = claimed_numbers(tables().with_headline(low))
    explained = corrected.agree & ~table.agree
    return (
        f"{table.agree.sum()} of {len(table)} numbers in the text follow from the tables. {explained.sum()} of the "
        f"{(~table.agree).sum()} that do not would follow if CIFAR-100, ResNet-18 & ResNet-32x4, SASTC at T=2 had "
        f"{low:.2f}, as the abstract and the energy table say, and not {high:.2f}, as Tables 2 and 4 say; then "
        f"{(table.agree & ~corrected.agree).sum()} others would cease to. The lower value was probably the number when "
        f"the text was written. What remains: {'; '.join(corrected.statement[~corrected.agree & ~table.agree])}."
    )


# Claims of the form "always"


def counterexamples() -> pd.DataFrame:
    """Statements about many cells: who makes them, how many cells there are, which speak against the statement."""
    rows = []

    def add(by: str, statement: str, holds: pd.Series, names: pd.Series) -> None:
        against = "; ".join(names[~holds]) or "none"
        rows.append(
            dict(statement=statement, stated_by=by, cells=len(holds), against=int((~holds).sum()), which=against)
        )

    table = wide()
    name = table.student + " & " + table.teacher + " (" + table.dataset + "), T=" + table.timesteps.astype(str)
    hard = (table.dataset == "CIFAR-100") | ((table.student == "WRN-16-2") & (table.teacher == "ResNet-19"))
    for other in ("baseline", "kd", "feature_kd"):
        add("paper", f"Table 2: SASTC is above {LABELS[other]}", table.sastc > table[other], name)
    below = table[hard].feature_kd < table[hard].kd
    add("paper", "Table 2: feature KD is below KD on CIFAR-100 and for WRN-16-2 & ResNet-19", below, name[hard])
    add("our question", "Table 2: KD is above the baseline", table.kd > table.baseline, name)
    add("our question", "Table 2: accuracy does not fall as T grows", *_rises_with_time())
    noisy, few, batch = (_by_method(n) for n in ("noisy_labels", "few_shot", "batch_size"))
    noisy, some = noisy[noisy.noise_fraction > 0], few[few.train_fraction <= 0.5]
    noise, images = noisy.noise_fraction.map("{:.0%}".format), few.train_fraction.map("{:.0%}".format)
    add("paper", "Table 7: SASTC is above its ANN teacher under noise", noisy.sastc > noisy.teacher_ann, noise)
    add("paper", "Table 7: SASTC is above KD under noise", noisy.sastc > noisy.kd, noise)
    add("paper", "few-shot: SASTC is above KD", few.sastc > few.kd, images)
    beats = some.sastc > some.teacher_ann
    add("paper", "few-shot: SASTC is above its ANN teacher with 25 % and 50 %", beats, images[some.index])
    grows = (few.sastc - few.kd).diff().dropna() < 0
    add("paper", "few-shot: the gain over KD grows as images get fewer", grows, images[grows.index])
    best = batch.sastc > batch[["baseline", "kd"]].max(axis=1)
    add("paper", "batch-size table: SASTC is above KD and baseline", best, batch.batch_size.astype(str))
    cited, source = paper("sota_static").query("method not in ('SASTC', 'ANN')"), tables()
    for dataset, which, choose, by in (
        ("CIFAR-10", "every", min, "paper"),
        ("CIFAR-100", "every", min, "paper"),
        ("ImageNet", "the best", max, "our question"),  # the text claims gains over TET and SEW-ResNet alone
    ):
        theirs = cited[cited.dataset == dataset]
        label = theirs.method + ", " + theirs.architecture + ", T=" + theirs.timesteps.astype(str)
        beats = theirs.accuracy < choose(source.cited(dataset, "SASTC"))
        add(by, f"Table 4: {which} SASTC row is above all others ({dataset})", beats, label)
    scores = (
        paper("stm_scores")
        .query("table == 5")
        .pivot_table(index=["student", "dataset"], columns="method", values="stm_score", sort=False)
    )
    pairs = pd.Series([" on ".join(p) for p in scores.index], index=scores.index)
    lowest = scores.sastc < scores[["baseline", "kd", "feature_kd"]].min(axis=1)
    add("paper", "Table 5: SASTC has the lowest mismatch", lowest, pairs)
    energy = paper("energy").query("source == 'table_3' and method != 'teacher_ann'").astype({"timesteps": int})
    costs = energy.pivot(index="timesteps", columns="method", values="total_energy_uj")
    others, steps = costs[["baseline", "kd", "feature_kd"]], pd.Series("T=" + costs.index.astype(str), costs.index)
    cheap = costs.sastc.loc[2] < others.loc[7]
    add(
        "paper",
        "energy table: SASTC at T=2 needs less than the others at T=7",
        cheap,
        cheap.index.to_series().map(LABELS),
    )
    add("our question", "energy table: at equal T SASTC needs the least", costs.sastc <= others.min(axis=1), steps)
    return pd.DataFrame(rows)


def _by_method(name: str) -> pd.DataFrame:
    """A table of one varied setting with a column a method."""
    table = paper(name)
    key = {"noisy_labels": "noise_fraction", "few_shot": "train_fraction", "batch_size": "batch_size"}[name]
    return table.pivot(index=key, columns="method", values="accuracy").reset_index()


def counterexamples_sentence() -> str:
    """How many of the paper's statements have a cell that speaks against them."""
    table = counterexamples().query("stated_by == 'paper'")
    wrong = table[table.against > 0]
    return (
        f"Of {len(table)} statements of the paper about many cells, {len(table) - len(wrong)} hold in every cell. The "
        f"other {len(wrong)} have {wrong.against.sum()} exceptions among {wrong.cells.sum()} cells."
    )


def _rises_with_time() -> tuple[pd.Series, pd.Series]:
    groups = tables().cells.sort_values("timesteps", kind="stable").groupby(["dataset", "student", "teacher", "method"])
    names, holds = [], []
    for (dataset, student, teacher, method), rows in groups:
        names.append(f"{student}{' & ' + teacher if teacher else ''} ({dataset}), {LABELS[method]}")
        holds.append(bool((rows.accuracy.diff().dropna() >= 0).all()))
    return pd.Series(holds), pd.Series(names)


# One cell, two values


def all_values() -> pd.DataFrame:
    """Every value that the paper prints, or implies by a printed gain, for a cell that several tables share."""
    noisy, few, batch = paper("noisy_labels"), paper("few_shot"), paper("batch_size")
    default_batch = float(paper("hyperparameters").query("scope == 'CIFAR-100' and name == 'batch_size'").value.iloc[0])
    parts = {
        "Table 2": tables().cells,
        "Table 7, no noise": noisy[noisy.noise_fraction == 0],
        "few-shot table, all images": few[few.train_fraction == 1],
        f"batch-size table, {default_batch:g}": batch[batch.batch_size == default_batch],
        "energy table": paper("energy").query("source == 'table_3'"),
        "sensitivity text, KD of Table 2 plus the gain": _implied(),
    }
    table = pd.concat([part[[*CELL, "accuracy"]].assign(source=source) for source, part in parts.items()])
    return table.assign(timesteps=table.timesteps.fillna(0).astype(int)).reset_index(drop=True)


def _implied() -> pd.DataFrame:
    gains = paper("beta_sensitivity").query("quantity == 'gain_over_kd_at_optimum'")
    rows = gains[["dataset", "student", "teacher", "timesteps"]].assign(method="sastc")
    kd = [tables().accuracy(r.dataset, r.student, r.teacher, "kd", r.timesteps) for r in rows.itertuples()]
    return rows.assign(accuracy=np.round(gains.value.to_numpy() + kd, 2))


def disagreements() -> pd.DataFrame:
    """Cells with more than one value, widest first: the values, their sources, and the spread in points."""
    rows = []
    for (dataset, student, teacher, method, timesteps), group in all_values().groupby(CELL):
        if group.accuracy.nunique() < 2:
            continue
        pair = " & ".join(n for n in (student, teacher) if n)
        name = LABELS.get(method, "ANN") + (f", T={timesteps}" if timesteps else "")
        values = "; ".join(f"{r.accuracy:.2f} ({r.source})" for r in group.itertuples())
        spread = round(group.accuracy.max() - group.accuracy.min(), 2)
        rows.append(dict(cell=f"{pair} ({dataset}), {name}", values=values, spread=spread))
    return pd.DataFrame(rows).sort_values("spread", ascending=False, kind="stable").reset_index(drop=True)


def shared_cells() -> pd.DataFrame:
    """Cells that are printed more than once: in how many places, with how many values, and their spread in points."""
    values = all_values().groupby(CELL).accuracy
    return values.agg(["size", "nunique"]).assign(spread=values.max() - values.min()).query("size > 1")


def disagreements_sentence() -> str:
    """How many shared cells have one value, and how far the others are apart."""
    shared = shared_cells()
    table, equal = disagreements(), int((shared["nunique"] == 1).sum())
    return (
        f"{len(shared)} cells stand in more than one place. In {equal} of them all values are equal; in {len(table)} "
        f"they differ, by up to {table.spread.max():.2f} points."
    )


def repeated_values() -> pd.DataFrame:
    """Batch-size table: cells in which two methods have the same accuracy to the last digit."""
    table = paper("batch_size").pivot(index="batch_size", columns="method", values="accuracy").reset_index()
    return table[table.baseline == table.kd][["batch_size", "baseline", "kd", "sastc"]].reset_index(drop=True)
