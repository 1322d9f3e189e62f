"""The methods of the bench on networks of your own: the same seeds, images, schedule and teacher for each."""

import sys
from statistics import mean, stdev

import torch
from torch import nn

import sastc
from sastc.data import epoch_batches
from sastc.methods import REGISTRY
from sastc.train import Step

EPOCHS, SEEDS = map(int, sys.argv[1:] or (8, 3))
T, SIZES = 4, [(1, 16), (16, 32), (32, 64)]


class Own(nn.Module):
    """Your network, with what the methods ask for. With ReLU and without steps it is a teacher."""

    def __init__(self, neuron, steps=0):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in SIZES)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in SIZES)
        self.neuron, self.steps = neuron, steps
        self.classifier = nn.Linear(64, 10)  # by this name for CKDSNN

    def features_and_step_logits(self, x):
        """Maps (T, B, C, H, W), and logits (T, B, N) of each step: for methods that teach every step."""
        x, maps = x.expand(self.steps or 1, *x.shape), []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            maps.append(x := self.neuron(norm(conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])))
        return maps, self.classifier(x.mean((-2, -1)))

    def features(self, x):
        """Maps, without time (B, C, H, W) from an ANN, and logits (B, N)."""
        maps, logits = self.features_and_step_logits(x)
        return maps if self.steps else [found[0] for found in maps], logits.mean(0)

    def feature_shapes(self):
        """(C, H, W) of each map."""
        with torch.no_grad():
            return [tuple(found.shape[-3:]) for found in self.eval().features(torch.zeros(1, 1, 16, 16))[0]]

    def last_map(self, x):
        """The last map as the average over pixels sees it: for KDSNN, BKDSNN and CKDSNN."""
        return x


def train(network, method, seed, teacher=None):
    """Test accuracy in percent after the last epoch."""
    config = sastc.RunConfig(method=method, seed=seed, timesteps=T, epochs=EPOCHS, batch_size=64)
    step = Step(config, network, teacher)
    for epoch in range(EPOCHS):
        step.begin(epoch)
        for x, y, _ in epoch_batches(
            digits, "train", 64, train=True, seed=seed, epoch=epoch, drop_last=True, device="cpu"
        ):
            step.update(x, y)
    network.eval()
    test = epoch_batches(digits, "test", 64, train=False, seed=0, epoch=0, drop_last=False, device="cpu")
    with torch.no_grad():
        return 100 * torch.cat([network.features(x)[1].argmax(-1) == y for x, y, _ in test]).float().mean().item()


digits = sastc.load_dataset("digits")
torch.manual_seed(0)
teacher = Own(nn.ReLU())
print(f"teacher {train(teacher, 'baseline', 0):.1f} %")
for method, kind in REGISTRY.items():
    found = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)  # the same first weights for every method
        found.append(train(Own(sastc.LIF(gamma=1.0), T), method, seed, teacher))
    spread = f" ± {stdev(found):.1f}" if SEEDS > 1 else ""
    print(f"{kind.label:24} {mean(found):.1f}{spread} %")
