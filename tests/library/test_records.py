"""What a record may be believed to be: of which data, of which code, undamaged, and where."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import write_archive, write_cifar
from data_files import photo
from PIL import Image

import sastc
from sastc import records
from sastc.__main__ import main
from sastc.build import check_data, load_model
from sastc.data import cifar
from sastc.data.identity import differences, facts
from sastc.data.imagenet import HASHED_UP_TO
from sastc.records import AGAIN, SUMS, Run, RunError, code_version, find_run, list_runs, run_path
from sastc.train import Trainer
from sastc.verify import verify

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "results" / "slim"


@pytest.fixture(autouse=True)
def no_data_from_outside(tmp_path, monkeypatch):
    monkeypatch.delenv("SASTC_DATA", raising=False)
    monkeypatch.setenv("SASTC_CACHE", str(tmp_path / "cache"))


# --- of which data ----------------------------------------------------------------------------------


def write_photos(root, classes=("cat", "dog"), seed=0, train=18):
    """Photos in class folders, uncompressed, so that all files have one size."""
    for split, images in (("train", train), ("test", 3)):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(images):
                seed += 1
                Image.fromarray(photo(seed, 16, 16)).save(root / split / name / f"{i:02}.bmp")
    return root


@pytest.fixture
def own(tiny):
    """A config of one's own images."""
    return lambda **changes: tiny(
        **dict(dataset="imagefolder", train_subset=0, epochs=1, batch_size=8, method="kd") | changes
    )


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny):
    """A teacher and its student on photos of cats and dogs: the photos, and the results."""
    place = tmp_path_factory.mktemp("taught")
    write_photos(place / "cats")
    config = tiny(dataset="imagefolder", train_subset=0, epochs=1, batch_size=8, method="kd")
    sastc.run(config, results=place / "results", data=place / "cats", progress=False)
    return place


@pytest.fixture
def copied(taught, tmp_path):
    """A copy of them that may be changed."""
    shutil.copytree(taught, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_record_is_of_its_data(own, copied):
    results, cats = copied / "results", copied / "cats"
    fruits = write_photos(copied / "fruits", ("apple", "pear"), seed=500)
    config = own()
    done = sastc.run(config, results=results, data=cats, progress=False)
    words = rf"{done.path} was made from other data than those at hand: ImageFolder \(cats\), not the ImageFolder "
    words += r"\(fruits\) of now \(other train_content_sha256, test_content_sha256\): .*another results folder.*--force"
    for use in (
        lambda: sastc.run(config, results=results, data=fruits, progress=False),
        lambda: load_model(done, data=fruits),
    ):
        with pytest.raises(RunError, match=words):
            use()
    teacher = find_run(done.provenance["teacher"]["run"], results)
    for other in (own(seed=1), config.teacher_config()):
        with pytest.raises(RunError, match=f"{teacher.name} was made from other data"):
            sastc.run(other, results=results, data=fruits, progress=False)
    before = (teacher.path / "metrics.json").read_bytes()
    (teacher.path / "weights.pt").unlink()  # it would be trained again, on fruits, and take the record's place
    with pytest.raises(RunError, match=f"{teacher.name} was made from other data"):
        sastc.run(own(seed=1), results=results, data=fruits, progress=False)
    assert (teacher.path / "metrics.json").read_bytes() == before
    assert sastc.run(config, results=results, data=copied / "gone", progress=False).metrics == done.metrics
    again = sastc.run(config.teacher_config(), results=results, data=fruits, progress=False, force=True)
    assert again.provenance["data"]["name"] == "ImageFolder (fruits)"


@pytest.mark.parametrize("change", ["added to train", "added to test", "replaced", "swapped", "class"])
def test_a_folder_whose_images_change_is_another(own, copied, change):
    cats = copied / "cats"
    first, second = cats / "train/cat/00.bmp", cats / "train/dog/00.bmp"
    if change.startswith("added"):
        shutil.copy(first, cats / change.split()[-1] / "cat" / "99.bmp")
    elif change == "replaced":
        shutil.copy(second, first)  # of the same size
    elif change == "swapped":
        first.rename(copied / "kept"), second.rename(first), (copied / "kept").rename(second)
    else:
        write_photos(copied / "more", ("eel",), seed=900)
        shutil.copytree(copied / "more", cats, dirs_exist_ok=True)
    with pytest.raises(RunError, match="made from other data"):
        sastc.run(own(), results=copied / "results", data=cats, progress=False)


def test_names_do_not_make_other_data(own, copied):
    moved = copied / "pets"
    (copied / "cats").rename(moved)
    for path in [*moved.rglob("*.bmp")]:
        path.rename(path.with_name(f"photo-{path.name}"))
    assert sastc.run(own(), results=copied / "results", data=moved, progress=False).complete


def test_large_folders_are_known_by_their_listing(copied, monkeypatch):
    assert HASHED_UP_TO == 2**30
    known = facts(sastc.load_dataset("imagefolder", root=copied / "cats"))
    monkeypatch.setattr("sastc.data.imagenet.HASHED_UP_TO", 1000)
    now = facts(sastc.load_dataset("imagefolder", root=copied / "cats"))
    assert "train_content_sha256" not in now
    assert not differences(known, now)
    shutil.copy(copied / "cats/train/dog/00.bmp", copied / "cats/train/cat/00.bmp")  # of the same size
    assert not differences(known, facts(sastc.load_dataset("imagefolder", root=copied / "cats")))
    card = (Path(__file__).parents[2] / "data/README.md").read_text(encoding="utf-8")
    assert "more than 1 GiB an image replaced by another of exactly the same number of bytes goes unnoticed" in card
    (copied / "cats/train/cat/00.bmp").rename(copied / "cats/train/cat/99.bmp")
    assert differences(known, facts(sastc.load_dataset("imagefolder", root=copied / "cats"))) == [
        "train_listing_sha256"
    ]


def test_a_teacher_of_other_data_or_classes_is_refused(own, copied):
    results = copied / "results"
    teacher = run_path(own().teacher_config(), results)
    fruits = write_photos(copied / "fruits", ("apple", "pear", "plum"), seed=500)
    words = r"^teacher_run='imagefolder-.*was trained on other data: ImageFolder \(cats\), .*other classes, train_cont"
    with pytest.raises(RunError, match=words):
        sastc.run(own(teacher_run=teacher.name), results=results, data=fruits, progress=False)
    content = json.loads((teacher / "provenance.json").read_bytes())
    content["data"] = {"name": "ImageFolder (fruits)"}  # a record that says nothing more of them
    records.write_json(teacher / "provenance.json", content)
    records.seal(teacher)
    with pytest.raises(RunError, match=rf"^{teacher}: its weights are not of a teacher of these 3 classes and this n"):
        sastc.run(own(teacher_run=teacher.name), results=results, data=fruits, progress=False)


def test_a_teacher_of_another_part_of_the_data_is_taken(tiny, tmp_path):
    teacher = sastc.run(tiny(method="teacher", train_subset=64, epochs=1), results=tmp_path, progress=False)
    assert sastc.run(tiny(method="kd", epochs=1, teacher_run=teacher.name), results=tmp_path, progress=False).complete


def test_a_run_begun_on_other_classes_is_refused(own, copied, monkeypatch):
    def stop(self, number, *arguments, epoch=Trainer.epoch):
        if number:
            raise KeyboardInterrupt
        return epoch(self, number, *arguments)

    config = own(method="baseline", teacher="", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            sastc.run(config, results=copied / "results", data=copied / "cats", progress=False)
    fruits = write_photos(copied / "fruits", ("apple", "pear", "plum"), seed=500)
    with pytest.raises(RunError, match=r"begun with data ImageFolder \(cats\).*other classes, train_content"):
        sastc.run(config, results=copied / "results", data=fruits, progress=False)


def test_data_are_loaded_once(own, copied, monkeypatch):
    loaded, load = [], sastc.build.dataset
    monkeypatch.setattr(sastc.build, "dataset", lambda *arguments: loaded.append(1) or load(*arguments))
    for config in (own(), own(seed=1)):
        sastc.run(config, results=copied / "results", data=copied / "cats", progress=False)
    assert len(loaded) == 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_cifar_is_known_by_its_pixels(tmp_path, kind):
    write_cifar(tmp_path / "a" / "cifar10")
    write_cifar(tmp_path / "b" / "cifar10-copy", kind)
    one, other = (sastc.load_dataset("cifar10", root=tmp_path / name) for name in "ab")
    same = torch.equal(one.train.images, other.train.images)
    assert (kind == "PNG") <= same <= (kind != "JPEG")
    found = differences(facts(dataclasses.replace(other, label="CIFAR-10 (copy)")), facts(one))
    assert found == ([] if same else ["decoded_sha256", "content_sha256"])


def test_shards_and_archive_of_the_same_images_are_the_same(tmp_path, monkeypatch):
    write_archive(tmp_path, monkeypatch, cifar.torchvision.datasets.CIFAR10)
    data = sastc.load_dataset("cifar10", root=tmp_path)
    for split in ("train", "test"):
        for part in ("images", "labels"):
            array = getattr(getattr(data, split), part).numpy()
            np.save(tmp_path / "array.npy", array)
            expected = records.sha256(tmp_path / "array.npy")
            assert data.provenance["decoded_sha256"][f"{split}_{part}.npy"] == expected


def test_what_an_old_record_does_not_say_is_not_compared():
    now = {"name": "CIFAR-10", "source": "image-parquet", "classes": 10, "files": {"a": "1"}, "train_images": 5}
    now |= {"decoded_sha256": {"x.npy": "2", "formats.json": "3"}, "data_seed": 4, "folder": "c"}
    assert differences({}, now) == []
    assert differences({"name": "CIFAR-10", "data_seed": 9, "folder": "d"}, now) == []
    assert differences({"name": "CIFAR-10 (JPEG copy)"}, now) == ["name"]
    assert differences({"name": "other", "files": {"b": "1"}}, now) == []
    assert differences({"name": "other", "files": {"a": "0"}}, now) == ["files"]
    decoded = {"decoded_sha256": {"x.npy": "2", "formats.json": "9"}}
    assert differences(decoded | {"name": "other", "files": {}, "source": "other"}, now) == []
    assert differences(decoded | {"train_images": 6}, now) == ["train_images"]
    assert differences(decoded | {"train_images": 6}, now, whole=True) == []


def test_recorded_runs_on_cifar_are_not_of_other_images(tmp_path):
    write_cifar(tmp_path / "cifar10")
    other = sastc.load_dataset("cifar10", root=tmp_path)
    run = next(run for run in list_runs(RECORDED) if run.config.dataset == "cifar10")
    with pytest.raises(RunError, match=rf"{run.path} was made from other data .*not the CIFAR-10 \(20"):
        check_data(run, other)
    assert sastc.run(run.config, results=ROOT / "results", data=tmp_path / "gone", progress=False).path == run.path


def test_a_teacher_of_few_own_images(own, tmp_path):
    """The printed way out works: its settings train the teacher, its name gives the student one."""
    photos, results = write_photos(tmp_path / "few", train=12), tmp_path / "results"
    options = dict(results=results, data=photos, progress=False)
    with pytest.raises(RunError, match=r"batch_size=32 of .* has 24 images; must be at most that") as caught:
        sastc.run(own(), **options)
    words = str(caught.value).partition("first train ")[2]
    settings, _, name = words.partition(", then give the student teacher_run=")
    assert main(["--results", str(results), "train", *settings.split(), "--data", str(photos)]) == 0
    assert sastc.run(own(teacher_run=name), **options).provenance["teacher"]["run"] == name


# --- undamaged --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, tiny):
    """A recorded student with every file that a run can have."""
    config = tiny(method="baseline", teacher="", epochs=2, label_noise=0.25)
    return sastc.run(config, results=tmp_path_factory.mktemp("recorded"), progress=False)


READ = ("config", "provenance", "metrics", "history", "measures", "indices", "energy")


def every_number(run):
    return {name: str(getattr(run, name)) for name in READ} | {"files": [run.read(name) for name in sorted(run.sums)]}


def digit(content, place):
    digits = [i for i, byte in enumerate(content) if 48 <= byte < 58]
    i = digits[place % len(digits)]
    return content[:i] + bytes([48 + (content[i] - 47) % 10]) + content[i + 1 :]


DAMAGES = {
    "digit": digit,
    "bit": lambda c, n: c[: (i := n % len(c))] + bytes([c[i] ^ 1 << n % 8]) + c[i + 1 :],
    "cut": lambda c, n: c[: -1 - n % min(len(c), 40)],
    "zeros": lambda c, n: c[: (i := n % max(1, len(c) - 64))] + bytes(64) + c[i + 64 :],
    "empty": lambda c, n: b"",
    "deleted": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_noticed(recorded, damage, tmp_path):
    folder = tmp_path / recorded.name
    shutil.copytree(recorded.path, folder)
    names = [*recorded.sums, SUMS]
    assert {"config.json", "metrics.json", "measures.npz", "indices.npz", "energy.csv", "log.txt"} < set(names)
    assert not verify(folder, progress=False)
    draw = random.Random(damage)
    for name in names:
        content = (folder / name).read_bytes()
        for _ in range(12 if damage not in ("empty", "deleted") else 1):
            if damage == "deleted":
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(DAMAGES[damage](content, draw.randrange(10**6)))
            assert verify(folder, progress=False), (name, "verify")
            if (name, damage) != (SUMS, "deleted"):  # the numbers are right then, and verify says so
                with pytest.raises(RunError, match=recorded.name):
                    every_number(Run(folder))
        (folder / name).write_bytes(content)
    assert not verify(folder, progress=False)
    assert every_number(Run(folder)) == every_number(recorded)


def test_damage_is_noticed_in_what_carries_no_sums(recorded, tmp_path):
    """By whatever the readers say of it, and never as their own exception."""
    folder = tmp_path / recorded.name
    shutil.copytree(recorded.path, folder)
    (folder / SUMS).unlink()
    draw = random.Random(0)
    for name in ("measures.npz", "indices.npz", "config.json", "history.csv", "energy.csv"):
        content = (folder / name).read_bytes()
        for _ in range(60):
            (folder / name).write_bytes(DAMAGES[draw.choice(("bit", "cut", "zeros"))](content, draw.randrange(10**6)))
            for part in READ:
                with contextlib.suppress(RunError):
                    getattr(Run(folder), part)
        (folder / name).unlink()
        with pytest.raises(RunError, match=f"{folder} holds no {name}"):
            [getattr(Run(folder), part) for part in READ]
        (folder / name).write_bytes(content)


def test_sums_are_what_sha256sum_checks(recorded):
    for line in (recorded.path / SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((recorded.path / name).read_bytes()).hexdigest() == digest
    names = {path.name for path in recorded.path.iterdir()} - {".lock", SUMS, "weights.pt"}
    assert set(recorded.sums) == names


@pytest.mark.parametrize("steps", range(4))
def test_a_run_is_complete_once_its_sums_are_written(tmp_path, monkeypatch, steps):
    """Wherever a process is killed at the end of a run, there is no complete run without sums, or with wrong ones."""
    left, replace = iter(range(steps)), os.replace

    def killed(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        replace(*arguments)

    records.write(tmp_path / "history.csv", "epoch\n1\n")
    monkeypatch.setattr(os, "replace", killed)
    for content in (b"{}", b'{"a": 1}'):
        try:
            records.seal(tmp_path, "metrics.json", content)
        except KeyboardInterrupt:
            assert not Run(tmp_path).complete or Run(tmp_path).sums
        (tmp_path / "metrics.json").unlink(missing_ok=True)


def test_a_run_made_again_brings_its_sums(tiny, tmp_path):
    config = tiny(method="baseline", teacher="", epochs=1)
    for _ in range(2):
        done = sastc.run(config, results=tmp_path, progress=False, force=True)
        assert not (done.path / AGAIN).exists()
        assert not verify(tmp_path, progress=False)
    (done.path / "metrics.json").unlink()
    assert verify(tmp_path, progress=False) == {done.path: [f"{done.path / 'metrics.json'} is gone"]}
    assert sastc.run(config, results=tmp_path, progress=False).complete
    assert not verify(tmp_path, progress=False)
    (done.path / "weights.pt").write_bytes(b"")
    assert verify(tmp_path, progress=False) == {done.path: [f"{done.path / 'weights.pt'} is damaged or of another run"]}
    (done.path / "weights.pt").unlink()  # as in a clone
    assert not verify(tmp_path, progress=False)
    (done.path / "config.json").unlink()
    assert list_runs(tmp_path) == [done]


def test_verify_in_the_terminal(recorded, tmp_path, capsys):
    folder = tmp_path / "quick" / recorded.name
    shutil.copytree(recorded.path, folder)
    assert main(["verify", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "1 runs, 0 damaged\n"
    (folder / SUMS).unlink()
    assert main(["--results", str(tmp_path), "verify"]) == 1
    assert "--seal" in capsys.readouterr().out
    history = (folder / "history.csv").read_text()
    (folder / "history.csv").write_text(history[: history.rindex("\n2,") + 1])
    assert main(["verify", str(tmp_path), "--seal"]) == 1
    assert f"{folder / 'history.csv'} has 1 epochs, metrics.json 2" in capsys.readouterr().out
    assert not (folder / SUMS).exists()
    (folder / "history.csv").write_text(history)
    assert main(["verify", str(tmp_path), "--seal"]) == 0
    assert "1 runs have SHA256SUMS now: from their files as they are" in capsys.readouterr().out
    assert Run(folder).sums == recorded.sums
    (folder / "log.txt").write_text("")
    assert main(["verify", str(tmp_path)]) == 1
    assert f"{folder / 'log.txt'} is damaged" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "nothing")]) == 2
    assert "must be a folder of recorded runs" in capsys.readouterr().err


def test_recorded_runs_are_sound():
    assert verify(ROOT / "results", progress=False).keys() <= set(), "python -m sastc verify says more"


# --- of which code ----------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Somebody's repository, and a function that asks git there."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    place = tmp_path / "somebodys"
    place.mkdir()

    def git(*words):
        identity = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", place, *identity, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (place / ".gitignore").write_text(".venv\n")
    git("add", "."), git("commit", "-qm", "theirs")
    return place, git


def package(folder):
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    return folder


def test_a_repository_around_the_package_is_not_believed(repository, tmp_path, monkeypatch):
    place, _ = repository
    installed, unzipped = package(place / ".venv" / "sastc"), package(place / "download" / "sastc")
    elsewhere = package(tmp_path / "elsewhere" / "sastc")
    assert [code_version(path) for path in (installed, unzipped, elsewhere)] == 3 * [(None, None)]
    monkeypatch.setenv("GIT_DIR", str(place / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert code_version(elsewhere) == (None, None)


def test_a_repository_that_tracks_the_package_is_believed(repository, tmp_path, monkeypatch):
    place, git = repository
    code = package(place / "sastc")
    git("add", "."), git("commit", "-qm", "ours")
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert code_version(code) == (commit, False)
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    for name, dirty in (("notes.txt", False), ("results/x.py", False), ("sastc/x.js", True), ("helper.py", True)):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("")
        assert code_version(code) == (commit, dirty), name
        (place / name).unlink()
    (place / ".gitignore").write_text("")
    assert code_version(code) == (commit, True)


def test_the_commit_of_an_installed_package(tmp_path, monkeypatch):
    code = package(tmp_path / "site" / "sastc")
    metadata = tmp_path / "site" / "sastc-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sastc\nVersion: 1.0\n")
    (metadata / "RECORD").write_text("sastc/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert code_version(code) == (None, None)
    origin = {"url": "https://example.org/x", "vcs_info": {"vcs": "git", "commit_id": 40 * "a"}}
    (metadata / "direct_url.json").write_text(json.dumps(origin))
    assert code_version(code) == (40 * "a", False)
    assert code_version(package(tmp_path / "other" / "sastc")) == (None, None), "another copy's metadata"
    (code / "__init__.py").write_text("changed")
    assert code_version(code) == (40 * "a", True)
    (metadata / "direct_url.json").write_text("{")
    assert code_version(code) == (None, None)


# --- where ------------------------------------------------------------------------------------------


def test_a_tilde_is_the_users_home(tiny, own, taught, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    shutil.copytree(taught, home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    config = own()
    done = sastc.run(config, results="~/results", data="~/cats", progress=False)
    assert done.path == run_path(config, home / "results") == Run(f"~/results/quick/{done.name}").path
    assert done in list_runs("~/results")
    assert find_run(done.name, "~/results") == find_run(f"~/results/quick/{done.name}") == done
    assert load_model(done, data="~/cats")
    sastc.run(tiny(method="sastc", epochs=1), results="~/new", progress=False)
    assert len(sastc.explore("~/new").runs) == 1
    for words in (["--results=~/results", "list"], ["--results=~/results", "show", done.name], ["verify", "~/results"]):
        assert main(words) == 0
        assert done.name in capsys.readouterr().out or "verify" in words
    monkeypatch.setenv("SASTC_DATA", "~/cats")
    assert sastc.run(config, results="~/results", progress=False) == done
    write_cifar(home / "cifar10")
    for variable in ("SASTC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, "~/cache")
        sastc.load_dataset("cifar10", root="~")
    assert (home / "cache").is_dir()
    assert not (tmp_path / "~").exists()
    assert not list(tmp_path.glob("*/~"))
