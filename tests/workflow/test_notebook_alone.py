"""The notebook of one run as Colab opens it: the file alone, in an empty folder, where the project is not installed."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
from tiny import TINY

pytestmark = pytest.mark.workflow
ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "combination.ipynb"


@pytest.fixture
def fresh(tmp_path):
    """Python of a new environment that has what the project needs, but not the project.

    Packages are links to those of this environment, so that nothing is downloaded.
    """
    folder = tmp_path / "environment"
    venv.EnvBuilder(symlinks=True).create(folder)
    python = folder / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        own = path.suffix == ".pth" or "sastc" in path.name or path.name in ("__pycache__", "companion")
        if not own and not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    return python


def execute(python, folder, source):
    """Run the notebook by papermill in this folder with as little as it takes; the process, and where the output is."""
    output = folder / "out.ipynb"
    values = TINY | {"method": "kd"}
    words = [word for name, value in values.items() for word in ("-p", name, str(value))]
    names = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    names |= dict(SASTC_SOURCE=str(source), PIP_NO_INDEX="1", PIP_NO_BUILD_ISOLATION="false", OMP_NUM_THREADS="1")
    names |= dict(PIP_DISABLE_PIP_VERSION_CHECK="1", IPYTHONDIR=str(folder / "ipython"))
    command = [str(python), "-m", "papermill", NOTEBOOK.name, str(output), "-k", "python3", *words]
    return subprocess.run(command, cwd=folder, env=names, capture_output=True, text=True, timeout=600), output


def test_the_file_alone_installs_what_it_needs_and_trains(tmp_path, fresh):
    missing = subprocess.run([str(fresh), "-c", "import sastc"], cwd=tmp_path, capture_output=True, text=True)
    assert "No module named 'sastc'" in missing.stderr, "the environment lacks the project"
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / NOTEBOOK.name).write_bytes(NOTEBOOK.read_bytes())
    # the tracked files as they are now stand in for the repository
    source = tmp_path / "repository"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in files.decode().split("\0"):
        if name and not name.startswith("results/") and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "x"]):
        subprocess.run([*git, *words], cwd=source, check=True)
    done, output = execute(fresh, folder, source)
    assert done.returncode == 0, done.stderr[-3000:]
    (record,) = (folder / "sastc-companion/results/quick").glob("*-kd-*/metrics.json")
    accuracy = json.loads(record.read_text())["accuracy"]
    cells = nbformat.read(output, as_version=4).cells
    page = "".join(str(o.get("data", {}).get("text/html", "")) for c in cells for o in c.get("outputs", []))
    assert f"{accuracy:.2f}" in page
    assert not (folder / "results").exists(), "runs lie in the checkout, as everywhere"


def test_nothing_is_fetched_where_the_project_is_installed(tmp_path):
    (tmp_path / NOTEBOOK.name).write_bytes(NOTEBOOK.read_bytes())
    first = nbformat.read(NOTEBOOK, as_version=4).cells[1].source
    code = f"import subprocess\nsubprocess.run = None\n{first}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "sastc-companion").exists()
