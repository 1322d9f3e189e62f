"""One training step of SASTC (Algorithm 1)."""

import torch

import sastc
from sastc.data import epoch_batches

dataset = sastc.load_dataset("digits")
shape = dict(in_channels=dataset.in_channels, image_size=dataset.image_size, width=1 / 16)
teacher = sastc.create_model("resnet19", "relu", **shape).eval().requires_grad_(False)  # trained beforehand
student = sastc.create_model("vgg11", "lif", timesteps=2, neuron_options={"gamma": 0.3}, **shape)
calibration = sastc.SelfAttentiveCalibration(student.feature_shapes(), teacher.feature_shapes(), batch_size=64)
parameters = [*student.parameters(), *calibration.parameters()]
optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4)

batches = epoch_batches(dataset, "train", 64, train=True, seed=0, epoch=0, drop_last=True, device="cpu")
images, labels, _ = next(batches)  # line 2
features, logits = student.features(images)  # line 3: S maps (T, B, C, H, W), logits (B, N)
targets, soft = teacher.features(images)  # line 3: A maps (B, C, H, W), logits (B, N)
result = calibration(features, targets)  # lines 4-6: attention and distances (T, B, S, A)
loss = sastc.kd_loss(logits, soft, labels) + 1300 * sastc.sastc_loss(result.attention, result.distances)
optimizer.zero_grad()
loss.backward()  # line 7, through the surrogate gradient of every LIF
optimizer.step()
print(f"loss {loss.item():.1f}; attention {tuple(result.attention.shape)}, sums {result.attention.sum(-1).mean():.3f}")
