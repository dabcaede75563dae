"""Which runs can be exported, asked of their config, and the command that does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jaxvalues.config import Config, parse_config
from jaxvalues.errors import ConfigError
from jaxvalues.interop.exportable import check_detector, export_command, exportable

ROBERTA = {"model_type": "roberta", "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2}
ROBERTA |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 300}
GPT2 = {"model_type": "gpt2", "vocab_size": 300, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 300}


def config(hf_config: dict[str, Any], **sections: Any) -> Config:
    return parse_config({"model": {"config": hf_config, "train_tokenizer": {}}, **sections})


CASES = {
    "classifier": (ROBERTA, {}, ("hf",)),
    "mean over tokens": (ROBERTA, {"formulation": {"pooling": {"over": "mean"}}}, ()),
    "several layers": (ROBERTA, {"formulation": {"pooling": {"layers": [1, 2]}}}, ()),
    "a lower layer": (ROBERTA, {"formulation": {"pooling": {"layers": [1]}}}, ("hf",)),
    "LoRA": (ROBERTA, {"tuning": {"method": "lora"}}, ("peft", "hf")),
    "LoRA on a lower layer": (
        ROBERTA, {"tuning": {"method": "lora"}, "formulation": {"pooling": {"layers": [1]}}}, ("hf",)
    ),
    "prompt": (GPT2, {"tuning": {"method": "prompt"}, "formulation": {"kind": "answer"}}, ("peft",)),
    "soft answers": (
        GPT2, {"tuning": {"method": "prompt"}, "formulation": {"kind": "answer", "verbalizer": {"soft": True}}}, ()
    ),
    "full tuning of answers": (GPT2, {"formulation": {"kind": "answer"}}, ()),
    "stance": (ROBERTA, {"data": {"task": "stance"}}, ()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_formats(case: str, tmp_path: Path) -> None:
    hf_config, sections, formats = CASES[case]
    one = config(hf_config, **sections)
    assert exportable(one, hf_config) == formats
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(hf_config))
    (tmp_path / "config.yaml").write_text(one.to_yaml())
    command = f"jaxvalues export {tmp_path} {tmp_path}-{formats[0]} --to {formats[0]}" if formats else None
    assert export_command(tmp_path) == command


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, None),
        ({"data": {"task": "stance"}}, "data.task is stance"),
        ({"tuning": {"method": "none"}, "formulation": {"kind": "answer"}}, "tuning.method is none: nothing trained"),
        ({"model": {"config": GPT2, "train_tokenizer": {}}}, "model.config: the network began with random weights"),
        ({"formulation": {"kind": "answer", "examples": {}}}, "formulation.examples shows training arguments"),
        ({"formulation": {"kind": "answer", "shortlist": {"run": "x"}}}, "formulation.shortlist needs the predictions"),
    ],
)
def test_what_a_detector_can_be_of(sections: dict[str, Any], message: str | None) -> None:
    one = parse_config({"model": {"path": "gpt2"}, **sections})
    if message is None:
        check_detector(one)
        return
    with pytest.raises(ConfigError, match=message):
        check_detector(one)
