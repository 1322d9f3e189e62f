"""SASTC on two networks of plain PyTorch: one training step, complete."""

import torch
from torch import nn

import sastc


def features(convs, head, neuron, x):
    """Maps (T, B, C, H, W) of each layer, and logits (B, N), of x (T, B, C, H, W)."""
    maps = []
    for conv in convs:
        maps.append(x := neuron(conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])))
    return maps, head(x.mean((-2, -1))).mean(0)


images, labels = torch.rand(64, 3, 32, 32), torch.randint(10, (64,))  # a batch of yours
teacher = [nn.Conv2d(3, 16, 4, 2), nn.Conv2d(16, 32, 3, 2)], nn.Linear(32, 10), nn.ReLU()  # trained
student = [nn.Conv2d(3, 8, 4, 2), nn.Conv2d(8, 16, 3, 2)], nn.Linear(16, 10), sastc.LIF()
sizes = [(8, 15, 15), (16, 7, 7)], [(16, 15, 15), (32, 7, 7)]  # (C, H, W) of each map
calibration = sastc.SelfAttentiveCalibration(*sizes, batch_size=64)
with torch.no_grad():
    targets, soft = features(*teacher, images[None])  # an ANN sees an image once
maps, logits = features(*student, images.expand(4, -1, -1, -1, -1))  # T = 4
result = calibration(maps, [found[0] for found in targets])  # attention and distances (T, B, S, A)
loss = sastc.kd_loss(logits, soft, labels)
loss = loss + 10 * sastc.sastc_loss(result.attention, result.distances)  # beta = 10
loss.backward()  # and an optimizer over the student's and the calibration's parameters
print(f"loss {loss:.2f}, attention {tuple(result.attention.shape)}")
