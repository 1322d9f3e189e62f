"""Spike Activation Map against its definition over spike times; Grad-CAM against weights written out."""

import math

import pytest
import torch
from networks import PRE_ACTIVATION, STANDARD, VARIANTS, WIDE, ids, images, small

import sastc
from sastc.neurons import LIF
from sastc.sam import class_activation_map, contribution_map, heatmap, spike_activation_map


def definition(spikes, gamma):
    """Kim & Panda 2021, Eq. 5 to 7: go through the spike times of every neuron."""
    steps, batch, channels, height, width = spikes.shape
    maps = torch.zeros(steps, batch, height, width, dtype=torch.float64)
    for b in range(batch):
        for c in range(channels):
            for h in range(height):
                for w in range(width):
                    times = [t for t in range(steps) if spikes[t, b, c, h, w] != 0]
                    for t in times:  # where the neuron is silent its product with S is 0
                        maps[t, b, h, w] += sum(math.exp(-gamma * abs(t - before)) for before in times if before <= t)
    return maps


def test_one_neuron_by_hand():
    # spikes at 0, 2, 3: scores 1, 1 + e^-1, 1 + e^-0.5 + e^-1.5
    spikes = torch.tensor([1, 0, 1, 1, 0.0]).double().view(5, 1, 1, 1, 1)
    expected = [1, 0, 1 + math.exp(-1), 1 + math.exp(-0.5) + math.exp(-1.5), 0]
    assert contribution_map(spikes).flatten().tolist() == pytest.approx(expected)
    assert contribution_map(spikes, 0).flatten().tolist() == [1, 0, 2, 3, 0]  # no decay: spikes so far


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_definition_in_loops(gamma):
    spikes = torch.rand(6, 2, 4, 3, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    ours = contribution_map(spikes.double(), gamma)
    torch.testing.assert_close(ours, definition(spikes, gamma))
    torch.testing.assert_close(contribution_map(spikes, gamma).double(), ours)  # booleans are spikes, too


def last_neuron(net, pre_activation):
    return net.neck[1] if pre_activation else list(net.stages.values())[-1][-1].neuron


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=ids)
def test_last_map_of_every_network(name, options):
    pre_activation = (name, options) in PRE_ACTIVATION or name == "pyramidnet20"
    for tap in ("spikes",) if pre_activation else ("spikes", "membrane"):
        net, x, seen = small(name, timesteps=3, tap=tap, **options), images(), []
        ours = spike_activation_map(net, x, gamma=0.7)
        assert torch.equal(spike_activation_map(net, x, gamma=0.7, layer=[*net.stages][-1]), ours)
        neuron = last_neuron(net, pre_activation)
        with torch.no_grad(), neuron.register_forward_hook(lambda module, args, output, seen=seen: seen.append(output)):
            net(x)
        assert 0 < seen[0].mean() < 1
        torch.testing.assert_close(ours, definition(seen[0], 0.7))


def test_layers_by_stage_and_by_name():
    net, x = small("resnet18", timesteps=4), torch.stack([images(2, seed=s) for s in range(4)])
    features = dict(zip(net.tap_names, net.features(x)[0], strict=True))
    for stage, spikes in features.items():
        expected = definition(spikes, 0.5)
        torch.testing.assert_close(spike_activation_map(net, x, layer=stage), expected)
        last = f"stages.{stage}.{len(net.stages[stage]) - 1}.neuron"
        torch.testing.assert_close(spike_activation_map(net, x, layer=last), expected)
    assert not torch.equal(spike_activation_map(net, x, layer="stages.stage3.0.branch.1"), expected)
    torch.testing.assert_close(spike_activation_map(net, x, gamma=0), definition(spikes, 0))


def test_only_maps_of_spikes():
    net, pyramid = small("resnet18"), small("wrn28_4")
    for model, layer in ((net, "classifier"), (net, "stages.stem.0.conv"), (pyramid, "stage2"), (net, "neck.2")):
        with pytest.raises(ValueError, match=f"layer='{layer}': .*output is spikes"):
            spike_activation_map(model, images(), layer=layer)
    with pytest.raises(ValueError, match=r"layer='stage9': must be one of stem, stage1"):
        spike_activation_map(net, images(), layer="stage9")
    for gamma in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"gamma={gamma}"):
            spike_activation_map(net, images(), gamma=gamma)
    with pytest.raises(ValueError, match="model='vgg11': must be an SNN"):
        spike_activation_map(small("vgg11", "relu"), images())
    with pytest.raises(ValueError, match="model='vgg11': must be an ANN"):
        class_activation_map(small("vgg11"), images())


def test_runs_record_the_maps_of_every_network(tiny, tmp_path):
    """The stages of a pre-activation network end in sums, so its last neuron's map is all there is."""
    for student, layers in (("resnet18", ["stage1", "stage2", "stage3"]), ("wrn28_4", ["stage3"])):
        config = tiny(student=student, teacher="", method="baseline", epochs=1)
        measures = sastc.run(config, results=tmp_path, progress=False).measures
        assert [name for name in measures if name.startswith("sam_")] == [f"sam_{layer}" for layer in layers]


class Own(torch.nn.Module):
    """Somebody else's network, which has nothing that this library's have."""

    def __init__(self, neuron):
        super().__init__()
        self.conv, self.neuron, self.head = torch.nn.Conv2d(3, 4, 3), neuron, torch.nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.neuron(self.conv(x).expand(3, -1, -1, -1, -1)).mean((-2, -1))).mean(0)


def test_networks_of_ones_own():
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    snn, ann = Own(LIF(threshold=0.3)), Own(torch.nn.ReLU())
    spikes = snn.neuron(snn.conv(x).expand(3, -1, -1, -1, -1))
    assert 0 < spikes.mean() < 1
    torch.testing.assert_close(spike_activation_map(snn, x, layer="neuron").double(), definition(spikes, 0.5))
    feature, classes = ann.conv(x).relu(), torch.tensor([1, 4])
    ours = class_activation_map(ann, x, classes, layer="neuron")
    torch.testing.assert_close(ours, cam(feature, ann.head.weight[classes] / 48).detach())  # 1 / (T · 4 · 4)
    for look, model in ((spike_activation_map, snn), (class_activation_map, ann)):
        with pytest.raises(ValueError, match=r"layer=None: must be the name of a module, see model.named_modules"):
            look(model, x)
    with pytest.raises(ValueError, match=r"spikes=\(2, 4, 4, 4\): must be \(T, B, C, H, W\)"):
        contribution_map(spikes[0])


# --- Grad-CAM --------------------------------------------------------------------------------------------------------
def cam(feature, weights):
    """relu(Σ_c weight_c f_c), pixel by pixel; features (B, C, H, W), weights (B, C)."""
    batch, channels, height, width = feature.shape
    out = torch.zeros(batch, height, width, dtype=feature.dtype)
    for b in range(batch):
        for h in range(height):
            for w in range(width):
                out[b, h, w] = max(0.0, sum(weights[b, c] * feature[b, c, h, w] for c in range(channels)))
    return out


POOLED = [
    ("vgg13", {}),
    ("resnet19", {}),
    ("resnet18", STANDARD),
    ("resnet32x4", {}),
    ("wrn40_2", {}),
    ("wrn16_2", WIDE),
]


@pytest.mark.parametrize("classes", [None, 4, torch.tensor([9, 0, 4])], ids=["predicted", "one", "each"])
@pytest.mark.parametrize(("name", "options"), [*POOLED, ("pyramidnet20", {})], ids=ids)
@torch.no_grad()
def test_pool_and_linear_layer_by_weights(name, options, classes):
    net, x = small(name, "relu", **options), images()
    features, logits = net.features(x)
    feature = net.neck[1](net.neck[0](features[-1])) if (name, options) in PRE_ACTIVATION else features[-1]
    chosen = logits.argmax(-1) if classes is None else torch.as_tensor(classes).expand(3)
    weights = net.classifier[0].weight[chosen] / feature[0, 0].numel()  # d logit / d f, the same at every pixel
    ours = class_activation_map(net, x, classes)
    torch.testing.assert_close(ours, cam(feature, weights))
    assert ours.max() > 0


@torch.no_grad()
def test_stacked_linear_layers_by_weights():
    net, x = small("vgg11", "relu", image_size=32), images(size=32)
    features, logits = net.features(x)
    first, second, third = (layer.weight for layer in net.classifier)
    weights = (third @ second @ first).view(10, *features[-1].shape[1:]).mean((-2, -1))
    torch.testing.assert_close(class_activation_map(net, x), cam(features[-1], weights[logits.argmax(-1)]))


def test_inner_layer_against_differences():
    net, x = small("resnet19", "relu"), images(1)
    stem = net.features(x)[0][0].detach()

    def logit(feature):
        for stage in list(net.stages.values())[1:]:
            feature = stage(feature)
        return net.classifier(net.neck(feature))[0, 6]

    weights = torch.zeros(1, stem.shape[1], dtype=torch.float64)
    with torch.no_grad():
        for c in range(stem.shape[1]):  # adding δ to a channel changes the logit by δ times the sum of its gradients
            up, down = (stem.clone() for _ in range(2))
            up[:, c] += 1e-6
            down[:, c] -= 1e-6
            weights[0, c] = (logit(up) - logit(down)) / 2e-6 / stem[0, 0].numel()
    ours = class_activation_map(net, x, 6, layer="stem")
    torch.testing.assert_close(ours, cam(stem, weights), rtol=1e-5, atol=1e-8)


def test_bad_classes_and_layers():
    net = small("vgg13", "relu")
    for bad in (10, -1, torch.tensor([0, 1]), 1.5, torch.zeros(3)):
        with pytest.raises(ValueError, match=r"class_index=.*0 \.\.\. 9, one for all or for each of 3 images"):
            class_activation_map(net, images(), bad)
    with pytest.raises(ValueError, match=r"layer='classifier': .*\(B, C, H, W\)"):
        class_activation_map(net, images(), layer="classifier")
    with pytest.raises(ValueError, match="layer='last'"):
        class_activation_map(net, images(), layer="last")


@pytest.mark.parametrize(("neuron", "look"), [("lif", spike_activation_map), ("relu", class_activation_map)])
def test_state_is_left_alone(neuron, look):
    net, x = small("resnet18", neuron), images()
    expected = look(net, x)
    assert not expected.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(look(net.requires_grad_(False), x), expected)  # a frozen teacher
    net.requires_grad_(True).train()
    net.stages["stem"].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.testing.assert_close(look(net, x), expected)
    with pytest.raises(ValueError, match=r"takes \(B"):
        look(net, x[:, :1])
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


# --- Heat map --------------------------------------------------------------------------------------------------------
def test_heatmap_by_hand():
    # bilinear with pixel centres: 0, 1 becomes 0, 1/4, 3/4, 1
    maps = torch.tensor([[2.0, 6.0], [2.0, 6.0]]).view(1, 1, 2, 2)
    ours = heatmap(maps, (2, 4))
    assert ours.shape == (1, 1, 2, 4)
    assert ours.tolist() == [[[[0, 0.25, 0.75, 1]] * 2]]
    assert heatmap(maps, 4).shape == (1, 1, 4, 4)
    assert torch.equal(heatmap(maps[0, 0], (2, 4)), ours[0, 0]), "a single map"


def test_every_heatmap_has_its_own_scale():
    maps = torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50]).view(2, 1, 1)
    maps[1, 0] = 7
    ours = heatmap(maps, 32)
    assert ours.shape == (3, 2, 32, 32)
    low, high = ours.amin((-2, -1)), ours.amax((-2, -1))
    assert (low == 0).all()
    assert high.tolist() == [[1, 1], [0, 1], [1, 1]]  # a constant map shows nothing
    torch.testing.assert_close(heatmap(maps[2], 32), ours[2])


def test_what_follows_a_layer_may_work_in_place():
    torch.manual_seed(0)
    convolution, rest = torch.nn.Conv2d(3, 4, 3), [torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5)]
    x = torch.rand(2, 3, 8, 8)
    maps = [
        class_activation_map(torch.nn.Sequential(convolution, torch.nn.ReLU(inplace=inplace), *rest), x, layer="0")
        for inplace in (False, True)
    ]
    torch.testing.assert_close(*maps)


def test_compiled_networks_are_measured():
    """Code compiled before a hook was there would not run it."""
    net, x = small("vgg11", timesteps=2), images(2)
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        compiled.eval()(x)
    layer = next(name for name, module in net.named_modules() if isinstance(module, LIF))
    torch.testing.assert_close(
        spike_activation_map(compiled, x, layer=f"_orig_mod.{layer}"), spike_activation_map(net, x, layer=layer)
    )
    assert sastc.count_energy(compiled, x, timesteps=2).macs == sastc.count_energy(net, x).macs
