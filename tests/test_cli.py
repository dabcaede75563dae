"""The command line: help, exit codes, and one sentence where something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest
from runs import ROOT, command, environment

from jaxvalues.cli import app, main
from jaxvalues.data.loading import load_split
from jaxvalues.evaluation.predictions import Predictions

QUICKSTART = ROOT / "configs/quickstart.yaml"
TRUTH = files("jaxvalues.data") / "sample/labels-test.tsv"
COMMANDS = [registered.name or registered.callback.__name__ for registered in app.registered_commands]


@pytest.fixture
def perfect(tmp_path: Path) -> Path:
    """Probabilities that are certain and right."""
    split = load_split("test", source="sample")
    Predictions(split.ids, split.labels * 0.8 + 0.1).write_probabilities(tmp_path / "probabilities.tsv")
    return tmp_path / "probabilities.tsv"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    code, out, err = command(name, "--help")
    assert code == 0
    assert f"Example: jaxvalues {name}" in out
    assert err == ""


def test_help_names_every_command() -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert {"train", "predict", "score", "show", "data", "schema"} <= set(COMMANDS)
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", QUICKSTART, "trainin.epochs=1"], "unknown key `trainin`; did you mean `training`?"),
        (["train", QUICKSTART, "optimizer.learning_rat=1"], "did you mean `optimizer.learning_rate`?"),
        (["train", QUICKSTART, "training.epoch=1"], "unknown key `training.epoch`; did you mean `training.epochs`?"),
        (["train", QUICKSTART, "epoch=1"], "unknown key `epoch`; did you mean `training.epochs`?"),
        (
            ["train", QUICKSTART, "mesh.zzz=1"],
            "unknown key `mesh.zzz`; known keys here: mesh.data, mesh.fsdp, mesh.tensor",
        ),
        (["train", QUICKSTART, "data.zzz=1"], "data.task, data.source, data.dir and 14 more"),
        (["train", QUICKSTART, "epochs"], "override `epochs` must have the form key=value"),
        (["train", QUICKSTART, "training.epochs=[1"], "not valid YAML"),
        (["train", QUICKSTART, "training.epochs=none"], "training.epochs"),
        (["train", QUICKSTART, "training.accumulation=3"], "batch_size 16 is not divisible by accumulation 3"),
        (["train", QUICKSTART, "tuning.layers=2"], "tuning: `layers` is required with method: last_layers"),
        (["train", QUICKSTART, "data.held_out=test"], "choose thresholds and the best step on other arguments"),
        (
            ["train", QUICKSTART, "model.path=here"],
            "give either model.path (a checkpoint folder or hub id) or model.config",
        ),
        (["train", "no-such.yaml"], "no-such.yaml: no such config file"),
        (["show", QUICKSTART, "seed=-1"], "seed"),
        (["predict", "no-such-run"], "give either a split or a file"),
        (["score", "--truth", TRUTH, "--run", TRUTH, "--threshold", "2"], "the threshold is 2.0"),
        (["data"], "give a config file, or --dir FOLDER"),
    ],
)
def test_wrong_usage(words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command(*words)
    assert code == 2
    assert err.startswith("jaxvalues: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_version() -> None:
    assert command("--version") == (0, f"jaxvalues {version('jaxvalues')}\n", "")


def test_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--install-completion" in command("--help")[1]
    monkeypatch.setattr(sys, "argv", ["jaxvalues"])  # click completes the program of this name
    monkeypatch.setenv("_JAXVALUES_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "jaxvalues s")
    monkeypatch.setenv("COMP_CWORD", "1")
    code, out, _ = command()
    assert (code, out.split()) == (0, ["show", "score", "schema"])


def test_input_is_checked_before_jax_is_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("text,note\na,b\n")
    program = (
        "import sys\nfrom jaxvalues.cli import main\n"
        "sys.argv = ['jaxvalues', 'predict', 'no-run', '--input', sys.argv[1]]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, 'jax' in sys.modules)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "mine.csv")]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "1 False\n"
    assert "mine.csv, line 1: no column is named Premise, only text, note" in done.stderr


@pytest.mark.parametrize("width", [60, 80])
def test_lines_fit_the_screen(width: int, monkeypatch: pytest.MonkeyPatch, perfect: Path) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    commands = (
        ["show", QUICKSTART],
        ["score", "--truth", TRUTH, "--run", perfect, "--threshold", "0.5"],
        ["data", QUICKSTART],
        *([name, "--help"] for name in ("train", "show", "predict", "bench")),
    )
    for words in commands:
        code, out, _ = command(*words)
        assert code == 0
        lines = [
            line for line in out.splitlines() if "Example" not in line and "jaxvalues " not in line and "/" not in line
        ]
        assert max(map(len, lines)) <= width, words


@pytest.mark.parametrize(
    "words", [["trian"], ["train"], ["score"], ["train", QUICKSTART, "--fast"], ["score", "--truth"]]
)
def test_words_that_are_no_command(words: list[str]) -> None:
    code, _, err = command(*words)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize("number", ["1_0e-1", "٠.٥", "nan", ""])
def test_a_threshold_is_a_plain_number(number: str) -> None:
    code, out, err = command("score", "--truth", TRUTH, "--run", TRUTH, "--threshold", number)
    assert (code, out) == (2, "")
    assert f"{number!r} is not a number" in err


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize(
    "words",
    [["data", "--dir"], ["train"], ["show"], ["predict", "--split", "test"], ["score", "--run", TRUTH, "--truth"]],
)
def test_a_blank_path_is_not_this_folder(words: list[str], blank: str) -> None:
    code, _, err = command(*words, blank)
    assert code in (1, 2)
    assert err == "jaxvalues: a path is blank, expected that of a file or a folder\n"


def test_broken_files(tmp_path: Path, perfect: Path) -> None:
    code, _, err = command("score", "--truth", tmp_path / "absent.tsv", "--run", perfect)
    assert (code, err) == (1, f"jaxvalues: {tmp_path / 'absent.tsv'}: no such file\n")
    lines = perfect.read_text().splitlines()
    lines[2] = lines[2].replace("0.9", "1.9").replace("0.1", "1.1")
    perfect.write_text("\n".join(lines) + "\n")
    code, _, err = command("score", "--truth", TRUTH, "--run", perfect, "--threshold", "0.5")
    assert code == 1
    assert err.startswith(f"jaxvalues: {perfect}, line 3: ")
    assert err.count("\n") == 1
    (tmp_path / "arguments-training.tsv").write_text("a table this is not\n")
    here = (f"output={tmp_path / 'run'}", "runtime.compilation_cache=null")
    code, _, err = command("train", QUICKSTART, f"data.dir={tmp_path}", *here)
    assert code == 1
    assert f"{tmp_path / 'arguments-training.tsv'}, line 1: " in err
    minilm = ROOT / "configs/minilm.yaml"
    code, _, err = command("train", minilm, "model.path=/no/such/folder", "data.source=sample", *here)
    assert (code, err) == (1, "jaxvalues: the checkpoint folder /no/such/folder does not exist\n")
    assert not (tmp_path / "run").exists()
    code, _, err = command("predict", tmp_path, "--split", "test")
    assert code == 1
    assert "holds no finished run" in err


def test_score(perfect: Path) -> None:
    code, out, _ = command("score", "--truth", TRUTH, "--run", perfect, "--threshold", "0.5")
    assert code == 0
    assert "Universalism: nature" in out
    assert "decided at 0.5." in " ".join(out.split())
    code, out, err = command("score", "--truth", TRUTH, "--run", perfect, "--threshold", "0.5", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["official_f1"] == 1.0
    rows = [line.split("\t") for line in perfect.read_text().splitlines()]
    perfect.write_text("\n".join("\t".join(row[:-1]) for row in rows[:-1]) + "\n")
    code, out, _ = command("score", "--truth", TRUTH, "--run", perfect, "--threshold", "0.5", "--json")
    assert code == 0
    assert json.loads(out)["missing_rows"] == 1
    assert json.loads(out)["absent_categories"] == ["Universalism: objectivity"]
    code, _, err = command("score", "--truth", TRUTH, "--run", perfect)
    assert code == 1
    assert "give --threshold" in err


def test_brackets_in_paths_are_no_markup(perfect: Path, tmp_path: Path) -> None:
    for name in ("[bold]x", "[/x]", "[b]:apple:", "[link=x]"):
        file = tmp_path / name / "run.tsv"
        file.parent.mkdir(parents=True)
        file.write_bytes(perfect.read_bytes())
        code, out, err = command("score", "--truth", TRUTH, "--run", file, "--threshold", "0.5")
        assert (code, err) == (0, "")
        assert "".join(f"Probabilities of {file} decided at 0.5".split()) in "".join(out.split())


def test_the_home_folder_stands_for_a_tilde(perfect: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(perfect.parent))
    code, _, err = command("score", "--truth", TRUTH, "--run", "~/probabilities.tsv", "--threshold", "0.5")
    assert (code, err) == (0, "")
    code, _, err = command("score", "--truth", TRUTH, "--run", "~nobody-here/probabilities.tsv")
    assert (code, err.count("\n")) == (1, 1)
    assert "the home folder that `~` stands for is not known" in err


@pytest.mark.main_cases("ascii")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_prints_scores(encoding: str, perfect: Path) -> None:
    words = [sys.executable, "-m", "jaxvalues", "score", "--truth", TRUTH, "--run", perfect, "--threshold", "0.5"]
    done = subprocess.run(words, env=environment(PYTHONIOENCODING=encoding), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Universalism: nature" in done.stdout.decode(encoding)


def test_a_full_disk_is_a_sentence(perfect: Path) -> None:
    words = [sys.executable, "-m", "jaxvalues", "score", "--truth", TRUTH, "--run", perfect, "--threshold", "0.5"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "jaxvalues: No space left on device\n")


def test_bench_refuses_a_file_that_cannot_be_written_before_it_measures(tmp_path: Path) -> None:
    for file, said in {
        tmp_path / "nowhere/x.json": "the folder",
        tmp_path: "is a folder",
        "/proc/x.json": "nothing can be written there",
    }.items():
        code, out, err = command("bench", QUICKSTART, "--peer", "none", "--json", file)
        assert (code, out, err.count("\n")) == (1 if "/proc" in str(file) else 2, "", 1)
        assert said in err


def test_show_and_schema() -> None:
    code, out, _ = command("show", QUICKSTART, "optimizer.learning_rate=0.125")
    assert code == 0
    assert "learning rate    0.125" in out
    assert "learning_rate:" not in out
    code, out, _ = command("show", QUICKSTART, "optimizer.learning_rate=0.125", "--full")
    assert code == 0
    assert "learning_rate: 0.125" in out
    code, out, _ = command("schema")
    assert code == 0
    assert {"data", "training", "base"} <= json.loads(out)["properties"].keys()


def test_what_computes_nothing_does_not_import_jax(perfect: Path) -> None:
    commands = [
        ["--help"],
        ["train", "--help"],
        ["schema"],
        ["train", "no-such.yaml"],
        ["train", str(QUICKSTART), "trainin.epochs=1"],
        ["score", "--truth", str(TRUTH), "--run", str(perfect), "--threshold", "0.5"],
        ["data", "--dir", str(Path(str(TRUTH)).parent)],
    ]
    program = (
        "import json, sys\n"
        "from jaxvalues.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['jaxvalues', *words]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit:\n"
        "        heavy = {'jax', 'flax', 'transformers', 'torch', 'tensorflow_datasets'} & sys.modules.keys()\n"
        "        assert not heavy, (words, heavy)\n"
        "    else:\n"
        "        raise AssertionError(words)\n"
    )
    words = [sys.executable, "-c", program, json.dumps(commands)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Typer ends with a code of its own and no word."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxvalues.config.json_schema", interrupted)
    monkeypatch.setattr(sys, "argv", ["jaxvalues", "schema"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "jaxvalues: interrupted\n"
