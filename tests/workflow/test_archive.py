"""The archive of the recorded runs: all that it describes is in it, and says what the records say."""

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

import sastc
from sastc.records import list_runs, write_config

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow"))
import archive  # noqa: E402


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("results")
    slim = tiny(scale="slim", precision="fp32", memory_format="contiguous", method="kd", train_subset=128)
    sastc.run(slim, results=folder, progress=False)
    (folder / "README.md").write_text("what is here\n")
    lost = folder / "slim" / "lost"
    lost.mkdir()
    config = slim.replace(learning_rate=9.0)
    write_config(lost, config)
    (lost / "diverged.json").write_text('{"epoch": 1, "what": "the loss"}')
    (folder / "slim" / "again.csv").write_text("run\n")
    return folder


@pytest.fixture(scope="module")
def packed(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "runs.zip"
    assert archive.main(["--results", str(results), "--out", str(out)]) == out
    with zipfile.ZipFile(out) as file:
        yield file


@pytest.fixture
def graph(packed):
    described = json.loads(packed.read("ro-crate-metadata.json"))
    return {entity["@id"]: entity for entity in described["@graph"]}


def links(value):
    if isinstance(value, dict):
        if set(value) == {"@id"}:
            yield value["@id"]
        for inner in value.values():
            yield from links(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from links(inner)


def test_every_link_leads_somewhere(graph):
    elsewhere = {"https://w3id.org/ro/crate/1.1"}
    assert {target for entity in graph.values() for target in links(entity)} <= set(graph) | elsewhere
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    for name in ("name", "description", "license", "datePublished"):  # which RO-Crate asks for
        assert graph["./"][name]


def test_files_are_there_with_their_hashes(packed, graph):
    described = {name: entity for name, entity in graph.items() if entity["@type"] == "File"}
    assert {Path(name).name for name in described} >= {"config.json", "metrics.json", "history.csv", "measures.npz"}
    for name, entity in described.items():
        content = packed.read(name)
        assert hashlib.sha256(content).hexdigest() == entity["sha256"]
        assert len(content) == int(entity["contentSize"])
    names = packed.namelist()
    assert not [name for name in names if name.endswith(".pt")]
    beside = {"results/README.md", "results/slim/lost/diverged.json", "results/slim/again.csv"}
    assert {"CITATION.cff", "LICENSE"} | beside <= set(names)


def test_a_run_says_what_its_record_says(results, graph):
    (student,) = [run for run in list_runs(results) if run.complete and run.config.method == "kd"]
    place = f"results/{student.path.relative_to(results).as_posix()}/"
    assert graph[place]["name"] == student.name
    assert graph[f"#{student.name}/learning_rate"]["value"] == student.config.learning_rate
    assert graph[f"#{student.name}/result/accuracy"]["value"] == student.metrics["accuracy"]
    assert graph[f"#{student.name}/training"]["name"] == student.provenance["command"]
    teacher = graph[place]["isBasedOn"]["@id"]
    assert graph[teacher]["name"] == student.provenance["teacher"]["run"]


def test_a_damaged_record_is_not_packed(results, tmp_path, capsys):
    copy = shutil.copytree(results, tmp_path / "results")
    (list_runs(copy)[0].path / "history.csv").write_text("epoch\n")
    with pytest.raises(SystemExit):
        archive.main(["--results", str(copy), "--out", str(tmp_path / "runs.zip")])
    assert "1 records are damaged" in capsys.readouterr().err
    assert not (tmp_path / "runs.zip").exists()
