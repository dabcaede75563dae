"""The base class of config sections."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict

from jaxvalues.errors import ConfigError


class Section(BaseModel):
    """Base class of every section: immutable; an unknown key is an error; a string below a key documents it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


def is_url(path: object) -> bool:
    """Whether a path is a URL such as gs://bucket/runs, also where `Path` has made its slashes one."""
    return re.match(r"[a-z][\w+.-]+:/", str(path), re.IGNORECASE) is not None


def check_no_url(key: str, path: object) -> None:
    """Raise ConfigError, naming the option or config `key`, for a URL."""
    if is_url(path):
        raise ConfigError(f"{key}: {URL_REFUSED}, not {path}")


URL_REFUSED = "expected a folder of a mounted file system (URLs are not supported)"


def check_owners(section: Section, owners: dict[str, tuple[str, ...]], key: str, chosen: str) -> None:
    """Raise ValueError for a key that differs from its default and does not belong to the `chosen` value of `key`.

    owners: for a key, the values of `key` that it belongs to.
    """
    for name, kinds in owners.items():
        if chosen not in kinds and getattr(section, name) != type(section).model_fields[name].default:
            raise ValueError(f"`{name}` belongs to {key}: {' or '.join(kinds)}, not to {chosen}")
