"""The schema, how a file becomes a config, and that every config file that comes with jaxvalues works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import yaml
from chat_templates import SMOLLM2, chat_tokenizer

from jaxvalues.config import GENERATED, LEARNING_RATES, Config, json_schema, load_config, runs_of
from jaxvalues.data.batches import PlannedBatch, collate, model_inputs
from jaxvalues.data.task import TASKS
from jaxvalues.data.tokenizers import train_tokenizer
from jaxvalues.data.training_batches import TrainingBatches
from jaxvalues.errors import ConfigError
from jaxvalues.formulations import load_texts, training_texts
from jaxvalues.remote.formulations import make_remote
from jaxvalues.remote.probe import Found
from jaxvalues.run.base import fit_to_tokenizer
from jaxvalues.run.state import training_stages
from jaxvalues.run.system import System

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(file for file in CONFIGS.rglob("*.yaml") if file.parent.name != "studies")
# One of each network; the others are traced in the slow tests.
TRACED_FIRST = [
    *CONFIGS.glob("quickstart*.yaml"),
    *(CONFIGS / name for name in ("minilm.yaml", "roberta-base.yaml", "deberta-v3-base.yaml")),
    *(CONFIGS / name for name in ("llm/remote.yaml", "paper/chatgpt-cot.yaml")),
    *(CONFIGS / "bench" / name for name in ("gpt2-branches.yaml", "t5-base-prompt.yaml")),
]

# The config.json of what `model.path` names: nothing is downloaded.
BERT = {"model_type": "bert", "max_position_embeddings": 512, "type_vocab_size": 2, "vocab_size": 30522}
ROBERTA = {"model_type": "roberta", "max_position_embeddings": 514, "type_vocab_size": 1, "vocab_size": 50265}
DEBERTA = {
    "model_type": "deberta", "max_position_embeddings": 512, "type_vocab_size": 0, "vocab_size": 50265,
    "relative_attention": True, "max_relative_positions": -1, "position_biased_input": False,
    "pos_att_type": ["c2p", "p2c"], "pad_token_id": 0, "layer_norm_eps": 1e-7,
}  # fmt: skip
DEBERTA_V3 = {
    **DEBERTA, "model_type": "deberta-v2", "vocab_size": 128100, "position_buckets": 256, "share_att_key": True,
    "norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p",
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024}
LLAMA = {"model_type": "llama", "max_position_embeddings": 4096, "tie_word_embeddings": True}
T5 = {"model_type": "t5", "vocab_size": 32128, "d_kv": 64, "decoder_start_token_id": 0, "pad_token_id": 0}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
HUB = {
    "minilm": {**BERT, **MINILM},
    "FacebookAI/roberta-base": {**ROBERTA, **BASE},
    "sentence-transformers/all-mpnet-base-v2": {**ROBERTA, **BASE, "model_type": "mpnet", "vocab_size": 30527},
    "FacebookAI/roberta-large": {**ROBERTA, **LARGE},
    "microsoft/deberta-large": {**DEBERTA, **LARGE},
    "microsoft/deberta-v3-base": {**DEBERTA_V3, **BASE},
    "openai-community/gpt2-medium": {**GPT2, "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "openai-community/gpt2-large": {**GPT2, "n_embd": 1280, "n_layer": 36, "n_head": 20},
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        **LLAMA,
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "Qwen/Qwen3-0.6B": {
        **LLAMA,
        "model_type": "qwen3",
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151936,
    },
    "meta-llama/Llama-3.2-1B-Instruct": {
        **LLAMA,
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 8192,
        "vocab_size": 128256,
    },
    "google/gemma-3-1b-it": {
        **LLAMA,
        "model_type": "gemma3_text",
        "hidden_size": 1152,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "intermediate_size": 6912,
        "vocab_size": 262144,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "query_pre_attn_scalar": 256,
    },
    "meta-llama/Llama-2-7b-chat-hf": {
        **LLAMA,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
    "google-t5/t5-base": {**T5, "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    "google-t5/t5-large": {**T5, "d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
}


def read(file: Path, *changes: str) -> Config:
    """A config file as its header says to use it."""
    return load_config(file, [*changes, "model.path=minilm"] if file.stem == "minilm" else changes)


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, id=file.stem, marks=() if file in TRACED_FIRST else pytest.mark.slow) for file in FILES],
)
def test_every_config_file_traces_at_full_size(file: Path) -> None:
    """One training step and one evaluation of every member, with abstract arrays: all fits, nothing is computed."""
    runs = runs_of(read(file, "model.scan=true"))  # which traces one layer instead of 24
    for config in {run.name: run for run in runs}.values():
        if config.model.endpoint is None:
            trace(config)
        else:
            ask(config)


def ask(config: Config) -> None:
    """All that an endpoint is asked first about two arguments can be written."""
    form, parts = config.explicit(), tiny.split()
    asking = make_remote(form, load_texts(form.formulation), Found(), None)
    requests = next(asking.rounds(parts.arguments[:2]))
    assert len(requests) == (2 if form.formulation.generates else 40)
    assert {request.payload["model"] for request in requests} == {config.model.id}


def trace(config: Config) -> None:
    """Every shape of a run fits."""
    tokenizer, words, form = tiny.tokenizer(), config.model.train_tokenizer, config.formulation
    if form.chat:
        texts = training_texts(form, load_texts(form), tiny.split().arguments)
        tokenizer = chat_tokenizer(SMOLLM2, tuple(texts))
    if words is not None:
        texts = training_texts(config.formulation, load_texts(config.formulation), tiny.split().arguments)
        tokenizer = train_tokenizer(texts, words.vocab_size, config.data.max_length)
    hf_config = config.model.config or HUB[config.model.path]
    hf_config = fit_to_tokenizer(hf_config, tokenizer, is_random=config.model.config is not None)
    system = System(config, hf_config, tokenizer, tiny.one_device())

    split = TASKS[config.data.task].relabel(tiny.split())
    if form.kind in GENERATED:
        trace_generated(system)
        return
    tokens = system.formulation.encode(split.arguments[:2], split.labels[:2])
    batches = TrainingBatches.for_config(config, tokens, system.pad_id)
    column = np.zeros(2, int) if batches.by_question else None
    planned = PlannedBatch(config.data.max_length, np.arange(2), column)
    batch = collate(tokens, planned, batches.rows, system.pad_id)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    predicted = collate(tokens, PlannedBatch(config.data.max_length, np.arange(2)), 2, system.pad_id)
    inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), model_inputs(predicted))
    frozen, trainable = system.network.abstract_parts()
    state = system.abstract_state()
    for stage in training_stages(system, 100, split.labels):
        after, metrics = jax.eval_shape(stage.step.jitted, state, frozen, batch, stage.hyper)
    logits = jax.eval_shape(system.eval_step.jitted, trainable, frozen, inputs)

    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics["loss"].shape == ()
    assert (logits.shape, logits.dtype) == (predicted["labels"].shape, jnp.float32)


def trace_generated(system: System) -> None:
    """The prompts of generated texts fit; of a chain of thought, the second turns are scored."""
    config, arguments = system.config, tiny.split().arguments[:2]
    assert max(map(len, system.formulation.encode(arguments).ids)) <= config.data.max_length
    if config.formulation.kind == "chain_of_thought":
        tokens = system.formulation.second_turns(arguments, ["It is about care.", ""])
        batch = collate(tokens, PlannedBatch(config.data.max_length, np.arange(2)), 2, system.pad_id)
        inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), model_inputs(batch))
        frozen, trainable = system.network.abstract_parts()
        assert jax.eval_shape(system.score_step.jitted, trainable, frozen, inputs).shape == (2, 20, 2)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_config_file_opens_with_its_own_command(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    _, program, command, named, *_ = first.split()
    assert (program, named) == ("jaxvalues", str(file.relative_to(CONFIGS.parent)))
    assert command in ("train", "bench", "compare", "show")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_json_schema_accepts_every_config_file(file: Path) -> None:
    schema = json_schema()
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert accepts(schema, tree, schema)
    assert not accepts(schema, {**tree, "optimiser": {}}, schema)
    assert not accepts(schema, {**tree, "optimizer": {"learning_rat": 1.0}}, schema)
    assert not accepts(schema, {**tree, "training": {"epochs": "three"}}, schema)


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Whether a JSON Schema, of the keywords that ours uses, allows a value."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in schema:
        return any(accepts(one, value, root) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    match schema.get("type"):
        case "object":
            known = schema.get("properties", {})
            rest = schema.get("additionalProperties", True)
            return isinstance(value, dict) and all(
                accepts(known[key], item, root) if key in known else rest is True for key, item in value.items()
            )
        case "array":
            return isinstance(value, list) and all(accepts(schema["items"], item, root) for item in value)
        case kind:
            kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
            return isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool))


def write(folder: Path, **files: str) -> Path:
    """Write YAML files by stem; the path of the first."""
    for stem, text in files.items():
        (folder / f"{stem}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.yaml"


def test_a_chain_of_bases_merges_section_by_section(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        child="base: parent.yaml\noptimizer: {learning_rate: 3e-5}\nmodel: {config: null, path: weights}",
        parent="base: grand.yaml\nname: parent\noptimizer: {schedule: linear, learning_rate: 1e-3}",
        grand="model: {tokenizer: t, config: {model_type: bert, layer_norm_eps: 1e-5}}\ntraining: {epochs: 7}",
    )
    config = load_config(file)
    assert (config.optimizer.learning_rate, config.optimizer.schedule, config.training.epochs) == (3e-5, "linear", 7)
    assert (config.model.path, config.model.config, config.model.tokenizer) == ("weights", None, "t")
    assert config.name == "parent"
    assert load_config(tmp_path / "grand.yaml").name == "grand"
    # 1e-5 is a number, also where the schema does not say so
    assert load_config(tmp_path / "grand.yaml").model.config == {"model_type": "bert", "layer_norm_eps": 1e-5}


def test_merge_keys_of_yaml_work(tmp_path: Path) -> None:
    text = "model: &m {path: x, scan: true}\nname: a\n"
    assert load_config(write(tmp_path, a=text)).model.scan is True
    text = "model:\n  <<: {path: x, scan: true}\n  scan: false\n"
    assert load_config(write(tmp_path, a=text)).model.scan is False


def test_overrides_are_yaml_values(tmp_path: Path) -> None:
    file = write(tmp_path, a="model: {path: x}\ndata: {report: [test]}\noptimizer: {warmup: 0.2}")
    changes = [
        "optimizer.learning_rate=1e-4",
        "optimizer.clip_norm=null",
        "data.report=[validation, test-nyt]",
        "data.held_out=1e-1",
        "model.config={model_type: bert}",
        "model.train_tokenizer.vocab_size=500",
        "model.path=null",
        "logging.tensorboard=false",
        "name=b=c",
    ]
    config = load_config(file, changes)
    assert (config.optimizer.learning_rate, config.optimizer.clip_norm, config.optimizer.warmup) == (1e-4, None, 0.2)
    assert (config.data.report, config.data.held_out) == (("validation", "test-nyt"), 0.1)
    assert (config.model.config, config.model.train_tokenizer.vocab_size) == ({"model_type": "bert"}, 500)
    assert (config.logging.tensorboard, config.name) == (False, "b=c")
    assert load_config(file).data.report == ("test",)  # the file's own tree was not changed


MODEL = "model: {path: x}\n"
STANCE = "data.task=stance"
ANSWER, LSTM = "formulation.kind=answer", "tuning.reparameterization=lstm"
WRONG = {
    "misspelt key": (MODEL + "optimizer: {epz: 1}", [], "unknown key `optimizer.epz`; did you mean `optimizer.eps`?"),
    "dotted key": (MODEL + "training.epochs: 2", [], "`training.epochs`: in a file, write `training: {epochs: …}`"),
    "value of another threshold": (MODEL, ["decision.value=0.9"], "`value` belongs to threshold: fixed, not to tuned"),
    "split twice": (MODEL, ["data.report=[test,test]"], "data: `report` names test twice"),
    "no placeholder": (MODEL, ["output=runs/{seed:03d}"], "output: {seed:03d} is no placeholder, expected {name} or"),
    "empty list": (MODEL, ["formulation.pooling.layers=[]"], "input should have at least one item, not ()"),
    "null": (MODEL, ["seed="], "`seed`: input should be an integer, not null"),
    "misspelt section": (MODEL + "optimiser: {}", [], "`optimiser`; did you mean `optimizer`?"),
    "misspelt deep key": (MODEL, ["model.train_tokenizer.vocabsize=9"], "mean `model.train_tokenizer.vocab_size`?"),
    "key like nothing": (MODEL, ["mesh.zzz=1"], "known keys here: mesh.data, mesh.fsdp, mesh.tensor"),
    "key twice": ("model:\n  path: x\n  path: y\n", [], "key `path` is repeated in line 3"),
    "section twice": (MODEL + MODEL, [], "key `model` is repeated in line 2"),
    "empty section": (MODEL + "data:\n", [], "`data`: input should be a mapping"),
    "not a mapping": ("- 1", [], "a config must be a mapping of sections, not list"),
    "not YAML": ("a: [", [], "not valid YAML"),
    "python in YAML": ("a: !!python/object:os.system {}", [], "not valid YAML"),
    "base that is a list": ("base: [a]", [], "`base:` must be the path of one config file"),
    "base that is not there": ("base: nowhere.yaml", [], "nowhere.yaml: no such config file"),
    "base that is itself": ("base: a.yaml", [], "leads back to this file"),
    "override without value": (MODEL, ["seed"], "must have the form key=value"),
    "override that is no YAML": (MODEL, ["data.report=["], "override `data.report=[`: the value is not valid YAML"),
    "override of the base": (MODEL, ["base=b.yaml"], "can only be set in a config file"),
    "wrong type": (MODEL, ["training.epochs=three"], "`training.epochs`: input should be an integer"),
    "wrong choice": (MODEL, ["tuning.method=lorra"], "'lora', 'ia3' or 'none', not 'lorra'"),
    "infinite": (MODEL, ["optimizer.learning_rate=.inf"], "`optimizer.learning_rate`: input should be a finite number"),
    "huge seed": (MODEL, ["seed=4294967296"], "`seed`: input should be less than 4294967296"),
    "no model": ("name: a", [], "give either model.path"),
    "two models": (MODEL, ["model.config={}"], "give either model.path"),
    "no tokenizer": ("model: {config: {model_type: bert}}", [], "needs model.tokenizer or model.train_tokenizer"),
    "last_layers of how many": (MODEL, ["tuning.method=last_layers"], "tuning: `layers` is required with"),
    "layers of full tuning": (MODEL, ["tuning.layers=2"], "tuning: `layers` is required with method: last_layers"),
    "batch not divisible": (MODEL, ["training.accumulation=3"], "batch_size 8 is not divisible by accumulation 3"),
    "two free axes": (MODEL, ["mesh.fsdp=-1"], "mesh sizes must be positive, and at most one of them -1"),
    "buckets out of order": (MODEL, ["data.buckets=[64, 32]"], "must be increasing positive lengths, not [64, 32]"),
    "held out is reported": (MODEL, ["data.held_out=test"], "data.held_out is `test`, which is also trained on or"),
    "held out trains": (MODEL, ["data.held_out=training"], "which is also trained on or reported"),
    "held out everything": (MODEL, ["data.held_out=1.0"], "must be a fraction between 0 and 1"),
    "a stance and descriptions": (MODEL, [STANCE, "formulation.descriptions=name"], "formulation.descriptions needs"),
    "an open stance": (MODEL, [STANCE, "formulation.kind=open_answer"], "kind: open_answer needs the 20"),
    "a threshold per stance": (MODEL, [STANCE, "decision.threshold=tuned_per_category"], "tuned_per_category needs"),
    "folds of a stance": (MODEL, [STANCE, "data.folds=5"], "an ensemble (ensemble, data.folds) needs the 20 value"),
    "negatives of a stance": (
        MODEL, [STANCE, "formulation.kind=answer", "data.negatives=2"], "data.negatives needs the 20 value categories"
    ),
    "verbalizer of classify": (MODEL, ["formulation.verbalizer.soft=true"], "`verbalizer` belongs to kind: masked"),
    "scoring of answer": (MODEL, [ANSWER, "formulation.scoring=generation"], "`scoring` belongs to kind: open_answer"),
    "head of answer": (MODEL, [ANSWER, "tuning.method=head"], "trains a classifier head, and"),
    "contrastive answer": (MODEL, [ANSWER, "loss.contrastive={}"], "loss.contrastive belongs to formulation.kind"),
    "negatives of classify": (MODEL, ["data.negatives=1"], "data.negatives samples questions about an argument"),
    "questions of classify": (MODEL, ["training.questions_per_step=8"], "training.questions_per_step counts questions"),
    "questions not divisible": (
        MODEL, [ANSWER, "training.questions_per_step=8", "training.accumulation=3"],
        "questions_per_step 8 is not divisible by accumulation 3",
    ),
    "all held out of no subset": (MODEL, ["data.full_held_out=true"], "belongs to data.shots and data.fraction"),
    "shots and fraction": (MODEL, ["data.shots=5", "data.fraction=0.5"], "data.shots or data.fraction, not both"),
    "rank of full tuning": (MODEL, ["tuning.rank=4"], "`rank` belongs to method: lora, not to full"),
    "lstm of a prefix": (MODEL, ["tuning.method=prefix", LSTM], "of method: prefix must be none or mlp, not lstm"),
    "prompt in cross": (MODEL, ["tuning.method=prompt", "tuning.sides=[cross]"], "`sides: cross` belongs to method"),
    "text without text": (MODEL, ["tuning.method=prompt", "tuning.init=text"], "`init_text` is required with"),
    "training is reported": (MODEL, ["data.report=[training]"], "data.report contains the training split"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_sentence(case: str, tmp_path: Path) -> None:
    text, overrides, said = WRONG[case]
    with pytest.raises(ConfigError) as error:
        load_config(write(tmp_path, a=text), overrides)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_bases_that_lead_in_a_circle_are_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leads back to this file"):
        load_config(write(tmp_path, a="base: b.yaml", b="base: c.yaml", c="base: a.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_resolved_config_reads_back_as_itself(file: Path, tmp_path: Path) -> None:
    config = read(file)
    assert load_config(write(tmp_path, config=config.to_yaml())) == config


@pytest.mark.parametrize("method", LEARNING_RATES)
def test_every_method_has_a_learning_rate_of_its_own_and_says_whose(method: str) -> None:
    changes = {"method": method} | ({"layers": 1} if method == "last_layers" else {})
    one = tiny.config({"tuning": changes, "optimizer": {"learning_rate": None}, "formulation": {"template": None}})
    rate, source = LEARNING_RATES[method]
    assert (one.explicit().optimizer.learning_rate, one.explicit().formulation.template) == (rate, "cls")
    assert source
    given = tiny.config({"tuning": changes, "optimizer": {"learning_rate": 0.25}})
    assert given.explicit().optimizer.learning_rate == 0.25


def test_yes_and_no_are_words_and_true_is_not(tmp_path: Path) -> None:
    path, again = tmp_path / "x.yaml", tmp_path / "again.yaml"
    path.write_text(
        "model: {path: x, remat: true}\n"
        "formulation: {kind: answer, verbalizer: {yes: [Yes, Sure], no: [No], soft: false}}"
    )
    config = load_config(path, ["formulation.verbalizer.no=[No, Never]"])
    assert config.formulation.verbalizer.yes == ("Yes", "Sure")
    assert config.formulation.verbalizer.no == ("No", "Never")
    assert config.model.remat is True
    again.write_text(config.to_yaml())
    assert load_config(again) == config
