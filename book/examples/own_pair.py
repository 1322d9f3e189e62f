"""A student and a teacher of one's own, for recorded runs: ``student=own_pair.py:SmallSNN``."""

from torch import nn

import sastc


class SmallSNN(nn.Module):
    """Called on images (B, C, H, W); returns its layers (T, B, C, H, W), and the logits of each step (T, B, N)."""

    def __init__(self, num_classes, in_channels, timesteps, gamma):
        super().__init__()
        self.steps, sizes = timesteps, [(in_channels, 16), (16, 32), (32, 64)]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o in sizes)
        self.lif, self.classifier = sastc.LIF(gamma=gamma), nn.Linear(64, num_classes)

    def forward(self, x):
        """Layers and logits of each step."""
        if x.dim() == 4:  # event data come as (T, B, C, H, W)
            x = x.expand(self.steps, *x.shape)
        layers = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.lif(norm(conv(x.flatten(0, 1))).unflatten(0, x.shape[:2]))
            layers.append(x)
        return layers, self.classifier(x.mean((-2, -1)))


class SmallANN(nn.Module):
    """Called on images (B, C, H, W); returns its layers (B, C, H, W), and its logits (B, N)."""

    def __init__(self, blocks, classifier):
        super().__init__()
        self.blocks, self.classifier = nn.ModuleList(blocks), classifier

    def forward(self, x):
        """Layers and logits."""
        layers = [x := block(x) for block in self.blocks]
        return layers, self.classifier(x.mean((-2, -1)))


def small_ann(num_classes, in_channels, width):
    """A function will do. Its parameters say what it asks for."""

    def block(inputs, outputs):
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU())

    sizes = [in_channels, *(max(8, round(width * channels)) for channels in (256, 512, 1024))]
    return SmallANN(map(block, sizes, sizes[1:]), nn.Linear(sizes[-1], num_classes))


if __name__ == "__main__":
    for method in ("kd", "sastc"):
        config = sastc.RunConfig(student=SmallSNN, teacher=small_ann, method=method, epochs=2, teacher_epochs=4)
        run = sastc.run(config, progress=False)
        print(f"{run.name}  {run.metrics['accuracy']:.1f} %")
