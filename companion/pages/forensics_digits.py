"""What the digits of the paper's accuracies say about how they were measured."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from companion.pages.forensics import tables, wide
from companion.pages.parts import paper
from sastc.labels import LABELS

TEST_IMAGES, SHARD = 10_000, 2_500  # CIFAR's test split, and a quarter of it: the share of one process in four


def on_grid(values: pd.Series, images: int = SHARD) -> pd.Series:
    """Whether each printed percentage is a whole number of so many images (100 / images must be whole hundredths)."""
    step = 10_000 // images
    return (values * 100).round().astype(int) % step == 0


def grid_groups() -> dict[str, pd.Series]:
    """Groups of printed accuracies on CIFAR: Table 2 in parts, the other tables, and as a control the cited papers'."""
    table = tables().cells
    taught = table.method.isin(["kd", "sastc"]) & (table.student == "VGG-11") & (table.dataset == "CIFAR-10")
    single = table.method != "feature_kd"
    cited = paper("sota_static").query("dataset != 'ImageNet' and method != 'SASTC'")
    students = "method != 'teacher_ann'"
    return {
        "Table 2: baseline, KD, SASTC": table[single].accuracy,
        "of these, CIFAR-10 VGG-11 with KD or SASTC": table[single & taught].accuracy,
        "of these, all others": table[single & ~taught].accuracy,
        "Table 2: feature KD, announced as an average": table[~single].accuracy,
        "batch-size table": paper("batch_size").accuracy,
        "Table 7, students": paper("noisy_labels").query(students).accuracy,
        "few-shot table, students": paper("few_shot").query(students).accuracy,
        "control: other papers' values in Table 4": cited.accuracy,
    }


def grid_shares() -> pd.DataFrame:
    """Share of each group on the grid of 1/2500, with exact one-sided binomial tests.

    Two expectations: 1/4 if accuracies come from 10,000 images (one hundredth in four is a multiple of 0.04), and 1/3
    if they are means of three trials on 2,500 images each.
    """
    rows = []
    for group, values in grid_groups().items():
        hits, n = int(on_grid(values).sum()), len(values)
        quarter, third = (binomtest(hits, n, p, alternative="greater").pvalue for p in (1 / 4, 1 / 3))
        rows.append(dict(group=group, values=n, multiples=hits, share=hits / n,
                         p_if_10000_images=quarter, p_if_mean_of_three=third))  # fmt: skip
    return pd.DataFrame(rows)


def grid_sentence() -> str:
    """What the shares say."""
    rows = grid_shares().set_index("group")
    first, control = rows.iloc[0], rows.iloc[-1]
    return (
        f"{first.multiples:.0f} of {first['values']:.0f} accuracies of baseline, KD and SASTC in Table 2 are "
        f"multiples of {100 / SHARD:g} %, one image in {SHARD:,}. If they came from all {TEST_IMAGES:,} test images, "
        f"about {first['values'] / 4:.0f} would be; so many or more would come about with probability "
        f"{first.p_if_10000_images:.0e}. Means of three trials on {SHARD:,} images would give about a third (p = "
        f"{first.p_if_mean_of_three:.0e}). Among the {control['values']:.0f} values that Table 4 cites from other "
        f"papers it is {control.multiples:.0f} (p = {control.p_if_10000_images:.2g})."
    )


def standard_error(percent: float | np.ndarray, images: int) -> float | np.ndarray:
    """Standard error in points of an accuracy measured on so many images."""
    return np.sqrt(percent * (100 - percent) / images)


def gains_beside_errors() -> pd.DataFrame:
    """Table 2's gains of SASTC beside what the number of test images lets one see in a single run.

    Errors of two methods are added as if their test images were different; on the same images they are smaller. Sign
    tests are one-sided: SASTC is above.
    """
    table, rows = wide(), []
    for other in ("baseline", "kd", "feature_kd"):
        gain = table.sastc - table[other]
        sign = binomtest(int((gain > 0).sum()), int((gain != 0).sum()), 0.5, alternative="greater").pvalue
        row = dict(against=LABELS[other], cells=len(gain), above=int((gain > 0).sum()), p_of_signs=sign,
                   median_gain=round(float(gain.median()), 2))  # fmt: skip
        for images in (SHARD, TEST_IMAGES):
            errors = np.hypot(standard_error(table.sastc, images), standard_error(table[other], images))
            row[f"beyond_1_96_errors_on_{images}"] = int((gain > 1.96 * errors).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def gains_sentence() -> str:
    """What shards would do to the standard error, and what remains."""
    rows = gains_beside_errors().set_index("against")
    kd, level = (
        rows.loc[LABELS["kd"]].to_dict(),
        float(tables().cells.query("dataset == 'CIFAR-100'").accuracy.median()),
    )
    small, large = (standard_error(level, n) for n in (SHARD, TEST_IMAGES))
    return (
        f"At {level:.1f} %, the median of Table 2 on CIFAR-100, one run has a standard error of {small:.2f} points "
        f"on {SHARD:,} images and {large:.2f} on {TEST_IMAGES:,}. Taken alone, SASTC's gain over KD is larger than "
        f"1.96 errors of a difference in {kd[f'beyond_1_96_errors_on_{SHARD}']:.0f} of {kd['cells']:.0f} cells on "
        f"{SHARD:,} images and in {kd[f'beyond_1_96_errors_on_{TEST_IMAGES}']:.0f} on {TEST_IMAGES:,}. Taken "
        f"together they are not noise: SASTC is above KD in {kd['above']:.0f} of {kd['cells']:.0f} cells (one-sided "
        f"sign test p = {kd['p_of_signs']:.0e}, were the cells independent; they share baselines, teachers and test "
        "images)."
    )
