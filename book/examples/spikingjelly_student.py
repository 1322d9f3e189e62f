"""SASTC on a SpikingJelly student: its multi-step layers put time first, so the maps are taken as they are."""

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

import sastc
from sastc.data import epoch_batches

T = 4
SIZES = [(1, 16), (16, 32), (32, 64)]


def fire():
    """SpikingJelly's LIF with the leak, reset and surrogate gradient of the paper's Eq. 9-11 (gamma = 1)."""
    return neuron.LIFNode(
        tau=2.0, decay_input=False, v_reset=0.0, surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0)
    )


class Student(nn.Module):
    """Three stages of SpikingJelly's own layers."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(layer.Conv2d(i, o, 3, stride=2, padding=1), layer.BatchNorm2d(o), fire()) for i, o in SIZES
        )
        self.head = nn.Linear(64, 10)
        functional.set_step_mode(self, "m")  # every layer takes (T, B, ...)

    def features(self, images):
        """S maps (T, B, C, H, W), and logits (B, N) averaged over time."""
        functional.reset_net(self)  # its neurons keep their potential between calls
        x, maps = images.expand(T, *images.shape), []
        for stage in self.stages:
            maps.append(x := stage(x))
        return maps, self.head(x.mean((-2, -1))).mean(0)


torch.manual_seed(0)
student = Student()
digits = sastc.load_dataset("digits")
teacher = sastc.create_model("resnet19", "relu", in_channels=1, image_size=16, width=1 / 16)  # yours is trained
teacher.eval().requires_grad_(False)
with torch.no_grad():
    shapes = [f.shape[-3:] for f in student.features(torch.zeros(1, 1, 16, 16))[0]]
calibration = sastc.SelfAttentiveCalibration(shapes, teacher.feature_shapes(), batch_size=64)
optimizer = torch.optim.SGD([*student.parameters(), *calibration.parameters()], lr=0.05, momentum=0.9)
batches = epoch_batches(digits, "train", 64, train=True, seed=0, epoch=0, drop_last=True, device="cpu")
for step, (images, labels, _) in zip(range(5), batches, strict=False):
    (features, logits), (targets, soft) = student.features(images), teacher.features(images)
    result = calibration(features, targets)
    kd, feature = sastc.kd_loss(logits, soft, labels), sastc.sastc_loss(result.attention, result.distances)
    optimizer.zero_grad()
    (kd + 10 * feature).backward()
    optimizer.step()
    print(f"step {step}: KD {kd:.2f}, SASTC {feature:.3f}, attention {tuple(result.attention.shape)}")
