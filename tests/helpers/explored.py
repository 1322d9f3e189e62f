"""Runs with made-up measures, as the explorer shows them."""

import numpy as np

from sastc.config import RunConfig
from sastc.records import Run, write_arrays, write_json

E, N, P, M = 5, 10, 6, 24  # epochs, classes, images by themselves, images in the similarity matrices


def record(folder, extras=True, complete=True, epochs=E, layers=(4, 3), **settings):
    """A run folder with made-up measures; without `extras`, one of an older version."""
    config = RunConfig(scale="quick", **settings)
    rng = np.random.default_rng(len(config.name) + config.seed + config.timesteps)
    steps, (students, teachers) = config.timesteps, layers
    scores = rng.uniform(-1, 1, (epochs, P + 2, steps, students, teachers))
    scores[..., 1, :] = scores[:, :2, :, 0] = [1] + [-1] * (teachers - 1)  # at the bound: one layer, and two images
    instance = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    by_class = instance[:, :1] + 0.01 * rng.uniform(-1, 1, (epochs, N, steps, students, teachers))
    by_class[:, 9] = np.nan  # a class without images
    shape = (epochs, steps, students, teachers)
    measures = {
        "attention": instance.mean(1),
        "attention_class": by_class,
        "attention_instance": instance[:, :P],
        "distance": np.exp(rng.uniform(np.log(0.02), np.log(7), shape)),
        "student_layers": np.array([f"stage{i + 1}" for i in range(students)]),
        "teacher_layers": np.array([f"block{i + 1}" for i in range(teachers)]),
    }
    if extras:
        similarity = rng.normal(0, 50, (steps * students + teachers, M, M))
        similarity += similarity.swapaxes(-1, -2)
        measures |= {
            "cka": rng.uniform(-0.05, 1, shape),
            "class_names": np.array([f"c{i}" for i in range(N - 1)] + ["</script>"]),
            "instance_index": np.arange(P) * 7 + 40,
            "instance_label": np.arange(P),
            "instance_image": rng.integers(0, 256, (P, 1, 8, 8), dtype=np.uint8),
            "instance_logits": rng.normal(0, 2, (P, steps, N)),
            "similarity_student": similarity[teachers:].reshape(steps, students, M, M),
            "similarity_teacher": similarity[:teachers],
            "similarity_label": rng.integers(0, N, M),
        }
    path = folder / "quick" / config.name
    write_json(path / "config.json", config.to_dict())
    write_arrays(path / "measures.npz", measures)
    rows = [f"{e + 1},{60 + 3.25 * e}" for e in range(epochs)]
    (path / "history.csv").write_text("\n".join(["epoch,test_accuracy", *rows]) + "\n")
    if complete:
        write_json(path / "metrics.json", {"accuracy": 73.0})
    return Run(path)
