"""PEFT's adapters against the library itself: what we write it reads, what it writes we read, with the same logits."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file
from tuned import PEFT_TARGETS

from jaxvalues.config import TuningConfig
from jaxvalues.errors import ConfigError, UserError
from jaxvalues.models import (
    group,
    init_causal_lm,
    init_masked_lm,
    init_model,
    init_t5,
    save_causal_lm,
    save_masked_lm,
    save_model,
    save_t5,
)
from jaxvalues.models.t5.model import Prefix, Prompt
from jaxvalues.tuning.ia3 import INPUT_SCALED
from jaxvalues.tuning.peft_folder import CONFIG, WEIGHTS, read_adapter_config, save_adapter
from jaxvalues.tuning.peft_format import PeftTarget, from_peft, to_peft

ENCODER = {"vocab_size": 70, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4} | {
    "intermediate_size": 96,
    "max_position_embeddings": 40,
}
DEBERTA = {**ENCODER, "relative_attention": True, "position_biased_input": False, "type_vocab_size": 0}
HF_CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 70, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 40}
    | {"bos_token_id": None, "eos_token_id": None},
    "llama": {**ENCODER, "num_key_value_heads": 2},
    "gemma3_text": {**ENCODER, "num_key_value_heads": 2, "head_dim": 24, "sliding_window": 64}
    | {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None},
    "t5": {"vocab_size": 70, "d_model": 64, "d_ff": 96, "num_layers": 2, "num_heads": 4, "d_kv": 24}
    | {"num_decoder_layers": 3, "feed_forward_proj": "gated-gelu"},  # four heads are wider than the network
    "bert": {**ENCODER, "type_vocab_size": 2, "pad_token_id": 0},
    "roberta": {**ENCODER, "type_vocab_size": 1, "pad_token_id": 1},
    "mpnet": {**ENCODER, "pad_token_id": 1},
    "deberta": {**DEBERTA, "pos_att_type": ["c2p", "p2c"], "legacy": True},
    "deberta-v2": {**DEBERTA, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "share_att_key": True}
    | {"norm_rel_ebd": "layer_norm", "legacy": True},
}
KINDS = {**dict.fromkeys(("gpt2", "llama", "gemma3_text"), "CAUSAL_LM"), "t5": "SEQ_2_SEQ_LM"}
# PEFT's targets, in our names.
LORA = {kind: {"query", "value"} for kind in HF_CONFIGS} | {"gpt2": {"qkv"}, "deberta": {"in_proj"}}
IA3 = {kind: {"key", "value", "output", "down"} for kind in HF_CONFIGS} | {
    "gpt2": {"qkv", "down"},
    "t5": {"key", "value", "down"},
    "llama": {"key", "value", "down"},
    "gemma3_text": {"query", "value", "down"},
    "deberta": {"in_proj", "output", "down"},
}
VECTORS = [(kind, method) for kind in KINDS for method in ("prompt", "p_tuning", "prefix")]
MATRICES = [(kind, method) for kind in HF_CONFIGS for method in ("lora", "ia3")]
P, RANK, ALPHA = 3, 4, 6.0
LENGTHS = (13, 9, 4, 1, 13)  # real tokens in each row of T = 13, on the left: there PEFT counts positions as we do


class Base(NamedTuple):
    """A base model here and as a checkpoint folder for transformers."""

    folder: Path
    params: dict[str, Any]
    run: Any  # (params, hooks) -> logits
    target: PeftTarget


@functools.cache
def inputs(kind: str) -> dict[str, np.ndarray]:
    random = np.random.RandomState(1)
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int32)
    made = {"input_ids": random.randint(3, 70, mask.shape).astype(np.int32), "attention_mask": mask}
    if kind == "t5":
        made |= {"decoder_input_ids": random.randint(3, 70, mask.shape).astype(np.int32)}
        made |= {"decoder_attention_mask": mask[::-1].copy()}
    return made


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Base models by architecture, made when first asked for."""
    pytest.importorskip("torch")
    pytest.importorskip("peft")

    @functools.cache
    def make(kind: str) -> Base:
        hf_config, folder = {**HF_CONFIGS[kind], "model_type": kind}, tmp_path_factory.mktemp(kind)
        makers = {"CAUSAL_LM": (init_causal_lm, save_causal_lm), "SEQ_2_SEQ_LM": (init_t5, save_t5)}
        init, save = makers.get(KINDS.get(kind), (init_masked_lm, save_masked_lm))
        module, params = init(hf_config, 0, scan=False)
        random = np.random.RandomState(0)
        params = jax.tree.map(lambda x: x + 0.1 * random.standard_normal(x.shape).astype(np.float32), params)
        save(folder, hf_config, params)
        given = inputs(kind)
        run = jax.jit(lambda params, hooks: module.apply({"params": params}, *given.values(), **hooks))
        return Base(folder, params, run, PeftTarget(hf_config, KINDS.get(kind), str(folder)))

    return make


def torch_base(base: Base) -> Any:
    import transformers

    task = {"CAUSAL_LM": "CausalLM", "SEQ_2_SEQ_LM": "Seq2SeqLM"}.get(base.target.task_type, "MaskedLM")
    return getattr(transformers, f"AutoModelFor{task}").from_pretrained(base.folder, attn_implementation="eager").eval()


def torch_logits(model: Any, given: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    with torch.no_grad():
        out = model.eval()(**{name: torch.tensor(x).long() for name, x in given.items()})
    logits = out.logits.numpy()
    return logits[:, -max(LENGTHS) :] if logits.ndim == 3 else logits  # PEFT returns those of a prompt too


def draw(*shape: int) -> np.ndarray:
    return np.random.RandomState(sum(shape)).standard_normal(shape).astype(np.float32)


def random_tree(base: Base, method: str) -> dict[str, Any]:
    """What a method trains, drawn at random; vectors where they enter in PEFT."""
    kind = base.target.model_type
    if method in ("prompt", "p_tuning"):
        return {"prompt": {"encoder": draw(P, 64)}}
    if method == "prefix":
        heads = {"llama": (2, 16), "gemma3_text": (2, 24)}.get(kind, (4, 16))
        return {"prefix": {"decoder": draw(3, 2, P, 4, 24)} if kind == "t5" else {"encoder": draw(2, 2, P, *heads)}}
    tree = {}
    for path, kernel in flatten_dict(base.params, sep="/").items():
        *layer, name, leaf = path.split("/")
        if leaf != "kernel" or "layers" not in layer or name not in {"lora": LORA, "ia3": IA3}[method][kind]:
            continue
        at = f"{'/'.join(layer)}/{name}"
        if method == "lora":
            tree |= {f"{at}/a": 0.2 * draw(kernel.shape[0], RANK), f"{at}/b": 0.2 * draw(RANK, kernel.shape[1])}
        else:
            tree[f"{at}/scale"] = 1 + 0.5 * draw(kernel.shape[0 if name in INPUT_SCALED[kind] else 1])
    return {method: unflatten_dict(tree, sep="/")}


def hooks(base: Base, tree: dict[str, Any]) -> dict[str, Any]:
    """The prompt or the prefix of a tree, as the network takes it."""
    wrap = {"prompt": Prompt, "prefix": Prefix}
    is_t5 = base.target.model_type == "t5"
    return {key: wrap[key](**tree[key]) if is_t5 else tree[key]["encoder"] for key in wrap if key in tree}


def effective(base: Base, tree: dict[str, Any]) -> dict[str, Any]:
    """The base's parameters with the products and the scales of a tree in them."""
    params = flatten_dict(base.params, sep="/")
    for path, leaf in flatten_dict(tree.get("lora", {}), sep="/").items():
        if path.endswith("/a"):
            layer = path.removesuffix("/a")
            b = flatten_dict(tree["lora"], sep="/")[f"{layer}/b"]
            params[f"{layer}/kernel"] = params[f"{layer}/kernel"] + ALPHA / RANK * leaf @ b
    for path, scale in flatten_dict(tree.get("ia3", {}), sep="/").items():
        layer = path.removesuffix("/scale")
        if layer.rsplit("/", 1)[-1] in INPUT_SCALED[base.target.model_type]:
            params[f"{layer}/kernel"] = params[f"{layer}/kernel"] * scale[:, None]
        else:
            for name in {"kernel", "bias"} & {p.rsplit("/", 1)[-1] for p in params if p.startswith(f"{layer}/")}:
                params[f"{layer}/{name}"] = params[f"{layer}/{name}"] * scale
    return unflatten_dict(params, sep="/")


def our_logits(base: Base, tree: dict[str, Any]) -> np.ndarray:
    return np.asarray(base.run(effective(base, tree), hooks(base, tree)))


def assert_same(base: Base, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal to 1e-4 at every real token, and not the base model's."""
    real = list(inputs(base.target.model_type).values())[-1].astype(bool)
    np.testing.assert_allclose(ours[real], theirs[real], atol=1e-4 * np.abs(theirs[real]).max(), rtol=0)
    plain = np.asarray(base.run(base.params, {}))
    assert np.abs(ours - plain)[real].max() > 0.01 * np.abs(plain[real]).max()


def settings(method: str, **more: Any) -> TuningConfig:
    return TuningConfig(method=method, **({"rank": RANK, "alpha": ALPHA} if method == "lora" else {}), **more)


def assert_equal(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
@pytest.mark.main_cases(
    "gpt2-prompt", "gpt2-lora", "t5-prefix", "t5-ia3", "roberta-ia3", "deberta-v2-lora", "llama-lora", "gemma3*-p*"
)
@pytest.mark.parametrize(("kind", "method"), VECTORS + MATRICES)
def test_peft_reads_what_we_write(bases, tmp_path, kind, method):
    import peft

    base = bases(kind)
    tree = random_tree(base, method)
    trained = {method: {}} if (kind, method) in VECTORS else tree
    content, tensors = to_peft(settings(method), base.target, trained, **hooks(base, tree))
    save_adapter(tmp_path, content, tensors)
    model = peft.PeftModel.from_pretrained(torch_base(base), tmp_path)
    assert_same(base, our_logits(base, tree), torch_logits(model, inputs(kind)))

    adapter = from_peft(tmp_path, base.target)
    assert_equal(adapter.trainable, tree)
    assert (adapter.rank, adapter.alpha) == ((RANK, ALPHA) if method == "lora" else (None, None))
    if (kind, method) in MATRICES:  # layers that are stacked are the same adapter
        depths = {"encoder": ((0, 1),), "decoder": ((0, 2),)}
        _, stacked = to_peft(settings(method), base.target, group(tree, depths))
        assert_equal(stacked, tensors)


@pytest.mark.slow
@pytest.mark.main_cases(
    "gpt2-prefix-*",
    "t5-p_tuning-*",
    "t5-lora-*",
    "deberta-ia3-*",
    "t5-prompt-change[0-9]*",
    "llama-prefix-*",
    "gemma3*-ia3-*",
)
@pytest.mark.parametrize(
    ("kind", "method", "change"),
    [(kind, method, {}) for kind, method in VECTORS + MATRICES]
    + [("gpt2", "p_tuning", {"encoder_reparameterization_type": "LSTM"}), ("t5", "prefix", {"prefix_projection": True})]
    + [("t5", "prompt", {"num_transformer_submodules": 1})],
)
def test_we_read_what_peft_writes(bases, tmp_path, kind, method, change):
    """With PEFT's own targets; a T5's prompts come with others for the decoder, which PEFT does not use."""
    import peft
    import torch

    base = bases(kind)
    sizes: dict[str, Any] = {"num_virtual_tokens": P}
    if method == "prefix" and kind == "t5":  # PEFT's guess is the encoder's depth and heads as wide as the network
        sizes |= {"num_layers": 3, "token_dim": 96, "encoder_hidden_size": 32}
    make, options = {
        "prompt": (peft.PromptTuningConfig, sizes),
        "p_tuning": (peft.PromptEncoderConfig, sizes | {"encoder_hidden_size": 32}),
        "prefix": (peft.PrefixTuningConfig, sizes),
        "lora": (peft.LoraConfig, {"r": RANK, "lora_alpha": ALPHA}),
        "ia3": (peft.IA3Config, {}),
    }[method]
    options |= PEFT_TARGETS.get(method, {}) if kind == "mpnet" else {}
    torch.manual_seed(0)
    model = peft.get_peft_model(torch_base(base), make(task_type=base.target.task_type, **options, **change))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, 1.0 if "ia3" in name else 0.0, 0.3)
    model.save_pretrained(tmp_path)

    adapter = from_peft(tmp_path, base.target)
    shapes = jax.tree.map(np.shape, random_tree(base, method))
    assert jax.tree.map(np.shape, adapter.trainable) == shapes
    assert_same(base, our_logits(base, adapter.trainable), torch_logits(model, inputs(kind)))


@pytest.mark.slow
def test_a_head_that_trained_goes_along(bases, tmp_path):
    import peft
    import transformers

    hf_config = {**HF_CONFIGS["roberta"], "model_type": "roberta", "num_labels": 20}
    module, params = init_model(hf_config, 0, scan=False)
    save_model(tmp_path / "base", hf_config, params, prefix="roberta.")
    base = Base(tmp_path, {"encoder": params}, None, PeftTarget(hf_config, "SEQ_CLS"))
    tree = random_tree(base, "lora")
    head = {"dense.weight": 0.2 * draw(64, 64), "dense.bias": draw(64), "out_proj.weight": draw(20, 64)}
    head["out_proj.bias"] = draw(20)
    trained = tree | {"head": {"kernel": head["out_proj.weight"].T, "bias": head["out_proj.bias"]}}
    save_adapter(tmp_path / "a", *to_peft(settings("lora"), base.target, trained, modules={"classifier": head}))

    model = transformers.RobertaForSequenceClassification.from_pretrained(tmp_path / "base")
    theirs = torch_logits(peft.PeftModel.from_pretrained(model, tmp_path / "a"), inputs("roberta"))
    (hidden,) = module.apply({"params": effective(base, tree)["encoder"]}, *inputs("roberta").values())
    first = np.tanh(hidden[:, 0] @ head["dense.weight"].T + head["dense.bias"])
    ours = first @ head["out_proj.weight"].T + head["out_proj.bias"]
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)
    adapter = from_peft(tmp_path / "a", base.target)
    assert_equal(adapter.trainable, tree)
    assert_equal(dict(adapter.modules), {f"classifier.{name}": leaf for name, leaf in head.items()})


GPT2, T5, ROBERTA = (PeftTarget({**HF_CONFIGS[kind], "model_type": kind}) for kind in ("gpt2", "t5", "roberta"))


@pytest.mark.parametrize(
    ("method", "target", "hook", "message"),
    [
        ("prompt", T5, {"prompt": Prompt(draw(P, 64), draw(P, 64))}, r"only a run with tuning.sides=\[encoder\]"),
        ("prefix", T5, {"prefix": Prefix(cross=draw(3, 2, P, 4, 24))}, r"only a run with tuning.sides=\[decoder\]"),
        ("prefix", ROBERTA, {"prefix": draw(2, 2, P, 4, 16)}, "tuning.method prefix on a roberta model differs from"),
        (
            "bitfit",
            GPT2,
            {},
            "tuning.method bitfit has no equivalent in PEFT, only prompt, p_tuning, prefix, lora, ia3",
        ),
    ],
)
def test_what_peft_cannot_express_is_said(method, target, hook, message):
    with pytest.raises(ConfigError, match=message):
        to_peft(settings(method), target, {method: {}}, **hook)
    with pytest.raises(ConfigError, match=r"tuning.method lora: a PEFT adapter cannot contain .*: head, verbalizer"):
        to_peft(settings("lora"), target, {"lora": {}, "verbalizer": {}, "head": {}})


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A LoRA of the first layer of a GPT-2."""
    leaf = {"a": draw(64, RANK), "b": draw(RANK, 192)}
    tree = {"encoder": {"layers": {"0": {"attention": {"qkv": leaf}}}}}
    save_adapter(tmp_path, *to_peft(settings("lora"), GPT2, {"lora": tree}))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rslora": True}, f"{CONFIG}: use_rslora = True is not supported, expected an adapter without it"),
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"rank_pattern": {"c_attn": 2}}, "rank_pattern = .* is not supported"),
        ({"a_setting_of_next_year": 1}, "a_setting_of_next_year = 1 is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' is not supported, because it changes"),
        ({"peft_type": "VERA"}, "peft_type VERA is not supported, only PROMPT_TUNING, P_TUNING, PREFIX_TUNING, LORA"),
        ({"r": None}, "the setting r is missing$"),
        ({"r": "x"}, "`r` is 'x', expected an integer$"),
        ({"r": 0}, "`r` is 0, expected a number above 0$"),
        ({"lora_alpha": [1]}, r"`lora_alpha` is \[1\], expected an integer or a number$"),
        (
            {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5},
            "expected only prompt_embeddings with num_virtual_tokens = 5",
        ),
        (
            {"peft_type": "IA3"},
            "no layer of the gpt2 model has the tensors base_model.model.transformer.h.0.attn.c_at",
        ),
    ],
)
def test_a_setting_that_we_have_not_is_said(adapter, change, message):
    content = read_adapter_config(adapter)
    (adapter / CONFIG).write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=message):
        from_peft(adapter, GPT2)


def test_a_folder_that_is_no_whole_adapter_is_said(adapter):
    tensors = load_file(adapter / WEIGHTS)
    name = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
    for change, message in (
        ({name.replace("_A", "_B"): None}, "one of the two matrices is missing for encoder/layers/0/attention/qkv"),
        (
            {name.replace("h.0", "h.2"): tensors[name]},
            r"has the tensors base_model.model.transformer.h.2.attn.c_attn.lora_A",
        ),
        (dict.fromkeys(tensors), "it has no tensors"),
    ):
        save_file({k: v for k, v in (tensors | change).items() if v is not None}, adapter / WEIGHTS)
        with pytest.raises(UserError, match=message):
            from_peft(adapter, GPT2)
    save_file(tensors | {name: tensors[name].astype(np.int32)}, adapter / WEIGHTS)
    message = f"{WEIGHTS}: the adapter has tensors of another type than floats: {name} (int32)"
    with pytest.raises(UserError, match=re.escape(message)):
        from_peft(adapter, GPT2)
    (adapter / WEIGHTS).write_bytes(b"not this")
    with pytest.raises(UserError, match=f"{WEIGHTS}: the file is not a complete safetensors file"):
        from_peft(adapter, GPT2)
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"has only adapter_model.bin, expected adapter_model.safetensors: load it"):
        from_peft(adapter, GPT2)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(UserError, match=re.escape(f"{adapter}: the folder has no {WEIGHTS}")):
        from_peft(adapter, GPT2)
    (adapter / CONFIG).write_text("{")
    with pytest.raises(UserError, match=f"{CONFIG}: is not valid JSON"):
        from_peft(adapter, GPT2)
    (adapter / CONFIG).unlink()
    with pytest.raises(UserError, match=f"{CONFIG}: no such file, expected an adapter in PEFT's format"):
        from_peft(adapter, GPT2)


def test_scales_of_the_other_side_are_said(tmp_path):
    """PEFT lets a user say which layers' inputs are scaled; here that is a matter of the layer."""
    tree = {"encoder": {"layers": {"0": {"mlp": {"down": {"scale": draw(256)}}}}}}
    content, tensors = to_peft(settings("ia3"), GPT2, {"ia3": tree})
    assert content["feedforward_modules"] == content["target_modules"] == ["transformer.h.0.mlp.c_proj"]
    save_adapter(tmp_path, content, {name: x.reshape(-1, 1) for name, x in tensors.items()})
    with pytest.raises(
        UserError, match=r"feedforward_modules: .*c_proj.ia3_l has the shape \[256, 1\], but .* the layer's input"
    ):
        from_peft(tmp_path, GPT2)


def test_vectors_of_another_shape_are_said(tmp_path):
    prefix = Prefix(decoder=draw(3, 2, P, 4, 24))
    content, tensors = to_peft(settings("prefix"), T5, {}, prefix=prefix)
    for change, message in (
        ({"num_layers": 2}, "num_layers is 2, expected at least 3"),
        ({"num_layers": 5}, r"prompt_embeddings \[3, 1152\] cannot be keys and values of 5 layers and 4 heads"),
        ({"num_virtual_tokens": 6}, r"= 6 rows, but it has prompt_embeddings \[3, 1152\]"),
    ):
        save_adapter(tmp_path, content | change, tensors)
        with pytest.raises(UserError, match=message):
            from_peft(tmp_path, T5)
    save_adapter(tmp_path, content, tensors)
    with pytest.raises(ConfigError, match="method prefix on a roberta model differs from PEFT's"):
        from_peft(tmp_path, ROBERTA)


def test_adapters_of_half_precision_are_read(adapter):
    import ml_dtypes

    tensors = load_file(adapter / WEIGHTS)
    save_file({name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}, adapter / WEIGHTS)
    leaf = from_peft(adapter, GPT2).trainable["lora"]["encoder"]["layers"]["0"]["attention"]["qkv"]["a"]
    assert leaf.dtype == np.float32
    np.testing.assert_allclose(leaf, draw(64, RANK), rtol=2**-8)
