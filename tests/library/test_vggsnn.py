"""VGGSNN against published sizes and a plain loop; the networks of event data as ANN and SNN."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sastc.config import RunConfig
from sastc.models import create_model

DVS_RESNET = {"name": "resnet18", "resnet18_variant": "standard"}


def frames(steps=4, batch=3, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (steps, batch, 2, size, size), generator=generator).double()


def small(neuron, *, name="vggsnn", size=16, **options):
    """A narrow float64 network in eval mode whose batch norms fit its activity."""
    torch.manual_seed(0)
    options = {"width": 0.07, "image_size": size, "in_channels": 2, "taps": "stem_and_stages", **options}
    net = create_model(name, neuron, **options).double()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.bias, 0.0, 0.5)
    x = frames(size=size, seed=9)
    with torch.no_grad():
        net.train()(x if neuron == "lif" else x.mean(0))
    return net.eval()


def tet_parameters(size, channels=(64, 128, 256, 256, 512, 512, 512, 512)):
    """Eight 3x3 convolutions with bias, a batch norm behind each, one linear layer on all pixels."""
    total, inputs = 0, 2
    for outputs in channels:
        total += 9 * inputs * outputs + outputs + 2 * outputs
        inputs = outputs
    return total + 512 * (size // 16) ** 2 * 10 + 10


@pytest.mark.parametrize("neuron", ["lif", "relu"])
@pytest.mark.parametrize("size", [48, 64, 128])
def test_sizes_of_tet(neuron, size):
    with torch.device("meta"):
        net = create_model("vggsnn", neuron, in_channels=2, image_size=size)
    assert sum(p.numel() for p in net.parameters()) == tet_parameters(size)
    shapes = [(128, size), (256, size // 2), (512, size // 4), (512, size // 8)]
    assert net.feature_shapes() == [(c, s, s) for c, s in shapes]
    assert net.tap_names == ["stage1", "stage2", "stage3", "stage4"]
    assert len([m for m in net.modules() if isinstance(m, nn.AvgPool2d)]) == 4
    assert len([m for m in net.classifier.modules() if isinstance(m, nn.Linear)]) == 1


def test_vggsnn_against_a_loop_over_steps():
    """LIF with λ = 0.5 and threshold 1, pools behind convolutions 2, 4, 6 and 8, one step after the other."""
    net, x = small("lif"), frames()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    (linear,) = [m for m in net.modules() if isinstance(m, nn.Linear)]
    memory, logits, taps = [0.0] * 8, [], {k: [] for k in (0, 1, 3, 5, 7)}
    for step in x:
        z = step
        for k in range(8):
            u = 0.5 * memory[k] + norms[k](convs[k](z))
            z = (u > 1).double()
            memory[k] = u * (1 - z)
            if k in taps:
                taps[k].append(z)
            if k in (1, 3, 5, 7):
                z = F.avg_pool2d(z, 2)
        logits.append(linear(z.flatten(1)))
    features, found = net.features(x)
    torch.testing.assert_close(found, torch.stack(logits).mean(0))
    for got, expected in zip(features, taps.values(), strict=True):
        assert torch.equal(got, torch.stack(expected))
        assert 0 < got.mean() < 1
    assert (features[1][0] != features[1][2]).any(), "a sequence is not a static image"


@pytest.mark.parametrize("options", [{"name": "vggsnn"}, DVS_RESNET], ids=["vggsnn", "resnet18"])
@pytest.mark.parametrize("size", [12, 16, 24])
def test_event_networks(options, size):
    snn, ann = small("lif", size=size, **options), small("relu", size=size, **options)
    x = frames(size=size)
    for steps in (1, 4):
        features, logits = snn.features(x[:steps])
        assert logits.shape == (3, 10)
        assert [tuple(f.shape[2:]) for f in features] == snn.feature_shapes()
        assert {f.shape[:2] for f in features} == {(steps, 3)}
        torch.testing.assert_close(snn.logits_by_step(x)[steps - 1], logits)
    features, _ = ann.features(x.mean(0))
    assert [tuple(f.shape[1:]) for f in features] == ann.feature_shapes() == snn.feature_shapes()


def test_static_images_are_shown_in_every_step():
    net, x = small("lif", timesteps=3), frames(1)[0]
    torch.testing.assert_close(net(x), net(x.expand(3, *x.shape)))


def test_gradients_reach_every_weight():
    net = small("lif", neuron_options={"gamma": 1.0}).train()
    net(frames()).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("name", ["vggsnn", "resnet18"])
def test_an_ann_sees_the_mean_frame_or_every_frame(name):
    x = frames()
    mean, each = (small("relu", name=name, frames=choice) for choice in ("mean_frame", "per_step"))
    each.load_state_dict(mean.state_dict())
    features, logits = mean.features(x)
    expected_features, expected = mean.features(x.mean(0))
    assert torch.equal(logits, expected)
    assert all(torch.equal(a, b) for a, b in zip(features, expected_features, strict=True))
    features, logits = each.features(x)
    steps = [mean.features(frame) for frame in x]
    torch.testing.assert_close(logits, torch.stack([z for _, z in steps]).mean(0))
    for k, feature in enumerate(features):
        torch.testing.assert_close(feature, torch.stack([f[k] for f, _ in steps]))
    torch.testing.assert_close(each.step_logits(x), torch.stack([z for _, z in steps]))
    assert mean.step_logits(x).shape == (1, 3, 10)
    torch.testing.assert_close(each.logits_by_step(x)[1], torch.stack([z for _, z in steps[:2]]).mean(0))
    still = x[0]
    torch.testing.assert_close(each(still), mean(still))
    assert [f.dim() for f in each.features(still)[0]] == [4] * len(features)


def test_bad_frames_name_the_choices():
    with pytest.raises(ValueError, match=r"frames='sum': must be one of mean_frame, per_step"):
        create_model("vggsnn", "relu", frames="sum")


def standard_deviations(**options):
    torch.manual_seed(0)
    net = create_model("vggsnn", in_channels=2, image_size=16, **options)
    return [(m.in_channels, m.out_channels, m.weight.std().item()) for m in net.modules() if isinstance(m, nn.Conv2d)]


def test_first_weights_of_tet():
    """He's method on the outputs: N(0, 2 / (9 outputs)); PyTorch's default has the variance 1 / (27 inputs)."""
    plain, he = standard_deviations(), standard_deviations(vggsnn_init="he")
    assert len(he) == 8
    for (inputs, outputs, small), (_, _, large) in zip(plain, he, strict=True):
        assert small == pytest.approx((27 * inputs) ** -0.5, rel=0.05)
        assert large == pytest.approx((2 / (9 * outputs)) ** 0.5, rel=0.05)
        if inputs == outputs:
            assert large / small == pytest.approx(6**0.5, rel=0.02)
    with pytest.raises(ValueError, match=r"vggsnn_init='xavier': must be one of pytorch, he"):
        create_model("vggsnn", vggsnn_init="xavier")


def test_the_default_draws_what_it_drew():
    torch.manual_seed(5)
    plain = create_model("vggsnn", in_channels=2, image_size=16, width=0.07)
    torch.manual_seed(5)
    first = nn.Conv2d(2, 4, 3, padding=1)
    assert torch.equal(next(m for m in plain.modules() if isinstance(m, nn.Conv2d)).weight, first.weight)


def test_batch_norm_takes_the_size_of_first_weights_out_again():
    """Weights and biases 2.45 times as large: the same spikes in training mode, gradients 2.45 times smaller."""
    torch.manual_seed(0)
    net, x = create_model("vggsnn", in_channels=2, image_size=16, width=0.07, neuron_options={"gamma": 1.0}), frames()
    net, convs = net.double().train(), [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eps = 1e-12
    found = []
    for factor in (1.0, 6**0.5):
        with torch.no_grad():
            for conv in convs:
                conv.weight *= factor
                conv.bias *= factor
        net.zero_grad()
        spikes, logits = net.features(x)
        logits.square().sum().backward()
        found.append((spikes, [conv.weight.grad.clone() for conv in convs]))
    (spikes, gradients), (others, smaller) = found
    assert all(torch.equal(a, b) for a, b in zip(spikes, others, strict=True))
    assert spikes[0].mean() > 0.01
    for a, b in zip(gradients, smaller, strict=True):
        torch.testing.assert_close(b, a / 6**0.5)


def test_the_switch_is_part_of_a_run_and_of_its_teacher_and_the_default_is_not():
    config = RunConfig(dataset="digits_dvs", student="vggsnn", teacher="vggsnn")
    other = config.replace(vggsnn_init="he")
    assert other.identity != config.identity
    assert other.teacher_config().vggsnn_init == "he"
    assert "vggsnn_init" not in config.changed
    assert config.identity == "cf94347448"
