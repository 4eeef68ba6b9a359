"""Draw all of configs/rf, and what pages' commands draw, into docs/figures: `make figures`."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from tqdm import tqdm

from rfbench.config import load
from rfbench.files import aside
from rfbench.rf.core import subjects
from rfbench.rf.questions.maps import maps as visualize
from rfbench.schemas.rf import RfConfig

# by the name of the figure: the command of a page that draws it
COMMANDS = {
    "tiles": "rf tiles resnet18 --to layer2 --size 384 --tile 192",
    "mirror": "rf mirror resnet18 --to layer2",
}


@click.command()
@click.option("--output", type=Path, default="docs/figures", help="Folder for the PNG files.")
@click.argument("configs", nargs=-1, type=Path)
def main(output: Path, configs: tuple[Path, ...]) -> None:
    """Draw CONFIGS, or all of configs/rf and what commands draw, one PNG each."""
    output.mkdir(parents=True, exist_ok=True)
    for path in tqdm(configs or sorted(Path("configs/rf").glob("*.yaml")), unit="figure"):
        config = load(RfConfig, str(path))
        with tempfile.TemporaryDirectory() as folder:
            chosen = list(subjects.subjects(config))
            visualize.run(config, chosen, Path(folder))
            keep(Path(folder), output / f"{path.stem}.png")
    for name, command in () if configs else COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            run = [sys.executable, "-m", "rfbench", *command.split(), "--output", f"{folder}/out"]
            subprocess.run(run, check=True)
            keep(Path(folder) / "out", output / f"{name}.png")


def keep(folder: Path, figure: Path) -> None:
    """Copy the only PNG of a folder."""
    (drawn,) = folder.glob("*.png")
    with aside(figure) as temporary:
        shutil.copy(drawn, temporary)


if __name__ == "__main__":
    main()
