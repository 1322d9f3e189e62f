"""Self-attentive spatio-temporal calibration: which teacher layer should guide which student layer, and when (Eq. 2-5).

Shapes: T time steps, B instances, S student layers, A teacher layers. Student features are ``(T, B, C, H, W)``, teacher
features ``(B, C, H, W)``, attention and distances ``(T, B, S, A)``. A teacher that sees each step's frame has features
``(T, B, C, H, W)`` and similarities ``(T, A, B, B)``; then step t is compared with step t.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sastc import distributed
from sastc.attention import attention_bounds
from sastc.checks import check, check_integer, check_number, check_one_of, is_count
from sastc.cka import linear_cka
from sastc.fields import choices
from sastc.losses import exact, no_autocast
from sastc.recompute import recomputed, wanted

Shape = tuple[int, int, int]


def similarity(features: Tensor, instances: int | None = None) -> Tensor:
    """Eq. 3: ``R(f) R(f)'``, the dot products of all pairs of instances, in at least float32.

    ``(..., B, C, H, W)`` to ``(..., B, B)``: leading time steps are kept apart. With `instances`, the size of the batch
    over all processes, to ``(..., B, instances)``: a row for each instance here, a column for each of the whole batch.
    An instance with a feature of NaN has a row and a column of NaN; with one of inf, of inf or NaN.
    """
    rows = features.flatten(-3)
    columns = rows if instances is None else distributed.gather(rows, -2, instances)
    with no_autocast(rows):
        return exact(rows) @ exact(columns).mT


def layer_pairs(pairs: str | Sequence[tuple[int, int]], students: int, teachers: int) -> list[tuple[int, int]]:
    """Zero-based (student layer, teacher layer) pairs of so many layers, or a ValueError.

    `pairs` is "all"; "one_to_one" (each student layer with the teacher layer at the nearest relative depth); "last"
    (the deepest of both); a text such as "1-2,3-3" (one-based); or the pairs themselves (zero-based).
    """
    named = isinstance(pairs, str)
    if named and pairs == "all":
        chosen = [(s, a) for s in range(students) for a in range(teachers)]
    elif named and pairs == "one_to_one":
        scale = (teachers - 1) / max(students - 1, 1)
        chosen = [(s, math.floor(s * scale + 0.5)) for s in range(students)]
    elif named and pairs == "last":
        chosen = [(students - 1, teachers - 1)]
    else:
        first = int(named)  # names count layers from one, numbers from zero
        try:
            given = [pair.split("-") for pair in pairs.split(",")] if named else pairs
            number: Callable[[Any], int] = int if named else operator.index
            chosen = [tuple(number(i) - first for i in pair) for pair in given]  # type: ignore[misc]
        except (TypeError, ValueError):
            chosen = []
        valid = bool(chosen) and all(len(p) == 2 and 0 <= p[0] < students and 0 <= p[1] < teachers for p in chosen)
        allowed = f"all, one_to_one, last, or student-teacher pairs such as {'1-1,2-3' if named else '(0, 0), (1, 2)'} "
        last = students - 1 + first, teachers - 1 + first
        allowed += f"with student layers {first}..{last[0]} and teacher layers {first}..{last[1]}"
        check("pairs", pairs, valid, allowed)
    return chosen


def check_features(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    student_shapes: Sequence[Shape] | None = None,
    teacher_shapes: Sequence[Shape] | None = None,
) -> None:
    """Raise a ValueError unless the maps have the shapes of this module, and the given (C, H, W)."""
    sides = (
        ("student_features", student_features, student_shapes, (5,), "(T, B, C, H, W)"),
        ("teacher_features", teacher_features, teacher_shapes, (4, 5), "all (B, C, H, W) or all (T, B, C, H, W)"),
    )
    for field, features, expected, dims, allowed in sides:
        shapes = [tuple(f.shape) for f in features]
        if len({len(shape) for shape in shapes}) != 1 or len(shapes[0]) not in dims:
            raise ValueError(
                f"{field}: shapes {shapes}, must be {allowed}; a vector is a map of one pixel, f[..., None, None], "
                "and tokens (without a class token) are f.mT.unflatten(-1, (H, W))"
            )
        if expected is not None and (sizes := [shape[-3:] for shape in shapes]) != expected:
            raise ValueError(f"{field}: (C, H, W) of the layers are {sizes}, must be {expected}")
    steps = {len(f) for f in (*student_features, *teacher_features) if f.dim() == 5}
    if len(steps) != 1:
        raise ValueError(f"student_features, teacher_features: time steps {sorted(steps)}, must be equal")
    batches = {f.shape[-4] for f in (*student_features, *teacher_features)}
    if len(batches) != 1:
        raise ValueError(f"student_features, teacher_features: batches of {sorted(batches)} instances, must be equal")


def _in_type_of(module: nn.Module, features: Iterable[Tensor]) -> list[Tensor]:
    """The maps, such as boolean spikes, in the type of the module's weights; under autocast as they are."""
    weight = next(module.parameters(), None)

    def kept(f: Tensor) -> bool:
        kind = f.device.type
        return weight is None or (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind))

    return [f if kept(f) else f.to(weight.dtype) for f in features]


class Projector(nn.Module):
    """Eq. 2: brings one student map to one teacher map's channels and size, by a 3×3 and a 1×1 convolution.

    Called on ``(T, B, C_s, H, W)``; the weights are shared over time. Batch-norm statistics are those of each time step
    ("per_step", as the released code's loop over t does), of all steps together ("folded"), or there is none ("none").
    """

    def __init__(self, student_channels: int, teacher_channels: int, bn: str = "per_step"):
        super().__init__()
        # paper: 3x3, then 1x1  released: 3x3 to twice the target's channels, batch-norm, ReLU, 1x1
        self.conv3 = nn.Conv2d(student_channels, 2 * teacher_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * teacher_channels) if bn != "none" else nn.Identity()
        self.conv1 = nn.Conv2d(2 * teacher_channels, teacher_channels, 1, bias=False)
        self.bn = bn

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, C_s, H, W)`` to ``(T, B, C_a, H, W)``."""
        values = x[0, :, 0].numel() * (len(x) if self.bn == "folded" else 1)
        if values == 1 and self.training and isinstance(self.norm, nn.BatchNorm2d):
            raise ValueError(
                f"projector_bn={self.bn!r}: one instance with a map of one pixel has no variance; leave out a last "
                "batch of one, or take 'folded' (with T > 1) or 'none'"
            )
        h = self.conv3(x.flatten(0, 1))
        per_step = self.bn == "per_step" and self.training  # otherwise all steps are normalised alike
        h = _norm_relu(self.norm, h, len(x)) if per_step else F.relu(self.norm(h))
        return self.conv1(h).unflatten(0, x.shape[:2])


def _norm_relu(norm: nn.Module, h: Tensor, steps: int) -> Tensor:
    """ReLU of a training batch norm of each time step: ``(T·B, C, H, W)`` to the same."""
    plain = type(norm) is nn.BatchNorm2d and norm.momentum is not None and norm.affine and norm.track_running_stats
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if plain and h.device.type == "cpu" and type(h) is Tensor and not traced:
        norm.num_batches_tracked += steps
        running = norm.running_mean, norm.running_var
        return _NormRelu.apply(h, norm.weight, norm.bias, *running, steps, norm.momentum, norm.eps)
    return F.relu(torch.cat([norm(step) for step in h.chunk(steps)]))


class _NormRelu(torch.autograd.Function):
    """:func:`_norm_relu` as one node: torch's own kernels write where the result belongs, and nothing is copied.

    The numbers, and those of the gradients, are torch's to the last bit.
    """

    @staticmethod
    def forward(ctx, h, weight, bias, mean, variance, steps, momentum, eps):
        out, stats = torch.empty_like(h), weight.new_empty(steps, 2, len(weight))
        for x, y, (step_mean, inverse) in zip(h.chunk(steps), out.chunk(steps), stats, strict=True):
            torch.ops.aten.native_batch_norm.out(
                x, weight, bias, mean, variance, True, momentum, eps, out=y, save_mean=step_mean, save_invstd=inverse
            )
        ctx.save_for_backward(h, weight, out.relu_(), stats)
        ctx.eps = eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        h, weight, out, stats = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, out, 0)
        found, of_parameters = torch.empty_like(h), weight.new_empty(len(stats), 2, len(weight))
        parts = (part.chunk(len(stats)) for part in (grad, h, found))
        for g, x, to, (mean, inverse), (w, b) in zip(*parts, stats, of_parameters, strict=True):
            torch.ops.aten.native_batch_norm_backward.out(
                g, x, weight, None, None, mean, inverse, True, ctx.eps, [True] * 3, out0=to, out1=w, out2=b
            )
        of_weight, of_bias = functools.reduce(torch.add, of_parameters.flip(0).unbind())  # in autograd's order
        return found, of_weight, of_bias, *[None] * 5


def feature_distance(
    student: Tensor,
    target: Tensor,
    projector: nn.Module,
    *,
    resize_student: str = "max",
    small_student: str = "pool_target",
) -> Tensor:
    """``MSE(f_a[i], Proj(f_s^t, a)[i])`` of Eq. 6 for one pair of layers, after bringing both to one size.

    `student` is ``(T, B, C_s, H_s, W_s)``, `target` ``(B, C_a, H_a, W_a)`` or ``(T, B, C_a, H_a, W_a)``; `projector`
    maps ``(T, B, C_s, H, W)`` to ``(T, B, C_a, H, W)``. A student map that is higher or wider than its target is pooled
    to the target's size (`resize_student`: "max" or "avg"). Where any other has another size, the target is pooled to
    it, or the student's map is upsampled (`small_student`: "pool_target" or "upsample_student").

    Returns ``(T, B)``, the mean over channels and pixels, in at least float32. NaN where a map is NaN, infinite or NaN
    where one is infinite; max-pooling passes over −inf.
    """
    size, target_size = student.shape[-2:], target.shape[-2:]
    # paper: the student always takes the target's size  released: the larger of both is pooled
    if size[0] > target_size[0] or size[1] > target_size[1]:
        pool = _max_pool if resize_student == "max" else F.adaptive_avg_pool2d
        student = pool(student.flatten(0, 1), target_size).unflatten(0, student.shape[:2])
    elif size != target_size and small_student == "upsample_student":
        student = F.interpolate(student.flatten(0, 1), target_size).unflatten(0, student.shape[:2])
    else:
        target = F.adaptive_avg_pool2d(target.flatten(0, -4), size).unflatten(0, target.shape[:-3])
    difference = exact(projector(student)) - target
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return difference.square().mean((-3, -2, -1))
    return _MeanSquare.apply(difference)


class _MeanSquare(torch.autograd.Function):
    """Mean square of (T, B, C, H, W) over C, H and W; its gradient is one product, with the bits of autograd's."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square().mean((-3, -2, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return x * (2 * (grad / math.prod(x.shape[-3:])))[..., None, None, None]  # doubling is exact


def _max_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive max-pooling. A GPU does it for one memory layout alone and adds up gradients in any order."""
    ratio = [have // want for have, want in zip(x.shape[-2:], size, strict=True)]
    whole = all(have == r * want for have, r, want in zip(x.shape[-2:], ratio, size, strict=True))
    return F.max_pool2d(x, ratio) if whole else F.adaptive_max_pool2d(x, size)


class LayerDistances(nn.Module):
    """Distances of chosen (student, teacher) layer pairs, each with a projector of its own (Eq. 2 and 6).

    Parameters
    ----------
    student_shapes, teacher_shapes : sequence of (C, H, W)
        Shapes of the S student and A teacher layers.
    pairs : str or sequence of (int, int)
        P pairs, see :func:`layer_pairs`.
    resize_student, small_student, projector_bn : str
        See :func:`feature_distance` and :class:`Projector`.
    target_norm : {"none", "layer"}
        "layer" (not in the paper) standardises each teacher layer over the batch, so that no layer is an easier target
        for the size of its activations.
    target_scale : sequence of float
        Factors on the teacher layers' features (not in the paper), one a layer; empty for none. A layer scaled down has
        smaller distances, whatever it means.
    """

    recompute = False  # keep no activations of the projectors for the backward pass, see sastc.recompute

    def __init__(
        self,
        student_shapes: Sequence[Shape],
        teacher_shapes: Sequence[Shape],
        pairs: str | Sequence[tuple[int, int]],
        *,
        resize_student: str = "max",
        small_student: str = "pool_target",
        projector_bn: str = "per_step",
        target_norm: str = "none",
        target_scale: Sequence[float] = (),
    ):
        super().__init__()
        given = dict(resize_student=resize_student, small_student=small_student, projector_bn=projector_bn)
        _check_choices(given | dict(target_norm=target_norm))
        self.target_norm = target_norm
        self.student_shapes = _layer_shapes("student_shapes", student_shapes)
        self.teacher_shapes = _layer_shapes("teacher_shapes", teacher_shapes)
        self.target_scale = tuple(target_scale)
        count = len(self.teacher_shapes)
        positive = all(isinstance(f, Real) and 0 < f < math.inf for f in self.target_scale)
        valid = positive and len(self.target_scale) in (0, count)
        check("target_scale", target_scale, valid, f"{count} numbers > 0, one for each teacher layer")
        self.pairs = layer_pairs(pairs, len(self.student_shapes), len(self.teacher_shapes))
        self.sizes = dict(resize_student=resize_student, small_student=small_student)
        self.projectors = nn.ModuleList(
            Projector(self.student_shapes[s][0], self.teacher_shapes[a][0], projector_bn) for s, a in self.pairs
        )

    def forward(
        self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], instances: int | None = None
    ) -> Tensor:
        """``(T, B, P)`` distances; teacher features receive no gradient.

        With `instances`, the size of the batch over all processes, `target_norm` is over all of them.
        """
        student_features, teacher_features = _in_type_of(self, student_features), _in_type_of(self, teacher_features)
        check_features(student_features, teacher_features, self.student_shapes, self.teacher_shapes)
        targets = [f.detach() for f in teacher_features]
        if self.target_norm == "layer":
            targets = [_standardised(exact(f), over_all=instances is not None) for f in targets]
        if self.target_scale:
            targets = [factor * f for factor, f in zip(self.target_scale, targets, strict=True)]
        distances = []
        for (s, a), projector in zip(self.pairs, self.projectors, strict=True):
            distance: Callable[..., Tensor] = functools.partial(feature_distance, projector=projector, **self.sizes)
            maps = student_features[s], targets[a]
            distances.append(recomputed(distance, *maps, owner=projector) if wanted(self) else distance(*maps))
        return torch.stack(distances, -1)


def _standardised(features: Tensor, over_all: bool) -> Tensor:
    mean, std = distributed.mean_std(features) if over_all else (features.mean(), features.std())
    return (features - mean) / std.clamp_min(1e-6)


def _check_choices(given: dict[str, str]) -> None:
    for name, value in given.items():
        check_one_of(name, value, choices(name))


def _layer_shapes(field: str, shapes: Iterable[Shape]) -> list[Shape]:
    shapes = list(shapes)
    valid = bool(shapes) and all(isinstance(s, Sequence) and len(s) == 3 and all(map(is_count, s)) for s in shapes)
    check(field, shapes, valid, "one (channels, height, width) for each layer; (F, 1, 1) for a vector of F features")
    return [(int(c), int(h), int(w)) for c, h, w in shapes]


class Calibration(NamedTuple):
    """What :class:`SelfAttentiveCalibration` returns."""

    attention: Tensor  # (T, B, S, A), η of Eq. 5; sums to one over A
    distances: Tensor  # (T, B, S, A), mean squared difference of each instance's projected and target map
    student_similarity: Tensor  # (T, S, B, B), or (T, S, B, instances), the columns those of all processes
    teacher_similarity: Tensor  # (A, B, B), or (T, A, B, B), or the same with as many columns


class SelfAttentiveCalibration(nn.Module):
    """Attention from student layers at each time step to teacher layers (Eq. 2-5).

    Parameters
    ----------
    student_shapes, teacher_shapes : sequence of (C, H, W)
        Shapes of the S student and A teacher candidate layers, without batch and time.
    batch_size : int
        Input width of the query and key MLPs, which read rows of the ``B × B`` similarity matrices. A smaller batch is
        padded with zero similarities; a larger one is an error.
    hidden, embedding : int, optional
        Widths of the MLPs; ``batch_size // 2`` and ``batch_size // 4`` by default. The released code has
        ``2 * (batch_size // 4)`` and ``batch_size // 4``, the same where 4 divides the batch size. With `qk_norm` an
        embedding of at least 2: a single number normalises to 1 or -1 and has no gradient.
    qk_norm : bool
        L2-normalise queries and keys. Scores then lie in ``[-score_scale, score_scale]``, see :meth:`attention_bounds`.
    score_scale : float
        Factor on the scores of Eq. 5.
    mlp_sharing : {"per_layer", "shared"}
        One MLP for each layer (released), or one for all queries and one for all keys (Eq. 4 to the letter).
    sim_norm : {"none", "row_l2"}
        Normalisation of the similarity rows before the MLPs.
    sim_order : {"batch", "sorted"}
        "sorted" sorts each row, so that attention does not depend on the order of the batch.
    detach_sim : bool
        Keep the loss from reaching the student through the attention weights.
    attention : {"learned", "untrained", "uniform", "random", "cka", "easiest", "hardest"}
        Where the weights come from. The paper's are "learned". The others are controls: the same MLPs, but no gradient
        passes through the weights, so they stay as they start; ``1 / A``; softmax of scores drawn once in the bounds;
        softmax of the layers' linear CKA in the batch, spread over the scores' range; or all on the teacher layer with
        the smallest or the largest distance, of each instance, step and student layer. The controls' MLPs get no
        gradient: DistributedDataParallel then needs ``find_unused_parameters=True``.
    resize_student, small_student, projector_bn, target_norm, target_scale
        See :class:`LayerDistances`.
    """

    recompute = False  # keep no copies of features for the similarities' backward pass, see sastc.recompute

    def __init__(
        self,
        student_shapes: Sequence[Shape],
        teacher_shapes: Sequence[Shape],
        batch_size: int,
        *,
        hidden: int | None = None,
        embedding: int | None = None,
        qk_norm: bool = True,
        score_scale: float = 1.0,
        mlp_sharing: str = "per_layer",
        sim_norm: str = "none",
        sim_order: str = "batch",
        detach_sim: bool = False,
        attention: str = "learned",
        resize_student: str = "max",
        small_student: str = "pool_target",
        projector_bn: str = "per_step",
        target_norm: str = "none",
        target_scale: Sequence[float] = (),
    ):
        super().__init__()
        given = dict(mlp_sharing=mlp_sharing, sim_norm=sim_norm, sim_order=sim_order, attention=attention)
        _check_choices(given)
        for name, value in dict(batch_size=batch_size, hidden=hidden, embedding=embedding).items():
            if value is not None or name == "batch_size":
                check_integer(name, value, 1)
        for name, value in dict(qk_norm=qk_norm, detach_sim=detach_sim).items():
            check(name, value, isinstance(value, bool), "True or False")
        check_number("score_scale", score_scale, None)
        hidden = max(1, batch_size // 2) if hidden is None else hidden
        embedding = max(2 if qk_norm else 1, batch_size // 4) if embedding is None else embedding
        check("embedding", embedding, embedding > 1 or not qk_norm, "at least 2 with qk_norm=True")
        self.student_shapes = _layer_shapes("student_shapes", student_shapes)
        self.teacher_shapes = _layer_shapes("teacher_shapes", teacher_shapes)
        self.batch_size, self.qk_norm, self.score_scale = batch_size, qk_norm, score_scale
        self.sim_norm, self.sim_order, self.detach_sim = sim_norm, sim_order, detach_sim

        def mlps(layers: int) -> nn.ModuleList:
            # paper: MLP_Q and MLP_K without a layer index  released: one MLP for each layer, shared over time
            def mlp() -> nn.Module:
                return nn.Sequential(nn.Linear(batch_size, hidden), nn.ReLU(), nn.Linear(hidden, embedding))

            return nn.ModuleList([mlp()] * layers if mlp_sharing == "shared" else [mlp() for _ in range(layers)])

        self.query, self.key = mlps(len(self.student_shapes)), mlps(len(self.teacher_shapes))
        options: dict[str, Any] = dict(resize_student=resize_student, small_student=small_student)
        options |= dict(projector_bn=projector_bn, target_norm=target_norm, target_scale=target_scale)
        self.distances = LayerDistances(self.student_shapes, self.teacher_shapes, "all", **options)
        self.source = attention
        if attention == "random":
            scores = 2 * torch.rand(len(self.student_shapes), len(self.teacher_shapes)) - 1
            self.register_buffer("scores", scores)

    def forward(
        self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], instances: int | None = None
    ) -> Calibration:
        """Attention and distances of one batch: S student maps, and A teacher maps, which receive no gradient.

        `instances` is the size of the batch over all processes of a distributed run, of which this one has its share
        of B. Attention then is what it would be if one process had the whole batch.

        A feature that is NaN makes attention NaN for the whole batch, since every row of the similarity matrices has an
        entry of its instance, and by the projectors' batch norms distances, too. So do infinite ones, but where ReLU or
        max-pooling cuts them off. Attention that is uniform or random stays finite.

        Raises
        ------
        ValueError
            Shapes that differ from those given at construction, a batch larger than `batch_size`, one instance with a
            map of one pixel where batch-norm trains on it alone, or weights of less than float32: a calibration is not
            cast, its networks may run under ``torch.autocast``.
        """
        student_features, teacher_features = _in_type_of(self, student_features), _in_type_of(self, teacher_features)
        check_features(student_features, teacher_features, self.student_shapes, self.teacher_shapes)
        if (batch := instances or student_features[0].shape[1]) > self.batch_size:
            raise ValueError(f"batch of {batch} instances: must be at most batch_size={self.batch_size}")
        targets = [f.detach() for f in teacher_features]
        if wanted(self):
            students, teachers = recomputed(self.similarities, student_features, targets, instances)
        else:
            students, teachers = self.similarities(student_features, targets, instances)
        distances = self.distances(student_features, teacher_features, instances)
        distances = distances.unflatten(-1, (len(self.student_shapes), len(self.teacher_shapes)))
        return Calibration(self.attention(students, teachers, distances), distances, students, teachers)

    @staticmethod
    def similarities(
        student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], instances: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Eq. 3 for every layer and time step: ``(T, S, B, B)`` and ``(A, B, B)`` or ``(T, A, B, B)``."""
        student_features, teacher_features = list(student_features), list(teacher_features)
        check_features(student_features, teacher_features)
        students = torch.stack([similarity(f, instances) for f in student_features], 1)
        return students, torch.stack([similarity(f, instances) for f in teacher_features], -3)

    def attention(
        self, student_similarity: Tensor, teacher_similarity: Tensor, distances: Tensor | None = None
    ) -> Tensor:
        """Eq. 4 and 5: weights ``(T, B, S, A)`` from similarities ``(T, S, B, B)`` and ``(A, B, B)``.

        The controls "easiest" and "hardest" take them from the distances ``(T, B, S, A)``; ties go to the first layer.
        """
        if self.source in ("easiest", "hardest"):
            check("distances", distances, distances is not None, f"given for attention={self.source!r}")
            chosen = (distances if self.source == "easiest" else -distances).argmin(-1)
            return F.one_hot(chosen, distances.shape[-1]).to(distances.dtype)
        if self.source in ("uniform", "random", "cka"):
            return self._given(student_similarity, teacher_similarity)
        weights = self._attend(student_similarity, teacher_similarity)
        return weights.detach() if self.source == "untrained" else weights

    def _given(self, student_similarity: Tensor, teacher_similarity: Tensor) -> Tensor:
        """The weights of the controls, the same for every instance."""
        (steps, students, batch), teachers = student_similarity.shape[:3], teacher_similarity.shape[-3]
        if self.source == "uniform":
            scores = student_similarity.new_zeros(steps, students, teachers)
        elif self.source == "random":
            scores = self.scores.expand(steps, -1, -1)
        else:
            square = [student_similarity.detach(), teacher_similarity]
            if batch != (columns := student_similarity.shape[-1]):
                square = [distributed.gather(rows, -2, columns) for rows in square]
            cka = linear_cka(*square)
            low, high = cka.amin(-1, keepdim=True), cka.amax(-1, keepdim=True)
            scores = 2 * (cka - low) / (high - low).clamp_min(1e-12) - 1
        scores = (self.score_scale * scores).to(student_similarity.dtype)
        return scores.softmax(-1).unsqueeze(1).expand(-1, batch, -1, -1)

    def _attend(self, student_similarity: Tensor, teacher_similarity: Tensor) -> Tensor:
        if self.detach_sim:
            student_similarity = student_similarity.detach()
        queries = self._embed(self.query, student_similarity.transpose(0, 1))  # (S, T, B, E)
        keys = self._embed(self.key, teacher_similarity.movedim(-3, 0))  # (A, B, E) or (A, T, B, E)
        with no_autocast(queries):
            scores = torch.einsum("stbe,abe->tbsa" if keys.dim() == 3 else "stbe,atbe->tbsa", queries, keys)
        return (self.score_scale * scores).softmax(-1)

    def _embed(self, mlps: nn.ModuleList, similarities: Tensor) -> Tensor:
        """Apply the l-th MLP to the rows of the l-th layer's matrices: ``(L, ..., B, B)`` to ``(L, ..., B, E)``."""
        rows = similarities
        if self.sim_norm == "row_l2":
            norm = rows.norm(dim=-1, keepdim=True)
            rows = rows / norm.masked_fill(norm == 0, 1.0)
        if self.sim_order == "sorted":
            rows = rows.sort(-1, descending=True).values
        rows = F.pad(rows, (0, self.batch_size - rows.shape[-1]))
        dtype = mlps[0][0].weight.dtype
        check("weights", dtype, dtype == rows.dtype, f"{rows.dtype} as the similarities; keep them, use torch.autocast")
        with no_autocast(rows):  # sums of many spikes overflow bf16's 8 bits
            embedded = torch.stack([mlp(row) for mlp, row in zip(mlps, rows, strict=True)])
        # paper: none  released: L2 norm, without an epsilon
        return F.normalize(embedded, dim=-1) if self.qk_norm else embedded

    def attention_bounds(self) -> tuple[float, float]:
        """See :func:`attention_bounds`."""
        return attention_bounds(len(self.teacher_shapes), self.qk_norm, self.score_scale, self.source)
