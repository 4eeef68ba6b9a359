"""Configurations: values, `base:`, overrides, and every error at once."""

import json
from pathlib import Path
from typing import Annotated

import pytest
from click.testing import CliRunner
from pydantic import Field, field_validator

from rfbench.cli import main
from rfbench.config import (
    AVERAGED,
    RESUMED,
    Free,
    Section,
    covers,
    flat,
    load,
    marked,
    override,
    schema_json,
)
from rfbench.errors import UsageError
from rfbench.runs.checkpoint import refuse_changes
from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.kinds import SCHEMAS
from rfbench.schemas.rf import RfConfig


class Optim(Section):
    lr: float = Field(1.6, gt=0)
    weight_decay: float = 1e-4
    nesterov: bool = True
    note: str | None = None


class Schedule(Section):
    epochs: int = 90
    milestones: list[int] = Field([30, 60, 80])


class TrainConfig(Section):
    """A schema of nested sections, as the training commands have them."""

    model: str
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    seed: int = 0
    note: str | None = None

    @field_validator("seed")
    @classmethod
    def _even(cls, seed: int) -> int:
        if seed % 2:
            raise ValueError("must be even")
        return seed


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def errors(schema: type[Section], path: str | None, *overrides: str) -> list[str]:
    """The lines of the UsageError of this load."""
    with pytest.raises(UsageError) as caught:
        load(schema, path, overrides)
    return str(caught.value).splitlines()


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["1e-4", "1.0e-4", "1E-4", "0.0001", ".0001", "+1e-4", "100e-6", "1_0.0e-5"]
)
def test_every_spelling_of_a_float(here: Path, text: str) -> None:
    Path("c.yaml").write_text(f"model: x\noptim: {{weight_decay: {text}}}\n")
    assert load(TrainConfig, "c.yaml").optim.weight_decay == pytest.approx(1e-4, rel=1e-12)
    config = load(TrainConfig, None, ["model=x", f"optim.weight_decay={text}"])
    assert config.optim.weight_decay == pytest.approx(1e-4, rel=1e-12)


@pytest.mark.parametrize("text", ["1x1", "no", "12:30", "2024-01-01", "010", "0x10", "1e", "e5"])
def test_text_stays_text(text: str) -> None:
    assert load(TrainConfig, None, [f"model={text}"]).model == text


def test_a_whole_number_is_a_float_and_null_is_none() -> None:
    config = load(TrainConfig, None, ["model=x", "optim.lr=1", "note=a", "note=null"])
    assert config.optim.lr == 1.0
    assert config.note is None


def test_rf_defaults() -> None:
    config = load(RfConfig, None, ["model=resnet50"])
    assert config.variants is config.from_ is config.to is config.unit is None
    assert config.size is config.weights is config.title is None
    assert (config.scale, config.channels, config.pool) == ("sqrt", "single", "count")
    assert (config.gates, config.engine, config.exact) == ("ignore", "graph", False)


def test_rf_values(here: Path) -> None:
    Path("c.yaml").write_text(
        "model: resnet18\nfrom: layer1.0#2\nvariants: [1x1, {kernels: [1, 3], pool: avg}]\n"
        "unit: [0, 3]\nsize: [224, 256]\n"
    )
    config = load(RfConfig, "c.yaml")
    assert config.from_ == "layer1.0#2"
    assert config.unit == (0, 3)
    assert config.size == (224, 256)
    assert config.variants[0] == "1x1"
    assert config.variants[1].model_dump(exclude_none=True) == {"kernels": [1, 3], "pool": "avg"}
    assert load(RfConfig, "c.yaml", ["size=1120"]).size == 1120


# --- base and overrides -------------------------------------------------------------------------


def test_base_is_merged_key_by_key_and_overrides_come_last(here: Path) -> None:
    Path("sub").mkdir()
    Path("base.yaml").write_text("model: a\noptim: {lr: 2, nesterov: false}\nseed: 4\n")
    Path("sub/c.yaml").write_text(
        "base: ../base.yaml\nmodel: b\noptim: {lr: 3}\nschedule: {milestones: [1]}\n"
    )
    config = load(TrainConfig, "sub/c.yaml", ["schedule.epochs=2", "schedule.epochs=3"])
    assert (config.model, config.seed) == ("b", 4)
    assert (config.optim.lr, config.optim.nesterov) == (3, False)
    assert (config.schedule.epochs, config.schedule.milestones) == (3, [1])


def test_an_override_replaces_a_mapping(here: Path) -> None:
    Path("c.yaml").write_text("model: a\noptim: {lr: 2, nesterov: false}\n")
    config = load(TrainConfig, "c.yaml", ["optim={lr: 3}"])
    assert (config.optim.lr, config.optim.nesterov) == (3, True)


def test_base_errors(here: Path) -> None:
    Path("base.yaml").write_text("base: x.yaml\nmodel: a\n")
    Path("c.yaml").write_text("base: base.yaml\n")
    assert errors(TrainConfig, "c.yaml") == [
        "base.yaml: has a 'base' itself, and is the 'base' of c.yaml"
    ]
    Path("c.yaml").write_text("base: bare.yaml\n")
    assert errors(TrainConfig, "c.yaml") == [
        "bare.yaml: no such file ('base' of c.yaml). Did you mean: base.yaml?"
    ]
    Path("c.yaml").write_text("base: [base.yaml]\n")
    assert errors(TrainConfig, "c.yaml") == [
        "c.yaml: 'base': expected the name of a file, got [\"base.yaml\"]"
    ]


# --- errors -------------------------------------------------------------------------------------


def test_all_errors_at_once_each_with_where_it_was_set(here: Path) -> None:
    Path("base.yaml").write_text("optim: {lr: fast}\n")
    Path("c.yaml").write_text(
        "base: base.yaml\noptim: {nestrov: true}\nschedule: {milestones: [1, '2']}\nlr: 3\n"
    )
    assert errors(TrainConfig, "c.yaml", "sed=1", "oops", "seed=3", "optim.weight_decay=-x") == [
        "-o: 'oops': expected KEY=VALUE, such as optim.lr=0.1",
        "c.yaml: missing key 'model'",
        "base.yaml: 'optim.lr': must be a valid number (it is \"fast\")",
        "-o: 'optim.weight_decay': must be a valid number (it is \"-x\")",
        "c.yaml: unknown key 'optim.nestrov'; did you mean 'optim.nesterov'?",
        "c.yaml: 'schedule.milestones[1]': must be a valid integer (it is \"2\")",
        "-o: 'seed': must be even (it is 3)",
        "c.yaml: unknown key 'lr'; did you mean 'optim.lr'?",
        "-o: unknown key 'sed'; did you mean 'seed'?",
    ]


def test_the_nearest_key_is_sought_beside_the_unknown_one_first() -> None:
    assert errors(TrainConfig, None, "model=x", "optim.nots=1", "schedule.lr=1", "nots=1") == [
        "-o: unknown key 'optim.nots'; did you mean 'optim.note'?",
        "-o: unknown key 'schedule.lr'; did you mean 'optim.lr'?",
        "-o: unknown key 'nots'; did you mean 'note'?",
    ]
    (line,) = errors(TrainConfig, None, "model=x", "schedule.zzz=1")
    assert line == "-o: unknown key 'schedule.zzz'; there is: epochs, milestones"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("size='224'", "'size': must be a valid integer or a list (it is \"224\")"),
        ("size=1e2", "'size': must be a valid integer or a list (it is 100.0)"),
        ("size=true", "'size': must be a valid integer or a list (it is true)"),
        ("size=0", "'size': must be greater than 0 (it is 0)"),
        ("size=[224, -1]", "'size[1]': must be greater than 0 (it is -1)"),
        ("unit=[-1, 0]", "'unit[0]': must be greater than or equal to 0 (it is -1)"),
        ("scale=log", "'scale': must be 'linear' or 'sqrt' (it is \"log\")"),
        ("exact=yes", "'exact': must be a valid boolean (it is \"yes\")"),
        ("variants=[a, 3]", "'variants[1]': must be a valid string or a mapping (it is 3)"),
        (
            "variants=[{kernels: [0], pool: avg}]",
            "'variants[0].kernels[0]': must be greater than 0 (it is 0)",
        ),
        ("variants=[{kernels: [1]}]", "missing key 'variants[0].pool'"),
        ("from_=a", "unknown key 'from_'; did you mean 'from'?"),
        ("variants=[{kernel: [1], pool: a, kernels: [3]}]", "unknown key 'variants[0].kernel'; "),
        ("title=a: b: c", "'title': not valid YAML: mapping values are not allowed here (line 1)"),
    ],
)
def test_one_wrong_value_is_one_line(override: str, message: str) -> None:
    (line,) = errors(RfConfig, None, "model=x", override)
    assert line.startswith(f"-o: {message}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.9", "must be a list of 2 values (it is 0.9)"),
        ("[0.9]", "must have 2 values (it is [0.9])"),
        ("[1, 2, 3]", "must have 2 values, not 3 (it is [1, 2, 3])"),
    ],
)
def test_a_list_of_fixed_length_says_how_long(value: str, message: str) -> None:
    class Pairs(Section):
        betas: tuple[float, float] | None = None

    assert errors(Pairs, None, f"betas={value}") == [f"-o: 'betas': {message}"]


def test_overrides_that_have_no_place(here: Path) -> None:
    Path("c.yaml").write_text("model: resnet50\nschedule: {milestones: [1]}\n")
    (line,) = errors(TrainConfig, "c.yaml", "model.name=x")
    assert line == (
        "-o: cannot set 'model.name': 'model' holds \"resnet50\", which is not a mapping"
    )
    (line,) = errors(TrainConfig, "c.yaml", "schedule.milestones.0=3")
    assert line.startswith(
        "-o: cannot set 'schedule.milestones.0': 'schedule.milestones' holds [1]"
    )
    assert errors(TrainConfig, "c.yaml", "=3", "optim..lr=3") == [
        "-o: '=3': expected KEY=VALUE, such as optim.lr=0.1",
        "-o: 'optim..lr=3': expected KEY=VALUE, such as optim.lr=0.1",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: a\nmodel: b\n", "not valid YAML: duplicate key 'model' (line 2)"),
        ("optim:\n  lr: 1\n  lr: 2\n", "not valid YAML: duplicate key 'lr' (line 3)"),
        ("model: a\n3: b\n", "not valid YAML: a key that is not text; quote it (line 2)"),
        ("model: a\nseed: [1\n", "not valid YAML: expected ',' or ']'"),
        ("model: a\n\tseed: 1\n", "not valid YAML: found character '\\t'"),
        ("- a\n", 'expected a mapping (key: value), got ["a"]'),
        ("resnet50\n", 'expected a mapping (key: value), got "resnet50"'),
        ("", "missing key 'model'"),
        ("model: a\n---\nmodel: b\n", "not valid YAML: but found another document (line 2)"),
        ("model: !!python/name:os.system\n", "not valid YAML: could not determine a constructor"),
        ("model: &a [*a]\n", "not valid YAML: Circular reference"),
        ("model: a\noptim.lr: 1\n", "unknown key 'optim.lr'; only -o takes dotted keys"),
        ("model: a\noptim:\n", "'optim': must be a mapping (it is null)"),
        ("model: a\noptim: {lr: .inf}\n", "'optim.lr': must be a finite number (it is Infinity)"),
    ],
)
def test_a_file_that_is_wrong(here: Path, text: str, message: str) -> None:
    Path("c.yaml").write_text(text)
    (line,) = errors(TrainConfig, "c.yaml")
    assert line.startswith(f"c.yaml: {message}")


def test_a_file_that_cannot_be_read(here: Path) -> None:
    Path("resnet50.yaml").write_text("model: a\n")
    assert errors(RfConfig, "resnet5.yaml") == [
        "resnet5.yaml: no such file. Did you mean: resnet50.yaml?"
    ]
    assert errors(RfConfig, "none/c.yaml") == ["none/c.yaml: no such file."]
    for name in ("vgg", "nets.py:net", "folder/nets.py:net", "timm:vgg"):
        (told,) = errors(RfConfig, name)
        assert told.startswith(f"{name}: no such file. A network is a key of one: -o model={name};")
    assert errors(RfConfig, ".") == [".: cannot be read: Is a directory"]
    Path("c.yaml").write_bytes(b"model: \x80\n")
    (line,) = errors(RfConfig, "c.yaml")
    assert line.startswith("c.yaml: not valid YAML: ")


# --- schemas ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_field_of_a_schema_is_described(kind: str) -> None:
    schema = schema_json(SCHEMAS[kind])
    for part in (schema, *schema.get("$defs", {}).values()):
        assert part["description"]
        for name, field in part["properties"].items():
            assert field.get("description"), f"{part['title']}.{name} has no description"


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_line_for_editors_is_beside_the_schema(kind: str) -> None:
    done = CliRunner().invoke(main, ["schema", kind])
    assert done.stderr == f"# yaml-language-server: $schema={kind}.schema.json\n"
    assert json.loads(done.stdout) == schema_json(SCHEMAS[kind])


def test_an_editor_accepts_what_load_accepts() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(schema_json(RfConfig))
    validator.check_schema(validator.schema)
    good = {
        "model": "a",
        "from": "b",
        "size": [3, 4],
        "variants": ["a", {"kernels": [1], "pool": "b"}],
    }
    assert validator.is_valid(good)
    assert validator.is_valid({"base": "x.yaml", "size": 3})
    for bad in ({}, {"model": 3}, {"model": "a", "sise": 3}, {"model": "a", "size": [3, 3, 3, 3]}):
        assert not validator.is_valid(bad)


# --- marks --------------------------------------------------------------------------------------

DATA = ["annotations", "images"]
OPTS = {"opts.SOLVER.CHECKPOINT_PERIOD", "opts.DATALOADER.NUM_WORKERS"}
CLS_DATA = ["root", "train_scenes", "val_scenes", "image_size", "augment", "flip", "crop_ratio"]
SEG_DATA = ["root", "crop", "scale", "flip", "check", "workers"]
DET_DATA = ["root", *(f"{split}_{what}" for split in ("train", "val") for what in DATA)]
MARKED = {
    ("cls", RESUMED): {
        *("data.workers", "data.root", "data.max_bad_share", "device", "threads", "tensorboard"),
        *("checkpoint.every", "checkpoint.keep", "init.weights", "max_batch_per_gpu"),
        "consistency_images",
    },
    ("cls", AVERAGED): {
        *("seed", "variant", "device", "precision", "checkpoint", "log_every", "tensorboard"),
        "best_metric",
        *("data.workers", *(f"data.{name}" for name in CLS_DATA)),
    },
    ("seg", RESUMED): {
        *("data.workers", "data.root", "data.max_bad_share", "data.check", "device", "threads"),
        *("checkpoint.every", "checkpoint.keep", "weights", "max_batch_per_gpu", "tensorboard"),
        "visualize",
    },
    ("seg", AVERAGED): {
        *("seed", "variant", "device", "precision", "checkpoint", "log_every", "tensorboard"),
        *("best_metric", "jitter", "visualize", *(f"data.{name}" for name in SEG_DATA)),
    },
    ("det", RESUMED): {
        *("device", "threads", "tensorboard", "weights", "eval", "visualize", "keep"),
        *(*(f"data.{name}" for name in DET_DATA), *OPTS),
    },
    ("det", AVERAGED): {
        *("seed", "variant", "device", "precision", "keep", "log_every", "tensorboard"),
        *("visualize", "eval", "best_metric", "opts.OUTPUT_DIR"),
        *(*(f"data.{name}" for name in DET_DATA), *OPTS),
    },
}


@pytest.mark.parametrize(("kind", "mark"), MARKED)
def test_what_may_differ_is_what_the_fields_say(kind: str, mark: Free) -> None:
    """Written out once more: a key that is free by mistake mixes runs that are not alike."""
    assert marked(SCHEMAS[kind], mark) == MARKED[kind, mark]


class Marked(TrainConfig):
    note: Annotated[str | None, RESUMED] = Field(None, max_length=3)
    optim: Annotated[Optim, AVERAGED] = Optim()
    opts: Annotated[dict[str, object], Free("resumed", ("A.B",))] = Field({})
    added: int = 0


def test_a_field_without_a_mark_is_decisive() -> None:
    assert marked(Marked, RESUMED) == {"note", "opts.A.B"}
    assert marked(Marked, AVERAGED) == {"optim"}
    with pytest.raises(UsageError, match="started with added = 1; now it is 0"):
        refuse_changes(Path("x"), {**Marked(model="a").model_dump(), "added": 1}, Marked(model="a"))


def test_a_mark_covers_what_lies_below_its_key() -> None:
    assert covers({"optim"}, "optim.lr")
    assert covers({"optim.lr"}, "optim.lr")
    assert not covers({"optim"}, "optimizer")
    assert not covers({"optim.lr"}, "optim")


def test_a_marked_field_is_checked_as_before(here: Path) -> None:
    assert errors(Marked, None, "model=a", "note=long")[0].startswith("-o: 'note': must have at")


def test_flat_keys() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [{"e": 2}]}) == {"a.b": 1, "d": [{"e": 2}]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("data.root=", "-o: 'data.root' has no value; is a variable of the shell not set?"),
        ("data.root=  ", "-o: 'data.root' has no value"),
        ("data.root=/data/set #2", "-o: 'data.root': '#2' is a comment; to give text, quote it"),
        ("optim.betas=[0.9, 0.99] # x", "-o: 'optim.betas': '# x' is a comment"),
        (
            ".".join("a" * 3000) + "=1",
            "-o: 'a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.'...: a key of",
        ),
    ],
)
def test_an_override_that_would_be_read_as_another(given: str, message: str) -> None:
    """Nothing would be the default, and the name of a folder be cut."""
    with pytest.raises(UsageError) as error:
        load(ClsConfig, None, [given])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "text", ["a/b", "a #b", "#a", "a: b", "[a]", "1", "null", "", "true", "'a'", "*", "a#b", "é\n"]
)
def test_an_override_of_a_text_is_read_as_it(text: str) -> None:
    made = override("data.root", text)
    assert load(ClsConfig, None, [made]).data.root == text
    assert (made == f"data.root={text}") == (text in ("a/b", "a#b"))
