"""Small calibrations with random weights, and what the reference makes of the same."""

import numpy as np
import reference
import torch
from torch import nn

from sastc.calibration import SelfAttentiveCalibration

# 4x4 on 3x3 pools with overlapping cells, 4x4 on 2x2 pools evenly, 2x2 on 4x4 and 3x3 is the small student
STUDENTS = [(2, 4, 4), (3, 2, 2)]
TEACHERS = [(2, 4, 4), (3, 3, 3), (2, 2, 2)]
STEPS, BATCH = 2, 4


def build(students=STUDENTS, teachers=TEACHERS, batch_size=BATCH, seed=0, **options):
    """Module in float64 with every weight random, batch-norm's included."""
    torch.manual_seed(seed)
    module = SelfAttentiveCalibration(students, teachers, batch_size, **{"hidden": 5, "embedding": 3} | options)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 0.3, 0.5)
    return module.double()


def features(students=STUDENTS, teachers=TEACHERS, steps=STEPS, batch=BATCH, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [draw(steps, batch, *shape).abs() for shape in students], [draw(batch, *shape) for shape in teachers]


def projectors_of(module):
    """Projectors by (student layer, teacher layer)."""
    return dict(zip(module.distances.pairs, module.distances.projectors, strict=True))


def weights_of(module):
    """Query MLPs, key MLPs and projectors of the module as numpy arrays."""

    def arrays(*tensors):
        return tuple(tensor.detach().numpy() for tensor in tensors)

    def mlp(m):
        return arrays(m[0].weight, m[0].bias, m[2].weight, m[2].bias)

    def projector(p):
        affine = (p.norm.weight, p.norm.bias) if isinstance(p.norm, nn.BatchNorm2d) else (torch.ones(1),) * 2
        return arrays(p.conv3.weight, *affine, p.conv1.weight)

    projectors = {pair: projector(p) for pair, p in projectors_of(module).items()}
    return [mlp(m) for m in module.query], [mlp(m) for m in module.key], projectors


MATCHING = {"qk_norm", "score_scale", "sim_norm", "sim_order"}
RESIZING = {"resize_student", "small_student"}


def loops(student, teacher, weights, width, similar=None, **options):
    """Attention, distances and both similarities by the reference, from numpy features.

    ``similar`` are the student features that the similarity matrices see; others than ``student`` to freeze them.
    """
    queries, keys, projectors = weights
    similar = student if similar is None else similar
    students = np.stack([[reference.similarity(f[t]) for f in similar] for t in range(len(similar[0]))])
    teachers = np.stack([reference.similarity(f) for f in teacher])
    matching = {name: value for name, value in options.items() if name in MATCHING}
    resizing = {name: value for name, value in options.items() if name in RESIZING}
    return (
        reference.attention(students, teachers, queries, keys, width=width, **matching),
        reference.distances(student, teacher, projectors, bn=options.get("projector_bn", "per_step"), **resizing),
        students,
        teachers,
    )


def as_numpy(tensors):
    return [tensor.detach().numpy().copy() for tensor in tensors]


def agree(ours, theirs):
    for field, expected in zip(ours, theirs, strict=True):
        assert field.shape == expected.shape
        np.testing.assert_allclose(field.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
