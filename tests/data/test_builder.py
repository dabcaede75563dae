"""The TFDS builder, from a local folder and from a server on this machine that stands in for Zenodo."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from jaxvalues.data.folder import read_split
from jaxvalues.data.loading import load_split
from jaxvalues.data.taxonomy import CATEGORIES, GROUPS, category_index
from jaxvalues.data.touche23_value_eval.release import ReleaseFile, matches_release, release_files
from jaxvalues.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
from jaxvalues.data.touche23_value_eval import prepared  # noqa: E402
from jaxvalues.data.touche23_value_eval import touche23_value_eval_dataset_builder as module  # noqa: E402


def assert_same(split, expected):
    assert (split.name, split.arguments) == (expected.name, expected.arguments)
    for ours, theirs in ((split.labels, expected.labels), (split.level1, expected.level1)):
        np.testing.assert_array_equal(ours, theirs)


def test_local_folder_comes_back_whole(folder: Path, tmp_path: Path):
    (folder / "level1-labels-test.tsv").unlink()
    for file in ("labels-validation.tsv", "level1-labels-validation.tsv"):
        (folder / file).unlink()
    load = partial(prepared.load, data_dir=tmp_path / "tfds", source_dir=folder)
    for name in ("training", "validation", "test", "validation-zhihu", "test-nahjalbalagha"):
        assert_same(load(name), read_split(folder, name))
    assert load("training").labels.dtype == np.int8
    assert (load("validation").labels, load("test").level1) == (None, None)
    with pytest.raises(UserError, match="the split test-nyt is not in the prepared data"):
        load("test-nyt")


def test_builder_is_named_described_and_sliced(folder: Path, tmp_path: Path):
    builder = tfds.builder("touche23_value_eval", source_dir=folder, data_dir=tmp_path / "tfds")
    builder.download_and_prepare()
    assert "CC BY-SA 4.0" in builder.info.description
    assert "mirzakhmedova" in builder.info.citation
    assert list(builder.info.metadata["categories"]) == list(CATEGORIES)
    rows = builder.as_data_source(split="training[:50%]")
    split = read_split(folder, "training")
    assert [row["id"].decode() for row in rows] == list(split.ids[:3])
    assert (rows[0]["source"], rows[0]["has_labels"]) == (b"A", True)
    for row, labels in zip(rows, split.labels, strict=False):
        in_group = [any(labels[category_index(name)] for name in names) for names in GROUPS.values()]
        np.testing.assert_array_equal(row["groups"], in_group)
    assert pickle.loads(pickle.dumps(builder)).data_dir == builder.data_dir


def test_two_processes_may_prepare_at_the_same_time(folder: Path, tmp_path: Path):
    program = """
import sys, time
from pathlib import Path
from jaxvalues.data.touche23_value_eval import prepared
me, others = Path(sys.argv[3]), Path(sys.argv[4])
me.touch()
while not others.exists():
    time.sleep(0.01)
print(len(prepared.load("training", data_dir=sys.argv[1], source_dir=sys.argv[2])))
"""
    ready = [tmp_path / "first", tmp_path / "second"]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "tfds", folder, *order], stdout=subprocess.PIPE, text=True
        )
        for order in (ready, ready[::-1])
    ]
    expected = str(len(read_split(folder, "training")))
    assert [one.communicate()[0].splitlines()[-1] for one in both] == [expected] * 2  # TFDS prints what it prepares
    (builder,) = (tmp_path / "tfds" / "touche23_value_eval").glob("local-*")
    assert [version.name for version in builder.iterdir()] == ["1.0.0"]


def test_without_locks_what_another_host_prepared_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    prepare, absent = module.Builder.download_and_prepare, []

    def late(self, **options: object) -> None:
        absent.append(self.info.initialized)
        prepare(module.Builder(data_dir=tmp_path / "tfds", source_dir=folder), **options)  # the other host is faster
        prepare(self, **options)

    def no_locks(self) -> None:
        raise NotImplementedError

    monkeypatch.setattr(prepared.FileLock, "acquire", no_locks)
    monkeypatch.setattr(module.Builder, "download_and_prepare", late)
    assert_same(prepared.load("test", data_dir=tmp_path / "tfds", source_dir=folder), read_split(folder, "test"))
    assert absent == [False]


def test_changed_files_are_prepared_anew(folder: Path, tmp_path: Path):
    load = partial(prepared.load, data_dir=tmp_path / "tfds", source_dir=folder)
    assert load("test").labels is not None
    (folder / "labels-test.tsv").unlink()
    (folder / "level1-labels-test.tsv").unlink()
    assert load("test").labels is None


def test_lost_records_are_noticed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    load = partial(prepared.load, data_dir=tmp_path / "tfds", source_dir=folder)
    load("test")
    whole = module.Builder.as_data_source
    monkeypatch.setattr(module.Builder, "as_data_source", lambda self, split: whole(self, split=f"{split}[:-1]"))
    with pytest.raises(UserError, match="test has 5 records, expected 6"):
        load("test")


def test_a_faulty_folder_is_not_prepared(folder: Path, tmp_path: Path):
    path = folder / "arguments-test.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("against", "never"), encoding="utf-8")
    with pytest.raises(UserError, match=r"arguments-test\.tsv, line 3: the stance of E00001 is 'never'"):
        prepared.load("training", data_dir=tmp_path / "tfds", source_dir=folder)
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))
    with pytest.raises(UserError, match="contains no split"):
        prepared.load("training", source_dir=tmp_path)


@pytest.fixture
def zenodo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a server on this machine serves; the builder knows its URLs and checksums."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    for file in ("labels-test-nahjalbalagha.tsv", "level1-labels-test-nahjalbalagha.tsv"):
        (folder / file).unlink()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    known = {}
    for path in folder.iterdir():
        url, content = f"http://127.0.0.1:{server.server_port}/{path.name}?download=1", path.read_bytes()
        known[path.name] = ReleaseFile(path.name, url, len(content), hashlib.sha256(content).hexdigest())
    infos = {
        file.url: tfds.download.checksums.UrlInfo(size=file.bytes, checksum=file.sha256, filename=file.name)
        for file in known.values()
    }
    monkeypatch.setattr(module, "release_files", lambda: known)
    monkeypatch.setattr(module.Builder, "url_infos", infos)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    server.shutdown()
    server.server_close()


def test_download(zenodo: Path, tmp_path: Path):
    for name in ("training", "validation-zhihu", "test-nahjalbalagha"):
        assert_same(prepared.load(name, data_dir=tmp_path / "tfds"), read_split(zenodo, name))
    assert prepared.load("test-nahjalbalagha", data_dir=tmp_path / "tfds").labels is None


def test_download_that_is_not_the_published_file(zenodo: Path, tmp_path: Path):
    path = zenodo / "labels-test.tsv"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + (b"1\n" if content[-2:-1] == b"0" else b"0\n"))
    with pytest.raises(UserError, match=r"is not the published file .*labels-test\.tsv.*give data\.dir$"):
        prepared.load("test", data_dir=tmp_path / "tfds")


def test_no_network(zenodo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nowhere = {"a": ReleaseFile("a", "http://127.0.0.1:9/a", 1, "0")}
    monkeypatch.setattr(module, "release_files", lambda: nowhere)
    with pytest.raises(UserError, match=r"could not be downloaded .*refused.*zenodo.* give data\.dir$"):
        prepared.load("test", data_dir=tmp_path / "tfds")


def test_checksums_are_those_tfds_verifies():
    known = release_files()
    assert len(known) == 13
    assert "labels-test-nahjalbalagha.tsv" not in known  # not known, so never downloaded
    assert not any("nyt" in name for name in known)
    infos = {info.filename: (url, info.size, info.checksum) for url, info in module.Builder.url_infos.items()}
    assert infos == {file.name: (file.url, file.bytes, file.sha256) for file in known.values()}
    assert known["arguments-test.tsv"].url == (
        "https://zenodo.org/records/10564870/files/arguments-test.tsv?download=1"
    )


def test_checksums_of_the_published_files(real_data: Path, tmp_path: Path):
    for file in release_files().values():
        assert matches_release(real_data / file.name) is True
        assert (real_data / file.name).stat().st_size == file.bytes
    (tmp_path / "arguments-test-nyt.tsv").write_bytes(b"x")
    assert matches_release(tmp_path / "arguments-test-nyt.tsv") is False
    assert matches_release(tmp_path / "labels-test-nahjalbalagha.tsv") is None


@pytest.mark.slow
def test_published_data_comes_back_whole(real_data: Path, tmp_path: Path):
    for name in ("training", "validation", "test", "validation-zhihu", "test-nahjalbalagha"):
        split = prepared.load(name, data_dir=tmp_path / "tfds", source_dir=real_data)
        assert_same(split, load_split(name, dir=real_data))


def test_folders_need_no_tfds_and_nothing_needs_tensorflow(folder: Path):
    code = f"""
import sys
sys.modules["tensorflow_datasets"] = sys.modules["tensorflow"] = None  # importing them fails
from jaxvalues.data.loading import load_split
from jaxvalues.errors import UserError
assert len(load_split("test", dir={str(folder)!r})) == 6
try:
    load_split("test")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "the published data needs the package tensorflow_datasets, which is not installed: install it, or set data.dir "
        "to a folder with the files"
    )
