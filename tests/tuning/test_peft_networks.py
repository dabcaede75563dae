"""The networks that make prompts and prefixes, and the weights that adapters make, against PEFT's."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tuned import CONFIGS, KEY, KINDS, PEFT_TARGETS, D, H, L, N, build, method, moved

from jaxvalues.models.checkpoints.conversion import to_params
from jaxvalues.tuning.method import merge_all

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
P, SIZE = 5, 24


def give(linear: Any, tree: dict) -> None:
    """Copy a linear layer into torch's."""
    linear.weight.data = torch.tensor(np.asarray(tree["kernel"]).T.copy())
    linear.bias.data = torch.tensor(np.asarray(tree["bias"]))


def added(**config: Any) -> tuple[Any, dict, Any]:
    """A tuning method of GPT-2, what it adds, made random, and what it gives to the network."""
    system = build("gpt2")
    tuning = method(system.target, length=P, reparameterization_size=SIZE, **config)
    frozen, trainable = tuning.init(KEY, system.params)
    trainable = moved(trainable)
    return tuning, trainable[tuning.key]["encoder"], jax.jit(tuning.bind)(frozen, trainable)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_p_tuning_is_the_prompt_encoder(kind: str) -> None:
    _, tree, bound = added(method="p_tuning", reparameterization=kind)
    config = peft.PromptEncoderConfig(
        encoder_reparameterization_type=kind.upper(), encoder_hidden_size=SIZE, num_virtual_tokens=P, token_dim=D,
        num_transformer_submodules=1, num_attention_heads=N, num_layers=L,
    )  # fmt: skip
    theirs = peft.PromptEncoder(config)
    theirs.embedding.weight.data = torch.tensor(tree["embedding"])
    names = ("first", "second", "out") if kind == "mlp" else ("hidden", "out")
    for linear, name in zip(theirs.mlp_head[::2], names, strict=True):
        give(linear, tree["mlp"][name])
    if kind == "lstm":
        for i, name in enumerate(("first", "second")):
            for direction, suffix in (("forward", ""), ("backward", "_reverse")):
                ours = tree["lstm"][name][direction]
                for key, array in (("weight_ih", ours["input"].T), ("weight_hh", ours["hidden"].T)):
                    getattr(theirs.lstm_head, f"{key}_l{i}{suffix}").data = torch.tensor(np.ascontiguousarray(array))
                getattr(theirs.lstm_head, f"bias_ih_l{i}{suffix}").data = torch.tensor(ours["bias"])
                getattr(theirs.lstm_head, f"bias_hh_l{i}{suffix}").data.zero_()
    expected = theirs(torch.arange(P)).detach().numpy()
    np.testing.assert_allclose(bound.prompt, expected, rtol=1e-5, atol=1e-6)


def test_a_reparameterized_prefix_is_the_prefix_encoder() -> None:
    _, tree, bound = added(method="prefix", reparameterization="mlp")
    config = peft.PrefixTuningConfig(
        prefix_projection=True, encoder_hidden_size=SIZE, num_virtual_tokens=P, token_dim=D,
        num_transformer_submodules=1, num_attention_heads=N, num_layers=L,
    )  # fmt: skip
    theirs = peft.PrefixEncoder(config)
    theirs.embedding.weight.data = torch.tensor(tree["embedding"])
    give(theirs.transform[0], tree["hidden"])
    give(theirs.transform[2], tree["out"])
    columns = theirs(torch.arange(P)).detach()
    # as PeftModel.get_prompt goes on: [P, 2 L, N, H], keys and values of a layer side by side
    expected = columns.view(P, 2 * L, N, H).permute(1, 2, 0, 3).view(L, 2, N, P, H).permute(0, 1, 3, 2, 4)
    np.testing.assert_allclose(bound.prefix, expected.numpy(), rtol=1e-5, atol=1e-6)


def torch_base(kind: str) -> Any:
    """A transformers network of the tiny config, with random weights."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, T5ForConditionalGeneration

    makers = dict.fromkeys(("gpt2", "llama"), AutoModelForCausalLM.from_config) | {"t5": T5ForConditionalGeneration}
    torch.manual_seed(0)  # of the network; biases, which start at 0, are drawn below
    config = AutoConfig.for_model(**CONFIGS[kind])
    model = makers.get(kind, AutoModel.from_config)(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter.data, std=0.1)
    return model


def read(system: Any, module: Any) -> dict:
    """The parameters of our network from torch's."""
    copies = ("embed_tokens", "lm_head") if system.target.model_type != "llama" else ()  # of tied embeddings
    ignored = (*copies, "pooler", ".attn.bias")
    tensors = {
        name: array.numpy() for name, array in module.state_dict().items() if not any(x in name for x in ignored)
    }
    known = {key: tree for key, tree in system.params.items() if key not in system.target.new_keys}
    return to_params(
        {name.removeprefix("transformer.").removeprefix("model."): array for name, array in tensors.items()},
        system.table,
        known,
    )


def adapted(kind: str, name: str) -> tuple[Any, Any, set[str], dict]:
    """(our system, PEFT's model, the kernels that change, effective parameters) with PEFT's default adapter of random
    numbers."""
    system, base = build(kind), torch_base(kind)
    params = read(system, base)
    tuning = method(system.target, method=name, **({"rank": 3, "alpha": 7.0} if name == "lora" else {}))
    frozen, trainable = tuning.init(KEY, params)
    trainable = moved(trainable)
    turned = {"fan_in_fan_out": kind == "gpt2"}  # its dense layers hold their matrices the other way round
    turned |= PEFT_TARGETS[name] if kind == "mpnet" else {}
    config = peft.LoraConfig(r=3, lora_alpha=7, **turned) if name == "lora" else peft.IA3Config(**turned)
    model = peft.get_peft_model(base, config).eval()
    flat, given = flatten_dict(trainable[name], sep="/"), set()
    paths = {each.rpartition("/")[0] for each in flat}
    for path in paths:
        hf, _ = system.table.bind(f"{path}/kernel")
        prefix = {"gpt2": "transformer.", "llama": "model."}.get(kind, "")
        layer = model.base_model.model.get_submodule(prefix + hf.removesuffix(".weight"))
        if name == "lora":
            layer.lora_A["default"].weight.data = torch.tensor(flat[f"{path}/a"].T.copy())
            layer.lora_B["default"].weight.data = torch.tensor(flat[f"{path}/b"].T.copy())
        else:
            scale = layer.ia3_l["default"]
            scale.data = torch.tensor(flat[f"{path}/scale"]).reshape(scale.shape)
        given.add(layer)
    theirs = {layer for layer in model.modules() if hasattr(layer, "lora_A") or hasattr(layer, "ia3_l")}
    assert given == theirs  # the default targets are PEFT's
    return system, model, {f"{path}/kernel" for path in paths}, tuning.bind(frozen, trainable).params


@pytest.mark.main_cases("deberta-lora", "gpt2-ia3", "mpnet-*", "t5-lora", "llama-ia3")
@pytest.mark.parametrize("name", ["lora", "ia3"])
@pytest.mark.parametrize("kind", KINDS)
def test_adapted_weights_are_what_peft_merges(kind: str, name: str) -> None:
    system, model, kernels, bound = adapted(kind, name)
    before = flatten_dict(read(system, torch_base(kind)), sep="/")
    merged = flatten_dict(read(system, model.merge_and_unload()), sep="/")
    bound = flatten_dict(merge_all(bound), sep="/")
    for path in merged:
        np.testing.assert_allclose(bound[path], merged[path], rtol=1e-5, atol=1e-6, err_msg=path)
    assert {path for path in before if path.endswith("kernel") and np.any(bound[path] != before[path])} == kernels


@pytest.mark.main_cases("gpt2-lora", "t5-ia3", "llama-lora")
@pytest.mark.parametrize("name", ["lora", "ia3"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "roberta", "t5"])
def test_adapted_networks_give_what_peft_gives(kind: str, name: str) -> None:
    system, model, _, bound = adapted(kind, name)
    ids = np.random.RandomState(0).randint(2, 90, (8, 9))
    with torch.no_grad():
        given = {"decoder_input_ids": torch.tensor(ids[:, :5])} if kind == "t5" else {}
        out = model(input_ids=torch.tensor(ids), attention_mask=torch.ones(ids.shape), **given)
    expected = out.last_hidden_state if kind == "roberta" else out.logits
    params = bound["encoder"] if kind == "roberta" else bound

    @jax.jit
    def apply(params: dict) -> jax.Array:
        more = (ids[:, :5],) if kind == "t5" else ()
        found = system.module.apply({"params": params}, ids, np.ones_like(ids), *more)
        return found[0] if kind == "roberta" else found

    np.testing.assert_allclose(apply(params), expected.numpy(), rtol=1e-4, atol=1e-4)
