"""SASTC on networks of your own: plain PyTorch modules, trained on the bundled digits in less than a minute."""

import sys

import torch
from torch import nn

import sastc
from sastc.data import epoch_batches


class Teacher(nn.Module):
    """Any ANN that returns a list of feature maps (B, C, H, W), and logits."""

    def __init__(self):
        super().__init__()
        sizes = [(1, 16), (16, 32), (32, 64)]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU()) for i, o in sizes
        )
        self.head = nn.Linear(64, 10)

    def features(self, x):
        """A maps (B, C, H, W), and logits (B, N)."""
        maps = []
        for stage in self.stages:
            maps.append(x := stage(x))
        return maps, self.head(x.mean((-2, -1)))


class Student(nn.Module):
    """Any SNN that returns a list of feature maps (T, B, C, H, W), and logits averaged over time."""

    def __init__(self, timesteps=4):
        super().__init__()
        self.timesteps = timesteps
        sizes = [(1, 16), (16, 32), (32, 64)]
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o)) for i, o in sizes
        )
        self.neurons = nn.ModuleList(sastc.LIF(gamma=1.0) for _ in sizes)
        self.head = nn.Linear(64, 10)

    def features(self, x):
        """S maps (T, B, C, H, W), and logits (B, N)."""
        x = x.expand(self.timesteps, *x.shape)  # the same image at every step
        maps = []
        for conv, neuron in zip(self.convs, self.neurons, strict=True):
            current = conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # a convolution knows no time
            maps.append(x := neuron(current))
        return maps, self.head(x.mean((-2, -1))).mean(0)


def batches(split, epoch=0):
    """One epoch of images, labels and indices."""
    train = split == "train"
    return epoch_batches(digits, split, 64, train=train, seed=0, epoch=epoch, drop_last=train, device="cpu")


def fit(network, loss, *helpers, epochs=int((sys.argv[1:] or [8])[0])):
    """Train a network, and the modules that help to train it; returns its test accuracy in percent."""
    parameters = [p for module in (network, *helpers) for p in module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)
    network.train()
    for epoch in range(epochs):
        for images, labels, _ in batches("train", epoch):
            optimizer.zero_grad()
            loss(images, labels).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        hits = [(network.features(x)[1].argmax(-1) == y).float() for x, y, _ in batches("test")]
    return 100 * torch.cat(hits).mean().item()


def shapes(network):
    """(C, H, W) of every feature map, from one forward pass."""
    with torch.no_grad():
        return [tuple(f.shape[-3:]) for f in network.eval().features(torch.zeros(1, 1, 16, 16))[0]]


digits = sastc.load_dataset("digits")
torch.manual_seed(0)
teacher = Teacher()
cross_entropy = nn.CrossEntropyLoss()
print(f"teacher        {fit(teacher, lambda x, y: cross_entropy(teacher.features(x)[1], y)):.1f} %")
teacher.requires_grad_(False)

torch.manual_seed(1)
student = Student()
print(f"student alone  {fit(student, lambda x, y: cross_entropy(student.features(x)[1], y)):.1f} %")

torch.manual_seed(1)  # the same initial weights
student = Student()
calibration = sastc.SelfAttentiveCalibration(shapes(student), shapes(teacher), batch_size=64)


def sastc_total(images, labels, beta=10.0):
    """Loss of one batch (Eq. 7)."""
    features, logits = student.features(images)
    targets, soft = teacher.features(images)
    result = calibration(features, targets)
    return sastc.kd_loss(logits, soft, labels) + beta * sastc.sastc_loss(result.attention, result.distances)


print(f"with SASTC     {fit(student, sastc_total, calibration):.1f} %")
images, _, _ = next(batches("test"))
attention = calibration(student.features(images)[0], teacher.features(images)[0]).attention  # (T, B, S, A)
print("mean attention of each student layer to the teacher layers:")
for layer, weights in enumerate(attention.mean((0, 1)).tolist(), 1):
    print(f"  layer {layer}: " + "  ".join(f"{w:.3f}" for w in weights))
