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

# Files that take longest begin first, so that two workers end together; the others follow in order.
LONGEST = ("workflow/test_workflow.py", "workflow/test_launcher.py", "library/test_run.py", "library/test_explorer.py")


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


@pytest.fixture(scope="session", autouse=True)
def decoded_copies(tmp_path_factory):
    """No test writes into the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SASTC_CACHE", str(tmp_path_factory.mktemp("decoded")))
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
