import os
import shutil

from tiny import TINY

# Numbers are compared bit for bit, which GPUs do not promise. Those in test_gpu.py are asked for.
if "SASTC_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import torch
from browsing import browsing

from sastc.config import RunConfig

torch.set_num_threads(1)

# Files that take longest begin first, so that two workers end together, and folders of many short tests come last: a
# worker takes its next file when it has two tests left, so that a long file of two tests would leave the other alone.
LONGEST = (
    "workflow/test_workflow.py", "workflow/test_launcher.py", "library/test_run.py", "library/test_explorer.py",
    "library/test_second_device.py", "library/test_distributed.py", "library/test_examples.py",
    "workflow/test_notebook_alone.py", "workflow/test_benchmarks.py",
)  # fmt: skip
FOLDERS = ("workflow", "library", "companion")


def pytest_collection_modifyitems(items):
    def place(item):
        name = "/".join(item.path.parts[-2:])
        return LONGEST.index(name) if name in LONGEST else len(LONGEST) + FOLDERS.index(item.path.parts[-2])

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def decoded_copies(tmp_path_factory):
    """No test writes into the user's cache folder; workers share one, so that kernels are built once."""
    own = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SASTC_CACHE", str((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "decoded"))
        yield


@pytest.fixture(scope="session")
def tiny():
    return lambda **changes: RunConfig(**(TINY | changes))


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed")
    return path


@pytest.fixture(scope="session")
def browser(chromium):
    with browsing(chromium) as browser:
        yield browser
