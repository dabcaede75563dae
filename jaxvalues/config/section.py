"""The base class of config sections, and the types of texts in them."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

from jaxvalues.errors import ConfigError


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _file_name(text: str) -> str:
    if "/" in text or not text.isprintable() or text in (".", ".."):
        raise ValueError(f"must be usable as the name of a folder, without / and control characters, not {text[:40]!r}")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
"""A text that says something: a path, a name, a word."""
Name = Annotated[Text, AfterValidator(_file_name)]
"""A text that may be the name of a folder."""


class Section(BaseModel):
    """Base class of every section: immutable; an unknown key is an error; a string below a key documents it.

    Types are strict: true is no number, 3.0 is no integer, "3" and yes are texts. An integer is a number too.
    """

    all_keys: ClassVar[str]
    """Of a whole file: the command that lists its keys, for messages."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _lists_of_yaml(cls, value: Any, info: ValidationInfo) -> Any:
        """A list as the tuple that the key wants; strict types know no other conversion."""
        wanted = cls.model_fields[info.field_name].annotation
        wants_tuple = any(get_origin(kind) is tuple for kind in (wanted, *get_args(wanted)))
        return tuple(value) if wants_tuple and isinstance(value, list) else value


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


def check_placeholders(output: str, *known: str) -> None:
    """Raise ValueError where a folder's name has another placeholder than the known ones."""
    rest = output
    for one in known:
        rest = rest.replace(one, "")
    if unknown := re.search(r"\{.*?\}", rest):
        raise ValueError(f"output: {unknown[0]} is no placeholder, expected {' or '.join(known)}")
