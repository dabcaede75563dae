"""Study files and what they plan: refusals in one sentence, the configs of every run, and their folders."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from runs import ROOT
from studies import SYSTEMS, planned, pretend, write_study

from jaxvalues.config import load_config
from jaxvalues.errors import ConfigError
from jaxvalues.study.budget import UNKNOWN, fit_budget, size_of, sizes_of
from jaxvalues.study.compare import compare
from jaxvalues.study.files import load_study, save_study
from jaxvalues.study.plan import make_plan, nested

STUDIES = sorted((ROOT / "configs/studies").glob("*.yaml"))


def test_every_combination_is_a_run_with_its_own_folder(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        repeated={"seed": [0, 1], "formulation.template": ["cls", "joined"]},
        nuisance={"keys": {"optimizer.learning_rate": [1e-4, 1e-3, 1e-2]}},
    )
    trials, runs = plan.trials("weak"), plan.runs("weak", {"optimizer.learning_rate": 1e-3})
    assert [one.config.optimizer.learning_rate for one in trials] == [1e-4, 1e-3, 1e-2]
    assert all(one.config.data.report == () for one in trials)  # what chooses sees no reported split
    assert [(one.config.seed, one.config.formulation.template) for one in runs] == [
        (0, "cls"), (0, "joined"), (1, "cls"), (1, "joined"),
    ]  # fmt: skip
    assert {one.config.optimizer.learning_rate for one in runs} == {1e-3}
    assert {one.config.tuning.method for one in (*trials, *runs)} == {"bitfit"}
    folders = [one.config.folder for one in (*trials, *runs)]
    assert len(set(folders)) == 7
    assert folders[3].parent == tmp_path / "study/runs/weak"
    assert folders[3].name.startswith("seed-0_template-cls_")
    assert runs[1].label == "weak, seed 0, template joined"


def test_a_changed_setting_is_another_folder_and_another_place_is_not(tmp_path: Path) -> None:
    first = planned(tmp_path).runs("weak", {})[0].config.folder
    assert planned(tmp_path).runs("weak", {})[0].config.folder == first
    assert planned(tmp_path, "training.epochs=9").runs("weak", {})[0].config.folder != first
    assert planned(tmp_path, f"runtime.compilation_cache={tmp_path}").runs("weak", {})[0].config.folder == first


def test_axes_make_systems_and_exclusions_leave_some_out(tmp_path: Path) -> None:
    axes = {"tuning.method": ["full", "bitfit"], "formulation.heads": ["single", "multiple"]}
    exclude = [{"tuning.method": "bitfit", "formulation.heads": "multiple"}]
    plan = planned(tmp_path, scientific={"axes": axes, "exclude": exclude})
    assert list(plan.systems) == ["full single", "full multiple", "bitfit single"]
    assert [(one.a, one.b) for one in plan.contrasts] == [
        ("full multiple", "full single"),
        ("bitfit single", "full single"),
    ]


def test_another_method_leaves_the_settings_of_the_base_s_behind(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "tuning.method=lora", "tuning.rank=4",
        scientific={"systems": {"lora": {}, "prompt": {"tuning": {"method": "prompt", "length": 3}}}},
    )  # fmt: skip
    assert plan.first("lora").tuning.rank == 4
    assert (plan.first("prompt").tuning.length, plan.first("prompt").tuning.rank) == (3, 8)


def test_a_study_is_planned_alike_from_its_own_folder(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    save_study(plan.study)
    (tmp_path / "base.yaml").unlink()
    again = make_plan(load_study(tmp_path / "study/study.yaml"))
    assert again.digest() == plan.digest()
    assert [one.config for one in again.runs("same", {})] == [one.config for one in plan.runs("same", {})]


def test_what_decides_the_numbers_is_in_the_digest(tmp_path: Path) -> None:
    digest = planned(tmp_path).digest()
    assert planned(tmp_path, f"output={tmp_path / 'other'}").digest() == digest
    assert planned(tmp_path, "training.epochs=9").digest() != digest
    assert planned(tmp_path, "repeated.seed=[5]").digest() != digest


TWO = {"systems": {"a": {"tuning.method": "full"}, "b": {"tuning.method": "bitfit"}}}
RATES = {"optimizer.learning_rate": [1e-4, 1e-3]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"scientific": {}}, "give either `systems` or `axes`"),
    ({"scientific": {"systems": {"a": {}}}}, "the study has no contrast: it needs two systems"),
    ({"scientific": {"systems": {"a": {}, "b": {}}}}, "the systems a and b have the same settings"),
    (
        {"contrasts": [{"a": "strong", "base": "weak"}]},
        "`contrasts.0.b` is missing; unknown key `contrasts.0.base`",
    ),
    (
        {"scientific": {"systems": SYSTEMS, "combined": {"of 2": {"of": "weak", "over": "init", "member": 2}}}},
        "unknown key `scientific.combined.of 2.member`; did you mean `scientific.combined.of 2.members`?",
    ),
    ({"zzz": 3}, "unknown key `zzz`; known keys here: name, question, base and"),
    ({"output": "studies/{nam}"}, "output: {nam} is no placeholder, expected {name}"),
    ({"scientific": {"systems": {"a": {"tuning.metod": "full"}, "b": {}}}}, "unknown key `tuning.metod`; did you mean"),
    ({"scientific": {"systems": {"a": {"seed": 3}, "b": {}}}}, "the system a cannot set `seed`"),
    ({"scientific": {"systems": {"a!": {}, "a?": {"tuning.method": "bitfit"}}}}, "two systems have the folder a"),
    ({"scientific": {"axes": {"tuning.method": ["full", "full"]}}}, 'tuning.method has the value "full" twice'),
    ({"scientific": {"axes": {"tuning.method": ["full"]}, "exclude": [{"loss.kind": 1}]}}, "which is no axis"),
    ({"scientific": {"axes": {"name": ["a", "a b"], "model.id": ["b c", "c"]}}}, "two systems have the same name"),
    ({"changes": {"data": {"report": ["test"]}}}, "`data.report` belongs to the study: give report="),
    ({"changes": {"tuning.method": "lora"}}, "`tuning.method` is changed for all systems, but each of them sets it"),
    (
        {"scientific": {"axes": {"loss.kind": ["bce", "focal"]}}, "changes": {"loss": {"kind": "bce"}}},
        "`loss.kind` is changed for all systems, but scientific.axes sets it",
    ),
    ({"scientific": {"systems": {"a": {"tuning.method": "lora", "tuning.rank": 8}, "b": {"tuning.method": "full"}}},
      "changes": {"tuning.rank": 64}}, "`tuning.rank` is changed for all systems, but those that have it set it"),
    ({"contrasts": [{"a": "strong", "b": "best"}]}, "a contrast names 'best', which is no system"),
    ({"contrasts": [{"a": "strong", "b": "strong"}]}, "a contrast of strong with itself"),
    ({"contrasts": [{"a": "strong", "b": "weak"}, {"a": "weak", "b": "strong"}]}, "is there twice"),
    ({"baseline": "best"}, "baseline is 'best', which is no system"),
    ({"repeated": {"seed": [0, 0]}}, "repeated: seed has the value 0 twice"),
    ({"repeated": {}}, "`repeated` names nothing"),
    ({"report": []}, "`report` names no split"),
    ({"report": ["test", "test"]}, "`report` names a split twice"),
    ({"report": ["validation"]}, "data.held_out is validation, which the study reports"),
    ({"base": None}, "has no config to start from"),
    ({"base": "absent.yaml"}, "absent.yaml: no such config file"),
    ({"nuisance": {"keys": {"seed": [0, 1]}}}, "`seed` is in nuisance.keys and in repeated"),
    ({"nuisance": {"keys": RATES, "per_system": {"best": RATES}}}, "names 'best', which is no system"),
    ({"nuisance": {"keys": RATES, "per_system": {"weak": {"optimizer.learning_rate": [1]}}}}, "same number of trials"),
    ({"nuisance": {"keys": RATES, "per_system": {"weak": {"loss.gamma": [1.0]}}}}, "which `keys` does not name"),
    ({"scientific": TWO, "changes": {"data.task": "stance"}}, "data.task stance, but values are compared"),
    ({"scientific": TWO, "changes": {"ensemble.seeds": [1, 2]}}, "is an ensemble, but a study compares single runs"),
    ({"changes": {"runtime.distributed": True}}, "a study trains each run in one process; --part shares a study"),
    ({"changes": {"seed": 5}}, "`seed` is set for strong, but repeated sets it for every run: change repeated.seed"),
    (
        {"nuisance": {"keys": RATES}, "scientific": {"systems": {"a": {"optimizer": {"learning_rate": 1}}, "b": {}}}},
        "`optimizer.learning_rate` is set for a, but nuisance.keys sets it for every run",
    ),
    ({"nuisance": {"keys": {"loss.gamma": [2, 2.0]}}}, "loss.gamma has the value 2 twice"),
    (
        {"scientific": {"axes": {"tuning.method": ["full"]}, "exclude": [{"tuning.method": "full"}]}},
        "leaves out every combination of the axes",
    ),
    ({"metrik": "official_f1"}, "unknown key `metrik`; did you mean `metric`"),
    ({"budget": {}}, "give `trainable_parameters`, `training_flops` or both"),
    ({"output": "gs://bucket/study"}, "URLs are not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[said[:30] for _, said in REFUSED])
def test_what_cannot_be_compared_is_one_sentence(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(tmp_path, **changes)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    assert not (tmp_path / "study").exists()


def test_a_replication_reports_what_it_chose_on(tmp_path: Path) -> None:
    plan = planned(tmp_path, report=["validation", "test"], replicate=True)
    assert plan.held_out == "validation"
    assert plan.runs("weak", {})[0].config.data.report == ("test",)


def test_a_budget_chooses_the_size_that_comes_closest(tmp_path: Path) -> None:
    systems = {
        "lora": {"tuning.method": "lora"},
        "prompt": {"tuning.method": "prompt"},
        "top": {"tuning": {"method": "last_layers", "layers": 1}},
        "BitFit": {"tuning.method": "bitfit"},
    }
    said: list[str] = []
    plan = planned(tmp_path, scientific={"systems": systems}, budget={"trainable_parameters": 2000})
    plan = fit_budget(plan, said.append)
    sizes = sizes_of(plan)
    assert plan.first("prompt").tuning.length == 11  # 64 numbers each, besides 1,300 of the head
    assert sizes["prompt"].trained == 1300 + 11 * 64
    assert plan.first("lora").tuning.rank == 3  # 256 numbers each
    assert sizes["lora"].trained == 1300 + 3 * 256
    assert any("BitFit" in one and "bitfit has one size" in one for one in said)
    assert any("prompt: tuning.length 11 trains 2,004 parameters, 100% of the budget" in one for one in said)


def test_a_budget_of_operations_chooses_epochs(tmp_path: Path) -> None:
    plan = planned(tmp_path, "training.epochs=1", scientific=TWO)
    one = sizes_of(plan)["a"].flops
    plan = planned(tmp_path, scientific=TWO, budget={"training_flops": 3.2 * one})
    assert fit_budget(plan, lambda _: None).first("a").training.epochs == 3


def test_contrastive_pretraining_counts(tmp_path: Path) -> None:
    systems = {
        "a": {"tuning.method": "full"},
        "b": {"tuning.method": "full", "loss.contrastive": {"use": "pretraining"}},
    }
    plan = planned(tmp_path, "training.epochs=4", scientific={"systems": systems})
    sizes = sizes_of(plan)
    assert sizes["b"].flops == sizes["a"].flops * 5 / 4
    for positives, times in (("views", 2), ("labels", 1)):
        joint = {"loss.contrastive": {"positives": positives}}
        plan = planned(tmp_path, "training.epochs=4", scientific={"systems": {**systems, "b": joint}})
        assert sizes_of(plan)["b"].flops == sizes["a"].flops * times
    budget = {"training_flops": sizes["a"].flops}
    plan = fit_budget(planned(tmp_path, scientific={"systems": systems}, budget=budget), lambda _: None)
    assert [plan.first(name).training.epochs for name in systems] == [4, 3]


def test_sizes_are_those_of_the_chosen_values(tmp_path: Path) -> None:
    nuisance = {"keys": {"tuning.rank": [4, 1]}}
    systems = {"lora": {"tuning.method": "lora"}, "last": {"tuning": {"method": "lora", "targets": ["query"]}}}
    plan = planned(tmp_path, scientific={"systems": systems}, nuisance=nuisance)
    first = sizes_of(plan)["lora"].trained
    for one in plan.trials("lora"):
        pretend(one.config, held_out_noise=0.1 * one.config.tuning.rank)
    assert first - sizes_of(plan)["lora"].trained == 3 * 256


def test_an_override_replaces_a_key_however_it_is_written(tmp_path: Path) -> None:
    changes = {"training": {"batch_size": 8}, "training.epochs": 4}
    plan = planned(tmp_path, "training.epochs=1", changes=changes)
    assert plan.first("weak").training.epochs == 1
    assert plan.first("weak").training.batch_size == 8
    systems = {**SYSTEMS, "weak": {"tuning.method": "bitfit", "optimizer.learning_rate": 1.0}}
    scientific = {"systems": systems}
    plan = planned(tmp_path, "scientific.systems.weak.optimizer.learning_rate=0.5", scientific=scientific)
    assert plan.first("weak").optimizer.learning_rate == 0.5


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_shipped_studies_are_planned(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = make_plan(load_study(file, () if file.stem in ("quickstart", "paper") else ("model.path=minilm",)))
    assert file.read_text().startswith(f"# jaxvalues compare configs/studies/{file.name}")
    assert plan.contrasts
    for system in plan.systems:
        assert plan.runs(system, plan.first_values(system))


def test_a_config_is_no_study_and_a_study_no_config(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    with pytest.raises(ConfigError, match=r"base\.yaml is the config of a run: `jaxvalues train` runs it"):
        load_study(tmp_path / "base.yaml")
    with pytest.raises(ConfigError, match=r"study\.yaml is a study: `jaxvalues compare` runs it"):
        load_config(study)
    with pytest.raises(ConfigError, match=r"unknown key `trainig\.epochs`; did you mean `training\.epochs`\?"):
        load_study(study, ("trainig.epochs=1",))


def test_a_plan_says_why_sizes_are_not_known(tmp_path: Path) -> None:
    plan, unknown = planned(tmp_path, f"data.dir={tmp_path / 'none'}"), {}
    assert set(sizes_of(plan, unknown).values()) == {UNKNOWN}
    screen = Console(file=io.StringIO(), width=200)
    compare(plan.study, screen, only_plan=True)
    assert set(unknown) == set(plan.systems)
    said = " ".join(screen.file.getvalue().split())
    assert f"strong, weak, same: sizes are not known: {tmp_path / 'none'}: no such folder" in said


def test_systems_have_names_and_methods() -> None:
    assert nested({"a.b.c": 1, "a.b.d": 2, "e": {"f": 3}}) == {"a": {"b": {"c": 1, "d": 2}}, "e": {"f": 3}}
    assert set(SYSTEMS) == {"strong", "weak", "same"}


def test_a_file_that_is_no_study(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    path.write_text("- a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="a study must be a mapping of settings, not list"):
        load_study(path)
    with pytest.raises(ConfigError, match="no such study file"):
        load_study(tmp_path / "absent.yaml")


def test_copies_of_configs_of_one_name_stay_apart(tmp_path: Path) -> None:
    base = yaml.safe_load(write_study(tmp_path).with_name("base.yaml").read_text(encoding="utf-8"))
    for place, rate in (("one", 1e-3), ("two", 1e-1)):
        folder = tmp_path / place / "configs"
        folder.mkdir(parents=True)
        content = {**base, "optimizer": {"learning_rate": rate}}
        (folder / "base.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    systems = {"A": {"base": "one/configs/base.yaml"}, "B": {"base": "two/configs/base.yaml"}}
    plan = planned(tmp_path, scientific={"systems": systems}, base=None)
    save_study(plan.study)
    again = make_plan(load_study(plan.study.folder / "study.yaml"))
    assert {name: again.first(name).optimizer.learning_rate for name in "AB"} == {"A": 1e-3, "B": 1e-1}
    save_study(again.study.model_copy(update={"output": str(plan.study.folder)}))
    assert len(list(plan.study.folder.rglob("base.yaml"))) == 2
    assert {file.parent.name for file in plan.study.folder.rglob("base.yaml")} == {"configs"}


def test_ranges_are_overridden_by_their_keys(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        "nuisance.keys.optimizer.learning_rate=[1e-2]",
        "repeated.formulation.template=[joined]",
        nuisance={"keys": {"optimizer.learning_rate": [1e-4, 1e-3]}},
    )
    assert plan.ranges("weak") == {"optimizer.learning_rate": (1e-2,)}
    assert plan.study.repeated == {"formulation.template": ("joined",)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tuning": {"method": "prompt", "length": 2}}, "the system a sets it too"),
        ({"tuning.method": "prompt"}, "nuisance.keys sets it too"),
    ],
)
def test_a_size_that_a_budget_chooses_is_set_by_nothing_else(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    systems = {"a": changes, "b": {"tuning.method": "prefix"}}
    nuisance = {} if "tuning" in changes else {"keys": {"tuning.length": [2, 4]}}
    plan = planned(tmp_path, scientific={"systems": systems}, budget={"trainable_parameters": 5000}, nuisance=nuisance)
    with pytest.raises(ConfigError, match=f"budget chooses `tuning.length`, and {said}"):
        fit_budget(plan, lambda _: None)


def test_a_budget_says_at_once_why_no_size_of_a_system_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int | None] = []
    monkeypatch.setattr("jaxvalues.study.budget.size_of", lambda one: sizes.append(one.tuning.length) or size_of(one))
    systems = {"a": {"tuning.method": "prompt", "formulation.template": "nowhere.txt"}, "b": {"tuning.method": "full"}}
    plan = planned(tmp_path, scientific={"systems": systems}, budget={"trainable_parameters": 5000})
    with pytest.raises(ConfigError, match=r"`nowhere\.txt` is neither one of"):
        fit_budget(plan, lambda _: None)
    assert sizes == [1]
