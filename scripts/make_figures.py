"""Draw every configuration of configs/rf into docs/figures: `make figures`."""

import shutil
import tempfile
from pathlib import Path

import click
from tqdm import tqdm

from rfbench.config import load
from rfbench.files import aside
from rfbench.rf.core import subjects
from rfbench.rf.questions.maps import maps as visualize
from rfbench.schemas.rf import RfConfig


@click.command()
@click.option("--output", type=Path, default="docs/figures", help="Folder for the PNG files.")
@click.argument("configs", nargs=-1, type=Path)
def main(output: Path, configs: tuple[Path, ...]) -> None:
    """Draw CONFIGS, or all of configs/rf, one PNG each."""
    output.mkdir(parents=True, exist_ok=True)
    for path in tqdm(configs or sorted(Path("configs/rf").glob("*.yaml")), unit="figure"):
        config = load(RfConfig, str(path))
        with tempfile.TemporaryDirectory() as folder:
            chosen = list(subjects.subjects(config, tqdm.write))
            visualize.run(config, chosen, Path(folder))
            (figure,) = Path(folder).glob("*.png")
            with aside(output / f"{path.stem}.png") as temporary:
                shutil.copy(figure, temporary)


if __name__ == "__main__":
    main()
