"""Operations counted one connection at a time, MACs by hand, and published counts."""

import csv
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import torchvision
from networks import VARIANTS, Doubled, ids, images, small
from torch import nn

from sastc.energy import ENERGY_PER_AC_PJ, ENERGY_PER_MAC_PJ, SPECIAL_ENERGY_PER_AC_PJ, count_energy
from sastc.models import create_model
from sastc.models.layers import Conv, PerStep, ResidualUnit
from sastc.neurons import LIF


class Fires(nn.Module):
    """A neuron that fires what it was told, whatever comes in."""

    def __init__(self, spikes):
        super().__init__()
        self.spikes = spikes

    def forward(self, x):
        return self.spikes


class Toy(nn.Module):
    """Prepared spikes, then some layers."""

    timesteps = 2

    def __init__(self, spikes, *layers):
        super().__init__()
        self.neuron, self.layers = Fires(spikes), nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(self.neuron(x))


def train(*shape, rate=0.4, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def conv_connections(module, shape):
    """All pairs of an input (c, i, j) and an output (o, p, q) that are connected, from the definition."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = module.kernel_size, module.stride, module.padding, module.dilation
    (channels, height, width), outputs, groups = shape, module.out_channels, module.groups
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    pairs = []
    for o in range(outputs):
        for p in range(rows):
            for q in range(columns):
                for c in range(channels):
                    if c // (channels // groups) != o // (outputs // groups):
                        continue
                    for a in range(kh):
                        for b in range(kw):
                            i, j = p * sh - ph + a * dh, q * sw - pw + b * dw
                            if 0 <= i < height and 0 <= j < width:
                                pairs.append(((c, i, j), (o, p, q)))
    return pairs


def synaptic(spikes, pairs):
    """One operation for each connection of each spike (T, B, ...), of one sample."""
    steps, batch = spikes.shape[:2]
    found = sum(spikes[t, b][source] != 0 for t in range(steps) for b in range(batch) for source, _ in pairs)
    return int(found) / batch


CONVS = [
    nn.Conv2d(2, 3, 3, padding=1),
    nn.Conv2d(2, 3, 3, stride=2, padding=1),
    nn.Conv2d(2, 3, 1, stride=2),
    nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1), groups=2),
]


@pytest.mark.parametrize("layer", CONVS, ids=str)
def test_convolutions_against_loops(layer):
    spikes, image = train(2, 3, 2, 5, 6), torch.zeros(3, 1, 1, 1)
    layers = count_energy(Toy(spikes, PerStep(layer)), image, neurons=Fires).layers
    pairs = conv_connections(layer, (2, 5, 6))
    assert layers[["layer", "kind", "input"]].to_numpy().tolist() == [["layers.0.0", "conv", "spikes"]]
    assert layers.acs[0] == pytest.approx(synaptic(spikes, pairs))
    assert layers.macs[0] == 0
    assert layers.input_rate[0] == pytest.approx(spikes.mean().item())
    # the same layer behind something that does not spike: every connection, at every step
    analog = count_energy(Toy(spikes, nn.Hardtanh(), PerStep(layer)), image, neurons=Fires)
    assert analog.layers.input[0] == "analog"
    assert (analog.macs, analog.acs) == (2 * len(pairs), 0)
    outputs = layer(spikes[0])[0].numel()
    per_output = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
    assert analog.layers.dense_macs[0] == 2 * outputs * per_output


def test_linear_layers_against_loops():
    spikes = train(2, 3, 7)
    net = Toy(spikes, nn.Linear(7, 5), nn.Linear(5, 4))
    layers = count_energy(net, torch.zeros(3, 1, 1, 1), neurons=Fires).layers
    pairs = [((i,), (o,)) for i in range(7) for o in range(5)]
    assert layers.acs.tolist() == pytest.approx([synaptic(spikes, pairs), 0])
    assert layers.macs.tolist() == [0, 2 * 5 * 4]  # no neuron between them
    assert layers.input.tolist() == ["spikes", "analog"]


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(0)


def test_a_layer_behind_the_mean_over_time_runs_once():
    layers = count_energy(Toy(train(2, 3, 7), Mean(), nn.Linear(7, 5)), torch.zeros(3, 1, 1, 1), neurons=Fires).layers
    assert (layers.input[0], layers.macs[0], layers.acs[0]) == ("analog", 35, 0)


def test_shortcut_against_loops():
    spikes, fired = train(2, 3, 2, 5, 5), train(2, 3, 3, 3, 3, seed=1)
    layers = [Conv(2, 3, stride=2), Conv(3, 3), Conv(2, 3, 1, stride=2), Conv(3, 4)]
    branch = nn.Sequential(PerStep(layers[0]), Fires(fired), PerStep(layers[1]))
    net = Toy(spikes, ResidualUnit(branch, PerStep(layers[2])), PerStep(layers[3]))
    table = count_energy(net, torch.zeros(3, 1, 1, 1), neurons=Fires).layers.set_index("layer")
    for name, layer, seen in (
        ("layers.0.branch.0.0", layers[0], spikes),
        ("layers.0.branch.2.0", layers[1], fired),
        ("layers.0.shortcut.0", layers[2], spikes),
    ):
        expected = synaptic(seen, conv_connections(layer, seen.shape[2:]))
        assert (table.acs[name], table.macs[name]) == (pytest.approx(expected), 0)
    total = len(conv_connections(layers[3], (3, 3, 3)))
    assert (table.macs["layers.1.0"], table.acs["layers.1.0"]) == (2 * total, 0)  # a residual sum is analog


@pytest.mark.parametrize(
    ("pool", "kind"), [(nn.AvgPool2d(2), "pooled"), (nn.AdaptiveAvgPool2d(2), "pooled"), (nn.MaxPool2d(2), "spikes")]
)
def test_pools(pool, kind):
    spikes, layer = train(2, 3, 2, 4, 4, rate=0.2), Conv(2, 3)
    layers = count_energy(Toy(spikes, PerStep(pool), PerStep(layer)), torch.zeros(3, 1, 1, 1), neurons=Fires).layers
    seen = pool(spikes.flatten(0, 1)).unflatten(0, (2, 3))
    assert layers.input[0] == kind
    assert layers.acs[0] == pytest.approx(synaptic(seen, conv_connections(layer, (2, 2, 2))))
    assert layers.input_rate[0] == pytest.approx((seen != 0).float().mean().item())


# --- By hand ---------------------------------------------------------------------------------------------------------
def test_image_by_hand():
    # 3x3, border 1, on 4x4: windows cover (4·3 - 2)² = 100 pixels; 1 · 2 channels: 200 MACs a step. Usual count: 2·9·16
    net = nn.Sequential(PerStep(Conv(1, 2)), nn.ReLU())
    net.timesteps = 3
    image, spiking = torch.rand(5, 1, 4, 4), nn.Sequential(net[0], LIF())
    spiking.timesteps = 3
    assert count_energy(net, image).macs == 200  # no neuron that spikes: an ANN, which sees its input once
    for encoding, steps in (("per_step", 3), ("once", 1)):
        found = count_energy(spiking, image, encoding=encoding)
        assert (found.macs, found.acs, found.timesteps, found.samples) == (200 * steps, 0, 3, 5)
        assert found.layers.dense_macs[0] == 288 * steps
        assert found.energy_uj == pytest.approx(200 * steps * 4.6e-6)
        assert count_energy(spiking, image, encoding=encoding, formula="rate").macs == 288 * steps


def test_events_are_spikes():
    events, layer = 3 * train(2, 3, 1, 4, 4), Conv(1, 2)
    net = nn.Sequential(PerStep(layer), LIF())
    found = count_energy(net, events, encoding="events")
    assert found.timesteps == 2
    assert found.layers.input[0] == "events"
    assert found.macs == 0
    assert found.acs == pytest.approx(synaptic(events, conv_connections(layer, (1, 4, 4))))
    for encoding in ("per_step", "once"):  # frames differ: every step is computed
        assert count_energy(net, events, encoding=encoding).macs == 2 * 200
    net.timesteps = 4
    still = count_energy(net, events[0], encoding="events").acs
    assert still == pytest.approx(synaptic(events[:1].expand(4, -1, -1, -1, -1), conv_connections(layer, (1, 4, 4))))


class Shown(nn.Module):
    """A network that shows an image of 2x2 pixels three times: a 1x1 convolution, a neuron, a linear layer."""

    def __init__(self, how, neuron):
        super().__init__()
        self.how, self.conv, self.neuron, self.head = how, nn.Conv2d(1, 1, 1, bias=False), neuron, nn.Linear(4, 1)
        nn.init.ones_(self.conv.weight)

    def forward(self, x):
        if self.how == "loop":
            return sum(self.head(self.neuron(self.conv(x)[None])[0].flatten(1)) for _ in range(3))
        if self.how == "kept":
            current = self.conv(x).expand(3, -1, -1, -1, -1)
        elif self.how == "repeat":
            current = self.conv(x.repeat(3, 1, 1, 1)).unflatten(0, (3, -1))
        else:
            current = self.conv(x.expand(3, *x.shape).flatten(0, 1)).unflatten(0, (3, -1))
        return self.head(self.neuron(current).flatten(2)).sum(0)


@pytest.mark.parametrize("how", ["loop", "kept", "repeat", "expand"])
@pytest.mark.parametrize("given", ["argument", "attribute"])
def test_steps_do_not_depend_on_how_the_image_is_shown(how, given):
    # 4 connections a step, 3 steps; the pixels that are not zero are spikes with the encoding "events"
    net, x = Shown(how, LIF(threshold=0.5)), torch.tensor([0.0, 0.7, 0.8, 0.9]).view(1, 1, 2, 2).expand(5, -1, -1, -1)
    options = {"timesteps": 3}
    if given == "attribute":
        net.timesteps, options = 3, {}
    for encoding, macs, acs in (("per_step", 12, 0), ("once", 4, 0), ("events", 0, 9)):
        found = count_energy(net, x, encoding=encoding, **options)
        assert found.timesteps == 3
        layer, head = found.layers.itertuples()
        assert (layer.macs, layer.acs, layer.dense_macs) == (macs, acs, 4 if encoding == "once" else 12)
        assert head.acs == 9  # three pixels fire at each step
    assert count_energy(net, x, timesteps=3, chunk=2).macs == 12


def test_an_argument_goes_before_the_attribute():
    net = Shown("kept", LIF())
    net.timesteps = 2
    assert count_energy(net, torch.ones(1, 1, 2, 2), timesteps=3).macs == 12
    net.timesteps = None
    assert count_energy(net, torch.ones(1, 1, 2, 2)).macs == 4


def test_vectors_are_inputs_too():
    net = nn.Sequential(nn.Linear(4, 3), LIF(), nn.Linear(3, 2))
    net[0].forward = lambda x: 2 * torch.ones(2, len(x), 3)  # two steps, every neuron fires
    found = count_energy(net, torch.rand(5, 4), timesteps=2)
    assert found.layers[["macs", "acs"]].to_numpy().tolist() == [[2 * 4 * 3, 0], [0, 2 * 3 * 2]]
    with pytest.raises(ValueError, match=r"x=\(5, 4, 2\): must be \(B, F\), \(B, C, H, W\)"):
        count_energy(net, torch.rand(5, 4, 2))


class Then(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def halves(x):
    """Two parts of the channels by index, joined in the other order."""
    return torch.cat([x[:, :, 1:], x[:, :, :1]], 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.stack([step.contiguous() for step in x]),
        lambda x: torch.stack(tensors=x.unbind(0)),
        lambda x: torch.cat([x, x], dim=2)[:, :, :2],
        halves,
        lambda x: torch.concatenate(x.chunk(2, 2), 2),
        lambda x: torch.concat(x.split([1, 1], 2), 2),
        lambda x: x.repeat(1, 1, 2, 1, 1)[:, :, :2],
        lambda x: x.clone().detach().to(torch.float64).float().mT.contiguous().mT,
        nn.Dropout(0.5),
        nn.Identity(),
    ],
)
def test_spikes_stay_spikes(function):
    spikes, layer = train(2, 3, 2, 4, 4), Conv(2, 3)
    then = function if isinstance(function, nn.Module) else Then(function)
    row = count_energy(Toy(spikes, then, PerStep(layer)), torch.zeros(3, 1, 1, 1), neurons=Fires).layers.iloc[0]
    seen = then.eval()(spikes)
    assert row.input == "spikes"
    assert row.acs == pytest.approx(synaptic(seen, conv_connections(layer, (2, 4, 4))))


MEANS = [
    lambda x: x.mean((-2, -1)),
    lambda x: torch.mean(x, dim=[3, 4]),
    lambda x: torch.mean(input=x, dim=(-1, 3)),
]


@pytest.mark.parametrize("mean", MEANS)
def test_a_mean_over_the_last_two_dimensions_is_an_average_pool(mean):
    spikes, layer = train(2, 3, 4, 2, 2, rate=0.2), nn.Linear(4, 3)
    rows = [
        count_energy(Toy(spikes, *pool, layer), torch.zeros(3, 1, 1, 1), neurons=Fires).layers.iloc[0]
        for pool in ([Then(mean)], [PerStep(nn.AdaptiveAvgPool2d(1)), nn.Flatten(2)])
    ]
    assert rows[0].input == "pooled"
    assert 0 < rows[0].acs < 24
    assert rows[0].drop("layer").equals(rows[1].drop("layer"))
    both = Then(lambda x: torch.cat([mean(x), x[..., 0, 0]], -1))  # pooled inputs beside spikes
    assert count_energy(Toy(spikes, both, nn.Linear(8, 3)), torch.zeros(3, 1, 1, 1), neurons=Fires).layers.input[0] == (
        "pooled"
    )


def added_in_place(x):
    x += 0.5
    return x


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + x,
        lambda x: x.clone().add_(1),
        added_in_place,
        lambda x: torch.cat([x, 2 * x], 2)[:, :, :2],
        lambda x: x.mean(-1, keepdim=True).expand(x.shape),
        torch.cumsum,
    ],
)
def test_whatever_else_is_analog(function):
    then = Then(function if function is not torch.cumsum else lambda x: torch.cumsum(x, 0))
    net = Toy(train(2, 3, 2, 4, 4), then, PerStep(Conv(2, 3)))
    assert count_energy(net, torch.zeros(3, 1, 1, 1), neurons=Fires).layers.input[0] == "analog"


class Stateful(nn.Module):
    """A neuron that returns its spikes and its state."""

    def forward(self, x):
        return (x > 0).float(), x


def test_neurons_that_return_their_state_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron, self.a, self.b = Stateful(), nn.Linear(4, 2), nn.Linear(4, 3)

        def forward(self, x):
            spikes, state = self.neuron(x)
            return self.a(spikes).sum() + self.b(2 * state).sum()

    found = count_energy(Net(), torch.tensor([[1.0, -1, 1, 1]]), neurons=Stateful)
    assert found.layers[["input", "macs", "acs"]].to_numpy().tolist() == [["spikes", 0, 6], ["analog", 12, 0]]


def test_energy_by_hand():
    # five spikes of the first sample's seven neurons at one step, each with 4 connections; then 4·2 MACs at both steps
    spikes = torch.zeros(2, 1, 7)
    spikes[0, 0, :5] = 1
    found = count_energy(Toy(spikes, nn.Linear(7, 4), nn.Linear(4, 2)), torch.zeros(1, 1, 1, 1), neurons=Fires)
    assert (found.acs, found.macs) == (20, 16)
    assert found.layers.energy_nj.tolist() == pytest.approx([20 * 0.9e-3, 16 * 4.6e-3])
    assert found.energy_uj == pytest.approx((20 * 0.9 + 16 * 4.6) * 1e-6)
    assert found.special_energy_uj == pytest.approx((20 * 0.077 + 16 * 4.6) * 1e-6)
    rate = count_energy(Toy(spikes, nn.Linear(7, 4)), torch.zeros(1, 1, 1, 1), neurons=Fires, formula="rate")
    assert rate.acs == pytest.approx(5 / 14 * 2 * 28)


def test_constants_are_the_papers():
    with (Path(__file__).parents[2] / "paper" / "energy_constants.csv").open() as file:
        value = {row["name"]: float(row["value"]) for row in csv.DictReader(file)}
    assert value["energy_per_mac"] == ENERGY_PER_MAC_PJ
    assert value["energy_per_ac"] == ENERGY_PER_AC_PJ
    assert value["energy_per_sop_special_hardware"] == pytest.approx(1e3 * SPECIAL_ENERGY_PER_AC_PJ)


def test_published_count():
    found = count_energy(torchvision.models.resnet18(), torch.zeros(1, 3, 224, 224), formula="rate")
    published = torchvision.models.ResNet18_Weights.DEFAULT.meta["_ops"]  # 1.814 G
    assert found.macs / 1e9 == pytest.approx(published, abs=6e-4)


# --- Every network ---------------------------------------------------------------------------------------------------
ANALOG = {  # what else than the image is not made of spikes
    "vgg11": lambda name: name in ("classifier.1", "classifier.2"),
    "pyramidnet20": lambda name: name.endswith("branch.0.1"),
}


@pytest.mark.parametrize("steps", [2, 3, 7])
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
@torch.no_grad()
def test_every_network(name, options, steps):
    net, x, seen = small(name, timesteps=steps, **options), images(2), {}
    layers = {key: m for key, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    hooks = [
        m.register_forward_pre_hook(lambda m, args, key=key: seen.update({key: args[0]})) for key, m in layers.items()
    ]
    net.step_logits(x)
    for hook in hooks:
        hook.remove()
    found = count_energy(net, x)
    assert found.layers.layer.tolist() == list(seen)  # all layers, in the order of computation
    assert found.timesteps == steps
    for row in found.layers.itertuples():
        values, layer = seen[row.layer], layers[row.layer]
        first = row.Index == 0
        analog = first or ANALOG.get(name, lambda key: False)(row.layer)
        assert row.input == "image" if first else (row.input == "analog") == analog
        ones = torch.ones_like(values) if analog else (values != 0).double()
        weight = torch.ones_like(layer.weight)
        if isinstance(layer, nn.Conv2d):  # a convolution with ones of ones meets each connection once
            count = F.conv2d(ones.flatten(0, -4), weight, None, layer.stride, layer.padding).sum()
        else:
            count = F.linear(ones, weight).sum()
        assert (row.macs if analog else row.acs) == pytest.approx(count.item() / 2 * (steps if first else 1))
        assert (row.acs if analog else row.macs) == 0
        if not analog:
            assert torch.equal(values * 64, (values * 64).round())  # spikes, or means of at most 64 of them
            assert set(values.unique().tolist()) <= {0, 1} or row.input == "pooled"
            assert row.input_rate == pytest.approx(ones.mean().item())
    assert found.acs > 0
    sequence = count_energy(net, x.expand(steps, *x.shape))  # the repeated image costs what the static one costs
    pd.testing.assert_frame_equal(sequence.layers, found.layers)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
def test_anns_multiply(name, options):
    net = small(name, "relu", **options)
    found = count_energy(net, images(2))
    assert found.acs == 0
    assert found.timesteps == 1
    assert set(found.layers.input) == {"image", "analog"}
    pd.testing.assert_frame_equal(count_energy(net, images(2), encoding="events").layers, found.layers)
    snn = count_energy(small(name, timesteps=1, **options | {"resnet_head": "single"}), images(2))
    assert snn.layers.dense_macs.tolist() == found.layers.dense_macs.tolist()


def test_batches():
    net, x = small("resnet18"), images(5)
    whole = count_energy(net, x).layers
    labelled = ((part, torch.zeros(len(part))) for part in x.split(2))
    for given, options in ((x, {"chunk": 2}), (x.split(3), {}), (labelled, {})):
        found = count_energy(net, given, **options)
        pd.testing.assert_frame_equal(found.layers, whole)
        assert found.samples == 5
    sequence = x.expand(2, *x.shape)
    pd.testing.assert_frame_equal(count_energy(net, sequence, chunk=1).layers, whole)


def test_own_neurons():
    net = small("resnet18", Doubled)
    found = count_energy(net, images(), neurons=Doubled)
    assert set(found.layers.input[1:]) == {"spikes", "pooled"}
    with pytest.raises(ValueError, match=r"neurons=<class .*Fires'>: must be the class"):
        count_energy(net, images(), neurons=Fires)
    theirs = nn.Sequential(Conv(3, 2), Stateful()).double()  # nothing says that this is an SNN, but time steps do
    assert count_energy(theirs[:1], images()).acs == 0
    with pytest.raises(ValueError, match=r"neurons=<class .*LIF'>: must be the class"):
        count_energy(theirs, images(), timesteps=2)


def test_state_is_left_alone():
    net, x = small("resnet18"), images()
    expected, logits = count_energy(net, x).layers, net(x)
    net.train()
    net.stages["stem"].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    pd.testing.assert_frame_equal(count_energy(net, x).layers, expected)
    with pytest.raises(ValueError, match=r"takes \(B"):
        count_energy(net, x[:, :1])
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    after = net.eval()(x)
    assert type(after) is torch.Tensor
    assert torch.equal(after, logits)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"encoding": "rate"}, ["encoding='rate'", "per_step, once, events"]),
        ({"formula": "sops"}, ["formula='sops'", "connections, rate"]),
        ({"chunk": 0}, ["chunk=0", ">= 1"]),
        ({"timesteps": 0}, ["timesteps=0", ">= 1"]),
        ({"x": []}, ["x=0", "at least one sample"]),
        ({"model": nn.Bilinear(1, 1, 1)}, ["model=Bilinear", "(it has weight)"]),
        ({"model": nn.Sequential(nn.Conv1d(1, 1, 3))}, ["0=Conv1d", "must be Conv2d"]),
        ({"model": nn.Conv2d(3, 1, 3, padding="same")}, ["Conv2d", "in pixels"]),
        ({"model": nn.Conv2d(3, 1, 3, padding=1, padding_mode="circular")}, ["circular", "border of zeros"]),
    ],
    ids=str,
)
def test_bad_values_are_named(bad, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are checked below)
        count_energy(**{"model": nn.Conv2d(3, 1, 3), "x": images()} | bad)
    assert all(word in str(error.value) for word in words), str(error.value)


class Named(nn.Sequential):
    """Calls its layer by the argument's name."""

    def forward(self, x):
        return self[0](input=x)


def test_layers_called_by_name_and_valid_borders():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 8, 8)
    plain, valid = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, padding="valid")
    for model in (nn.Sequential(plain), nn.Sequential(valid), Named(plain)):
        assert count_energy(model, x).macs == 4 * 3 * 9 * 36


@pytest.mark.parametrize("encoding", ["per_step", "once", "events"])
@pytest.mark.parametrize("wrapper", ["norm", "parallel", "compiled", "holder"])
def test_a_wrapped_network_is_counted_like_itself(wrapper, encoding):
    class Holder(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(2 * x)

    torch.manual_seed(0)
    network = create_model("resnet18", width=1 / 16, image_size=12, timesteps=3, neuron_options={"gamma": 1.0})
    x = torch.rand(2, 3, 12, 12)
    wrap = dict(
        norm=lambda n: nn.Sequential(nn.BatchNorm2d(3, affine=False, eps=3.0), n),
        parallel=nn.DataParallel,
        compiled=lambda n: torch.compile(n, backend="eager"),
        holder=Holder,
    )[wrapper]
    seen = {"norm": x / 2, "holder": 2 * x}.get(wrapper, x)
    bare, wrapped = (count_energy(m, v, encoding=encoding) for m, v in ((network, seen), (wrap(network), x)))
    assert wrapped.timesteps == bare.timesteps == 3
    numbers = ["input", "macs", "acs", "energy_nj"]
    pd.testing.assert_frame_equal(wrapped.layers[numbers], bare.layers[numbers])
    assert "forward" not in vars(network), "the network is left as it was"


def test_networks_of_different_steps_in_one_model_need_timesteps():
    networks = [create_model("vgg11", width=1 / 16, image_size=12, timesteps=t) for t in (2, 3)]
    with pytest.raises(ValueError, match=r"timesteps=\[2, 3\]: must be given"):
        count_energy(nn.ModuleList(networks), torch.rand(2, 3, 12, 12))
