from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxvalues.data.taxonomy import CATEGORIES, GROUPS, TAXONOMY, VALUE_CATEGORY, VALUES, category_index


def test_counts_and_order():
    assert (len(CATEGORIES), len(set(CATEGORIES)), len(VALUES), len(set(VALUES))) == (20, 20, 54, 54)
    assert [category_index(name) for name in CATEGORIES] == list(range(20))
    assert [CATEGORIES[c] for c in VALUE_CATEGORY] == [c.name for c in TAXONOMY for _ in c.values]
    with pytest.raises(KeyError):
        category_index("Greed")


def test_groups_are_runs_around_the_circle_that_share_three_categories():
    spans = {group: [category_index(name) + 1 for name in names] for group, names in GROUPS.items()}
    assert spans == {
        "Openness to change": [1, 2, 3, 4],
        "Self-enhancement": [4, 5, 6, 7, 8],
        "Conservation": [8, 9, 10, 11, 12, 13, 14],
        "Self-transcendence": [14, 15, 16, 17, 18, 19, 20],
    }
    assert [c.name for c in TAXONOMY if len(c.groups) == 2] == ["Hedonism", "Face", "Humility"]


def test_each_description_is_one_sentence():
    assert all(c.description.endswith(".") and c.description.count(".") == 1 for c in TAXONOMY)
    assert len({c.description for c in TAXONOMY}) == 20


def test_published_categories_and_values(real_data: Path):
    published = json.loads((real_data / "value-categories.json").read_text(encoding="utf-8"))
    assert [(c.name, list(c.values)) for c in TAXONOMY] == [(name, list(values)) for name, values in published.items()]


def test_published_groups(real_data: Path):
    published = json.loads((real_data / "values.json").read_text(encoding="utf-8"))["values"]
    by_value = {value: c for c in TAXONOMY for value in c.values}
    assert [value["name"] for value in published] == list(VALUES)
    groups: dict[str, set[str]] = {}
    for value in published:
        assert value["level2"] == by_value[value["name"]].name
        groups.setdefault(value["level2"], set()).update(value["level3"])  # a category's values may differ in theirs
    assert groups == {c.name: set(c.groups) for c in TAXONOMY}
