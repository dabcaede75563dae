"""The section `ensemble`: several runs in one command, and their combination."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from jaxvalues.config.section import Section


class EnsembleConfig(Section):
    """Several runs in one command, combined at the end: members × seeds × folds."""

    members: tuple[dict[str, Any], ...] = ()
    """Changes to this config, one mapping per member, each with its own `name`. Empty: this config is the only
    member."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = ()
    """One run per seed. Empty: the `seed` of the config."""
    method: Literal["mean", "stack"] = "mean"
    """`mean`: mean probability. `stack`: one logistic regression per category on held-out predictions of the
    members."""

    @model_validator(mode="after")
    def _members_are_told_apart(self) -> EnsembleConfig:
        names = [str(member.get("name", "")) for member in self.members]
        for number, (name, member) in enumerate(zip(names, self.members, strict=True)):
            if not re.fullmatch(r"[\w.+-]*\w", name):
                raise ValueError(
                    f"members[{number}] needs a `name` of letters, digits and . _ + - for its run folders, "
                    f"not {member.get('name')!r}"
                )
            for key in sorted({"base", "ensemble", "output", "runtime"} & member.keys()):
                raise ValueError(f"member {name} cannot set `{key}`, which belongs to the whole ensemble")
            if self.seeds and "seed" in member:
                raise ValueError(
                    f"member {name} sets `seed`, but ensemble.seeds already gives the seeds of every member"
                )
        for what, values in (("members", names), ("seeds", self.seeds)):
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{what} contains {twice[0]} twice")
        return self
