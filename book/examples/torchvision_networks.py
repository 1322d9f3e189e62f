"""SASTC between torchvision's networks: a feature extractor reads the teacher, forward hooks read the student."""

import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

import sastc
from sastc.data import epoch_batches

T = 4
TAPS = ["layer1", "layer2", "layer3", "layer4"]


class Folded(nn.Module):
    """A LIF in a network that knows no time: splits T from the batch, and joins them again."""

    def __init__(self):
        super().__init__()
        self.neuron = sastc.LIF(gamma=1.0)

    def forward(self, x):
        """(T*B, ...) to (T*B, ...)."""
        return self.neuron(x.unflatten(0, (T, -1))).flatten(0, 1)


def spiking(module):
    """Put a LIF in the place of every ReLU."""
    for name, child in module.named_children():
        setattr(module, name, Folded() if isinstance(child, nn.ReLU) else spiking(child))
    return module


torch.manual_seed(0)
# The teacher would be trained beforehand: resnet18(weights="DEFAULT") for ImageNet's classes, or your own.
teacher = resnet18(num_classes=10).eval().requires_grad_(False)
extractor = create_feature_extractor(teacher, [*TAPS, "fc"])
student = spiking(resnet18(num_classes=10))

maps = {}  # filled by the hooks in every forward pass
for name in TAPS:
    layer = student.get_submodule(name)
    layer.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output}))


def student_features(images):
    """S maps (T, B, C, H, W), and logits (B, N) averaged over time."""
    logits = student(images.repeat(T, 1, 1, 1))  # the same images at every step
    return [maps[name].unflatten(0, (T, -1)) for name in TAPS], logits.unflatten(0, (T, -1)).mean(0)


def teacher_features(images):
    """A maps (B, C, H, W), and logits (B, N)."""
    *found, logits = extractor(images).values()
    return found, logits


digits = sastc.load_dataset("digits", image_size=32)
batches = epoch_batches(digits, "train", 32, train=True, seed=0, epoch=0, drop_last=True, device="cpu")
batches = [(images.expand(-1, 3, -1, -1), labels) for images, labels, _ in batches]  # gray to RGB
with torch.no_grad():
    sizes = [[f.shape[-3:] for f in read(batches[0][0])[0]] for read in (student_features, teacher_features)]
calibration = sastc.SelfAttentiveCalibration(*sizes, batch_size=32)
optimizer = torch.optim.SGD([*student.parameters(), *calibration.parameters()], lr=0.02, momentum=0.9)
for step, (images, labels) in enumerate(batches[:5]):
    (features, logits), (targets, soft) = student_features(images), teacher_features(images)
    result = calibration(features, targets)
    kd, feature = sastc.kd_loss(logits, soft, labels), sastc.sastc_loss(result.attention, result.distances)
    optimizer.zero_grad()
    (kd + feature).backward()
    optimizer.step()
    print(f"step {step}: KD {kd:.2f}, SASTC {feature:.3f}, attention {tuple(result.attention.shape)}")
