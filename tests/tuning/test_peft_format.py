"""PEFT's adapters against the library itself: what we write it reads, what it writes we read, with the same logits."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from peft_cases import ALPHA, HF_CONFIGS, RANK, P, draw, settings
from tuned import PEFT_TARGETS

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
from jaxvalues.tuning.peft_folder import save_adapter
from jaxvalues.tuning.peft_format import PeftTarget, from_peft, to_peft

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
