"""What the receptive-field commands share: their options as a configuration, the list of layers."""

import json
from typing import Any

import click


def settings(model: tuple[str, ...], options: dict[str, Any]) -> tuple[str | None, list[str]]:
    """The YAML file, if MODEL is one, and everything typed as overrides of the configuration."""
    from rfbench.errors import UsageError

    files = [name for name in model if name.endswith((".yaml", ".yml"))]
    if files and len(model) > 1:
        raise UsageError(f"{files[0]}: a configuration stands alone; it names its models itself")
    given = {
        "model": None if files else model[0] if len(model) == 1 else list(model),
        "variants": list(options["variant"]) or None,
        "from": options.get("from_"),
        "unit": numbers(options.get("unit"), ",", "--unit", "Y,X", least=0),
        "size": numbers(options.get("size"), "x", "--size", "N or HxW", least=1),
    }
    same = ("weights", "to", "scale", "channels", "pool", "gates", "engine", "exact", "by_layer")
    given |= {key: options.get(key) or None for key in same}
    overrides = [f"{key}={json.dumps(v)}" for key, v in given.items() if v is not None]
    return (files[0] if files else None), [*overrides, *options.get("override", ())]


def numbers(
    text: str | None, separator: str, option: str, form: str, least: int | None = None
) -> Any:
    """'7,7' as [7, 7], '224' as 224; a `form` such as 'Y,X' asks for two."""
    from rfbench.errors import UsageError

    if text is None:
        return None
    parts = text.lower().split(separator)
    fewest = 1 if "N" in form else 2
    if not all(p.strip().lstrip("-").isdigit() for p in parts) or not fewest <= len(parts) <= 2:
        raise UsageError(f"{option} {text}: expected {form}")
    found = [int(p) for p in parts]
    if least is not None and min(found) < least:
        raise UsageError(f"{option} {text}: must be {least} or more")
    return found[0] if len(found) == 1 else found


def print_layers(rows: list[tuple[str, tuple[int, int], Any]]) -> None:
    """The layers for --from and --to, one a line."""
    width = max((len(name) for name, *_ in rows), default=0)
    for name, (h, w), stride in rows:
        step = "" if stride is None else f"  stride {stride[0]}"
        click.echo(f"{name:{width}}  {h}x{w}{step}")


def print_plan(config: Any, found: Any) -> None:
    """What --dry-run shows: the configuration, and the layers that each variant changes."""
    import yaml

    click.echo(yaml.safe_dump(config.model_dump(by_alias=True, mode="json"), sort_keys=False))
    for subject in found:
        names = subject.backbone.replaced
        click.echo(f"{subject.backbone.name} / {subject.backbone.variant}: {len(names)} changed")
        for name in names:
            click.echo(f"  {name}")
