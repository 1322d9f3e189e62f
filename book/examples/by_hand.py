"""The gradient of the second of two spikes, with the reset in the graph and without it."""

import torch

import sastc

currents = torch.tensor([[0.9], [0.6]], requires_grad=True)  # (T, B)
for detach in (False, True):
    spikes = sastc.LIF(decay=0.5, threshold=1.0, gamma=0.3, detach_reset=detach)(currents)
    (gradient,) = torch.autograd.grad(spikes[1].sum(), currents)
    print(spikes.flatten().tolist(), [round(g, 2) for g in gradient.flatten().tolist()])
# [0.0, 1.0] [-1.39, 2.78]
# [0.0, 1.0] [1.39, 2.78]
