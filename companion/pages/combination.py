"""The page of one run of a student and its teacher: where its attention goes, cell by cell."""

import math

import numpy as np
import pandas as pd

from companion.pages.parts import table
from sastc.records import Run


def cells_table(run: Run) -> str:
    """HTML table of one run after its last epoch: for each student layer and time step where the weight goes, and why.

    The download holds weight, distance and CKA of every pair of layers.
    """
    measures, config = run.measures, run.config
    students, teachers = ([str(n) for n in measures[f"{who}_layers"]] for who in ("student", "teacher"))
    eta, distance, cka = (measures[n][-1].astype(float) for n in ("attention", "distance", "cka"))  # (T, S, A)
    low, high = config.attention_bounds(len(teachers))
    entropy = -(eta * np.log(np.maximum(eta, 1e-12))).sum(-1) / math.log(len(teachers))
    rows, long = [], []
    for s, t in np.ndindex(len(students), len(eta)):
        place = dict(student_layer=students[s], step=t + 1)
        best, easy, like = eta[t, s].argmax(), distance[t, s].argmin(), cka[t, s].argmax()
        rows.append(place | dict(
            highest=f"{teachers[best]} ({eta[t, s, best]:.3f})",
            at_bound=eta[t, s, best] >= high - 0.01 * (high - low),
            easiest=f"{teachers[easy]} ({distance[t, s, easy]:.3g})",
            likest=f"{teachers[like]} ({cka[t, s, like]:.2f})",
            entropy=entropy[t, s],
        ))  # fmt: skip
        long += [
            place | dict(teacher_layer=name, weight=eta[t, s, a], distance=distance[t, s, a], cka=cka[t, s, a])
            for a, name in enumerate(teachers)
        ]
    columns = {"student layer": "student_layer", "step": "step", "highest weight η": "highest"}
    columns |= {"at the bound": "at_bound", "lowest distance": "easiest", "highest CKA": "likest"}
    columns |= {"entropy / ln A": "entropy"}
    caption = (
        "After the last epoch, means over test images: the teacher layer that has the weight, the one that is easiest "
        f"to imitate, and the one that is most similar. The bounds of η are {low:.3f} and {high:.3f}."
    )
    return table(pd.DataFrame(rows), caption, f"{run.name}-attention", columns, csv=pd.DataFrame(long))
