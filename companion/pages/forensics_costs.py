"""The paper's energies and times tested against its own constants, tables and networks."""

import pandas as pd

from companion.pages.forensics import agrees, tables
from companion.pages.parts import paper
from sastc.labels import LABELS

ENERGY_NETWORKS = {"ResNet-32x4": "resnet32x4", "ResNet-18": "resnet18", "VGG-11": "vgg11"}


def constants() -> dict[str, float]:
    """The paper's constants of energy by name."""
    return paper("energy_constants").set_index("name").value.to_dict()


def energies() -> pd.DataFrame:
    """The energy table: a row for each method and T."""
    return paper("energy").query("source == 'table_3'").reset_index(drop=True)


def dense_macs(network: str, classes: int = 100, image_size: int = 32) -> int:
    """Multiply-accumulates of one image through a network of full width, its border counted, as is usual."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from sastc.models import create_model

    model = create_model(network, "relu", num_classes=classes, image_size=image_size).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, image_size, image_size))
    return counter.get_total_flops() // 2


def energy_arithmetic() -> pd.DataFrame:
    """Numbers of the energy section: as printed, and as they follow from the table and the constants."""
    table, known = energies(), constants()
    ann = table[table.method == "teacher_ann"].iloc[0]
    claims = paper("energy").query("source == 'text_claim_2'")
    rows = []

    def add(quantity: str, printed: str, computed: float, digits: int) -> None:
        rows.append(dict(quantity=quantity, printed=printed, computed=round(computed, digits),
                         agree=agrees(printed, computed)))  # fmt: skip

    for claim in claims.itertuples():
        ours = table[(table.method == "sastc") & (table.timesteps == claim.timesteps)].iloc[0]
        steps = f"T={claim.timesteps:.0f}"
        share = 100 * ours.total_energy_uj / ann.total_energy_uj
        add(f"energy of SASTC beside the ANN, {steps} (%)", f"{claim.energy_percent_of_ann:.2f}", share, 2)
        add(f"accuracy of SASTC above the ANN, {steps} (points)", f"{claim.accuracy_minus_ann:.2f}",
            ours.accuracy - ann.accuracy, 2)  # fmt: skip
    factor = 1000 * known["energy_per_ac"] / known["energy_per_sop_special_hardware"]
    add("reduction on special hardware (times)", f"{known['reduction_factor_special_hardware']:.0f}", factor, 2)
    macs = ann.total_energy_uj / known["energy_per_mac"] / 1e3  # µJ / pJ = 10⁶, in 10⁹
    for name, network in ENERGY_NETWORKS.items():
        add(f"multiply-accumulates of the ANN, were it {name} (10⁹)", f"{macs:.2f}", dense_macs(network) / 1e9, 2)
    return pd.DataFrame(rows)


def same_step_costs() -> pd.DataFrame:
    """SASTC's energy beside the other methods' at equal T: the ratio, for networks of the same shape."""
    wide = (
        energies().query("method != 'teacher_ann'").pivot(index="timesteps", columns="method", values="total_energy_uj")
    )
    ratios = {f"sastc_over_{m}": (wide.sastc / wide[m]).round(2) for m in ("baseline", "kd", "feature_kd")}
    return pd.DataFrame(ratios).reset_index().astype({"timesteps": int})


def whose_accuracies() -> dict[str, int]:
    """How many accuracies of the energy table are Table 2's, if its student is one or the other."""
    students = energies().query("method != 'teacher_ann'")
    counts = {}
    for student in ("VGG-11", "ResNet-18"):
        found = [
            tables().accuracy("CIFAR-100", student, row.teacher, row.method, int(row.timesteps)) == row.accuracy
            for row in students.itertuples()
        ]
        counts[student] = sum(found)
    return counts


def energy_sentence() -> str:
    """What the energy table allows to say."""
    costs, counts, table = same_step_costs(), whose_accuracies(), energy_arithmetic()
    macs = table[table.quantity.str.contains("10⁹")]
    ratios = costs.filter(like="over").to_numpy()
    students = int((energies().method != "teacher_ann").sum())
    return (
        f"At equal T, SASTC's network takes {ratios.min():.2f} to {ratios.max():.2f} times the energy of the others, "
        "so it must fire more, since all students have one shape; the text compares its T=2 with the others' T=7 "
        f"instead. The ANN's energy means {macs.printed.iloc[0]} billion multiply-accumulates; "
        + ", ".join(
            f"{r.quantity.partition('were it ')[2].partition(' (')[0]} has {r.computed}" for r in macs.itertuples()
        )
        + f" by our count. The text names VGG-11 as the student; of the table's {students} accuracies "
        f"{counts['VGG-11']} are VGG-11's in Table 2 and {counts['ResNet-18']} are ResNet-18's."
    )


def times() -> pd.DataFrame:
    """Hours in the text beside the appendix's seconds an epoch times the epochs, VGG-11 & ResNet-32x4, CIFAR-100."""
    hours = paper("running_time_memory").query("quantity == 'total_running_time'")
    epochs = float(paper("hyperparameters").query("scope == 'CIFAR-100' and name == 'epochs'").value.iloc[0])
    seconds = paper("training_time_cifar").query("phase == 'train'")
    keys = ["dataset", "student", "teacher", "method", "timesteps"]
    both = hours.merge(seconds[[*keys, "seconds_per_epoch"]], on=keys, how="left", validate="one_to_one")
    both["hours_in_text"] = both.value
    both["hours_from_appendix"] = (both.seconds_per_epoch * epochs / 3600).round(2)
    both["method"], both["timesteps"] = both.method.map(LABELS), both.timesteps.astype(int)
    return both[["method", "timesteps", "hours_in_text", "seconds_per_epoch", "hours_from_appendix"]]


def inference_times() -> pd.DataFrame:
    """Seconds of inference of one student at one T, lowest and highest over teachers and methods."""
    table = paper("training_time_cifar").query("phase == 'infer'")
    groups = table.groupby(["dataset", "student", "timesteps"]).seconds_per_epoch
    found = groups.agg(lowest="min", highest="max", values="size").reset_index()
    return found.assign(ratio=(found.highest / found.lowest).round(2))


def times_sentence() -> str:
    """What the times allow to say."""
    table, inference = times(), inference_times()
    ratio = table.hours_from_appendix / table.hours_in_text
    cheapest = {
        name: [f"T={t}" for t, rows in table.groupby("timesteps") if rows.loc[rows[name].idxmin()].method == "SASTC"]
        for name in ("hours_in_text", "hours_from_appendix")
    }
    words = {name: f"at {' and '.join(found)}" if found else "at no T" for name, found in cheapest.items()}
    return (
        f"The appendix's times (if they are seconds) give {ratio.min():.1f} to {ratio.max():.1f} times the hours of "
        f"the text. By the text SASTC is the cheapest method {words['hours_in_text']}, by the appendix "
        f"{words['hours_from_appendix']}. Early stopping, which the energy section mentions, or other hardware could "
        "be the reason. Inference of one and the same network differs by a factor of up to "
        f"{inference.ratio.max():.1f} between methods and teachers, which take no part in it."
    )


def deviations() -> pd.DataFrame:
    """Accuracies printed on each dataset, the trials that the setup announces, and the deviations printed."""
    tables = [paper(name) for name in ("cifar_accuracy", "imagenet_accuracy", "noisy_labels", "few_shot", "batch_size")]
    trials = paper("hyperparameters").query("name == 'trials'").set_index("scope").value
    rows = []
    for dataset in ("CIFAR-10", "CIFAR-100", "ImageNet"):
        parts = [t[t.dataset == dataset] for t in tables]
        spread = sum(int(p.filter(regex="deviation|std|sd$").notna().to_numpy().sum()) for p in parts)
        rows.append(dict(dataset=dataset, accuracies=sum(map(len, parts)), trials_announced=trials[dataset],
                         deviations_printed=spread))  # fmt: skip
    return pd.DataFrame(rows)


def deviations_sentence() -> str:
    """What is missing."""
    table = deviations()
    several = table[table.trials_announced.astype(float) > 1]
    return (
        f"Means and standard deviations over {several.trials_announced.iloc[0]} trials are announced for "
        f"{' and '.join(several.dataset)}; of {several.accuracies.sum()} accuracies, "
        f"{several.deviations_printed.sum() or 'none'} has one."
    )


def conclusions() -> list[str]:
    """What a reader may take from all of this, each with its reason."""
    from companion.pages import forensics, forensics_digits

    claims, gains = forensics.claimed_numbers(), forensics_digits.gains_beside_errors().set_index("against")
    printed = forensics.shared_cells()
    sizes = (forensics_digits.SHARD, forensics_digits.TEST_IMAGES)
    names = ["cells", "above", *(f"beyond_1_96_errors_on_{images}" for images in sizes)]
    cells, above, *seen = gains.loc[LABELS["kd"], names].astype(int)
    within = [f"{cells - n} of {cells} cells on {images:,}" for n, images in zip(seen, sizes, strict=True)]
    median = gains.loc[LABELS["kd"], "median_gain"]
    return [
        f"The direction of the main result is well supported by the tables: SASTC is above KD in {above} of {cells} "
        f"cells, by {median:.2f} points (median).",
        f"A single cell says little. With the errors of two methods added as if their test images were different (on "
        f"the same images they are smaller), a gain over KD lies within 1.96 standard errors in {' and '.join(within)} "
        "test images.",
        f"{len(printed)} cells are printed more than once: in {int((printed['nunique'] == 1).sum())} the values are "
        f"equal, in the others they are up to {printed.spread.max():.2f} points apart.",
        f"Most numbers of the text are right ({int(claims.agree.sum())} of {len(claims)}); the headline for "
        "CIFAR-100 at T=2 has two values, and the tables do not say which is the measured one.",
        "Energies and times should not be used as targets: they cannot be derived from what is printed.",
        "None of this says that anybody meant to mislead. Numbers that change while a paper is written, and one "
        "process of four that reports its own share of the test set, could explain much of it.",
    ]
