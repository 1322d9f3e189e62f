"""The published algorithm, written plainly: what the library's speed is compared with.

Loops over time steps, student layers and teacher layers; one autograd node for each operation of each step; nothing
fused, batched or shared. Written from the equations and from how the released code is described, in that style: a
static image is copied T times before the first convolution, the classifier runs at every step, batch norm in the
projectors sees one step at a time, everything is float32 and contiguous. Two things are done once although a naive
loop would repeat them, so that the reference is no straw man: the teacher's similarities and keys, and the folding of
time into the batch for convolutions. Convolutions, batch norms and matrix products are PyTorch's, as in the library.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]


class Spike(torch.autograd.Function):
    """Eq. 9 and 11 for one step: 1 where d > 0; backward ``max(0, γ - |d|) / γ²``."""

    @staticmethod
    def forward(ctx, d: Tensor, gamma: float) -> Tensor:
        """Spikes of the distances d = u - V_th."""
        ctx.save_for_backward(d)
        ctx.gamma = gamma
        return (d > 0).to(d.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        """Triangle."""
        (d,) = ctx.saved_tensors
        return grad * torch.clamp(ctx.gamma - d.abs(), min=0) / ctx.gamma**2, None


class PlainLIF(nn.Module):
    """Eq. 9-10 step by step, with autograd through every operation: (T, B, ...) to (T, B, ...)."""

    def __init__(self, decay: float = 0.5, threshold: float = 1.0, gamma: float = 0.3):
        super().__init__()
        self.decay, self.threshold, self.gamma = decay, threshold, gamma

    def forward(self, x: Tensor) -> Tensor:
        """Spikes; the potential is float32 under half precision too."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        u, spikes = torch.zeros_like(x[0], dtype=dtype), []
        for current in x:
            u = self.decay * u + current.to(dtype)
            o = Spike.apply(u - self.threshold, self.gamma)
            u = u * (1 - o)
            spikes.append(o.to(x.dtype))
        return torch.stack(spikes)


class PlainCalibration(nn.Module):
    """Eq. 2-5 with loops over t, student layers and teacher layers.

    Parameters
    ----------
    student_shapes, teacher_shapes : sequence of (C, H, W)
    batch_size : int
        Input width of the query and key MLPs.
    """

    def __init__(self, student_shapes: Sequence[Shape], teacher_shapes: Sequence[Shape], batch_size: int):
        super().__init__()

        def mlp() -> nn.Module:
            hidden, out = max(1, batch_size // 2), max(2, batch_size // 4)
            return nn.Sequential(nn.Linear(batch_size, hidden), nn.ReLU(), nn.Linear(hidden, out))

        def projector(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(
                OrderedDict(
                    conv3=nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False),
                    norm=nn.BatchNorm2d(2 * outputs),
                    relu=nn.ReLU(),
                    conv1=nn.Conv2d(2 * outputs, outputs, 1, bias=False),
                )
            )

        self.query = nn.ModuleList(mlp() for _ in student_shapes)
        self.key = nn.ModuleList(mlp() for _ in teacher_shapes)
        self.projectors = nn.ModuleList(projector(s[0], a[0]) for s in student_shapes for a in teacher_shapes)

    def copy_from(self, calibration: nn.Module) -> "PlainCalibration":
        """Take the weights of the library's calibration."""
        state = calibration.state_dict()
        self.load_state_dict({name.replace("distances.", ""): value.clone() for name, value in state.items()})
        return self

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Attention and distances, each (T, B, S, A)."""
        keys = [self._embed(mlp, self._similarity(f)) for mlp, f in zip(self.key, teacher, strict=True)]
        attention, distances = [], []
        for t in range(len(student[0])):
            weights_t, distances_t = [], []
            for i, features in enumerate(student):
                query = self._embed(self.query[i], self._similarity(features[t]))
                weights_t.append(torch.stack([(query * key).sum(-1) for key in keys], -1).softmax(-1))
                row = []
                for j, target in enumerate(teacher):
                    row.append(self._distance(features[t], target, self.projectors[i * len(teacher) + j]))
                distances_t.append(torch.stack(row, -1))
            attention.append(torch.stack(weights_t, 1))
            distances.append(torch.stack(distances_t, 1))
        return torch.stack(attention), torch.stack(distances)

    @staticmethod
    def _similarity(features: Tensor) -> Tensor:
        rows = features.flatten(1)
        return rows @ rows.t()

    @staticmethod
    def _embed(mlp: nn.Module, similarity: Tensor) -> Tensor:
        return F.normalize(mlp(similarity), dim=-1)

    @staticmethod
    def _distance(student: Tensor, target: Tensor, projector: nn.Module) -> Tensor:
        if student.shape[-1] > target.shape[-1]:
            student = F.adaptive_max_pool2d(student, target.shape[-2:])
        elif student.shape[-1] < target.shape[-1]:
            target = F.adaptive_avg_pool2d(target, student.shape[-2:])
        return (projector(student) - target).square().mean((1, 2, 3))


def loss(
    logits: Tensor,
    soft: Tensor,
    labels: Tensor,
    attention: Tensor | None,
    distances: Tensor | None,
    *,
    beta: float,
    temperature: float = 4.0,
) -> Tensor:
    """Eq. 6-8: cross-entropy, distillation and, where attention is given, β times the calibrated distances."""
    wanted, found = (F.log_softmax(z / temperature, -1) for z in (soft, logits))
    divergence = (wanted.exp() * (wanted - found)).sum(-1)
    total = F.cross_entropy(logits, labels) + temperature**2 * divergence.mean()
    if attention is None:
        return total
    steps, batch, students, teachers = attention.shape
    calibrated = logits.new_zeros(())
    for t in range(steps):
        for i in range(students):
            for j in range(teachers):
                calibrated = calibrated + (attention[t, :, i, j] * distances[t, :, i, j]).sum()
    return total + beta * calibrated / (steps * batch * students)


class PlainStep:
    """One optimisation step of KD or SASTC, plainly: the counterpart of a step of :func:`sastc.run`.

    Parameters
    ----------
    student, teacher : nn.Module
        Networks of :func:`sastc.create_model`, the student with :class:`PlainLIF` neurons, both float32 and contiguous.
    calibration : PlainCalibration or None
        None: knowledge distillation alone.
    timesteps : int
    beta, lr, momentum, weight_decay : float
    """

    def __init__(self, student, teacher, calibration, *, timesteps, beta, lr, momentum, weight_decay):
        self.student, self.teacher, self.calibration = student, teacher, calibration
        self.timesteps, self.beta = timesteps, beta
        self.parameters = [*student.parameters(), *(calibration.parameters() if calibration else ())]
        self.optimizer = torch.optim.SGD(self.parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def forward_student(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features, and the mean over time of the classifier's output at every step."""
        z, features = x.unsqueeze(0).repeat(self.timesteps, 1, 1, 1, 1), []
        for name, stage in self.student.stages.items():
            z = stage(z)
            if name in self.student.tap_names:
                features.append(z)
        z = self.student.neck(z)
        return features, torch.stack([self.student.classifier(step) for step in z]).mean(0)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of one batch."""
        features, logits = self.forward_student(x)
        with torch.no_grad():
            targets, soft = self.teacher.features(x)
        found = self.calibration(features, targets) if self.calibration else (None, None)
        return loss(logits, soft, y, *found, beta=self.beta)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Forward, backward, update."""
        value = self.losses(x, y)
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        return value
