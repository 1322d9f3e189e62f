"""``sastc.explore`` in a real JupyterLab, on a run that is still training."""

import json
import os
import subprocess
import sys
import time

import nbformat
import numpy as np
import pytest
from browsing import closed_context
from explored import record

pytestmark = [pytest.mark.browser, pytest.mark.workflow]


@pytest.fixture
def lab(tmp_path, request):
    """Address of a JupyterLab that sees only `tmp_path`, with its key."""
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / f".{name.lower()}") for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {"IPYTHONDIR": str(tmp_path / ".ipython"), "PYTHONPATH": str(request.config.rootpath)}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={tmp_path}"]
    with open(tmp_path / "lab.log", "wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, env=os.environ | folders, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        # the file exists before it is written
        while not (found := "".join(file.read_text() for file in (tmp_path / ".runtime").glob("jpserver-*.json"))):
            assert process.poll() is None, (tmp_path / "lab.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "lab.log").read_text()
            time.sleep(0.1)
        server = json.loads(found)
        yield f"http://127.0.0.1:{server['port']}", server["token"]
    finally:
        process.terminate()  # the server ends its kernels
        process.wait(30)


def wait_for_kernel(page):
    """Returns when the notebook's kernel is idle, for the server and for the page."""
    # asked by the page itself, which sees what it is told
    connected = """async () => {
        const kernels = await (await fetch("/api/kernels")).json();
        return kernels.length === 1 && kernels[0].execution_state === "idle" && kernels[0].connections === 1;
    }"""
    page.wait_for_function(connected, polling=200, timeout=120_000)
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=60_000)


def test_a_training_run_is_followed_in_jupyterlab(browser, lab, tmp_path):
    run = record(tmp_path / "results", extras=False, complete=False, epochs=2, timesteps=2)
    source = 'import sastc\n\nsastc.explore("results", interval=0.5)'
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=kernel)
    nbformat.write(notebook, tmp_path / "live.ipynb")
    base, token = lab
    faults: list[str] = []
    page = closed_context(browser, (base, base.replace("http", "ws")), faults, width=1300).new_page()
    page.goto(f"{base}/lab/tree/live.ipynb?token={token}")
    cell = page.locator(".jp-Notebook .jp-CodeCell .cm-content")
    cell.click(timeout=60_000)
    wait_for_kernel(page)  # JupyterLab drops what it is told to run while it connects
    cell.click()
    page.keyboard.press("Shift+Enter")
    page.locator(".jp-InputPrompt", has_text="[1]").wait_for(timeout=120_000)  # the cell has run
    shown = page.locator(".jp-OutputArea")
    try:
        page.wait_for_selector(".cell", timeout=60_000)
    except Exception as error:
        raise AssertionError(f"no explorer; the notebook shows {shown.all_text_contents()}, {faults}") from error

    def assert_drawn(weights, epoch):
        page.locator(".facts-line", has_text=f"Epoch {epoch} of").wait_for(timeout=20_000)
        drawn = np.array(page.locator(".cell .value").all_text_contents(), float).reshape(weights.shape)
        np.testing.assert_allclose(drawn, weights, atol=0.00502)

    assert_drawn(run.measures["attention"][-1].mean(0), 2)
    page.get_by_role("radio", name="2", exact=True).check(force=True)
    assert_drawn(run.measures["attention"][-1, 1], 2)
    page.locator("#epoch").focus()
    record(tmp_path / "results", extras=False, complete=False, epochs=3, timesteps=2)  # an epoch later
    assert_drawn(run.measures["attention"][-1, 1], 3)  # with the step as chosen
    page.keyboard.press("ArrowLeft")  # and the focus where it was
    assert page.locator("#epoch").get_attribute("aria-valuetext") == "epoch 2 of 3"
    assert_drawn(run.measures["attention"][1, 1], 2)
    page.context.close()
    assert not [fault for fault in faults if "asked for" in fault or "sastc" in fault]
