"""Training the classifier that a detector or a segmenter starts from."""

import logging
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rfbench.training.classifier import Classifier

log = logging.getLogger("rfbench")


def is_trained(classifier: "Classifier", device: str) -> bool:
    """Whether it has finished, as one of the processes sees its folder."""
    from rfbench.runs import processes

    with processes.started(device) as group:
        return group.by_first(classifier.is_trained)


def train_classifier(classifier: "Classifier") -> None:
    """Train the classifier; on a signal, exit with the exit code."""
    from rfbench.classify import fit

    log.info(f"training the classifier {classifier.path} first, into {classifier.folder}")
    _, code = fit.fit(classifier.config, classifier.folder, True, False)
    if code or not classifier.is_trained():
        raise click.exceptions.Exit(code)


def describe_classifier(classifier: "Classifier", train_first: bool) -> str:
    """The lines of --dry-run on a detector's classifier; raises what its training would raise."""
    from rfbench.classify import plan
    from rfbench.runs import folder as folders

    if not train_first:
        return f"the classifier {classifier.path} is finished, in {classifier.folder}"
    plan.describe(classifier.config, classifier.folder)
    folders.check(classifier.folder, resume=True, overwrite=False)
    return f"would train the classifier {classifier.path} first, into {classifier.folder}"
