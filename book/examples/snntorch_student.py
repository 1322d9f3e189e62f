"""SASTC on an snnTorch student: its neurons take one step at a time, so the steps' maps are stacked, time first."""

import snntorch
import torch
from torch import nn

import sastc
from sastc.data import epoch_batches

T = 4
SIZES = [(1, 16), (16, 32), (32, 64)]


class Student(nn.Module):
    """Three stages of a convolution, a batch norm and snnTorch's leaky neuron."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o)) for i, o in SIZES
        )
        self.neurons = nn.ModuleList(snntorch.Leaky(beta=0.5, reset_mechanism="zero") for _ in SIZES)
        self.head = nn.Linear(64, 10)

    def features(self, images):
        """S maps (T, B, C, H, W), and logits (B, N) averaged over time."""
        potentials = [neuron.reset_mem() for neuron in self.neurons]
        maps, logits = [[] for _ in SIZES], []
        for _ in range(T):
            x = images
            for s, (stage, neuron) in enumerate(zip(self.stages, self.neurons, strict=True)):
                x, potentials[s] = neuron(stage(x), potentials[s])
                maps[s].append(x)
            logits.append(self.head(x.mean((-2, -1))))
        # A network that gives (B, C, H, W, T) instead: [f.movedim(-1, 0) for f in maps].
        return [torch.stack(steps) for steps in maps], torch.stack(logits).mean(0)


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
