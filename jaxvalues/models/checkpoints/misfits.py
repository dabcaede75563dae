"""The sentence about a checkpoint whose tensors are not those of the network, with the likely cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from jaxvalues.errors import cut, name_list

_WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DataParallel", "_fsdp_wrapped_module.": "FSDP"}
_LONGEST_NAME = 60
_LONGEST_SHAPE = 100  # a name and two shapes
_LONGEST = 300
_MANY = 6  # tensors, from which a few oversights are no longer likely


def misfit_message(
    source: str,
    missing: Sequence[str],
    unexpected: Sequence[str],
    unfit: Mapping[str, Sequence[str]],
    prefixes: Sequence[str] = (),
) -> str:
    """One sentence of less than 300 characters (unless `source` is longer than that alone leaves).

    Up to three names of each kind are given, with a count of the others. `unfit` are tensors of another shape or type,
    {how they are: names}. `prefixes` are those that the architecture's
    checkpoints may have.
    """
    start = f"the checkpoint {source or 'given'} does not fit the model, tensors "
    if (added := _added_prefix(missing, unexpected, prefixes)) is not None:
        writer = _WRAPPERS.get(added)
        cause = f"their names begin with {cut(added, _LONGEST_NAME)!r}"
        cause += f", as {writer} writes them: save the model inside of it" if writer else ": rename them without it"
        kinds = {"renamed": unexpected}
    else:
        is_other = len(missing) >= _MANY and len(unexpected) >= _MANY
        cause = "it is of another architecture, or its tensors were renamed" if is_other else ""
        kinds = {"missing": missing, "not expected": unexpected}
    kinds = {kind: [cut(name, _LONGEST_NAME) for name in found] for kind, found in kinds.items()}
    kinds |= {how: [cut(one, _LONGEST_SHAPE) for one in found] for how, found in unfit.items()}
    for most in (3, 2, 1):
        told = "; ".join(f"{kind}: {name_list(found, most)}" for kind, found in kinds.items() if found)
        message = f"{start}{told}" + (f" ({cause})" if cause else "")
        if len(message) < _LONGEST:
            break
    return message


def _added_prefix(missing: Sequence[str], unexpected: Sequence[str], prefixes: Sequence[str]) -> str | None:
    """What stands before the names of most missing tensors in the checkpoint, or None."""
    wanted, found = set(missing), Counter()
    for name in unexpected:
        parts = name.split(".")
        rest = (".".join(parts[i:]) for i in range(1, len(parts)))
        known = next((one for one in rest if one in wanted), None)
        if known is not None:
            before = name.removesuffix(known)
            own = max((one for one in prefixes if one and before.endswith(one)), key=len, default="")
            found[before.removesuffix(own)] += 1
    if not found:
        return None
    (added, count), *_ = found.most_common(1)
    return added if added and count > len(missing) / 2 else None
