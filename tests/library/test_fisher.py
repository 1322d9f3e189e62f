"""Temporal Fisher information against one backward pass for each sample and number of steps, and a hand calculation."""

import pytest
import torch
from networks import VARIANTS, ids, images, small
from torch import nn

from sastc.fisher import fisher_trace, squared_gradients

LABELS = torch.tensor([3, 0, 9, 3])


def shorter(net, x, t):
    """Logits after t steps: the network is run for t steps."""
    if x.dim() == 5:
        return net(x[:t])
    if net.spiking:
        net.timesteps = t
    return net(x)


def reference(net, x, t, label):
    """‖∇ log p(label | x up to step t)‖² of one sample, by an ordinary backward pass."""
    net.zero_grad()
    shorter(net, x, t).log_softmax(-1)[0, label].backward()
    return sum(p.grad.square().sum().item() for p in net.parameters())


def each(x):
    return x.split(1, -4)


LEAKY = [(name, {"output": "leaky_membrane"}) for name in ("vgg11", "resnet18", "pyramidnet20")]


@pytest.mark.parametrize(("name", "options"), VARIANTS + LEAKY, ids=ids)
def test_true_labels_against_loops(name, options):
    net, x, y = small(name, timesteps=2, **options), images(3), LABELS[:3]
    ours = squared_gradients(net, x, y, chunk=2)
    assert ours.shape == (2, 3)
    assert ours.dtype == torch.float64
    torch.testing.assert_close(fisher_trace(net, x, y), ours.mean(1), rtol=1e-9, atol=0)
    expected = [[reference(net, sample, t, y) for sample, y in zip(each(x), y, strict=True)] for t in (1, 2)]
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)
    assert not torch.allclose(ours[0], ours[1], rtol=1e-3)  # time matters


def test_sequences_against_loops():
    net = small("vgg11", timesteps=7)
    x = torch.stack([images(4, seed=s) for s in range(3)])
    ours = squared_gradients(net, x, LABELS)
    expected = [[reference(net, sample, t, y) for sample, y in zip(each(x), LABELS, strict=True)] for t in (1, 2, 3)]
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)


def test_an_ann_has_one_step():
    net, x = small("resnet19", "relu"), images(4)
    expected = [reference(net, sample, 1, y) for sample, y in zip(each(x), LABELS, strict=True)]
    ours = squared_gradients(net, x, LABELS)
    torch.testing.assert_close(ours, torch.tensor([expected], dtype=torch.float64), rtol=1e-9, atol=0)


def every_label(net, x, steps):
    """Probabilities and squared norms of all labels, (T, B, N) each."""
    p, norms = [], []
    for t in range(1, steps + 1):
        p.append(torch.cat([shorter(net, sample, t).softmax(-1).detach() for sample in each(x)]))
        norms.append([[reference(net, sample, t, y) for y in range(p[-1].shape[-1])] for sample in each(x)])
    return torch.stack(p), torch.tensor(norms, dtype=torch.float64)


def test_expected_and_sampled_labels_against_loops():
    net, x = small("vgg11", num_classes=3, timesteps=2, width=0.03, vgg_head="single"), images(4)
    with torch.no_grad():
        net.classifier[-1].weight *= 10  # probabilities far from uniform, and from one another over time
    p, norms = every_label(net, x, 2)
    assert (p[0] - p[1]).abs().max() > 0.02
    exact = squared_gradients(net, x, labels="expected", chunk=3)
    torch.testing.assert_close(exact, (p * norms).sum(-1), rtol=1e-9, atol=0)

    many = x.repeat(100, 1, 1, 1)
    draws = squared_gradients(net, many, labels="sampled", chunk=64).view(2, 100, 4, 1)
    nearest = (draws / norms.unsqueeze(1) - 1).abs().min(-1)
    assert nearest.values.max() < 1e-9  # each draw is the norm of one label ...
    frequency = torch.stack([(nearest.indices == y).double().mean(1) for y in range(3)], -1)
    assert ((frequency - p).abs() < 4.5 * (p * (1 - p) / 100).sqrt() + 1e-9).all()  # ... as often as the model says
    runs = [squared_gradients(net, x, labels="sampled", seed=seed, chunk=chunk) for seed, chunk in ((1, 4), (1, 1))]
    torch.testing.assert_close(*runs, rtol=1e-9, atol=0)
    others = [squared_gradients(net, x, labels="sampled", seed=seed) for seed in range(2, 6)]
    assert not all(torch.allclose(runs[0], other) for other in others)


class Softmax(nn.Module):
    """A network of somebody else's: logits t·W·x after t steps."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def logits_by_step(self, x):
        return torch.arange(1.0, 4, dtype=x.dtype).view(-1, 1, 1) * (x.flatten(1) @ self.weight.T)


def test_softmax_regression_by_hand():
    # ∇_W log p_y = t (e_y - p) xᵀ. With W = 0, p = 1/4: ‖e_y - p‖² = 9/16 + 3/16 = 3/4; ‖x‖² = 1 + 4 = 5
    net, x = Softmax(torch.zeros(4, 2, dtype=torch.float64)), torch.tensor([1.0, 2.0]).double().view(1, 1, 1, 2)
    for labels in ("true", "sampled", "expected"):
        y = torch.tensor([2]) if labels == "true" else None
        for given in (x, x.flatten(1)):  # an image, a vector
            trace = fisher_trace(net, given, y, labels=labels)
            assert trace.tolist() == pytest.approx([3.75 * t**2 for t in (1, 2, 3)])


def test_state_is_left_alone():
    net, x = small("resnet18", timesteps=2), images(4)
    frozen = squared_gradients(net, x, LABELS)
    net.train()
    net.stages["stage1"].eval()
    modes = {name: module.training for name, module in net.named_modules()}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    next(net.parameters()).grad = torch.ones_like(next(net.parameters()))
    with torch.no_grad():
        torch.testing.assert_close(squared_gradients(net, x, LABELS), frozen)  # evaluation mode, whatever it was in
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    first, *others = net.parameters()
    assert (first.grad == 1).all()
    assert all(p.grad is None for p in others)
    torch.testing.assert_close(squared_gradients(net.requires_grad_(False), x, LABELS), frozen)  # all weights


def test_modes_come_back_after_an_error():
    net = small("vgg11").train()
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        fisher_trace(net, images(4, channels=1), LABELS)
    assert net.training


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"labels": "all"}, ["labels='all'", "sampled, expected"]),
        ({"y": None}, ["y=None", r"(4,)", "labels='true'"]),
        ({"y": LABELS[:3]}, ["y=(3,)", "(4,)"]),
        ({"labels": "sampled"}, ["y=(4,)", "None for labels='sampled'"]),
        ({"y": LABELS + 1}, ["y=[1, 4, 10]", "0 ... 9"]),
        ({"y": LABELS - 1}, ["y=[-1, 2, 8]", "0 ... 9"]),
        ({"chunk": 0}, ["chunk=0", ">= 1"]),
        ({"x": torch.zeros(3, 16, 16)}, ["x=(3, 16, 16)", "(B, C, H, W)"]),
        ({"model": torch.nn.Flatten()}, ["model='Flatten'", "logits_by_step(x) -> (T, B, N)"]),
    ],
    ids=str,
)
def test_bad_values_are_named(bad, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are checked below)
        fisher_trace(**{"model": small("vgg11"), "x": images(4), "y": LABELS} | bad)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_under_autocast_and_compiled():
    net, x = small("vgg11", timesteps=2).float(), images(3).float()
    expected = fisher_trace(net, x, LABELS[:3])
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(fisher_trace(net, x, LABELS[:3]), expected, rtol=0.1, atol=0)
    with pytest.raises(ValueError, match=r"y=torch.float32: must be integers"):
        fisher_trace(net, x, LABELS[:3].float())
