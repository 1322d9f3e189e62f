"""Every program prints on every terminal."""

import io
import os
import subprocess
import sys

import pytest

from companion.report import ROOT
from sastc import __main__ as program
from sastc.terminal import print_anywhere


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_what_a_terminal_does_not_have_is_spelt_out(monkeypatch, encoding):
    for arguments in (["explain"], ["show", "λ of Ψ"], ["train", "student=λ"]):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert program.main(arguments) == (0 if arguments == ["explain"] else 2)
        for stream in (out, err):
            stream.flush()
        text = (out.buffer.getvalue() + err.buffer.getvalue()).decode(encoding)
        assert "\\u03bb" in text


def test_a_captured_stream_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    print_anywhere()
    print("λ")
    assert sys.stdout.getvalue() == "λ\n"


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["-m", "sastc", "explain", "decay", "gamma", "beta"], 0),
        (["workflow/execute.py", "combination", "student=λ"], 2),
        (["workflow/launch.py", "--only", "λ"], 2),
    ],
)
def test_so_it_is_for_the_programs_themselves(settings, words, status):
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=os.environ | settings, capture_output=True)
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"\\u03bb" in done.stdout if status == 0 else b"Error: " in done.stderr
