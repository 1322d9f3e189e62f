"""The measures on a network of your own: mismatch score, Fisher information, operations, activation maps."""

import torch
from torch import nn

import sastc
from sastc.data import epoch_batches

T = 4
SIZES = [(1, 16), (16, 32)]


class Student(nn.Module):
    """Any SNN with the methods that the measures call."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o)) for i, o in SIZES
        )
        self.neurons = nn.ModuleList(sastc.LIF(threshold=0.5) for _ in SIZES)
        self.head = nn.Linear(32, 10)

    def features(self, x):
        """S maps (T, B, C, H, W), and the output of every step (T, B, N)."""
        x, maps = x.expand(T, *x.shape), []  # the same image at every step
        for conv, neuron in zip(self.convs, self.neurons, strict=True):
            maps.append(x := neuron(conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])))
        return maps, self.head(x.mean((-2, -1)))

    def logits_by_step(self, x):
        """Logits (T, B, N) after t = 1 ... T steps."""
        return self.features(x)[1].cumsum(0) / torch.arange(1, T + 1).view(-1, 1, 1)

    def forward(self, x):
        """Logits (B, N)."""
        return self.logits_by_step(x)[-1]


torch.manual_seed(0)
student = Student().eval()  # trained beforehand, as the teacher
teacher = sastc.create_model("resnet19", "relu", in_channels=1, image_size=16, width=1 / 16).eval()
images, labels, _ = next(epoch_batches(sastc.load_dataset("digits"), "test", 64))
with torch.no_grad():
    maps, targets = student.features(images)[0], teacher.features(images)[0]
print(f"mismatch score     {sastc.stm_score(maps, targets):.2f}")
print("Fisher information", " ".join(f"{value:.3f}" for value in sastc.fisher_trace(student, images, labels)))
energy = sastc.count_energy(student, images, timesteps=T)
print(f"an image costs     {energy.macs:,.0f} MACs and {energy.acs:,.0f} ACs, {energy.energy_uj:.3f} µJ")
print(energy.layers[["layer", "input", "macs", "acs", "input_rate"]].round(3).to_string(index=False))
where = sastc.spike_activation_map(student, images, layer="neurons.1")  # (T, B, H, W)
print(f"activation maps    {tuple(where.shape)}, the same as of the collected spikes:", end=" ")
print(torch.equal(where, sastc.sam.contribution_map(maps[1])))
