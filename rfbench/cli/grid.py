"""`rfbench grid`: many variants, seeds and tasks as ordinary runs."""

import shlex
from pathlib import Path

import click

from rfbench.cli import out, training
from rfbench.cli.options import (
    dry_run_option,
    json_option,
    numbers,
    output_option,
    override_option,
    split,
)


@click.command()
@click.argument("config")
@click.option(
    "--variants", metavar="NAME,...", help="Variants of every task, instead of the grid's."
)
@click.option(
    "--seeds",
    metavar="N",
    type=click.IntRange(1, 10_000),
    help="Seeds 0 to N-1, instead of the grid's.",
)
@click.option("--only", metavar="TASK", multiple=True, help="This task and its parents; repeat.")
@click.option("--shard", metavar="I/N", help="Part I of N, counted from 1: 1/4 to 4/4.")
@click.option("--jobs", type=click.IntRange(1), default=1, help="Runs at a time (default: 1).")
@click.option("--fail-fast", is_flag=True, help="Stop all runs when one fails.")
@output_option("Folder of the runs (default: the grid's, or results/grid-...).")
@override_option("Set a key of every run's configuration.")
@dry_run_option("Print the command and the state of each run, then exit.")
@json_option("Print the runs and their states as JSON.")
def command(
    config: str,
    variants: str | None,
    seeds: int | None,
    only: tuple[str, ...],
    shard: str | None,
    jobs: int,
    fail_fast: bool,
    output: Path | None,
    override: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train every variant and seed of the tasks of CONFIG.

    CONFIG is a grid (`rfbench schema grid`) or the configuration of one run of train-cls,
    train-seg or train-det: a path, or one that rfbench ships, such as grids/digits.yaml.
    Each run is an ordinary one, in OUTPUT/TASK/VARIANT-sSEED, with its log beside the folder.
    Classifiers are trained before the detectors that start from them. Run the same command again
    at any time: finished runs are kept, interrupted ones continue. A failed run does not stop the
    others. Exit codes: 1 if a run failed, 130 if interrupted; the runs save before they stop.

    --shard is for Slurm arrays: `--array=1-4`, `--shard $SLURM_ARRAY_TASK_ID/4`. A detector and its
    classifier are in the same shard.

    Example: rfbench grid mine.yaml --variants baseline,1x1+3x3 --seeds 4 --jobs 2
    """
    training.wait_passively()
    from rfbench.grid import config as grids
    from rfbench.grid import plan
    from rfbench.grid.work import work

    part = shard_of(shard)
    folder = str(output) if output else None
    grid = grids.read(config, override, split(variants, "--variants"), seeds, folder)
    runs = plan.choose(plan.expand(grid), only, part)
    for run in runs:
        run.state = plan.look(run)
    try:
        if not dry_run:
            work(runs, jobs, fail_fast)
    except KeyboardInterrupt:
        out.note("Interrupted; the runs have saved. The same command continues them.")
        raise click.exceptions.Exit(130) from None
    finally:
        if as_json:
            out.show_json([plan.described(run) for run in runs])
    if dry_run and not as_json:
        for run in runs:
            out.show(f"{shlex.join(run.command)}  # {plan.progress_of(run)}")
    if not dry_run:
        summarise(runs, as_json)
        out.note(f"Compare them: rfbench compare {shlex.quote(grid.output)}")


def shard_of(text: str | None) -> tuple[int, int] | None:
    """'1/4' as (1, 4)."""
    from rfbench.errors import UsageError

    if text is None:
        return None
    index, count = numbers(text, "/", "--shard", "I/N", least=1)
    if index > count:
        raise UsageError(f"--shard {text}: expected I/N with I from 1 to N")
    return index, count


def summarise(runs: list, as_json: bool) -> None:
    """Print how many runs finished; RfbenchError that names the others."""
    from rfbench.errors import RfbenchError
    from rfbench.grid.plan import State

    bad = [run for run in runs if run.state is not State.FINISHED]
    if not as_json:
        out.show(f"{len(runs) - len(bad)} of {len(runs)} runs finished")
    why = {
        State.FAILED: "failed; see {log}",
        State.SKIPPED: "skipped: the run that it starts from failed",
    }
    if bad:
        lines = [why.get(run.state, run.state.value).format(log=run.log) for run in bad]
        raise RfbenchError(*(f"{run.name} {line}" for run, line in zip(bad, lines, strict=True)))
