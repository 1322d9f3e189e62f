"""The workflow's plan: what a recorded run adds to it, and how the time left is told."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))
plan = __import__("plan")


def test_the_time_left_follows_the_mean_pace_since_the_start():
    assert plan.seconds_left(30.0, 100.0, 10.0, 40.0) == pytest.approx(140.0)  # 20 done in 40 s, 70 to go
    assert plan.seconds_left(10.0, 100.0, 10.0, 40.0) == float("inf")
    assert plan.seconds_left(100.0, 100.0, 10.0, 40.0) == 0.0


def test_a_digest_follows_the_content_and_the_set_of_records(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "ROOT", tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1000, 1000))
    job = plan.Job("table2", "table2_slim", "x", {}, record=("a", "b"))
    plan.write_digests({"x": job})
    digest = tmp_path / job.digest
    before = digest.read_text()
    assert digest.stat().st_mtime == 1000
    (tmp_path / "b").write_text("other")
    plan.write_digests({"x": job})
    assert digest.read_text() != before
    assert digest.stat().st_mtime > 1000
    assert plan.Job("table2", "table2_slim", "x", {}, record=("a",)).digest != job.digest
    assert plan.Job("table2", "table2", "x", {}).digest is None


def test_locks_are_found_in_a_folder_of_any_name(tmp_path):
    import engine

    locks = tmp_path / "{0}" / "{n"
    locks.mkdir(parents=True)
    for name in ("0.input.lock", "12.input.lock", "3.output.lock", "x.input.lock", "0.input.lock~"):
        (locks / name).touch()
    found = list(engine.files_like(f"{locks}/{{n,[0-9]+}}.input.lock"))
    assert found == [(f"{locks}/0.input.lock", {"n": "0"}), (f"{locks}/12.input.lock", {"n": "12"})]
