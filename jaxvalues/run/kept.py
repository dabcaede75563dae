"""The names of files that runs share: the hash of everything that decides what is in them.

So a file never has to be checked against a run, and a run reads what it would compute.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import jax
import numpy as np

from jaxvalues.data.batches import Tokens
from jaxvalues.run.provenance import code_hash, ids_hash, package_versions
from jaxvalues.run.system import System


def content_name(system: System, tokens: Tokens, **decides: Any) -> str:
    """The name of what a frozen network computes of `tokens`; `decides` is what else decides it, as JSON has it.

    The weights must have a name (`System.identity`). Batches and versions count, since they decide the last bits.
    """
    config, network = system.config, system.network
    decides |= {
        "weights": system.identity,
        "network": system.hf_config,
        "tokens": ids_hash(tokens),
        "dtype": np.dtype(network.dtype).name,
        "scan": config.model.scan,
        "quantization": network.quantization,
        "batches": [config.lengths, config.training.eval_batch_size, system.pad_id],
        "mesh": [dict(system.mesh.shape), [device.device_kind for device in jax.devices()]],
        "code": [code_hash(), package_versions()],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]
