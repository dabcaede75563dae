"""Equal budgets: the size of each method that comes closest to a number of trained parameters, or of operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from jaxvalues.config import Config
from jaxvalues.config.reading import read_json
from jaxvalues.config.trees import flat
from jaxvalues.config.writing import write_json
from jaxvalues.errors import ConfigError, UserError, about, counted
from jaxvalues.run.estimate import epoch_size, step_rows, work
from jaxvalues.run.folder import RunFolder
from jaxvalues.run.network import build_network, count
from jaxvalues.run.outline import Outline, outline
from jaxvalues.study.choice import choose
from jaxvalues.study.combined import member_count, runs_worth
from jaxvalues.study.plan import Plan, check_apart, nested_changes

SIZES = {"lora": "tuning.rank", "prompt": "tuning.length", "p_tuning": "tuning.length", "prefix": "tuning.length"}
SIZES |= {"last_layers": "tuning.layers"}
"""The key that sets how many parameters a method trains. The other methods have one size."""
_LARGEST = 4096
CHOSEN = "budget.json"
"""In the folder of a study: the sizes and epochs that its budget chose."""


class Size(NamedTuple):
    """How much a system trains, holds frozen and computes."""

    trained: int | None
    frozen: int | None
    flops: float | None
    """Estimated floating-point operations of the whole training, at the longest length; None without the data here."""


UNKNOWN = Size(None, None, None)
"""Of a system whose checkpoint is not here, and of which no run is finished."""


def size_of(config: Config) -> Size:
    """The size of a system; heads count as trained. The model of an endpoint trains nothing; its size is not known."""
    if config.model.endpoint is not None:
        return Size(0, 0, 0.0)
    config = config.model_copy(update={"model": config.model.model_copy(update={"scan": True})})  # one layer is traced
    described = outline(config)
    frozen, trainable = described.network.abstract_parts()
    if not count(trainable):
        return Size(0, count(frozen), 0.0)
    flops = _flops(config, described)
    if flops is None:
        return Size(count(trainable), count(frozen), None)
    return Size(count(trainable), count(frozen), flops.before + flops.epoch * config.training.epochs)


def sizes_of(plan: Plan, why: dict[str, str] | None = None) -> dict[str, Size]:
    """{system: its size}; combined systems train what predicts, and compute what all members do.

    It is that of the chosen nuisance values; of the first ones until all trials are finished.
    Where a checkpoint is not here, the size is that of a finished run, and `why` gets a sentence. Raises ConfigError,
    which names the system, where no network can be made of its settings.
    """
    sizes = {}
    for name in plan.systems:
        try:
            with about(f"the study's system {name}"):
                chosen = choose(plan, name)
                sizes[name] = size_of(plan.first(name) if chosen is None else plan.runs(name, chosen)[0].config)
        except ConfigError:
            raise
        except UserError as error:  # its runs fail and say why, and the others go on
            sizes[name] = _size_before(plan, name)
            if why is not None:
                why[name] = str(error).removeprefix(f"the study's system {name}: ")
    for name, how in plan.study.scientific.combined.items():
        one, members = sizes[how.of], member_count(plan, name)
        kept = members if how.combine == "mean" else 1  # of the members that predict
        flops = None if one.flops is None else one.flops * runs_worth(how, members)
        sizes[name] = Size(None if one.trained is None else one.trained * kept, one.frozen, flops)
    return sizes


def _size_before(plan: Plan, name: str) -> Size:
    """The size of a finished trial or run of a system."""
    planned = [*plan.trials(name), *plan.runs(name, choose(plan, name) or plan.first_values(name))]
    for folder in (RunFolder(one.config.folder) for one in reversed(planned)):
        if folder.is_finished:
            frozen, trainable = build_network(folder.config(), folder.hf_config()).abstract_parts()
            return Size(count(trainable), count(frozen), None)
    return UNKNOWN


def fit_budget(plan: Plan, say: Callable[[str], None]) -> Plan:
    """The plan with the sizes that a study's budget chooses; `say` gets a sentence for each system.

    Raises ConfigError for a number of operations while the data are not here.
    """
    budget = plan.study.budget
    if budget is None:
        return plan
    for name in plan.systems:
        try:
            if budget.trainable_parameters is not None:
                plan = _fit_parameters(plan, name, budget.trainable_parameters, say)
            if budget.training_flops is not None:
                plan = _fit_epochs(plan, name, budget.training_flops, say)
        except ConfigError:
            raise
        except UserError:  # the checkpoint is not here
            plan = _as_before(plan, name)
    check_apart(plan)
    return plan


def save_budget(plan: Plan) -> None:
    """Write what the budget chose into the folder of a study, for a report where a checkpoint is not."""
    if (budget := plan.study.budget) is None:
        return
    keys = {"training.epochs", *SIZES.values()}
    systems = {
        name: {key: value for key, value in flat(one.changes).items() if key in keys}
        for name, one in plan.systems.items()
    }
    write_json(plan.study.folder / CHOSEN, {"budget": budget.model_dump(mode="json"), "systems": systems})


def _as_before(plan: Plan, name: str) -> Plan:
    """The plan with what the same budget chose for a system when its checkpoint was there; unchanged if none did."""
    path = plan.study.folder / CHOSEN
    if not path.is_file():
        return plan
    before = read_json(path, "what the budget of a study chose")
    if before["budget"] != plan.study.budget.model_dump(mode="json"):
        return plan
    return plan.resized(name, before["systems"].get(name, {}))


def _check_free(plan: Plan, name: str, key: str) -> None:
    """Raise ConfigError where the study itself sets the key that a budget chooses for a system."""
    study = plan.study
    parts = {"nuisance.keys": study.nuisance.keys, "repeated": study.repeated, "scientific.axes": study.scientific.axes}
    parts["changes"] = flat(study.changes)
    if key != "tuning.layers":  # which last_layers cannot be without
        parts[f"the system {name}"] = flat(plan.systems[name].changes)
    for part, keys in parts.items():
        if key in keys:
            raise ConfigError(f"budget chooses `{key}`, and {part} sets it too: take it out of one of them")


def _fit_parameters(plan: Plan, name: str, budget: int, say: Callable[[str], None]) -> Plan:
    config = plan.first(name)
    key = SIZES.get(config.tuning.method)
    if key is None:
        trained = size_of(config).trained
        say(f"{name}: {trained:,} parameters train, {_share(trained, budget)}; {config.tuning.method} has one size")
        return plan
    _check_free(plan, name, key)
    most = outline(config).network.num_layers if key == "tuning.layers" else _LARGEST

    @cache
    def trained(size: int) -> int:
        return size_of(nested_changes(config, {key: size})).trained

    # The number grows with the size, mostly evenly: the last size that is not above the budget.
    low, high = _between(trained, budget, most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(trained, middle, budget) else (low, middle - 1)
    near = [size for size in (low, low + 1) if size <= most and _count_or_none(trained, size) is not None]
    size = min(near, key=lambda one: abs(trained(one) - budget))
    say(f"{name}: {key} {size} trains {trained(size):,} parameters, {_share(trained(size), budget)}")
    return plan.resized(name, {key: size})


def _between(trained: Callable[[int], int], budget: int, most: int) -> tuple[int, int]:
    """Sizes from the lowest to the highest that may be the last one within the budget, near together if all goes
    evenly. Raises ConfigError where not even size 1 is possible."""
    one, two = trained(1), _count_or_none(trained, 2)
    if two is None or two <= one:
        return 1, most
    guess = max(1, min(most, 1 + (budget - one) // (two - one)))
    low = guess if _fits(trained, guess, budget) else 1
    high = guess if guess == most or not _fits(trained, guess + 1, budget) else most
    return low, max(low, high)


def _fits(trained: Callable[[int], int], size: int, budget: int) -> bool:
    """Whether a size is possible and trains no more than the budget."""
    number = _count_or_none(trained, size)
    return number is not None and number <= budget


def _count_or_none(trained: Callable[[int], int], size: int) -> int | None:
    """The number of parameters of a size; None where the network has no place for it, such as a prompt too long."""
    try:
        return trained(size)
    except ConfigError:
        return None


def _fit_epochs(plan: Plan, name: str, budget: float, say: Callable[[str], None]) -> Plan:
    _check_free(plan, name, "training.epochs")
    config = plan.first(name)
    with about(f"the study's system {name}"):
        flops = _Flops(0.0, 0.0) if config.model.endpoint is not None else _flops(config, outline(config))
    if flops is None:
        raise ConfigError("budget.training_flops needs the data here: `jaxvalues data CONFIG` fetches them")
    if flops.epoch == 0:
        say(f"{name}: nothing trains")
        return plan
    epochs = max(1, round((budget - flops.before) / flops.epoch))
    total, verb = flops.before + epochs * flops.epoch, "takes" if epochs == 1 else "take"
    pretrained = f" with {counted(config.loss.pretraining_epochs, 'epoch')} before" if flops.before else ""
    say(f"{name}: {counted(epochs, 'epoch')}{pretrained} {verb} {total:.3g} operations, {_share(total, budget)}")
    return plan.resized(name, {"training.epochs": epochs})


class _Flops(NamedTuple):
    """Estimated floating-point operations of a training."""

    before: float
    """Of contrastive pretraining."""
    epoch: float
    """Of each epoch after it."""


def _flops(config: Config, described: Outline) -> _Flops | None:
    """What a training takes; None without the data here. Two views of an argument take twice as much as one."""
    network, parts, texts = described
    if parts is None:
        return None
    step, _ = work(network, config, config.lengths[-1], step_rows(config, network, texts))
    epoch, views = float(step * epoch_size(config, parts).steps), 1 + config.loss.has_views
    before = config.loss.pretraining_epochs
    return _Flops(before * views * epoch, epoch if before else views * epoch)


def _share(number: float, budget: Any) -> str:
    share = number / budget
    return f"{share:.0%} of the budget" if share < 100 else f"{share:,.0f} times the budget"
