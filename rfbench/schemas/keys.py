"""Keys that several trainings have, with their descriptions and where their values may differ."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from rfbench.config import AVERAGED, MOST_SEED, MOST_THREADS, RESUMED

Seed = Annotated[
    NonNegativeInt,
    AVERAGED,
    Field(le=MOST_SEED, description="Seed of weights, order and augmentation."),
]
Precision = Annotated[
    Literal["auto", "fp32", "tf32", "bf16"],
    AVERAGED,
    Field(
        description="auto: bf16 autocast on a GPU, fp32 on a CPU. tf32: TensorFloat-32 where the "
        "GPU has it (Ampere and later), else fp32.",
    ),
]
ChannelsLast = Annotated[
    bool,
    Field(description="channels_last memory format: faster for nearly every network, on CPUs too."),
]
Compile = Annotated[bool, Field(description="torch.compile the network.")]
Deterministic = Annotated[
    bool, Field(description="Bit-exact on GPUs too, at lower speed; CPUs always are.")
]
Device = Annotated[str, RESUMED, AVERAGED, Field(description="auto, cpu or cuda.")]
Threads = Annotated[
    PositiveInt | None,
    RESUMED,
    Field(
        le=MOST_THREADS,
        description="CPU threads per process; 1 is fastest for tiny networks; null: PyTorch's "
        "default.",
    ),
]
Patience = Annotated[
    PositiveInt | None,
    Field(
        description="Stop early after this many epochs without a better best_metric; null: never."
    ),
]
LogEvery = Annotated[
    PositiveInt, AVERAGED, Field(description="Steps between lines of metrics.jsonl.")
]
TensorBoard = Annotated[
    bool, RESUMED, AVERAGED, Field(description="Write TensorBoard event files too.")
]
