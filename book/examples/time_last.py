"""SASTC on a student whose maps put the batch first and time last, and on data of your own."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sastc

T, CLASSES = 4, 2


class Student(nn.Module):
    """A convolution over (B, C, H, W, T), as some spiking libraries have it."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv3d(i, o, (3, 3, 1), (2, 2, 1), (1, 1, 0)) for i, o in [(3, 8), (8, 16)])
        self.neuron = sastc.LIF(gamma=1.0)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        """Maps (B, C, H, W, T), and logits (B, N, T)."""
        maps = []
        for conv in self.convs:
            maps.append(x := self.neuron(conv(x).movedim(-1, 0)).movedim(0, -1))
        return maps, self.head(x.mean((2, 3)).mT).mT


def student_features(images):
    """S maps (T, B, C, H, W), and logits (B, N) averaged over time."""
    maps, logits = student(images.unsqueeze(-1).expand(*images.shape, T))
    return [f.movedim(-1, 0) for f in maps], logits.mean(-1)


torch.manual_seed(0)
student = Student()
teacher = sastc.create_model("vgg11", "relu", num_classes=CLASSES, image_size=16, width=1 / 16)  # yours is trained
teacher.eval().requires_grad_(False)
images = torch.randn(64, 3, 16, 16)  # your own: any Dataset that gives (image, label)
loader = DataLoader(TensorDataset(images, (images.mean((1, 2, 3)) > 0).long()), batch_size=32, shuffle=True)
with torch.no_grad():
    shapes = [f.shape[-3:] for f in student_features(images[:1])[0]]
calibration = sastc.SelfAttentiveCalibration(shapes, teacher.feature_shapes(), batch_size=32)
optimizer = torch.optim.SGD([*student.parameters(), *calibration.parameters()], lr=0.05, momentum=0.9)
for images, labels in loader:
    (features, logits), (targets, soft) = student_features(images), teacher.features(images)
    result = calibration(features, targets)
    kd, feature = sastc.kd_loss(logits, soft, labels), sastc.sastc_loss(result.attention, result.distances)
    optimizer.zero_grad()
    (kd + feature).backward()
    optimizer.step()
    print(f"KD {kd:.2f}, SASTC {feature:.3f}, attention {tuple(result.attention.shape)}")
