"""T5 against torch, stored and live, in one piece and token by token, and what prompts and prefixes do to it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_close
from make_golden import GOLDEN, STRIDE
from t5_reference import CONFIGS, batch, tensors, torch_model, torch_results

from jaxvalues.errors import UserError
from jaxvalues.models import build_t5, init_t5, ungroup
from jaxvalues.models.checkpoints.conversion import to_params
from jaxvalues.models.loading import abstract_params
from jaxvalues.models.t5.checkpoint import t5_table, t5_tensors
from jaxvalues.models.t5.model import Prefix, Prompt

KINDS = sorted(CONFIGS)
INPUTS = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")


def model(config: dict, weights: dict | None = None, **options):
    """A module and its parameters, of the reference's weights unless others are given."""
    weights = tensors(config) if weights is None else weights
    module = build_t5(config, **options)
    return module, to_params(weights, t5_table(module.config), abstract_params(module))


def logits(module, params, inputs: dict, **more) -> jax.Array:
    return jax.jit(lambda p: module.apply({"params": p}, *(inputs[name] for name in INPUTS), **more))(params)


def results(config: dict, weights: dict, inputs: dict, **options) -> dict:
    """The numbers of `torch_results`, from this package: encoded first and then decoded."""
    module, params = model(config, weights, **options)
    ids, mask, decoder_ids, decoder_mask = (inputs[name] for name in INPUTS)

    def loss(params):
        hidden = module.apply({"params": params}, ids, mask, method="encode")
        out = module.apply({"params": params}, decoder_ids, hidden, mask, decoder_mask, method="decode")
        likelihood = jnp.take_along_axis(jax.nn.log_softmax(out), inputs["labels"][..., None], axis=-1)[..., 0]
        return -(likelihood * decoder_mask).sum() / decoder_mask.sum(), (hidden, out)

    (value, (hidden, out)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return {"hidden": hidden, "logits": out, "loss": value, "grads": t5_tensors(module.config, grads)}


def compare(ours: dict, theirs: dict) -> None:
    """All numbers to 1e-5."""
    for name in ("hidden", "logits", "loss"):
        assert_close(ours[name], theirs[name], name=name)
    assert ours["grads"].keys() == theirs["grads"].keys()
    for name, grad in theirs["grads"].items():
        assert_close(ours["grads"][name], grad, name=name)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_torch_numbers(kind):
    config = CONFIGS[kind]
    with np.load(GOLDEN / f"{kind}.npz") as stored:
        theirs = {name: stored[name] for name in ("hidden", "logits", "loss")}
        theirs["grads"] = {name.removeprefix("grad:"): stored[name] for name in stored.files if ":" in name}
    ours = results(config, tensors(config), batch(config), scan=False)
    ours["grads"] = {name: grad.ravel()[::STRIDE] for name, grad in ours["grads"].items()}
    compare(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("t5", {"num_decoder_layers": 3, "relative_attention_num_buckets": 20, "decoder_start_token_id": 5}),
        ("t5-v1.1", {"feed_forward_proj": "gated-silu", "num_decoder_layers": 1}),  # one layer is never stacked
    ],
)
def test_live_torch(kind, change):
    pytest.importorskip("torch")
    config = CONFIGS[kind] | {"vocab_size": 90, **change}
    weights, inputs = tensors(config, seed=2), batch(config, seed=3)
    compare(results(config, weights, inputs, scan=True, remat=True), torch_results(config, weights, inputs))
    first = inputs | {name: inputs[name][:, :1] for name in ("decoder_input_ids", "decoder_attention_mask", "labels")}
    compare(results(config, weights, first, scan=False), torch_results(config, weights, first))


@pytest.mark.exhaustive
def test_scanned_and_unrolled_start_and_drop_alike():
    config = CONFIGS["t5-v1.1"] | {"num_decoder_layers": 1}
    inputs = batch(config)

    def dropped(**options):
        module, params = init_t5(config, 7, **options)

        @jax.jit
        def run(params, key):
            ids, given = (inputs[name] for name in INPUTS[:2]), {"deterministic": False, "rngs": {"dropout": key}}
            return module.apply({"params": params}, *ids, **given, method="encode")

        return params, run(params, jax.random.key(3)), run(params, jax.random.key(4))

    params, one, other = dropped(scan=False)
    scanned_params, scanned, _ = dropped(scan=True, remat=True)
    assert set(scanned_params["encoder"]["layers"]) == {"0-1"}
    assert set(scanned_params["decoder"]["layers"]) == {"0"}
    jax.tree.map(np.testing.assert_array_equal, ungroup(scanned_params), params)
    assert_close(scanned, one)
    assert np.abs(one - other).max() > 0.1
    assert (one == 0).mean() == pytest.approx(0.1, abs=0.03)  # the last thing to drop is the output
    silent = build_t5(config, dropout=0.0)
    given = {"deterministic": False, "rngs": {"dropout": jax.random.key(3)}}
    program = jax.make_jaxpr(lambda p: silent.apply({"params": p}, *(inputs[k] for k in INPUTS), **given))(params)
    assert "random_bits" not in str(program)

    layer, word = params["decoder"]["layers"]["0"], params["embeddings"]["word"]["embedding"]
    for name, leaf, deviation in (
        ("query", layer["attention"]["query"], (64 * 24) ** -0.5),
        ("key", layer["cross_attention"]["key"], 64**-0.5),
        ("output", layer["attention"]["output"], 96**-0.5),
        ("down", layer["mlp"]["down"], 96**-0.5),
    ):
        assert float(leaf["kernel"].std()) == pytest.approx(deviation, rel=0.1), name
    assert float(word.std()) == pytest.approx(1.0, rel=0.1)
    assert not np.array_equal(word, params["head"]["embedding"])
    assert not np.array_equal(layer["mlp"]["up"]["kernel"], layer["mlp"]["gate"]["kernel"])


@pytest.mark.slow
@pytest.mark.main_cases("True")
@pytest.mark.parametrize("scan", [False, True])
def test_token_by_token_is_all_at_once(scan):
    """With everything that can stand before the tokens, for a prefill of five and then single steps."""
    config = CONFIGS["t5-v1.1"] | {"num_decoder_layers": 2, "num_layers": 1}
    inputs = batch(config)
    module, params = model(config, scan=scan)
    ids, mask, decoder_ids, decoder_mask = (inputs[name] for name in INPUTS)
    decoder_mask = decoder_mask.copy()
    decoder_mask[4, 1:3] = 0  # a hole: what a left-padded continuation looks like
    random = np.random.RandomState(5)
    prompt = random.standard_normal((4, 64)).astype(np.float32)
    prefix, cross = (random.standard_normal((2, 2, p, 4, 24)).astype(np.float32) for p in (2, 3))
    hooks = {"prompt": prompt, "prefix": prefix, "cross_prefix": cross}

    @jax.jit
    def at_once(params):
        hidden = module.apply({"params": params}, ids, mask, prompt=prompt, method="encode")
        given = {"params": params}, decoder_ids, hidden, mask, decoder_mask
        last = jnp.full((len(ids), 1), decoder_ids.shape[1] - 1)
        named = module.apply(*given, positions=last, **hooks, method="decode")
        cache = module.apply({"params": params}, hidden, mask, decoder_ids.shape[1], **hooks, method="init_cache")
        return module.apply(*given, **hooks, method="decode"), named, cache

    @jax.jit
    def step(params, ids, real, cache):
        return module.apply({"params": params}, ids, cache, real, method="decode_step")

    whole, last, cache = at_once(params)
    assert whole.shape == (*decoder_ids.shape, config["vocab_size"])
    assert whole.dtype == np.float32
    assert_close(last[:, 0], whole[:, -1], 1e-6)
    places, pieces = np.split(np.arange(decoder_ids.shape[1]), np.arange(5, decoder_ids.shape[1])), []
    for place in places:
        piece, cache = step(params, decoder_ids[:, place], decoder_mask[:, place], cache)
        pieces.append(piece)
    assert step._cache_size() == 2  # the prefill and the single step, however many
    assert_close(np.concatenate(pieces, axis=1), whole, 3e-6)
    beyond, _ = step(params, decoder_ids[:, :1], decoder_mask[:, :1], cache)
    assert np.isnan(beyond).all()


def test_nothing_before_the_tokens_is_nothing():
    config, inputs = CONFIGS["t5"], batch(CONFIGS["t5"])
    module, params = model(config, scan=True)
    prompt, prefix = np.zeros((0, 64), np.float32), np.zeros((2, 2, 0, 4, 16), np.float32)
    empty = logits(module, params, inputs, prompt=Prompt(prompt, prompt), prefix=Prefix(prefix, prefix, prefix))
    np.testing.assert_array_equal(empty, logits(module, params, inputs))


@pytest.mark.slow
def test_a_prompt_of_embeddings_is_the_tokens_themselves():
    config, inputs = CONFIGS["t5-v1.1"], batch(CONFIGS["t5-v1.1"])
    module, params = model(config, scan=False)
    words = np.asarray(params["embeddings"]["word"]["embedding"])
    first, first_decoder = np.array([7, 9, 40]), np.array([11, 12])

    def in_front(tokens, ids, mask):
        tokens = np.broadcast_to(tokens, (len(ids), len(tokens)))
        return np.concatenate([tokens, ids], axis=1), np.concatenate([np.ones_like(tokens), mask], axis=1)

    ids, mask, decoder_ids, decoder_mask = (inputs[name] for name in INPUTS)
    longer = (*in_front(first, ids, mask), *in_front(first_decoder, decoder_ids, decoder_mask))
    with_tokens = logits(module, params, dict(zip(INPUTS, longer, strict=True)))
    with_prompt = logits(module, params, inputs, prompt=Prompt(words[first], words[first_decoder]))
    assert with_prompt.shape[1] == inputs["decoder_input_ids"].shape[1]
    assert_close(with_prompt, with_tokens[:, 2:], 1e-6)
    with np.load(GOLDEN / "t5-v1.1.npz") as without:
        assert np.abs(with_prompt - without["logits"]).max() > 0.1


@pytest.mark.slow
def test_a_prefix_of_keys_and_values_is_the_tokens_they_were_made_of():
    """Decoder: those that a cache holds of earlier tokens. Cross-attention: those of the first inputs. Encoder: those
    of the first tokens, which look at no others where there is one layer alone."""
    config = CONFIGS["t5-v1.1"] | {"num_layers": 1}
    module, params = model(config, scan=True)
    inputs = {name: array[4:5] for name, array in batch(config).items()}  # a prefix is the same for every row
    ids, mask, decoder_ids, decoder_mask = (inputs[name] for name in INPUTS)

    @jax.jit
    def run(params):
        apply = functools.partial(module.apply, {"params": params})
        hidden = apply(ids, mask, method="encode")
        cache = apply(hidden, mask, 3, method="init_cache")
        _, cache = apply(decoder_ids[:, :3], cache, method="decode_step")
        prefix, cross = jnp.stack(cache.memory, 1)[:, :, 0], jnp.stack(cache.cross, 1)[:, :, 0, :6]
        before = {"prefix": prefix, "cross_prefix": cross}
        rest = apply(decoder_ids[:, 3:], hidden[:, 6:], mask[:, 6:], decoder_mask[:, 3:], **before, method="decode")
        return hidden, apply(decoder_ids, hidden, mask, decoder_mask, method="decode")[:, 3:], rest

    hidden, whole, rest = run(params)
    assert_close(rest, whole, 1e-6)

    layer = params["encoder"]["layers"]["0"]
    x = np.asarray(params["embeddings"]["word"]["embedding"], np.float64)[ids[0, :4]]
    x *= layer["attention_norm"]["scale"] / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    prefix = np.stack([(x @ layer["attention"][name]["kernel"]).reshape(4, 4, 24) for name in ("key", "value")])[None]
    encode = jax.jit(lambda p: module.apply({"params": p}, ids[:, 4:], mask[:, 4:], prefix=prefix, method="encode"))
    assert_close(encode(params), hidden[:, 4:], 1e-6)


def test_peft_puts_prompts_and_prefixes_in_the_same_places():
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    config, inputs = CONFIGS["t5"], batch(CONFIGS["t5"])
    module, params = model(config, scan=True)
    given = {name: torch.tensor(inputs[name]).long() for name in INPUTS}

    def theirs(make):
        torch.manual_seed(0)
        wrapped = peft.get_peft_model(
            torch_model(config, tensors(config)), make(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)
        ).eval()
        torch.nn.init.normal_(wrapped.prompt_encoder["default"].embedding.weight)
        with torch.no_grad():
            return wrapped(**given).logits.numpy(), wrapped.get_prompt(1)

    expected, prompt = theirs(functools.partial(peft.PromptTuningConfig, num_transformer_submodules=1))
    ours = logits(module, params, inputs, prompt=Prompt(encoder=prompt[0].detach().numpy()))
    assert_close(ours, expected)
    expected, cache = theirs(peft.PrefixTuningConfig)
    layers = cache.self_attention_cache.layers
    prefix = np.stack([[each[0].detach().numpy().swapaxes(0, 1) for each in (x.keys, x.values)] for x in layers])
    assert prefix.shape == (2, 2, 3, 4, 16)
    ours = logits(module, params, inputs, prefix=Prefix(decoder=prefix.astype(np.float32)))
    assert_close(ours, expected)


def test_many_questions_share_one_encoding():
    """The encoder and cross-attention's keys and values are computed once for all of them."""
    config, inputs = CONFIGS["t5"], batch(CONFIGS["t5"])
    module, params = model(config, scan=False)
    ids, mask, decoder_ids, _ = (inputs[name] for name in INPUTS)
    questions = jnp.stack([decoder_ids, decoder_ids[:, ::-1], decoder_ids[::-1]])  # [K, B, T]

    def decode(params, hidden, decoder_ids):
        return module.apply({"params": params}, decoder_ids, hidden, mask, method="decode")

    def shared(params):
        hidden = module.apply({"params": params}, ids, mask, method="encode")
        return jax.vmap(lambda each: decode(params, hidden, each))(questions)

    encoded = f"[{ids.size},64]"  # what has one row per token of the inputs, not of every question
    products = [line for line in str(jax.make_jaxpr(shared)(params)).splitlines() if "dot_general" in line]
    assert sum(f"f32{encoded} = dot_general" in line for line in products) >= 2 * 2  # keys and values of two layers


@pytest.mark.exhaustive
@pytest.mark.main_cases("True")
@pytest.mark.parametrize("scan", [False, True])
def test_a_single_token_is_read_without_the_encoders_keys(scan):
    """The first of many tokens and a token alone have the same logits, gradients and dropout."""
    config, inputs = CONFIGS["t5"], batch(CONFIGS["t5"])
    module, params = model(config, scan=scan)
    ids, mask, decoder_ids, _ = (inputs[name] for name in INPUTS)
    drops = {"deterministic": False, "rngs": {"dropout": jax.random.key(1)}}

    def first(params, hidden, tokens, **options):
        given = decoder_ids[:, :tokens], hidden, mask
        return module.apply({"params": params}, *given, method="decode", **options)[:, 0]

    def value(tokens, params, hidden):
        return jnp.sin(first(params, hidden, tokens)).sum()

    hidden = module.apply({"params": params}, ids, mask, method="encode")
    one, many = (jax.jit(functools.partial(first, tokens=n))(params, hidden) for n in (1, 3))
    assert_close(one, many)
    of_one, of_many = (jax.jit(jax.grad(functools.partial(value, n), (0, 1)))(params, hidden) for n in (1, 3))
    jax.tree.map(assert_close, of_one[1], of_many[1])
    jax.tree.map(assert_close, of_one[0]["decoder"], of_many[0]["decoder"])

    none = jnp.zeros((2, 2, 0, 4, 16))  # a prefix of nothing, but it asks for keys and values
    dropped = jax.jit(lambda **more: first(params, hidden, 1, **more, **drops))
    assert_close(dropped(), dropped(cross_prefix=none))

    of_one, of_many = (str(jax.make_jaxpr(functools.partial(first, tokens=n))(params, hidden)) for n in (1, 3))
    made = f"f32[{','.join(map(str, hidden.shape))}] = dot_general"
    assert made in of_many
    assert made not in of_one


@pytest.mark.slow
@pytest.mark.main_cases("t5")
@pytest.mark.parametrize("kind", KINDS)  # a tied output matrix, whose logits are scaled, and one of its own
def test_logits_of_few_words_are_columns_of_all(kind):
    inputs, words = batch(CONFIGS[kind]), np.array([7, 3, 69])
    module, params = model(CONFIGS[kind], scan=True)
    matrix = (params["embeddings"]["word"] if module.config.tie_word_embeddings else params["head"])["embedding"]
    whole = logits(module, params, inputs)
    for given in (words, matrix[words]):
        assert_close(logits(module, params, inputs, words=given), whole[..., words], 1e-6)

    def loss(vectors):
        return logits(module, params, inputs, words=vectors, positions=np.zeros((6, 1), int)).sum()

    assert np.abs(jax.grad(loss)(matrix[words])).min() > 0


def test_a_frozen_encoder_is_not_differentiated():
    config, inputs = CONFIGS["t5"], batch(CONFIGS["t5"])
    module, params = model(config, scan=False)
    ids, mask, decoder_ids, _ = (inputs[name] for name in INPUTS)
    hidden = np.zeros((*ids.shape, 64), np.float32)

    def loss(prompt, hidden=None):
        if hidden is None:
            hidden = module.apply({"params": params}, ids, mask, method="encode")
        return module.apply({"params": params}, decoder_ids, hidden, mask, prompt=prompt, method="decode").sum()

    def products(function, *given):
        return str(jax.make_jaxpr(function)(*given)).count("dot_general")

    prompt = np.zeros((3, 64), np.float32)
    forward = products(lambda: module.apply({"params": params}, ids, mask, method="encode"))
    encoded, given = products(jax.grad(loss), prompt), products(jax.grad(loss), prompt, hidden)
    assert encoded - given == forward > 0


def test_bfloat16_computes_near_float32_and_stays_finite():
    """Also where the residual stream is as large as published models make it, too large for float16."""
    config, inputs = CONFIGS["t5-v1.1"], batch(CONFIGS["t5-v1.1"])
    inputs["attention_mask"][3] = 0  # a row without a token
    large = {name: array * 3e5 if ".wo." in name else array for name, array in tensors(config).items()}
    real = inputs["decoder_attention_mask"].astype(bool) & (np.arange(6) != 3)[:, None]
    outputs = {}
    for dtype in ("float32", "bfloat16"):
        module, shapes = model(config, dtype=dtype, scan=True)
        run = jax.jit(lambda p, module=module: module.apply({"params": p}, *(inputs[name] for name in INPUTS)))
        for size, weights in {"small": tensors(config), "large": large}.items():
            params = to_params(weights, t5_table(module.config), shapes)
            assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
            out = outputs[dtype, size] = run(params)
            assert out.dtype == np.float32
            assert np.isfinite(out).all()
    for size in ("small", "large"):
        assert_close(outputs["bfloat16", size][real], outputs["float32", size][real], relative=0.05)


def test_what_cannot_be_read_is_said():
    config = CONFIGS["t5-v1.1"]
    module, params = model(config, scan=True)
    ids = np.array([[5, 69]])
    run = functools.partial(module.apply, {"params": params}, ids, np.ones_like(ids), method="encode")
    for hooks, message in (
        ({"prompt": np.zeros((3, 65))}, r"the prompt has the shape \[3, 65\], expected \[P, 64\]"),
        (
            {"prefix": np.zeros((3, 2, 5, 4, 24))},
            r"prefix has the shape \[3, 2, 5, 4, 24\], expected \[2, 2, P, 4, 24\]",
        ),
        ({"prefix": np.zeros((2, 2, 5, 96))}, r"the prefix has the shape \[2, 2, 5, 96\], expected"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(lambda hooks=hooks: run(**hooks))
    outside = module.apply({"params": params}, np.array([[5, 70]]), np.ones_like(ids), method="encode")
    assert np.isnan(outside).all()  # the vocabulary ends at 69

    with pytest.raises(UserError, match="model_type 'bart' is not supported here, only 't5'"):
        build_t5(config | {"model_type": "bart"})
    with pytest.raises(UserError, match="dtype 'int8' is not supported"):
        build_t5(config, dtype="int8")
