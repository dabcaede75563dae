"""Checkpoints on disk: read strictly, written back bit for bit, and one sentence for each thing that can be wrong."""

from __future__ import annotations

import hashlib
import json
import re
import shutil

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from bert_reference import CONFIGS, tensors
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from jaxvalues.errors import UserError
from jaxvalues.models import abstract_model, content_hash, fetch, init_model, load_model, save_model, ungroup
from jaxvalues.models.architectures import ARCHITECTURES
from jaxvalues.models.checkpoints.conversion import to_params
from jaxvalues.models.checkpoints.place import Place
from jaxvalues.models.checkpoints.weights import open_tensors, save_tensors

CONFIG = CONFIGS["bert"]


def write(folder, weights, config=CONFIG, **options):
    save_tensors(folder, weights, **options)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    chex.assert_trees_all_equal(a, b)


@pytest.mark.main_cases("-False", "bert.-True")
@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_export_and_import_are_inverse(tmp_path, scan, prefix):
    weights = {prefix + name: array for name, array in tensors(CONFIG).items()}
    _, params = load_model(write(tmp_path / "a", weights), scan=scan, boundary=1)
    save_model(tmp_path / "b", CONFIG, params, prefix=prefix)
    equal(load_file(tmp_path / "b" / "model.safetensors"), weights)
    _, again = load_model(tmp_path / "b", scan=not scan)
    equal(ungroup(again), ungroup(params))
    assert content_hash(tmp_path / "a") != content_hash(write(tmp_path / "c", tensors(CONFIG, seed=9)))


def test_shards_and_halves(tmp_path):
    weights = tensors(CONFIG)
    _, whole = load_model(write(tmp_path / "whole", weights))
    sharded = write(tmp_path / "sharded", weights, max_shard_bytes=60_000)
    files = sorted(sharded.glob("*.safetensors"))
    assert len(files) > 3
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    equal(load_model(sharded)[1], whole)
    later = {name: array + 1 for name, array in weights.items()}  # saved in one file, beside what is left of the shards
    over = write(shutil.copytree(sharded, tmp_path / "later"), later)
    equal(load_model(over)[1], load_model(write(tmp_path / "new", later))[1])
    assert len(content_hash(sharded)) == 64
    moved = sharded.rename(tmp_path / "moved")
    named = content_hash(moved)
    files = sorted(moved.glob("*.safetensors"))
    for dtype in (np.float16, ml_dtypes.bfloat16):
        half = {name: array.astype(dtype) for name, array in weights.items()}
        upcast = {name: array.astype(np.float32) for name, array in half.items()}
        _, params = load_model(write(tmp_path / np.dtype(dtype).name, half))
        equal(params, load_model(write(tmp_path / "up", upcast))[1])
    files[1].write_bytes(files[1].read_bytes()[:-1] + b"x")
    assert content_hash(moved) != named
    files[1].unlink()
    with pytest.raises(UserError, match=rf"index.json names {files[1].name}, but the folder does not hold them"):
        load_model(moved)


def test_shards_load_in_transformers(tmp_path):
    pytest.importorskip("torch")
    from transformers import BertModel

    weights = tensors(CONFIG)
    model = BertModel.from_pretrained(write(tmp_path, weights, max_shard_bytes=60_000), add_pooling_layer=False)
    assert all(np.array_equal(model.state_dict()[name].numpy(), array) for name, array in weights.items())


def test_other_names_and_leftovers_of_real_checkpoints(tmp_path):
    weights = tensors(CONFIG)
    old = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in weights}
    old = {f"bert.{new}".replace("LayerNorm.bias", "LayerNorm.beta"): weights[name] for name, new in old.items()}
    leftovers = ("bert.pooler.dense.weight", "cls.predictions.bias", "cls.seq_relationship.weight")
    extra = dict.fromkeys(leftovers, np.ones(3))
    extra |= {"bert.embeddings.position_ids": np.arange(40)}
    _, params = load_model(write(tmp_path / "old", old | extra))
    equal(params, load_model(write(tmp_path / "new", weights))[1])


def problems(config, weights, source="here"):
    """What a checkpoint of these tensors is refused with."""
    _, abstract = abstract_model(config)
    with pytest.raises(UserError) as caught:
        to_params(weights, ARCHITECTURES[config["model_type"]].table, abstract, source=source)
    assert len(str(caught.value)) < 300
    return str(caught.value)


def test_all_problems_are_told_at_once(tmp_path):
    weights = tensors(CONFIG)
    del weights["encoder.layer.1.output.dense.weight"]
    weights["encoder.layer.0.intermediate.dense.weight"] = np.ones((64, 96), np.float32)
    weights |= {"encoder.layer.2.output.dense.bias": np.ones(64, np.float32), "adapter.weight": np.ones(2, np.float32)}
    assert problems(CONFIG, weights) == (
        "the checkpoint here does not fit the model, tensors missing: encoder.layer.1.output.dense.weight; not "
        "expected: encoder.layer.2.output.dense.bias, adapter.weight; of another shape: "
        "encoder.layer.0.intermediate.dense.weight (read as [96, 64], expected [64, 96])"
    )
    with pytest.raises(UserError, match=rf"^the checkpoint {tmp_path} does not fit the model, tensors missing: "):
        load_model(write(tmp_path, weights), scan=True)
    del weights["embeddings.LayerNorm.bias"]
    weights["embeddings.LayerNorm.gamma"] = np.ones(64, np.float32)  # and LayerNorm.weight is there as well
    message = problems(CONFIG, weights)
    assert (
        "missing: encoder.layer.1.output.dense.weight and 1 more" in message or "embeddings.LayerNorm.bias" in message
    )
    assert "embeddings.LayerNorm." in message or "and 2 more" in message


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("prefix", "cause"),
    [
        ("_orig_mod.", "begin with '_orig_mod.', as torch.compile writes them: save the model inside of it"),
        ("module.", "begin with 'module.', as DataParallel writes them"),
        ("model.", "begin with 'model.': rename them without it"),
        ("model.net.", "begin with 'model.net.': rename them without it"),
    ],
)
def test_renamed_checkpoints_are_told_in_a_sentence(kind, own, prefix, cause):
    config = {**CONFIG, "model_type": kind, "num_hidden_layers": 4}
    before = prefix + ARCHITECTURES[kind].table.prefixes[-1] * own
    weights = {before + name: array for name, array in tensors(config).items()}
    message = problems(config, weights, "/a/folder/of/mine")
    assert message.startswith(f"the checkpoint /a/folder/of/mine does not fit the model, tensors renamed: {before}")
    names, _, _ = message.partition(" (their names")
    assert f"and {len(weights) - names.count(before)} more" in names
    assert cause in message


def test_another_architecture_is_the_likely_cause():
    config = CONFIGS["roberta"] | {"num_hidden_layers": 12}
    weights = {f"blocks.{i}.{name}": np.ones(3) for i in range(12) for name in ("q_proj.weight", "k_proj.weight" * 300)}
    message = problems(config, weights)
    assert re.search(r"missing: embeddings\S+ and 196 more; not expected: blocks.0.q_proj.weight and 23 more", message)
    assert "it is of another architecture, or its tensors were renamed" in message


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int8, np.uint8, np.bool_])
def test_tensors_that_are_not_floats_are_no_weights(tmp_path, dtype):
    weights = tensors(CONFIG)
    for name in ("encoder.layer.1.output.dense.weight", "embeddings.LayerNorm.bias"):
        weights[name] = weights[name].astype(dtype)
    weights["embeddings.position_ids"] = np.arange(40).astype(dtype)  # is not read
    weights["pooler.dense.bias"] = np.ones(64, dtype)
    with pytest.raises(UserError) as caught:
        load_model(write(tmp_path, weights))
    problem = str(caught.value).split(" tensors ")[1]
    kind = {"int32": "I32", "int64": "I64", "int8": "I8", "uint8": "U8", "bool": "BOOL"}[np.dtype(dtype).name]
    assert problem.startswith("of another type than F32, F16, BF16, F64: ")
    assert set(problem.removeprefix("of another type than F32, F16, BF16, F64: ").split(", ")) == {
        f"encoder.layer.1.output.dense.weight ({kind})",
        f"embeddings.LayerNorm.bias ({kind})",
    }


def test_parameters_are_born_where_they_belong(tmp_path):
    mesh = jax.make_mesh((2,), ("fsdp",), devices=jax.devices()[:2], axis_types=(AxisType.Auto,))
    seen = []

    def place(path, array):
        seen.append(path)
        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float32
        spec = PartitionSpec(*(None,) * (array.ndim - 1), "fsdp")
        return jax.device_put(array, NamedSharding(mesh, spec))

    folder = write(tmp_path, tensors(CONFIG))
    _, params = load_model(folder, scan=True, place=place)
    kernel = params["layers"]["0-1"]["mlp"]["up"]["kernel"]
    assert kernel.shape == (2, 64, 96)
    assert kernel.addressable_shards[0].data.shape == (2, 64, 48)
    assert sorted(seen) == sorted(set(seen))
    assert "layers/0-1/mlp/up/kernel" in seen
    equal(params, load_model(folder, scan=True)[1])


def test_tensors_are_read_only_when_asked_for(tmp_path):
    weights = tensors(CONFIG)
    lazy = open_tensors(write(tmp_path, weights))
    assert {name: tensor.shape for name, tensor in lazy.items()} == {name: a.shape for name, a in weights.items()}
    np.testing.assert_array_equal(np.asarray(lazy["embeddings.LayerNorm.bias"]), weights["embeddings.LayerNorm.bias"])


def test_abstract_model_is_the_shape_of_the_real_one():
    _, params = init_model(CONFIG, scan=True)
    _, shapes = abstract_model(CONFIG, scan=True)
    assert jax.eval_shape(lambda: params) == shapes


def test_options_are_checked():
    module, _ = abstract_model(CONFIG, hidden_dropout=0.0, attention_dropout=0.3)
    assert (module.config.hidden_dropout_prob, module.config.attention_probs_dropout_prob) == (0.0, 0.3)
    with pytest.raises(UserError, match="model_type 'bart' is not supported, expected one of bert, "):
        abstract_model(CONFIG | {"model_type": "bart"})
    with pytest.raises(UserError, match="dtype 'int8' is not supported, expected float32 or bfloat16"):
        abstract_model(CONFIG, dtype="int8")
    with pytest.raises(UserError, match="gradients stop below layer 1, which is inside a stacked segment"):
        abstract_model(CONFIG, scan=True, stop_gradient_below=1)


def test_folders_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="the checkpoint folder /no/such/folder does not exist"):
        load_model("/no/such/folder")
    with pytest.raises(UserError, match=r"holds no config.json, expected a Hugging Face checkpoint folder"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"config.json: is not valid JSON"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UserError, match=r"config.json: holds a list, expected an object: the config"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    with pytest.raises(UserError, match=r"holds neither model.safetensors nor model.safetensors.index.json"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds only .bin weights, .*save_pretrained\(other_folder\)"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(UserError, match=r"model.safetensors is not a whole safetensors file"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"index\.json: has no `weight_map`, expected an object of tensors and their files"
    ):
        load_model(tmp_path)
    with pytest.raises(UserError, match="is a file, expected a checkpoint folder"):
        load_model(tmp_path / "config.json")


def test_hub_names(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"'nobody/nothing' is no folder here and could not be fetched .* the folder"):
        load_model("nobody/nothing")
    import huggingface_hub

    folder = write(tmp_path / "hub", tensors(CONFIG))
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert fetch("someone/model", revision="abc") == folder
    assert (asked["name"], asked["revision"]) == ("someone/model", "abc")
    assert {"config.json", "*.safetensors", "tokenizer*.json"} <= set(asked["allow_patterns"])
    assert not any(pattern.endswith(("bin", "*")) for pattern in asked["allow_patterns"])


def test_a_truncated_file_is_said(tmp_path):
    folder = write(tmp_path, tensors(CONFIG))
    save_file({"a": np.ones(1000)}, folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        load_model(folder)


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    """The runs of a study start from the same weights."""
    read, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: read.append(args) or digest(*args))
    write(tmp_path, weights := tensors(CONFIG))
    first = content_hash(tmp_path)
    assert content_hash(tmp_path) == first
    assert len(read) == 1
    write(tmp_path, {name: array + 1 for name, array in weights.items()})
    assert content_hash(tmp_path) != first
    assert len(read) == 2


def test_a_place_may_ask_for_a_dtype():
    """Stacked leaves are read layer by layer into an array of that dtype."""
    weights, (_, abstract) = tensors(CONFIG), abstract_model(CONFIG, scan=True)

    class Rounded(Place):
        def dtype_of(self, path):
            return jnp.dtype(jnp.bfloat16 if path.endswith("kernel") else jnp.float32)

        def __call__(self, path, array):
            assert array.dtype == self.dtype_of(path)
            return array

    table = ARCHITECTURES["bert"].table
    rounded, whole = (to_params(weights, table, abstract, place=place) for place in (Rounded(), lambda _, array: array))
    expected = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.astype(jnp.bfloat16) if path[-1].key == "kernel" else leaf, whole
    )
    equal(rounded, expected)
