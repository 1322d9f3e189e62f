"""The programs that the book shows run, and print what the book says of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import programs
import pytest

from sastc.methods import REGISTRY

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "book" / "examples"
STAND_INS = ROOT / "tests" / "helpers" / "stand_ins"  # of libraries that are not required here


def run(name, *arguments, cwd=None):
    """What an example prints."""
    paths = [str(ROOT), *sys.path, str(STAND_INS)]  # the library itself goes first, where it is installed
    environment = dict(PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS="1")
    done = programs.run(EXAMPLES / f"{name}.py", *arguments, cwd=cwd or ROOT, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision_networks", "spikingjelly_student", "snntorch_student", "time_last"])
def test_calibration_on_networks_of_other_libraries(name):
    lines = run(name).splitlines()
    found = [re.fullmatch(r".*KD ([\d.]+), SASTC ([\d.]+), attention \(4, \d+, (\d+), (\d+)\)", line) for line in lines]
    assert len(lines) >= 2
    assert all(found), lines
    assert all(float(f[1]) > 0 and float(f[2]) > 0 for f in found)


@pytest.mark.slow
def test_the_first_program_is_complete_and_short():
    """Run as a reader does, by Python itself."""
    command = [sys.executable, str(EXAMPLES / "first_step.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert re.fullmatch(r"loss [\d.]+, attention \(4, 64, 2, 2\)\n", done.stdout), done.stderr
    code = (EXAMPLES / "first_step.py").read_text().partition('"""\n\n')[2]
    lines = [line for line in code.splitlines() if line.strip()]
    assert lines[0] == "import torch", "imports first, nothing to be added"
    assert len([line for line in lines if not line.strip().startswith('"""')]) <= 22


@pytest.mark.slow
def test_every_method_trains_a_network_of_ones_own():
    lines = run("own_bench", "1", "1").splitlines()
    found = dict(re.fullmatch(r"(.+?) +([\d.]+) %", line).groups() for line in lines)
    assert set(found) == {"teacher", *(kind.label for kind in REGISTRY.values())}
    assert max(float(value) for value in found.values()) > 20, "better than chance after an epoch"


@pytest.mark.slow
def test_own_network_learns_and_prints_its_attention():
    lines = run("own_network", "2").splitlines()
    accuracies = [float(re.fullmatch(r".+ ([\d.]+) %", line)[1]) for line in lines[:3]]
    assert min(accuracies) > 20, "better than chance after two epochs"
    rows = [[float(w) for w in line.split(":")[1].split()] for line in lines[4:]]
    assert [sum(row) for row in rows] == pytest.approx([1] * 3, abs=0.002)


def test_own_network_prints_what_the_book_shows():
    shown = (EXAMPLES / "own_network.txt").read_text().splitlines()
    source = (EXAMPLES / "own_network.py").read_text()
    assert [re.sub(r"[\d.]+", "#", line) for line in shown[:3]] == [
        "teacher        # %",
        "student alone  # %",
        "with SASTC     # %",
    ]
    assert shown[3] in source
    assert len(shown) == 7


def test_measures_on_a_network_of_ones_own():
    output = run("own_measures")
    assert re.search(r"^mismatch score +[\d.]+$", output, re.M)
    trace = [float(v) for v in re.search(r"^Fisher information (.+)$", output, re.M)[1].split()]
    assert len(trace) == 4
    assert min(trace) > 0
    # stride 2 on 16 pixels: windows of 2 and seven times 3 pixels; 16 channels, 4 steps
    assert f"{(2 + 7 * 3) ** 2 * 16 * 4:,} MACs" in output
    rows = dict(line.split()[:2] for line in output.splitlines() if re.match(r" *(convs|head)", line))
    assert rows == {"convs.0.0": "image", "convs.1.0": "spikes", "head": "pooled"}
    assert output.endswith("(4, 64, 4, 4), the same as of the collected spikes: True\n")


@pytest.mark.slow
def test_own_images_are_recorded_and_loaded(tmp_path):
    output = run("own_images", cwd=tmp_path)
    assert re.search(r"imagefolder-resnet18-resnet34-sastc-T2-s0-\w+ [\d.]+ % \(2, 2, \d, \d\)", output)
    assert re.search(r"^[\d,]+ parameters$", output, re.M)


def test_gradients_by_hand_are_the_librarys():
    comments = [line[2:] for line in (EXAMPLES / "by_hand.py").read_text().splitlines() if line.startswith("# [")]
    assert run("by_hand").splitlines() == comments
    slope = [(0.3 - abs(u - 1)) / 0.09 for u in (0.9, 1.05)]
    expected = 0.5 * slope[1] * (1 - 0.9 * slope[0])
    assert f"[{expected:.2f}, {slope[1]:.2f}]" in comments[0]


def test_training_step():
    assert re.match(r"loss [\d.]+; attention \(2, 64, 4, 3\), sums 1.000", run("training_step"))


@pytest.mark.slow
def test_own_method_is_compared_with_kd(tmp_path):
    lines = run("own_method", cwd=tmp_path).splitlines()
    assert [re.sub(r"-T2-s0-\w{10}  [\d.]+ %$", "", line) for line in lines] == [
        "digits-vgg11-resnet19-kd",
        "digits-vgg11-resnet19-logit_mse",
        "digits-vgg11-resnet19-logit_mse",
    ]
    assert lines[1].split()[0] != lines[2].split()[0], "another weight is another run"
    own = EXAMPLES / "own_method.py"
    assert len(own.read_text().split("class LogitMSE")[1].split("if __name__")[0].splitlines()) <= 20


@pytest.mark.slow
def test_own_pair_is_recorded_under_its_names(tmp_path):
    lines = run("own_pair", cwd=tmp_path).splitlines()
    names = [re.fullmatch(r"digits-small_snn-small_ann-(\w+)-T2-s0-\w{10}  [\d.]+ %", line)[1] for line in lines]
    assert names == ["kd", "sastc"]


def test_every_example_is_in_the_book():
    pages = "\n".join(path.read_text() for path in (ROOT / "book").glob("*.md"))
    for path in EXAMPLES.iterdir():
        assert f"examples/{path.name}" in pages, path.name
