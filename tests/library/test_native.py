"""The neuron's C++ kernels: torch's bits for every option, and a neuron all the same where they cannot be built."""

import itertools
import warnings

import programs
import pytest
import torch

import sastc
from sastc import native, neurons

needs_compiler = pytest.mark.usefixtures("kernels")


@pytest.fixture(scope="module")
def kernels():
    """Built when the first test needs them, not when tests are collected."""
    if native.library() is None:
        pytest.skip("no C++ compiler")


def same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("surrogate", native.SURROGATES)
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_every_option_has_torchs_bits(dtype, surrogate, reset):
    for steps, size, detach, start in itertools.product((1, 2, 5), (0, 1, 7, 1023, 3000), (False, True), (False, True)):
        generator = torch.Generator().manual_seed(steps * size)
        rows = (1.5 * torch.randn(steps, size, generator=generator)).to(dtype)
        grad = torch.randn(steps, size, generator=generator).to(dtype)
        u0 = torch.randn(size, generator=generator) if start else None
        if size > 100:  # what a neuron should never be fed, the threshold itself, and the zero with a sign
            rows[0, :5] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0, -0.0])
            grad[-1, 5:7] = torch.tensor([float("nan"), float("inf")])
        common = (rows, u0, 0.7, 0.9)
        assert same(native.spikes(*common, reset), neurons._spikes.eager(*common, reset))
        options = (*common, 0.3, surrogate, reset, detach)
        found, expected = native.gradients(grad, *options), neurons._gradients.eager(grad, *options)
        assert all(map(same, found, expected)), (steps, size, detach, start)


@needs_compiler
def test_threads_change_no_bit():
    torch.manual_seed(0)
    rows, grad = torch.randn(3, 50_000), torch.randn(3, 50_000)
    options = (rows, None, 0.5, 1.0, 0.3, "triangle", "hard", False)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append((native.spikes(*options[:4], "hard"), native.gradients(grad, *options)[0]))
    torch.set_num_threads(before)
    assert all(same(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@needs_compiler
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_layer_is_the_eager_one_in_every_layout(layout, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(6, 4, 5, 3).contiguous(memory_format=layout).unflatten(0, (2, 3))
    u0, grad = torch.randn(4, 1, 1), torch.randn(2, 3, 4, 5, 3)

    def run() -> list[torch.Tensor]:
        leaves = [x.detach().requires_grad_(), u0.detach().requires_grad_()]
        out = neurons.LIF(gamma=0.8)(*leaves)
        out.backward(grad)
        return [out, *(leaf.grad for leaf in leaves)]

    found = run()
    with monkeypatch.context() as patch:
        patch.setattr(native, "library", lambda: None)
        expected = run()
    assert all(map(same, found, expected))


def test_other_tensors_stay_with_torch():
    assert not native.can(torch.zeros(2, 3, dtype=torch.float64))
    assert not native.can(torch.zeros(2, 3, device="meta"))
    assert not native.can(torch.zeros(2, 3), "sigmoid")
    with torch._subclasses.FakeTensorMode():
        assert not native.can(torch.zeros(2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["compiler", "folder"])
def test_without_a_build_a_neuron_works_all_the_same(broken, tmp_path):
    (tmp_path / "file").write_text("")
    environment = {"compiler": {"CXX": "no-such-compiler"}, "folder": {"SASTC_CACHE": str(tmp_path / "file")}}[broken]
    code = (
        f"import os, torch; os.environ.update({environment}); from sastc import native, neurons;"
        "print(native.library(), neurons.LIF()(torch.tensor([[0.6], [0.8]])).flatten().tolist())"
    )
    done = programs.run("-c", code)
    assert done.stdout.split("\n")[0] == "None [0.0, 1.0]", done.stderr


@pytest.mark.slow
@needs_compiler
def test_a_compiler_may_be_a_command_of_several_words(tmp_path):
    code = (
        f"import os; os.environ |= dict(SASTC_CACHE={str(tmp_path)!r}, CXX='env g++'); from sastc import native;"
        "assert native.library() is not None"
    )
    assert programs.run("-c", code).returncode == 0


@pytest.mark.slow
@needs_compiler
def test_processes_that_build_at_the_same_moment(tmp_path):
    code = (
        f"import os; os.environ['SASTC_CACHE'] = {str(tmp_path)!r}; from sastc import native;"
        "assert native.library() is not None"
    )
    both = [programs.Program("-c", code) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]


def test_a_run_says_before_it_starts_that_bf16_is_slow_here(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "has_bf16", lambda: False)
    config = dict(method="teacher", width=1 / 32, epochs=1, train_subset=64)
    with pytest.warns(UserWarning, match=r"neither amx_bf16 nor avx512_bf16.*set precision=fp32"):
        sastc.run(sastc.RunConfig(**config, precision="bf16"), results=tmp_path, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sastc.run(sastc.RunConfig(**config), results=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("flags", "machine", "slow"),
    [
        ("flags: avx2 avx512f", "x86_64", True),
        ("flags: avx512_bf16", "x86_64", False),
        ("flags: amx_bf16", "x86_64", False),
        ("", "x86_64", False),
        ("", "aarch64", False),
    ],
)
def test_which_processors_are_slow(flags, machine, slow, monkeypatch):
    monkeypatch.setattr(native, "_processor", lambda: flags)
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    assert native.has_bf16() is not slow
