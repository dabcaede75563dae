"""What every section of a config file is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of every section: immutable, and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


def check_owners(section: Section, owners: dict[str, tuple[str, ...]], key: str, chosen: str) -> None:
    """Raise ValueError for a key that was changed and belongs to other choices of `key` than the `chosen` one."""
    for name, kinds in owners.items():
        if chosen not in kinds and getattr(section, name) != type(section).model_fields[name].default:
            raise ValueError(f"`{name}` belongs to {key}: {' or '.join(kinds)}, not to {chosen}")
