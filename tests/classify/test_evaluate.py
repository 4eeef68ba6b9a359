"""Top-1, top-5 and loss of scores whose answer is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench.classify.evaluate import evaluate
from rfbench.errors import RfbenchError
from rfbench.runs.processes import Processes


def ranked(classes: int, ranks: list[int]) -> tuple[Tensor, Tensor]:
    """Scores (N, classes), and labels whose score is the n-th best, counted from 1."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(len(ranks), classes, generator=generator)
    order = scores.argsort(1, descending=True)
    return scores, torch.stack([order[i, rank - 1] for i, rank in enumerate(ranks)])


@pytest.mark.parametrize(
    ("classes", "ranks", "top1", "top5"),
    [(9, [1, 2, 5, 6, 9, 1, 4, 8], 25.0, 62.5), (3, [3, 2, 1, 1], 50.0, None)],
)
def test_known_ranks(classes: int, ranks: list[int], top1: float, top5: float | None) -> None:
    scores, labels = ranked(classes, ranks)
    network = nn.Identity().train()
    batches = [(scores[:3], labels[:3]), (scores[3:], labels[3:]), (scores[:0], labels[:0])]
    group = Processes(torch.device("cpu"))
    found = evaluate(network, batches, len(batches), group, network)
    assert found == {
        "loss": pytest.approx(F.cross_entropy(scores, labels).item()),
        "top1": top1,
        **({} if top5 is None else {"top5": top5}),  # of three classes it would always be 100
        "images": len(ranks),
    }
    assert network.training


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (torch.full((2, 3), torch.nan), "scores of validation images are NaN"),
        (torch.zeros(0, 3), "no validation image could be read"),
    ],
)
def test_what_has_no_figures(scores: Tensor, told: str) -> None:
    """NaN sorts above every number: without the check, the first class would win."""
    labels = torch.zeros(len(scores), dtype=torch.long)
    group = Processes(torch.device("cpu"))
    with pytest.raises(RfbenchError, match=told):
        evaluate(nn.Identity(), [(scores, labels)], 1, group, nn.Identity())
