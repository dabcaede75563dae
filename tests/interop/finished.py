"""Finished runs of tiny networks of every architecture. Their weights are random, so no step is compiled."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tiny

from jaxvalues.config import Config
from jaxvalues.data.arguments import Split
from jaxvalues.data.batches import PlannedBatch, collate
from jaxvalues.data.held_out import load_parts
from jaxvalues.data.loading import load_split
from jaxvalues.evaluation.decision import Decision
from jaxvalues.evaluation.official import score
from jaxvalues.formulations import load_texts
from jaxvalues.models import ungroup
from jaxvalues.models.layers.layout import group
from jaxvalues.run.base import find_base, fit_to_tokenizer
from jaxvalues.run.folder import RunFolder, RunRecord
from jaxvalues.run.network import build_network
from jaxvalues.run.predict import restore
from jaxvalues.run.provenance import TEMPLATE, describe_environment
from jaxvalues.run.system import System
from jaxvalues.training.sharding import single_mesh

SIZES = {**tiny.ROBERTA, "vocab_size": 2000, "pad_token_id": 1}
RELATIVE = {"type_vocab_size": 0, "relative_attention": True, "position_biased_input": False}
LEFTOVERS = {
    "_name_or_path": "/somewhere/bert",
    "torch_dtype": "float16",
    "num_labels": 3,
}  # keys of a base model's config.json
NETWORKS: dict[str, dict[str, Any]] = {
    "bert": {**SIZES, "model_type": "bert", **LEFTOVERS},
    "roberta": {**SIZES, "num_hidden_layers": 3},
    "mpnet": {**SIZES, "model_type": "mpnet"},
    "deberta": {**SIZES, **RELATIVE, "model_type": "deberta", "pos_att_type": "c2p|p2c"},
    "deberta-v2": {
        **SIZES, **RELATIVE,
        "model_type": "deberta-v2", "pos_att_type": ["p2c", "c2p"], "position_buckets": 8,
        "norm_rel_ebd": "layer_norm", "share_att_key": True, "max_relative_positions": 12,
    },
}  # fmt: skip


def config(network: str, *changes: dict[str, Any]) -> Config:
    """The tiny config of one of NETWORKS, over the first token of the last layer, with `changes` made to it."""
    here = {"data": {"max_length": 64, "buckets": [64]}, "formulation": {"pooling": {"over": "cls"}}}
    return tiny.config(here, {"model": {"config": NETWORKS[network]}}, *changes)


class Finished(NamedTuple):
    """A finished run's folder, and its parameters, unrolled."""

    path: Path
    params: Any

    def restored(self) -> tuple[System, Any]:
        """(system, unrolled parameters), loaded from the folder."""
        folder = RunFolder(self.path)
        system, weights = restore(folder, folder.config(), single_mesh())
        return system, ungroup(system.network.tuning.merge(*weights))


def finish(path: Path, config: Config, seed: int = 0) -> Finished:
    """Write a finished run of `config` to `path`. Frozen weights are those of model.path."""
    base = find_base(config.model, config.seed)
    hf_config = fit_to_tokenizer(base.hf_config, tiny.tokenizer(), base.is_random)
    network = build_network(config, hf_config)
    params = drawn(jax.eval_shape(lambda: ungroup(network.init(jax.random.key(0)))), seed)
    _, trainable = network.tuning.init(jax.random.key(0), group(params, network.segments))
    trainable |= drawn({name: tree for name, tree in trainable.items() if name not in params}, seed)  # what is added
    template, random = load_texts(config.formulation).text, np.random.default_rng(seed)
    folder = RunFolder(path)
    parts = load_parts(config.data.model_copy(update={"dir": None}))  # the sample's, wherever a test says it is
    folder.create(
        config, RunRecord(describe_environment(config, base, parts), hf_config, tiny.tokenizer(), {TEMPLATE: template})
    )
    with closing(folder.chosen()) as chosen:
        chosen.save(7, trainable, network.segments, {"best_step": 7})
    decision = Decision(random.integers(-30, 30, 20) / 10, "drawn thresholds")
    folder.write_decision(decision)
    labels = split().labels
    held_out, test = (score(labels, random.integers(0, 2, labels.shape)) for _ in range(2))
    folder.write_scores(7, decision, held_out, {"test": test})
    return Finished(path, params)


def drawn(shapes: Any, seed: int = 0) -> Any:
    """Random weights, large enough that each affects the output; scales of norms are about 1."""
    random = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        offset = float(path[-1].key == "scale")
        return (offset + 0.15 * random.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def split() -> Split:
    """The sample's test split."""
    return load_split("test", source="sample")


def equal(a: Any, b: Any) -> None:
    """Two trees hold the same bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def batch(system: System) -> dict[str, np.ndarray]:
    """The test split as one batch, padded to the longest row."""
    tokens = system.formulation.encode(split().arguments)
    return collate(tokens, PlannedBatch(int(tokens.lengths.max()), np.arange(len(tokens))), len(tokens), system.pad_id)


def torch_classifier(folder: Path) -> Any:
    """transformers' classifier of a folder, which holds exactly the tensors it looks for."""
    from transformers import AutoModelForSequenceClassification

    model, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def torch_logits(folder: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """transformers' logits [n, 20] of a batch."""
    import torch

    with torch.inference_mode():
        ids, mask = (torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask"))
        return torch_classifier(folder)(ids, attention_mask=mask).logits.numpy()
