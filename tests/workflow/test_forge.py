"""What runs on the forge: every action is one that is known, by its commit."""

import re
from pathlib import Path

import pytest

WORKFLOWS = sorted(Path(__file__).parents[2].glob(".github/workflows/*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_their_version_beside(path):
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_pull_requests_are_tested():
    assert any("pull_request:" in path.read_text() and "make test" in path.read_text() for path in WORKFLOWS)


def test_the_container_copies_what_there_is_and_makes_what_can_be_made():
    root = Path(__file__).parents[2]
    lines = (root / "Dockerfile").read_text().splitlines()
    copied = [source for line in lines if line.startswith("COPY") for source in line.split()[1:-1]]
    assert copied
    for source in copied:
        assert (root / source).exists(), source
    (version,) = [line.split(":")[1].split("-")[0] for line in lines if line.startswith("FROM python:")]
    assert tuple(map(int, version.split("."))) >= (3, 11)
    targets = re.findall(r"^([\w./]+):", (root / "Makefile").read_text(), re.M)
    made = re.findall(r"^RUN make ([\w./]+)", "\n".join(lines), re.M) + re.findall(r'"make", "(\w+)"', "\n".join(lines))
    assert made
    assert set(made) <= set(targets)
