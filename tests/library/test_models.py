"""Networks against published parameter counts, a plain loop over steps and layers, and torchvision."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import PRE_ACTIVATION, STANDARD, VARIANTS, WIDE, Doubled, ids, images, small
from torch import nn
from torch.func import functional_call, grad, vmap

from sastc.models import MODELS, OPTIONS, Network, create_model
from sastc.models.layers import Conv
from sastc.neurons import LIF

BOTH = ("lif", "relu")


def on_meta(*args, **options) -> Network:
    with torch.device("meta"):
        return create_model(*args, **options)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# --- Parameter counts ------------------------------------------------------------------------------------------------
# released: ieveresthd/SASTC, folder CIFAR10; RepDistiller: HobbitLong/RepDistiller. Both counted by building their
# networks. torchvision's two are also on its web page.
COUNTS = [
    ("vgg11", "lif", {}, 10, 34_440_970),  # released
    ("resnet18", "lif", {}, 10, 12_630_858),  # released
    ("resnet18", "lif", {}, 100, 12_653_988),  # released
    ("wrn16_2", "lif", {}, 10, 20_524_618),  # released
    ("resnet19", "relu", {}, 10, 12_502_090),  # released
    ("resnet19", "relu", {}, 100, 12_548_260),  # released
    ("pyramidnet20", "relu", {}, 10, 2_933_675),  # released
    ("pyramidnet20", "relu", {}, 100, 2_953_205),  # released
    ("wrn28_4", "relu", {}, 10, 5_849_050),  # released, RepDistiller
    ("wrn28_4", "relu", {}, 100, 5_872_180),  # RepDistiller
    ("wrn40_2", "relu", {}, 10, 2_243_546),  # RepDistiller
    ("wrn40_2", "relu", {}, 100, 2_255_156),  # RepDistiller
    ("wrn16_2", "relu", WIDE, 100, 703_284),  # RepDistiller
    ("resnet32x4", "relu", {}, 10, 7_410_730),  # RepDistiller
    ("resnet32x4", "relu", {}, 100, 7_433_860),  # RepDistiller
    ("vgg13", "relu", {}, 10, 9_416_010),  # RepDistiller
    ("vgg13", "relu", {}, 100, 9_462_180),  # RepDistiller
    ("vgg13", "lif", {}, 100, 9_462_180),  # neurons have no parameters
    ("resnet18", "relu", STANDARD, 10, 11_173_962),  # kuangliu/pytorch-cifar
    ("resnet18", "relu", STANDARD | {"image_size": 224}, 1000, 11_689_512),  # torchvision
    ("resnet34", "relu", {"image_size": 224}, 1000, 21_797_672),  # torchvision
]


@pytest.mark.parametrize(("name", "neuron", "options", "classes", "count"), COUNTS)
def test_published_parameter_counts(name, neuron, options, classes, count):
    assert parameters(on_meta(name, neuron, num_classes=classes, **options)) == count


@pytest.mark.parametrize(
    ("name", "options", "last"),
    [
        ("resnet18", {}, 512),
        ("resnet18", STANDARD, 512),
        ("resnet19", {}, 512),
        ("resnet34", {}, 512),
        ("resnet32x4", {}, 256),
        ("wrn16_2", {}, 2048),
        ("wrn16_2", WIDE, 128),
        ("wrn28_4", {}, 256),
        ("wrn40_2", {}, 128),
        ("pyramidnet20", {}, 216),
    ],
    ids=ids,
)
@pytest.mark.parametrize("classes", [10, 100])
def test_spiking_residual_networks_differ_from_anns_by_the_hidden_layer(name, options, last, classes):
    ann = parameters(on_meta(name, "relu", num_classes=classes, **options))
    hidden = (last + 1) * 256 + (256 + 1) * classes
    assert parameters(on_meta(name, "lif", num_classes=classes, **options)) == ann - (last + 1) * classes + hidden
    assert parameters(on_meta(name, "lif", num_classes=classes, resnet_head="single", **options)) == ann


@pytest.mark.parametrize("name", ["resnet18", "wrn16_2", "wrn28_4", "pyramidnet20"])
def test_hidden_layer_starts_alive(name):
    """PyTorch's default leaves the hidden neurons out of reach of Eq. 11 at γ = 0.3, the balanced weights do not."""
    x, y = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10
    gradient, current, rate = {}, {}, {}
    for init in ("balanced", "released"):
        torch.manual_seed(0)
        net = create_model(name, width=0.125, image_size=16, hidden_init=init)
        seen = []
        net.neck[-1].register_forward_hook(lambda _, inputs, spikes, seen=seen: seen.extend((inputs[0], spikes)))
        F.cross_entropy(net(x), y).backward()
        gradient[init] = net.stages["stem"][0].conv[0].weight.grad.norm().item()
        current[init], rate[init] = seen[0].std().item(), seen[1].mean().item()
    assert 0.5 < current["balanced"] < 1.5
    assert 0.05 < rate["balanced"] < 0.4
    assert rate["released"] == 0
    assert gradient["released"] < 1e-2 * gradient["balanced"]


def test_vgg11_heads_and_flattened_size():
    trunk = 34_440_970 - (2049 * 4096 + 4097 * 4096 + 4097 * 10)
    for size, flat in ((8, 512), (16, 512), (32, 2048), (64, 2048), (224, 2048)):
        for downsample in ("stride", "pool"):
            net = on_meta("vgg11", image_size=size, vgg_head="single", vgg_downsample=downsample)
            assert parameters(net) == trunk + (flat + 1) * 10
    assert parameters(on_meta("vgg11", "relu")) == 34_440_970


# --- Shapes and taps -------------------------------------------------------------------------------------------------
SHAPES = {  # at 32 pixels, stem first, as in the released code and RepDistiller
    "vgg11": [(64, 32), (128, 16), (256, 8), (512, 4), (512, 2)],
    "vgg13": [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    "vggsnn": [(64, 32), (128, 32), (256, 16), (512, 8), (512, 4)],
    "resnet18": [(64, 32), (128, 32), (256, 16), (512, 8)],
    "resnet19": [(64, 32), (128, 32), (256, 16), (512, 8)],
    "resnet34": [(64, 32), (64, 32), (128, 16), (256, 8), (512, 4)],
    "resnet32x4": [(32, 32), (64, 32), (128, 16), (256, 8)],
    "wrn16_2": [(64, 32), (512, 32), (1024, 16), (2048, 8)],
    "wrn28_4": [(16, 32), (64, 32), (128, 16), (256, 8)],
    "wrn40_2": [(16, 32), (32, 32), (64, 16), (128, 8)],
    "pyramidnet20": [(16, 32), (83, 32), (216, 8)],
}


@pytest.mark.parametrize("name", MODELS)
def test_feature_shapes_at_32_pixels(name):
    net = on_meta(name, taps="stem_and_stages")
    assert net.feature_shapes() == [(c, s, s) for c, s in SHAPES[name]]
    assert on_meta(name).feature_shapes() == net.feature_shapes()[1:]
    assert len(net.tap_names) == len(SHAPES[name])
    assert net.tap_names[0] == "stem"
    assert "stem" not in on_meta(name).tap_names


def test_variants_of_shapes():
    def shapes(*args, **options):
        return on_meta(*args, taps="stem_and_stages", **options).feature_shapes()

    assert shapes("resnet18", **STANDARD) == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert shapes("wrn16_2", **WIDE) == [(16, 32, 32), (32, 32, 32), (64, 16, 16), (128, 8, 8)]
    assert shapes("pyramidnet20", pyramidnet_taps="all")[2] == (149, 16, 16)
    pooled = [(64, 32, 32), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
    assert shapes("vgg11", vgg_downsample="pool") == pooled
    large = [(64, 112, 112), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    assert shapes("resnet34", image_size=224) == large
    assert shapes("resnet19", image_size=224)[1:] == [(128, 56, 56), (256, 28, 28), (512, 14, 14)]


@pytest.mark.parametrize(("neuron", "size"), [("relu", 32), ("lif", 8), ("lif", 15), ("lif", 64), ("lif", 224)])
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
def test_every_network_has_the_shapes_it_announces(name, options, neuron, size):
    time = (2,) if neuron == "lif" else ()
    net = on_meta(name, neuron, image_size=size, num_classes=7, in_channels=1, taps="stem_and_stages", **options)
    features, logits = net.features(torch.zeros(5, 1, size, size, device="meta"))
    assert [f.shape for f in features] == [(*time, 5, *shape) for shape in net.feature_shapes()]
    assert logits.shape == (5, 7)
    assert net.step_logits(torch.zeros(5, 1, size, size, device="meta")).shape == (2 if time else 1, 5, 7)


@pytest.mark.parametrize("name", ["resnet34", "vgg11", "wrn28_4"])
def test_a_forward_pass_at_224_pixels(name):
    net = small(name, image_size=224, width=0.02, num_classes=5)
    features, logits = net.features(images(1, 224))
    assert [f.shape[2:] for f in features] == net.feature_shapes()
    assert logits.shape == (1, 5)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("student", "teacher", "with_stem", "without"),
    [
        ("vgg11", "resnet19", (4, 5), (3, 4)),
        ("resnet18", "pyramidnet20", (3, 4), (2, 3)),
        ("wrn16_2", "wrn28_4", (4, 4), (3, 3)),
    ],
)
def test_candidate_counts_of_figure_2(student, teacher, with_stem, without):
    for taps, counts in (("stem_and_stages", with_stem), ("stages", without)):
        assert len(on_meta(teacher, "relu", taps=taps).tap_names) == counts[0]
        assert len(on_meta(student, "lif", taps=taps).tap_names) == counts[1]


def test_pyramidnet_taps():
    assert on_meta("pyramidnet20").tap_names == ["stage1", "stage3"]
    assert on_meta("pyramidnet20", pyramidnet_taps="all").tap_names == ["stage1", "stage2", "stage3"]


# --- An independent forward pass -------------------------------------------------------------------------------------
class Reference:
    """Runs a network's weights through plain loops: a list of time steps (one for an ANN), one layer after another."""

    def __init__(self, net: Network):
        kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
        self.layers = [m for m in net.modules() if isinstance(m, kinds)]
        self.spiking = net.spiking

    def take(self, kind):
        layer = self.layers.pop(0)
        assert isinstance(layer, kind)
        return layer

    def conv(self, xs, stride=1):
        m = self.take(nn.Conv2d)
        return [F.conv2d(x, m.weight, m.bias, stride, m.weight.shape[-1] // 2) for x in xs]

    def norm(self, xs):
        m = self.take(nn.BatchNorm2d)
        mean, var, weight, bias = (v[:, None, None] for v in (m.running_mean, m.running_var, m.weight, m.bias))
        return [(x - mean) / (var + 1e-5).sqrt() * weight + bias for x in xs]

    def linear(self, xs):
        m = self.take(nn.Linear)
        return [x @ m.weight.T + m.bias for x in xs]

    def fire(self, xs):
        if not self.spiking:
            return [x.clamp_min(0) for x in xs]
        u, spikes = torch.zeros_like(xs[0]), []
        for x in xs:
            u = 0.5 * u + x
            spikes.append((u > 1).to(x.dtype))
            u = u * (1 - spikes[-1])
        return spikes

    def head(self, xs):
        xs = [x.mean((2, 3)) for x in xs]
        if self.spiking:
            xs = self.fire(self.linear(xs))
        return self.linear(xs)

    def resnet(self, xs, blocks, convs=2):
        taps = [xs := self.fire(self.norm(self.conv(xs)))]
        for k, count in enumerate(blocks):
            for i in range(count):
                stride, y = (2 if k and not i else 1), xs
                for c in range(convs):
                    # the 3x3 convolution of a bottleneck, the first one of a basic block
                    y = self.norm(self.conv(y, stride if c == convs - 2 else 1))
                    y = self.fire(y) if c < convs - 1 else y
                if stride > 1 or xs[0].shape[1] != y[0].shape[1]:
                    xs = self.norm(self.conv(xs, stride))
                xs = self.fire([a + b for a, b in zip(xs, y, strict=True)])
            taps.append(xs)
        return taps, self.head(xs)

    def wide(self, xs, n):
        taps = [xs := self.conv(xs)]
        for k, i in itertools.product(range(3), range(n)):
            stride = 2 if k and not i else 1
            a = self.fire(self.norm(xs))
            y = self.conv(self.fire(self.norm(self.conv(a, stride))))
            if not i:
                xs = self.conv(a, stride)
            xs = [s + b for s, b in zip(xs, y, strict=True)]
            taps += [xs] if i == n - 1 else []
        return taps, self.last_norm(xs)

    def pyramid(self, xs):
        taps = [xs := self.norm(self.conv(xs))]
        for k, i in itertools.product(range(3), range(3)):
            stride = 2 if k and not i else 1
            y = self.norm(self.conv(self.fire(self.norm(self.conv(self.norm(xs), stride)))))
            if stride == 2:
                xs = [F.avg_pool2d(x, 2) for x in xs]
            for a, b in zip(xs, y, strict=True):
                b[:, : a.shape[1]] += a
            xs = y
            taps += [xs] if i == 2 else []
        return taps, self.last_norm(xs)

    def last_norm(self, xs):
        # The norm behind the last stage belongs to the neck, so it comes after all blocks' layers.
        return self.head(self.fire(self.norm(xs)))

    def vgg11(self, xs, pool):
        taps = []
        for i in range(8):
            odd = i % 2 == 1
            xs = self.fire(self.norm(self.conv(xs, 2 if odd and not pool else 1)))
            taps += [xs] if odd or i == 0 else []
            if odd and pool:
                xs = [F.avg_pool2d(x, 2) for x in xs]
        return taps, self.linear(self.linear(self.linear([x.flatten(1) for x in xs])))

    def vgg13(self, xs):
        taps = []
        for group in range(5):
            if 0 < group < 4:
                xs = [F.max_pool2d(x, 2) for x in xs]
            for _ in range(2):
                xs = self.fire(self.norm(self.conv(xs)))
            taps.append(xs)
        return taps, self.linear([x.mean((2, 3)) for x in xs])


WRITTEN_OUT = [
    ("resnet18", {}, lambda r, xs: r.resnet(xs, (3, 3, 2))),
    ("resnet18", STANDARD, lambda r, xs: r.resnet(xs, (2, 2, 2, 2))),
    ("resnet19", {}, lambda r, xs: r.resnet(xs, (3, 3, 2))),
    ("resnet34", {}, lambda r, xs: r.resnet(xs, (3, 4, 6, 3))),
    ("resnet32x4", {}, lambda r, xs: r.resnet(xs, (5, 5, 5))),
    ("wrn16_2", {}, lambda r, xs: r.resnet(xs, (2, 1, 1), convs=3)),
    ("wrn16_2", WIDE | {"width": 0.2}, lambda r, xs: r.wide(xs, 2)),
    ("wrn28_4", {"width": 0.1}, lambda r, xs: r.wide(xs, 4)),
    ("wrn40_2", {"width": 0.2}, lambda r, xs: r.wide(xs, 6)),
    ("pyramidnet20", {"pyramidnet_taps": "all"}, lambda r, xs: r.pyramid(xs)),
    ("vgg11", {}, lambda r, xs: r.vgg11(xs, pool=False)),
    ("vgg11", {"vgg_downsample": "pool"}, lambda r, xs: r.vgg11(xs, pool=True)),
    ("vgg13", {}, lambda r, xs: r.vgg13(xs)),
]


@pytest.mark.parametrize("neuron", BOTH)
@pytest.mark.parametrize(("name", "options", "run"), WRITTEN_OUT, ids=ids)
@torch.no_grad()
def test_forward_pass_against_plain_loops(name, options, run, neuron):
    net, x = small(name, neuron, timesteps=3, **options), images()
    features, logits = net.features(x)
    reference = Reference(net)
    taps, outputs = run(reference, [x] * (3 if neuron == "lif" else 1))
    assert not reference.layers  # every weight was used, in this order
    assert len(features) == len(taps)
    for feature, tap in zip(features, taps, strict=True):
        torch.testing.assert_close(feature, torch.stack(tap) if net.spiking else tap[0])
    torch.testing.assert_close(logits, sum(outputs) / len(outputs))
    assert logits.std(0).max() > 1e-3  # images are told apart: the hidden neurons fire
    torch.testing.assert_close(net.step_logits(x), torch.stack(outputs))
    if net.spiking and isinstance(net.stages["stem"][0].neuron, LIF):  # not a pre-activation network
        assert all(f.unique().tolist() == [0, 1] for f in features)  # binary, and neither silent nor saturated


@pytest.mark.parametrize(("name", "options"), [("resnet18", STANDARD), ("resnet34", {})])
@torch.no_grad()
def test_imagenet_resnets_compute_what_torchvision_computes(name, options):
    theirs = getattr(torchvision.models, name)(num_classes=12).eval()
    ours = create_model(name, "relu", image_size=224, num_classes=12, **options).eval()
    weights = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(weights))
    x = images(2, 64).float()  # convolutions take any size
    torch.testing.assert_close(ours(x), theirs(x))


# --- Time ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
@torch.no_grad()
def test_direct_coding_is_the_repeated_image(name, options):
    net, x = small(name, timesteps=4, **options), images()
    (static, logits), (sequence, expected) = net.features(x), net.features(x.expand(4, *x.shape))
    for a, b in zip(static, sequence, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)


def test_direct_coding_in_training_has_the_same_batch_statistics():
    x, seen = images(4), []
    for shown in (x, x.expand(3, *x.shape)):
        net = small("resnet18", timesteps=3).train()
        norm = net.stages["stem"][0].conv[1]
        norm.reset_running_stats()
        seen.append((net(shown), norm))
    (a, once), (b, repeated) = seen
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(once.running_mean, repeated.running_mean)
    n, t = 4 * 16 * 16, 3  # unbiased variances of n and of t·n values whose biased variances are equal
    unbiased = [(norm.running_var - 0.9) / 0.1 for norm in (once, repeated)]
    torch.testing.assert_close(unbiased[0] * (n - 1) / n, unbiased[1] * (t * n - 1) / (t * n))


@torch.no_grad()
def test_sequences_of_any_length_and_causality():
    net = small("resnet18", timesteps=2)
    x = torch.stack([images(seed=s) for s in range(5)])
    features, _ = net.features(x)
    assert features[0].shape[0] == net.step_logits(x).shape[0] == 5
    changed = x.clone()
    changed[3] += 1
    torch.testing.assert_close(net.step_logits(changed)[:3], net.step_logits(x)[:3])
    assert not torch.equal(net.step_logits(changed)[3:], net.step_logits(x)[3:])


@torch.no_grad()
def test_timesteps_may_be_set():
    net, x = small("vgg11", timesteps=2), images()
    first = net.step_logits(x)
    net.timesteps = 5
    assert net.timesteps == 5
    assert net.step_logits(x).shape[0] == 5
    torch.testing.assert_close(net.step_logits(x)[:2], first)
    assert small("vgg11", "relu", timesteps=9).timesteps == 1
    with pytest.raises(ValueError, match="timesteps=0"):
        net.timesteps = 0
    with pytest.raises(ValueError, match="in an SNN alone"):
        small("vgg11", "relu").timesteps = 2


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "wrn28_4"])
@torch.no_grad()
def test_output_modes(name):
    options = {"timesteps": 4, "neuron_options": {"decay": 0.25}}
    mean, leaky = small(name, **options), small(name, output="leaky_membrane", **options)
    x = images()
    current, potential = mean.step_logits(x), leaky.step_logits(x)
    u = 0
    for i, step in zip(current, potential, strict=True):
        u = 0.25 * u + i
        torch.testing.assert_close(step, u)
    for net, steps in ((mean, current), (leaky, potential)):
        torch.testing.assert_close(net(x), steps.mean(0))
        torch.testing.assert_close(net.features(x)[1], steps.mean(0))
    ann = small(name, "relu", output="leaky_membrane")
    torch.testing.assert_close(ann(x), ann.step_logits(x)[0])


@pytest.mark.parametrize("output", ["mean_current", "leaky_membrane"])
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
@torch.no_grad()
def test_logits_by_step_are_those_of_shorter_runs(name, options, output):
    net, x = small(name, timesteps=4, output=output, **options), images()
    sequence = torch.stack([images(seed=s) for s in range(4)])
    by_step, of_sequence = net.logits_by_step(x), net.logits_by_step(sequence)
    torch.testing.assert_close(by_step[-1], net(x))
    assert by_step.shape == of_sequence.shape == (4, 3, 10)
    assert not torch.allclose(by_step[0], by_step[-1])
    for t in range(1, 5):
        net.timesteps = t
        torch.testing.assert_close(by_step[t - 1], net(x))
        torch.testing.assert_close(of_sequence[t - 1], net(sequence[:t]))


@torch.no_grad()
def test_logits_by_step_of_an_ann():
    net, x = small("vgg11", "relu"), images()
    torch.testing.assert_close(net.logits_by_step(x), net(x).unsqueeze(0))


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "resnet18", "wrn16_2"])
@torch.no_grad()
def test_membrane_taps_are_the_potentials_behind_the_spikes(name):
    x, options = images(), {"timesteps": 3, "neuron_options": {"threshold": 0.7}}
    spikes, logits = small(name, **options).features(x)
    potentials, same = small(name, tap="membrane", **options).features(x)
    torch.testing.assert_close(same, logits)
    for o, u in zip(spikes, potentials, strict=True):
        assert torch.equal(o, (u > 0.7).to(o))
        assert u.unique().numel() > 2


# --- Gradients and function transforms -------------------------------------------------------------------------------
@pytest.mark.parametrize("neuron", BOTH)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
def test_every_parameter_gets_a_gradient(name, options, neuron):
    net = small(name, neuron, **options).train()
    features, logits = net.features(images())
    loss = F.cross_entropy(logits, torch.arange(3)) + sum(f.square().mean() for f in features)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.stages["stem"][0].conv[0].weight.grad.abs().sum() > 0
    net.zero_grad()
    F.cross_entropy(net(images()), torch.arange(3)).backward()  # from the logits alone
    assert net.stages["stem"][0].conv[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("neuron", BOTH)
@pytest.mark.parametrize("name", ["vgg11", "resnet18", "wrn28_4", "pyramidnet20"])
def test_per_sample_gradients_by_vmap(name, neuron):
    net = small(name, neuron, neuron_options={"gamma": 1.0}, vgg_head="single")
    weights, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    x, y = images(), torch.arange(3)

    def loss(weights, image, label):
        logits = functional_call(net, (weights, buffers), (image.unsqueeze(0),))
        return F.cross_entropy(logits, label.unsqueeze(0))

    together = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    for i in range(3):
        alone = torch.autograd.grad(F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), list(weights.values()))
        for key, g in zip(weights, alone, strict=True):
            torch.testing.assert_close(together[key][i], g)


def test_inference_mode_gives_the_same_and_usable_teacher_values():
    teacher, x = small("resnet19", "relu"), images()
    with torch.inference_mode():
        features, logits = teacher.features(x)
    torch.testing.assert_close(logits, teacher(x).detach())
    student = small("resnet18")
    (student.features(x)[0][1] - features[1]).square().mean().backward()


# --- Invariances -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("neuron", BOTH)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
@torch.no_grad()
def test_images_of_a_batch_do_not_see_each_other(name, options, neuron):
    net, x = small(name, neuron, **options), images(4)
    order = torch.tensor([2, 0, 3, 1])
    features, logits = net.features(x)
    permuted, permuted_logits = net.features(x[order])
    torch.testing.assert_close(permuted_logits, logits[order])
    for a, b in zip(permuted, features, strict=True):
        torch.testing.assert_close(a, b.index_select(-4, order))
    torch.testing.assert_close(net(x[:1]), logits[:1])


@pytest.mark.parametrize("neuron", BOTH)
@pytest.mark.parametrize("name", MODELS)
def test_channels_last_changes_no_value(name, neuron):
    net, x = small(name, neuron), images()
    expected, logits = net.features(x)
    net.to(memory_format=torch.channels_last)
    features, same = net.features(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(same, logits)
    for a, b in zip(features, expected, strict=True):
        torch.testing.assert_close(a, b)
    same.sum().backward()


@torch.no_grad()
def test_an_image_keeps_its_values_outside_the_network():
    net, x = small("wrn28_4", "relu"), images()
    before = x.clone()
    net.features(x)
    assert torch.equal(x, before)


def test_feature_shapes_touch_neither_statistics_nor_the_generator():
    net = small("resnet18").train()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    generator = torch.get_rng_state()
    net.feature_shapes()
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


# --- Construction ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("neuron", BOTH)
def test_initial_weights_follow_the_seed(neuron):
    nets = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        nets.append(create_model("resnet18", neuron, width=0.1).state_dict())
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])
    assert not torch.equal(nets[0]["stages.stage1.0.branch.0.0.weight"], nets[2]["stages.stage1.0.branch.0.0.weight"])


def test_initial_weights_of_ann_and_snn():
    torch.manual_seed(0)
    ann, snn = (create_model("vgg11", neuron, vgg_head="single") for neuron in ("relu", "lif"))
    for net, std in ((ann, (2 / (9 * 512)) ** 0.5), (snn, (1 / (9 * 512) / 3) ** 0.5)):  # He fan-out; U(±1/√fan-in)
        conv = net.stages["stage4"][1].conv[0]
        assert conv.weight.std().item() == pytest.approx(std, rel=0.01)
        assert (conv.bias == 0).all().item() == (net is ann)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
def test_width_factor(name, options):
    full, half = (on_meta(name, width=w, taps="stem_and_stages", **options) for w in (1, 0.5))
    for (c, *_), (scaled, *_) in zip(full.feature_shapes(), half.feature_shapes(), strict=True):
        assert abs(scaled - c / 2) <= 0.75
    hidden = [m.in_features for m in half.classifier]
    assert hidden[-1] == {"vgg11": 2048, "vgg13": 256, "vggsnn": 1024}.get(name, 128) or "single" in options.values()
    tiny = on_meta(name, width=1e-3, taps="stem_and_stages", **options)
    assert {c for c, *_ in tiny.feature_shapes()} == {4}


def test_tdbn_scales_the_normalised_input():
    x = images(8)
    for alpha, threshold in ((None, 0.5), (0.5, 2.0), (3.0, 0.5)):
        net = create_model("resnet18", width=0.1, tdbn_alpha=alpha, neuron_options={"threshold": threshold}).double()
        out = net.stages["stem"][0].conv(x)
        scale = 1.0 if alpha is None else alpha * threshold
        assert out.std((0, 2, 3)).tolist() == pytest.approx([scale] * 6, rel=1e-2)
    ann = create_model("resnet18", "relu", width=0.1, tdbn_alpha=3.0)
    assert (ann.stages["stem"][0].conv[1].weight == 1).all()


def test_own_neurons():
    net = small("resnet18", Doubled, neuron_options={"decay": 0.9})
    assert net.spiking
    assert net.stages["stem"][0].neuron.lif.decay == 0.9
    assert set(net.features(images())[0][0].unique().tolist()) == {0, 2}
    gelu = small("resnet18", nn.GELU)
    assert not gelu.spiking
    assert gelu.features(images())[0][0].dim() == 4
    neurons = [m for m in net.modules() if isinstance(m, Doubled)]
    assert len(neurons) == 18  # stem, two in each of 8 blocks, hidden layer

    class Swish(nn.Module):
        spiking = False

        def forward(self, x):
            return x * x.sigmoid()

    assert not small("vgg13", Swish).spiking


def test_lif_options_reach_every_neuron():
    net = on_meta("wrn28_4", neuron_options={"gamma": 1.0, "decay": 0.3})
    neurons = [m for m in net.modules() if isinstance(m, LIF)]
    assert len(neurons) == 2 * 12 + 2  # two a block, after the last norm, hidden layer
    assert all((m.gamma, m.decay) == (1.0, 0.3) for m in neurons)


# --- Errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"name": "resnet20"}, ["name='resnet20'", "vgg11", "pyramidnet20"]),
        ({"name": None}, ["name=None", "resnet18"]),
        ({"neuron": "if"}, ["neuron='if'", "'lif', 'relu'"]),
        ({"neuron": LIF()}, ["neuron=LIF", "returns a new nn.Module"]),
        ({"neuron": dict}, ["neuron=", "nn.Module"]),
        ({"neuron_options": {"tau": 2}}, ["neuron_options='tau'", "decay"]),
        ({"neuron_options": {"decay": 2}}, ["decay=2"]),
        ({"num_classes": 0}, ["num_classes=0", ">= 1"]),
        ({"in_channels": 1.0}, ["in_channels=1.0"]),
        ({"image_size": (32, 32)}, ["image_size=(32, 32)"]),
        ({"timesteps": True}, ["timesteps=True"]),
        ({"width": 0}, ["width=0", "> 0"]),
        ({"width": float("nan")}, ["width=nan"]),
        ({"width": None}, ["width=None"]),
        ({"tdbn_alpha": -1.0}, ["tdbn_alpha=-1.0"]),
        ({"taps": "all"}, ["taps='all'", "stem_and_stages"]),
        ({"tap": "current"}, ["tap='current'", "membrane"]),
        ({"output": "rate"}, ["output='rate'", "leaky_membrane"]),
        ({"vgg_heads": "single"}, ["option='vgg_heads'", "vgg_head"]),
        ({"vgg_head": "double"}, ["vgg_head='double'", "stacked"]),
        ({"resnet18_variant": "2222"}, ["resnet18_variant='2222'", "standard"]),
        ({"neuron": "relu", "tap": "membrane"}, ["tap='membrane'", "stage1"]),
    ],
    ids=str,
)
def test_bad_values_are_named(bad, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are checked below)
        create_model(**{"name": "vgg11", "width": 0.05} | bad)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(("name", "options"), PRE_ACTIVATION, ids=ids)
def test_pre_activation_networks_have_no_membrane_to_tap(name, options):
    with pytest.raises(ValueError, match=r"tap='membrane'.*stage1"):
        on_meta(name, tap="membrane", **options)


def test_options_of_other_networks_are_ignored():
    everything = {key: values[-1] for key, values in OPTIONS.items()}
    for name in MODELS:
        assert isinstance(on_meta(name, **everything), Network)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 1, 16, 16), (2, 2, 1, 16, 16), (1, 2, 2, 3, 16, 16)])
def test_inputs_of_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"\(T, B, 3, H, W\)"):
        small("vgg11")(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
def test_every_network_takes_the_image_size_it_is_built_for(name, options):
    for size in (8, 15, 17, 32, 33, 48, 63):
        with torch.device("meta"):
            net = create_model(name, "relu", image_size=size, width=1 / 64, taps="stem_and_stages", **options)
            features, logits = net.features(torch.zeros(2, 3, size, size))
            assert logits.shape == (2, 10)
            assert [tuple(x.shape[1:]) for x in features] == net.feature_shapes()


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
def test_image_sizes_that_a_network_cannot_take_are_named(name, options):
    for size in (8, 32, 48):
        first = (size - 1) // 16 * 16 + 1
        allowed = rf"{name} of image_size={size} takes images {first} to {first + 15} pixels high and wide"
        with torch.device("meta"):
            net = create_model(name, "relu", image_size=size, width=1 / 64, **options)
            for side in (16, 17, 33, 64):
                x = torch.zeros(2, 3, side, size)
                if (name != "vggsnn" and (name != "vgg11" or size > 32)) or first <= side <= first + 15:
                    assert net(x).shape == (2, 10)
                else:
                    with pytest.raises(ValueError, match=rf"x has shape \(2, 3, {side}, {size}\): {allowed}"):
                        net(x)


# Convolution of single pixels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [(3, 4), (16, 32)])
def test_gradient_of_a_convolution_on_one_pixel_is_complete(channels, dtype):
    """Torch leaves 8 of 9 bf16 weights' gradients as they lay in memory (stride 2)."""
    layer = Conv(*channels, stride=2)
    x, grad = (torch.randn(8, c, 1, 1, generator=torch.Generator().manual_seed(c)).to(dtype) for c in channels)
    for _ in range(4):
        junk = [torch.full((2**k,), float("nan")) for k in range(6, 17) for _ in range(4)]
        del junk  # the allocator hands it out again
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = layer(x)
        out.backward(grad)
        expected = torch.zeros_like(layer.weight, dtype=torch.float64)
        expected[..., 1, 1] = torch.einsum("bo,bi->oi", grad[..., 0, 0].double(), x[..., 0, 0].double())
        bound = 1e-6 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(layer.weight.grad.double(), expected, rtol=bound, atol=bound)
        wanted = torch.einsum("oi,bi->bo", layer.weight[..., 1, 1], x[..., 0, 0].float())
        torch.testing.assert_close(out[..., 0, 0].float(), wanted, rtol=bound, atol=bound)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_convolution_is_torchs(side):
    layer = Conv(3, 4, stride=2, bias=True).double()
    plain = nn.Conv2d(3, 4, 3, 2, padding=1).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    torch.testing.assert_close(layer(x), plain(x))
    found, expected = (torch.autograd.grad(m(x).square().sum(), list(m.parameters())) for m in (layer, plain))
    torch.testing.assert_close(found, expected)


def test_sizes_may_be_numbers_of_numpy():
    sizes = dict(num_classes=np.int64(4), in_channels=np.int32(1), image_size=np.int64(16), width=np.float32(0.0625))
    net = create_model("vgg11", timesteps=np.int64(3), **sizes)
    assert type(net.timesteps) is int
    assert net(torch.zeros(2, 1, 16, 16)).shape == (2, 4)
    net.timesteps = np.int64(2)
    assert type(net.timesteps) is int


NARROW_SHORTCUT = """
import itertools

import torch
from sastc.models.layers import Conv

torch.manual_seed(0)
for threads, inputs in itertools.product((1, 2), (2, 4, 7, 8, 12)):
    torch.set_num_threads(threads)
    conv = Conv(inputs, 8, kernel=1, stride=2)
    exact = Conv(inputs, 8, kernel=1, stride=2).double()
    exact.load_state_dict({name: value.double() for name, value in conv.state_dict().items()})
    conv = conv.to(memory_format=torch.channels_last)
    x = torch.randn(8, inputs, 15, 16)
    images = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    same = x.double().requires_grad_()
    out, expected = conv(images), exact(same)
    out.square().sum().backward()
    expected.square().sum().backward()
    pairs = (out, expected), (images.grad, same.grad), (conv.weight.grad, exact.weight.grad)
    for got, wanted in pairs:
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)
print("all equal")
"""


@pytest.mark.slow
def test_narrow_shortcuts_on_processors_without_avx512():
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", NARROW_SHORTCUT], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "all equal\n"), done.stderr


def test_a_shortcut_keeps_its_bits_where_it_was_right():
    conv = Conv(4, 8, kernel=1, stride=2)
    x = torch.randn(3, 4, 7, 8)
    assert torch.equal(conv(x), F.conv2d(x, conv.weight, stride=2)), "contiguous"
    wide = Conv(8, 8, kernel=1, stride=2)
    x = torch.randn(3, 8, 7, 8).contiguous(memory_format=torch.channels_last)
    assert torch.equal(wide(x), F.conv2d(x, wide.weight, stride=2)), "8 channels"
