"""What only a real GPU can show: ``SASTC_TEST_GPU=1 pytest tests/test_gpu.py``. All else is tested on the CPU."""

import numpy as np
import pytest
import torch

import sastc
from sastc import fused
from sastc.config import METHODS
from sastc.neurons import LIF, SURROGATES
from sastc.records import Run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs SASTC_TEST_GPU=1 and a GPU")


def gradients(neuron, x, grad):
    leaf = x.detach().requires_grad_()
    spikes = neuron(leaf)
    return spikes.detach(), *torch.autograd.grad(spikes, leaf, grad)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_neurons_have_the_bits_of_eager_ones_and_of_the_cpu(monkeypatch, surrogate, steps, dtype, layout):
    generator = torch.Generator().manual_seed(steps)
    x, grad = (torch.randn(steps * 8, 16, 12, 12, generator=generator).to(dtype) for _ in range(2))
    if layout == "channels_last":
        x, grad = (v.contiguous(memory_format=torch.channels_last) for v in (x, grad))
    x, grad = (v.unflatten(0, (steps, 8)) for v in (x, grad))
    neuron = LIF(decay=0.7, surrogate=surrogate)
    expected = gradients(neuron, x, grad)
    for after in (2**60, 0):
        monkeypatch.setattr(fused, "COMPILE_AFTER", after)
        found = gradients(neuron, x.cuda(), grad.cuda())
        assert not fused._broken
        assert torch.equal(found[0].cpu(), expected[0])
        tolerance = {} if surrogate in ("triangle", "rectangle") else dict(rtol=1e-2 if x.dtype.itemsize == 2 else 1e-5)
        if tolerance:  # exp and division of another library
            torch.testing.assert_close(found[1].cpu(), expected[1], atol=1e-6, **tolerance)
        else:
            assert torch.equal(found[1].cpu(), expected[1])


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_begins_as_on_the_cpu(tiny, tmp_path, method, precision):
    """Later a rounding error flips a spike, and curves drift apart."""
    config = tiny(method=method, teacher="vgg11", precision=precision, learning_rate=1e-6)
    here, there = (sastc.run(config, results=tmp_path / d, progress=False, device=d) for d in ("cpu", "cuda"))
    assert there.provenance["device_type"] == "cuda"
    for name in here.history.columns[~here.history.columns.str.contains("second|gradient")]:
        np.testing.assert_allclose(there.history[name], here.history[name], rtol=0.1, err_msg=name)
    state = torch.load(there.weights, weights_only=True)
    assert {weight.device.type for weight in state.values()} == {"cpu"}
    assert 0 < there.metrics["peak_memory_bytes"] < 2**30


@pytest.mark.parametrize("changes", [{}, dict(accumulate=2), dict(precision="bf16", memory_format="channels_last")])
def test_steps_as_cuda_graphs(tiny, tmp_path, changes):
    config = tiny(method="sastc", **changes)
    plain = sastc.run(config, results=tmp_path / "a", progress=False, device="cuda")
    graphs = sastc.run(config, results=tmp_path / "b", progress=False, device="cuda", compiler="inductor")
    assert graphs.history.train_loss.iloc[0] == pytest.approx(plain.history.train_loss.iloc[0], rel=0.05)


def test_an_interrupted_run_goes_on(tiny, tmp_path, monkeypatch):
    from sastc.train import Trainer

    epoch = Trainer.epoch

    def stopped(self, number, bar):
        if self.config.method == "sastc" and number == 1:
            raise KeyboardInterrupt
        return epoch(self, number, bar)

    config = tiny(fisher_samples=4)
    monkeypatch.setattr(Trainer, "epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        sastc.run(config, results=tmp_path, progress=False, device="cuda")
    monkeypatch.setattr(Trainer, "epoch", epoch)
    run = sastc.run(config, results=tmp_path, progress=False, device="cuda")
    assert isinstance(run, Run)
    assert run.provenance["resumed_at_epoch"] == 1
    assert len(run.history) == 2
