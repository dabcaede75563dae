"""DeBERTa's distances: their buckets as in transformers, and the rows of relative embeddings that they need."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvalues.models.deberta.attention import log_buckets, relative_window


@pytest.mark.parametrize(("buckets", "span"), [(256, 512), (256, 256), (8, 12), (8, 40), (32, 128)])
def test_log_buckets_are_those_of_transformers(buckets, span):
    torch = pytest.importorskip("torch")
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distance = np.arange(-700, 701)
    theirs = make_log_bucket_position(torch.tensor(distance), buckets, span).long().numpy()
    np.testing.assert_array_equal(log_buckets(distance, buckets, span), theirs)


@pytest.mark.parametrize(("tokens", "buckets", "span"), [(1, -1, 40), (17, -1, 9), (17, 8, 12), (600, 256, 512)])
def test_the_window_holds_the_row_of_every_distance(tokens, buckets, span):
    table = np.arange(2 * (buckets if buckets > 0 else span))
    window, columns = relative_window(tokens, buckets, span)
    distance = np.arange(-tokens, tokens + 1)
    bucket = log_buckets(distance, buckets, span) if buckets > 0 else distance
    np.testing.assert_array_equal(table[window][columns], np.clip(bucket + len(table) // 2, 0, len(table) - 1))
    assert len(table[window]) <= len(columns)
