"""Compiled neurons: the same bits as the eager ones, few compilations, and eager ones where compiling does not work."""

import os
import subprocess
import sys

import pytest
import torch
from torch._dynamo.utils import counters

from sastc import fused
from sastc.neurons import LIF, SURROGATES
from sastc.train import run

NEVER = 2**60


@pytest.fixture
def compiling(monkeypatch):
    """Neurons are compiled at their first call."""
    monkeypatch.setattr(fused, "COMPILE_AFTER", 0)
    LIF()(torch.zeros(2, 2, 3))
    if fused._broken:
        pytest.skip(f"no working C++ compiler: {fused._broken[0]}")


def results(neuron, x, grad, u0=None, compiled=True):
    """Spikes and gradients, by the compiled or by the eager kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "COMPILE_AFTER", 0 if compiled else NEVER)
        leaves = [leaf.detach().requires_grad_() for leaf in (x, u0) if leaf is not None]
        spikes = neuron(*leaves)
        return spikes, *torch.autograd.grad(spikes, leaves, grad)


def drawn(*shape, seed=0, dtype=torch.float32, channels_last=False):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).add(0.6).to(dtype)
    if channels_last:
        values = values.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, shape[:2])
    return values


# Every value of every option; nearly all combinations were compared once, they take minutes to compile.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "dtype", "options", "start"),
    [
        (2, torch.float32, {}, False),
        (3, torch.float32, dict(decay=0.7, threshold=0.9, gamma=1.1, reset="soft", surrogate="atan"), True),
        (3, torch.bfloat16, dict(decay=0.1, surrogate="rectangle", detach_reset=True), True),
        (7, torch.bfloat16, dict(decay=0.9), False),
        (1, torch.float64, dict(reset="soft", detach_reset=True, surrogate="sigmoid"), False),
    ],
)
def test_compiled_is_eager_to_the_last_bit(compiling, steps, dtype, options, start):
    neuron = LIF(**options)
    for channels_last, shape in enumerate([(2, 64, 16, 17), (3, 5, 7, 6), (1, 3, 2, 2)]):  # whole vectors, and ends
        kinds = dict(dtype=dtype, channels_last=bool(channels_last))
        x, grad = (drawn(steps, *shape, seed=seed, **kinds) for seed in (1, 2))
        u0 = drawn(*shape, seed=3, dtype=dtype) if start else None
        ours, expected = (results(neuron, x, grad, u0, compiled) for compiled in (True, False))
        for found, wanted in zip(ours, expected, strict=True):
            assert torch.equal(found, wanted)
            assert found.stride() == wanted.stride()


def test_compiled_under_other_numbers_of_threads(compiling):
    x, grad = drawn(2, 8, 16, 33, 31), drawn(2, 8, 16, 33, 31, seed=1)
    expected = results(LIF(), x, grad, compiled=False)
    try:
        torch.set_num_threads(2)
        assert all(map(torch.equal, results(LIF(), x, grad), expected))
    finally:
        torch.set_num_threads(1)


def test_one_graph_serves_all_layers(compiling):
    results(LIF(), drawn(2, 4, 5), drawn(2, 4, 5))
    before = counters["stats"]["unique_graphs"]
    for shape in [(2, 4, 8, 8), (8, 16, 4, 4), (8, 3, 7, 5), (2, 100), (9, 6, 1, 1)]:
        for channels_last in (False, len(shape) == 4):
            x, grad = (drawn(2, *shape, seed=s, channels_last=channels_last) for s in (0, 1))
            results(LIF(), x, grad)
    assert counters["stats"]["unique_graphs"] == before


def test_many_variants_do_not_reach_the_limit_of_recompilation(compiling):
    x = drawn(4, 3, 3, dtype=torch.float16)  # not compiled by another test
    before = counters["stats"]["unique_graphs"]
    with torch._dynamo.config.patch(recompile_limit=1):
        assert torch.equal(LIF()(x), eager_spikes(LIF(), x))
    assert counters["stats"]["unique_graphs"] == before + 1
    assert not fused._broken


def eager_spikes(neuron, x):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "COMPILE_AFTER", NEVER)
        return neuron(x)


def test_static_image_is_read_once(compiling):
    image = drawn(4, 3, 6, 6)
    x, grad = image.expand(2, *image.shape), drawn(2, 4, 3, 6, 6, seed=1)
    assert all(map(torch.equal, results(LIF(), x, grad), results(LIF(), x.clone(), grad, compiled=False)))


def test_gradients_of_single_samples(compiling):
    x, u0, weights = drawn(5, 3, 4, 6), drawn(5, 4, 6, seed=1), drawn(4, 6, seed=2)
    neuron = LIF(reset="soft", surrogate="atan")

    def loss(x, u0):
        return (neuron(x, u0) * weights).sum()

    each = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))
    ours = each(x, u0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "COMPILE_AFTER", NEVER)
        assert all(map(torch.equal, ours, each(x, u0)))


def test_part_of_a_compiled_network(compiling):
    x, grad = drawn(2, 3, 4), drawn(2, 3, 4, seed=1)
    network = torch.compile(torch.nn.Sequential(LIF()), backend="aot_eager", fullgraph=True)
    assert all(map(torch.equal, results(network, x, grad), results(LIF(), x, grad, compiled=False)))


@pytest.mark.slow
def test_fork_compiles_for_itself(compiling):
    """As the kernels of the notebooks: forked from a process that has everything imported and nothing run."""
    code = """
import os
import torch
import sastc.train
from sastc import fused
from sastc.neurons import LIF
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
x = torch.linspace(0, 2, 20).view(2, 2, 5)
eager = LIF()(x)
fused.COMPILE_AFTER = 0
os._exit(0 if torch.equal(LIF()(x), eager) and not fused._broken else 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_run_does_not_depend_on_compiling(compiling, tiny, tmp_path, monkeypatch):
    config = tiny(method="kd", epochs=1, precision="bf16")
    compiled = run(config, results=tmp_path / "a", progress=False)
    monkeypatch.setattr(fused, "COMPILE_AFTER", NEVER)
    eager = run(config, results=tmp_path / "b", progress=False)
    assert compiled.metrics["weights_sha256"] == eager.metrics["weights_sha256"]


@pytest.mark.slow
def test_without_a_compiler_it_says_so_once_and_goes_on(tmp_path):
    code = """
import torch
from sastc import fused
from sastc.neurons import LIF
x = torch.randn(3, 4, 5)
eager = LIF()(x)
fused.COMPILE_AFTER = 0
for _ in range(3):
    assert torch.equal(LIF()(x), eager)
"""
    changes = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | changes, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: neurons run uncompiled") == 1


def test_compiles_once_it_pays(monkeypatch):
    calls = []

    def kernel(x, option):
        calls.append("eager")
        return x + option

    def compile(function, **_):
        return lambda *arguments: calls.append("compiled") or arguments[0] + arguments[1]

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(fused, "COMPILE_AFTER", 100)
    monkeypatch.setattr(fused, "_broken", [])
    function, x = fused.fused(kernel), torch.zeros(2, 20)
    for option in (1, 1, 1, 1, 2, 1):  # another option is another graph
        assert torch.equal(function(x, option), x + option)
    assert calls == ["eager"] * 3 + ["compiled", "eager", "compiled"]


def test_mistakes_of_the_caller_are_raised(monkeypatch):
    monkeypatch.setattr(fused, "COMPILE_AFTER", 0)
    monkeypatch.setattr(fused, "_broken", [])
    with pytest.raises(ValueError, match=r"u0 has shape \(7,\)"):
        LIF()(torch.zeros(2, 3, 4), torch.zeros(7))
    assert not fused._broken


def test_every_surrogate_was_compared():
    cases = test_compiled_is_eager_to_the_last_bit.pytestmark[0].args[1]
    assert {options.get("surrogate", "triangle") for _, _, options, _ in cases} == set(SURROGATES)


def test_this_version_of_torch_has_all_options_for_gpus():
    from torch._inductor import config

    assert fused.GPU_OPTIONS.keys() <= config.get_config_copy().keys()
