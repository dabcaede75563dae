"""The run folder: everything a run writes, and everything needed to resume it or to predict with it.

While in use:     lock.json
At the start:     config.yaml · environment.json · template.txt · synonyms.tsv · examples.json · model/config.json ·
                  tokenizer/
While training:   checkpoints/resume · checkpoints/chosen · metrics.jsonl · tensorboard/
                  embeddings-<before|after>.npz, of a contrastive loss
While predicting: answers/, of an untuned language model
At an endpoint:   answers.jsonl · endpoint.json, what was asked and found · missing-<split>.tsv, without an answer
At the end:       thresholds.json · predictions-<split>.tsv · probabilities-<split>.tsv · logits-<split>.tsv
                  language_model.json, what a language model was asked and how it answered
                  generated-<split>.jsonl, the texts that it generated
                  decisions.json, the scores of other decisions about an untuned model
                  manifest.json, the checksums of what is needed later
Last:             scores.json, which makes the run a finished one

One <split> is `held_out`, the part on which thresholds and the best step were chosen.
The folder of an ensemble holds the files of the end, environment.json, and ensemble.json: its runs and how they are
combined.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxvalues.config import Config
from jaxvalues.config.reading import entry, read_file, read_json
from jaxvalues.config.writing import json_text, write_json, write_whole
from jaxvalues.data.arguments import Split
from jaxvalues.data.task import TASKS, VALUES, Task
from jaxvalues.data.tokenizer_files import save_tokenizer
from jaxvalues.data.tokenizers import load_tokenizer
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.evaluation.coverage import score_answered, write_missing
from jaxvalues.evaluation.decision import Decision, read_decision, sigmoid
from jaxvalues.evaluation.measures import TaskScores, read_scores
from jaxvalues.evaluation.predictions import Logits, Predictions, write_logits
from jaxvalues.evaluation.thresholds import is_asked
from jaxvalues.formulations.examples import Examples
from jaxvalues.run.holds import holds
from jaxvalues.run.lock import LOCK, RunLock
from jaxvalues.run.manifest import add_to_manifest, check_manifest, take_from_manifest, write_manifest
from jaxvalues.run.provenance import (
    EXAMPLES,
    SYNONYMS,
    TEMPLATE,
    check_same_run,
    check_trained_parts,
    checksum,
    read_environment,
    read_network,
    read_run_config,
)
from jaxvalues.run.sentences import read_examples
from jaxvalues.training.checkpoints import Checkpoints, newest_step
from jaxvalues.training.processes import from_main, is_main
from jaxvalues.training.start_checks import check_shared

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from jaxvalues.run.system import System
    from jaxvalues.tuning import Params


RECORD = "language_model.json"
NEW, UNFINISHED, FINISHED = "a new run", "an unfinished run, which is resumed", "a finished run, which is kept"


class RunRecord(NamedTuple):
    """What a run folder keeps besides the config.

    `environment` holds versions and checksums, `hf_config` the network's config.json, `texts` the template with its
    descriptions and the synonyms, {file name: content}. The model of an endpoint has no tokenizer here.
    """

    environment: dict[str, Any]
    hf_config: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase | None
    texts: dict[str, str]


class RunFolder:
    """A run folder, whose predictions are about the labels of `task`.

    Only the first of several processes writes files; checkpoints are written by all of them together.
    """

    def __init__(self, path: str | Path, task: Task = VALUES) -> None:
        self.path, self.task = Path(path), task

    @classmethod
    def open(cls, config: Config, record: RunRecord) -> RunFolder:
        """Make the folder of a config, or find it, and lock it unless its run is finished. All processes call this.

        Raises ConfigError if there is one that belongs to another run, UserError if another command works in it, or if
        it is not the same folder for all processes.
        """
        folder = cls(config.folder, TASKS[config.data.task])
        state, token = from_main("opening the run folder", lambda: folder._lock(config, record))
        if state == FINISHED:
            check_shared(folder.path / "scores.json", "")
            return folder
        check_shared(folder.path / LOCK, token)
        if state == NEW:
            from_main("writing the run folder", lambda: folder.create(config, record))
        return folder

    def _lock(self, config: Config, record: RunRecord) -> tuple[str, str]:
        """(what `check` says, token of the lock): lock the folder unless its run is finished. Process 0 does so."""
        if self.check(config, record) == FINISHED:
            return FINISHED, ""
        lock = RunLock(self.path)
        token = lock.take()
        state = self.check(config, record)  # another command may have made or finished the run meanwhile
        if state == FINISHED:
            lock.release()
        return state, token

    def check(self, config: Config, record: RunRecord) -> str:
        """NEW, FINISHED or UNFINISHED: whether the folder holds the run of a config, and how far it is.

        Raises ConfigError where it holds another one, or something else (see `holds`).
        """
        is_run = (self.path / "config.yaml").exists() and not self.is_ensemble
        if not is_run:
            if (other := holds(self.path)) is not None:
                raise ConfigError(f"{self.path} holds {other}: give another output=FOLDER, or remove it")
            return NEW
        check_same_run(self.path, config, record.environment, record.texts, record.hf_config)
        if not self.is_finished:
            return UNFINISHED
        check_manifest(self.path)
        return FINISHED

    def create(self, config: Config, record: RunRecord) -> None:
        """Make the folder and write the config and the record."""
        try:
            (self.path / "model").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output: the run folder {self.path} cannot be made ({error.strerror})") from None
        if record.tokenizer is not None:
            save_tokenizer(record.tokenizer, self.path / "tokenizer")
        for name, text in record.texts.items():
            write_whole(self.path / name, text + "\n")
        write_json(self.path / "model/config.json", record.hf_config)
        write_json(self.path / "environment.json", record.environment)
        self.write_config(config)  # last: a folder with a config is complete

    def write_config(self, config: Config) -> None:
        write_whole(self.path / "config.yaml", config.to_yaml())

    @classmethod
    def finished(cls, path: str | Path, tables: bool = False) -> RunFolder:
        """The folder of a finished run, with `tables` of predictions that are as it wrote them.

        Raises UserError if it holds none, or an ensemble, or where a file changed since.
        """
        folder = cls(path)
        if folder.is_ensemble:
            raise UserError(f"{folder.path} holds an ensemble, not one run; ensemble.json there names its runs")
        if folder.path.is_file():
            raise UserError(f"{folder.path} is a file, expected the folder of a finished run")
        if any((folder.path / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise UserError(f"{folder.path} holds an export, not a run; `jaxvalues import` makes a run of a checkpoint")
        if not folder.is_finished:
            raise UserError(f"{folder.path} holds no finished run (no scores.json); `jaxvalues train` finishes it")
        check_manifest(folder.path, tables)
        return cls(path, TASKS[folder.config().data.task])

    @property
    def is_finished(self) -> bool:
        return (self.path / "scores.json").is_file()

    @property
    def is_ensemble(self) -> bool:
        return (self.path / "ensemble.json").is_file()

    def config(self, overrides: Iterable[str] = ()) -> Config:
        return read_run_config(self.path, tuple(overrides))

    def with_texts(self, config: Config) -> Config:
        """The config with the run's own copies of its texts: the user's files may have changed since."""
        texts = {"template": str(self.path / TEMPLATE), "descriptions": None}
        if (self.path / SYNONYMS).is_file():
            texts["synonyms"] = str(self.path / SYNONYMS)
        return config.model_copy(update={"formulation": config.formulation.model_copy(update=texts)})

    def environment(self) -> dict[str, Any]:
        return read_environment(self.path)

    def has_other(self, split: Split) -> bool:
        """Whether the run recorded another split of this name."""
        digest = self.environment()["data"].get(split.name)
        return digest is not None and digest != checksum(split)

    def hf_config(self) -> dict[str, Any]:
        return read_network(self.path)

    def examples(self) -> Examples | None:
        """The examples that prompts of the run show; None: no examples."""
        config = self.config()
        if config.formulation.examples is None:
            return None
        return read_examples(config, read_file(self.path / EXAMPLES).decode("utf-8", "replace"))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.path / "tokenizer")

    @property
    def is_under_way(self) -> bool:
        """Whether the run is finished, or has a checkpoint to resume from."""
        return self.is_finished or self.newest_step() is not None

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint to resume from; None if there is none."""
        return newest_step(self.path / "checkpoints/resume")

    def resume(self, read_only: bool = False) -> Checkpoints:
        """The checkpoints to resume from."""
        return Checkpoints(self.path / "checkpoints/resume", read_only=read_only)

    def chosen(self, read_only: bool = False) -> Checkpoints:
        """The checkpoint whose parameters predict."""
        return Checkpoints(self.path / "checkpoints/chosen", read_only=read_only)

    def restore_chosen(self, system: System) -> tuple[Params, int]:
        """The trainable parameters that predict, on the system's mesh, and their step."""
        check_trained_parts(self.path)
        _, abstract = system.network.abstract_parts()
        if not jax.tree.leaves(abstract):  # nothing trains
            return abstract, 0
        with closing(self.chosen(read_only=True)) as chosen:
            trainable, memory = chosen.restore(abstract, system.segments, system.mesh)
        return trainable, entry(memory, "best_step", int, self.path / "checkpoints/chosen")

    def decision(self) -> Decision:
        return read_decision(self.path, self.task.labels)

    def write_decision(self, decision: Decision) -> None:
        if is_main():
            decision.write(self.path, self.task.labels)

    def write_predictions(
        self, split: Split, logits: np.ndarray, decision: Decision, missing: np.ndarray | None = None
    ) -> TaskScores | None:
        """Write the three prediction files of a split; its scores if it has labels.

        `missing` [n, C] is listed in a fourth file, and left out of the scores.
        """
        predictions = Predictions(split.ids, sigmoid(logits), self.task.labels)
        decisions = decision(logits)
        if is_main():
            tables = [f"{kind}-{split.name}.tsv" for kind in ("logits", "probabilities", "predictions")]
            known = take_from_manifest(self.path, tables)
            write_logits(self.path / tables[0], Logits(split.ids, logits), self.task.labels)
            predictions.write_probabilities(self.path / tables[1])
            predictions.write_run(self.path / tables[2], decisions)
            add_to_manifest(self.path, known)
            if missing is not None:
                write_missing(self.path / f"missing-{split.name}.tsv", split.ids, self.task.labels, missing)
        if split.labels is None:
            return None
        return score_answered(self.task, split.labels, decisions, missing, is_asked(logits))

    def write_record(self, split: Split, record: dict[str, Any], generated: list[dict[str, Any]] | None = None) -> None:
        """Add what a language model was asked about a split, and how it answered, to language_model.json.

        `generated` are the texts that it generated, in the order of the split; they become generated-<split>.jsonl.
        """
        if is_main():
            path = self.path / RECORD
            before = read_json(path, "the record of the language model") if path.is_file() else {}
            write_json(path, {**before, split.name: record})
        if generated is not None and is_main():
            named = ({**one, "argument": split.ids[one["argument"]]} for one in generated)
            lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in named)
            write_whole(self.path / f"generated-{split.name}.jsonl", "".join(lines))

    def write_decisions(self, rows: dict[str, dict[str, TaskScores]]) -> None:
        """Write decisions.json: the scores of several decisions about the same logits, {decision: {split: scores}}."""
        if is_main():
            content = {name: {split: one.to_json() for split, one in row.items()} for name, row in rows.items()}
            write_json(self.path / "decisions.json", content)

    def write_scores(
        self,
        step: int | None,
        decision: Decision,
        held_out: TaskScores,
        splits: dict[str, TaskScores],
        coverage: dict[str, float] | None = None,
    ) -> None:
        """Write scores.json, which makes the run a finished one; an ensemble has no step.

        `coverage` is {part: share of the questions with an answer}, of a system that can fail to answer.
        """
        if is_main():
            self.write_last(
                {
                    "step": step,
                    "decision": decision.how,
                    **({} if coverage is None else {"coverage": coverage}),
                    "held_out": held_out.to_json(),
                    "splits": {name: scores.to_json() for name, scores in splits.items()},
                }
            )

    def write_last(self, scores: dict[str, Any]) -> None:
        """Write the manifest of the folder, and scores.json, which makes the run a finished one."""
        text = json_text(scores)
        write_manifest(self.path, {"scores.json": text})
        write_whole(self.path / "scores.json", text)

    def scores(self) -> dict[str, TaskScores]:
        """The scores of the reported splits of a finished run."""
        return self._read_scores()[1]

    def held_out_scores(self) -> TaskScores:
        """The scores of a finished run on the held-out part, where its decision was tuned."""
        return self._read_scores()[0]

    def _read_scores(self) -> tuple[TaskScores, dict[str, TaskScores]]:
        path = self.path / "scores.json"
        return read_scores(self.task, read_json(path, "the scores of the run"), path)
