"""Shared by the receptive-field commands: configuration, --list-layers and --dry-run."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rfbench.cli import out
from rfbench.cli.options import input_form, numbers

if TYPE_CHECKING:
    from rfbench.schemas.rf import RfConfig


def load_config(
    model: Sequence[str],
    override: Sequence[str],
    *,
    variant: Sequence[str] = (),
    unit: str | None = None,
    size: str | None = None,
    inputs: Sequence[str] = (),
    model_args: Sequence[str] = (),
    **given: Any,
) -> "RfConfig":
    """The configuration in the YAML file, if MODEL is one, changed by the options.

    given: keys of the configuration, `from_` for `from`; None and False leave a key unchanged.
    """
    from rfbench import shipped
    from rfbench.config import load
    from rfbench.errors import UsageError
    from rfbench.schemas.rf import RfConfig

    files = [name for name in model if shipped.is_configuration(name)]
    if files and len(model) > 1:
        raise UsageError(f"{files[0]}: give a configuration alone; it names its models itself")
    values = {
        "model": None if files else model[0] if len(model) == 1 else list(model),
        "variants": list(variant) or None,
        "unit": numbers(unit, ",", "--unit", "Y,X (or X, Z,Y,X)", least=0),
        "size": numbers(size, "x", "--size", "N, HxW or DxHxW", least=1),
        "inputs": [*map(input_form, inputs)] or None,
        **{key.rstrip("_"): None if value is False else value for key, value in given.items()},
    }
    overrides = [f"{key}={json.dumps(v)}" for key, v in values.items() if v is not None]
    if odd := [text for text in model_args if "=" not in text]:
        raise UsageError(f"--model-arg {odd[0]}: expected KEY=VALUE")
    overrides += [f"model_args.{text}" for text in model_args]
    try:
        return load(RfConfig, files[0] if files else None, [*overrides, *override])
    except UsageError as error:  # said of the option that the user gave
        given_keys = [key for key, value in values.items() if value is not None]
        options = {f"-o: '{key}'": f"--{key.replace('_', '-')}" for key in given_keys}
        raise UsageError(*(_said(str(line), options) for line in error.args)) from error


def _said(line: str, names: dict[str, str]) -> str:
    """A line that begins with one of some names, with another for it."""
    known = next((name for name in names if line.startswith(name)), "")
    return line.replace(known, names[known], 1) if known else line


def load_with_baseline(model: Sequence[str], override: Sequence[str], **given: Any) -> "RfConfig":
    """As `load_config`; without variants, the baseline alone."""
    config = load_config(model, override, **given)
    if config.variants is None:
        config = config.model_copy(update={"variants": ["baseline"]})
    return config


def measured_ends(
    config: "RfConfig",
    networks: Iterator[Any],
    measure: Callable[["RfConfig", Any, Any], tuple[Any, Any]],
    text: Callable[[Any], str] | None,
) -> list[tuple[Any, Any]]:
    """What `measure` tells of every output of every network; text: how each is shown at once.

    measure: of the configuration of one output, its subject, and the network with weights.
    """
    from rfbench.models import backbones
    from rfbench.rf.core import subjects

    results: list[tuple[Any, Any]] = []
    for subject in networks:
        held = subject.backbone
        module = backbones.build(held.name, held.variant, inputs=held.inputs).module
        module = subject.network.call.of(module)
        named = dict.fromkeys(end for end, _ in subjects.ends(subject, config.to, None))

        def of_end(end: Any, _: Any, subject: Any = subject, module: Any = module) -> Any:
            return measure(config.model_copy(update={"to": end}), subject, module)

        for result in subjects.measured([(end, None) for end in named], of_end):
            results.append(result)
            if text is not None:
                out.show("\n" * (len(results) > 1) + text(results[-1][0]))
    return results


def print_only(subjects: Iterator[Any], config: Any, list_layers: bool, dry_run: bool) -> bool:
    """Print the output of --list-layers or --dry-run; False if neither is given."""
    if list_layers:
        print_layers(next(subjects))
    elif dry_run:
        print_plan(config, subjects)
    return list_layers or dry_run


def print_layers(subject: Any) -> None:
    """The layers for --from and --to, one a line."""
    from rfbench.rf.core.subjects import list_layers
    from rfbench.spatial_graph.size import by

    rows = list_layers(subject)
    width = max((len(name) for name, *_ in rows), default=0)
    for name, size, stride, extent in rows:
        strides = [] if stride is None else [str(s) for s in stride]
        step = "x".join(strides[:1] if len(set(strides)) == 1 else strides)
        told = [f"{name:{width}}", by(size), f"stride {step}" if step else "", extent]
        out.show("  ".join(filter(None, told)))


def print_plan(config: Any, subjects: Iterator[Any]) -> None:
    """The configuration, and the layers that each variant changes."""
    import yaml

    out.show(yaml.safe_dump(config.model_dump(by_alias=True, mode="json"), sort_keys=False))
    for subject in subjects:
        names = subject.backbone.replaced
        out.show(f"{subject.backbone.name} / {subject.backbone.variant}: {len(names)} changed")
        for name in names:
            out.show(f"  {name}")
