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
