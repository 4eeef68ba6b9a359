"""The files that come with rfbench: configurations and Slurm scripts, by name from anywhere.

Beside this file, links lead to the checkout's configs/ and scripts/; an installation has the files
themselves there.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from rfbench.errors import suggest

FOLDER = Path(__file__).parent


@cache
def files() -> Mapping[str, Path]:
    """Their names, such as cls/resnet50.yaml and slurm/train_cls.sbatch, and where they are.

    Looked up once: a grid asks for every run, and looking takes longer than all else of it.
    """
    configs, slurm = FOLDER / "configs", FOLDER / "slurm"
    found = {path.relative_to(configs).as_posix(): path for path in configs.rglob("*.yaml")}
    found |= {path.relative_to(FOLDER).as_posix(): path for path in slurm.glob("*.sbatch")}
    return {name: found[name].resolve() for name in sorted(found)}


def find(name: str) -> Path | None:
    """The file named `name`: cls/resnet50, also with .yaml, or behind configs/ as in a checkout."""
    held, plain = files(), name.removeprefix("configs/")
    return held.get(plain) or held.get(f"{plain}.yaml")


def path_of(name: str) -> str:
    """`name` where it is a file, else the path of the shipped file of that name; else `name`."""
    own = Path(name)
    if "\0" in name or (own.exists() and not own.is_dir()) or not (path := find(name)):
        return name
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def near(name: str) -> str:
    """The nearest shipped names, as `suggest` tells them; '' unless a folder of theirs is named."""
    plain, held = name.removeprefix("configs/"), files()
    kinds = {own.partition("/")[0] for own in held}
    return suggest(plain, held) if plain.partition("/")[0] in kinds else ""


def is_configuration(name: str) -> bool:
    """Whether `name` is meant as a configuration, and not as a model."""
    return name.endswith((".yaml", ".yml")) or (":" not in name and find(name) is not None)
