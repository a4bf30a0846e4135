"""A configuration is taken as written or refused with what to correct."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import eosr
from eosr.errors import TrainingError
from eosr.train.settings.config import TrainConfig, load_config

PLAIN = 'name = "t"\n'


@pytest.fixture
def write(tmp_path):
    def written(text: str) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(text)
        return path

    return written


def refusal(path) -> str:
    with pytest.raises(TrainingError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_taken_and_the_rest_has_defaults(write):
    config = load_config(write('name = "t"\nsteps = 7\nclip = 1\n[shares]\nstest = 0.5\n[window]\nsize = 24\n'))
    assert (config.name, config.steps, config.clip, config.shares) == ("t", 7, 1, {"stest": 0.5})
    assert (config.window.size, config.window.rim, config.batch, config.generator.features) == (24, 8, 16, 64)


@pytest.mark.parametrize("name", ["s2sr-20m", "s2sr-60m"])
def test_the_configurations_of_the_shipped_weights_load(name):
    config = load_config(Path(eosr.__file__).parent / "nn" / "shipped" / f"{name}.toml")
    assert config.name == name
    assert config.generator.factor == config.window.factor == {"s2sr-20m": 2, "s2sr-60m": 6}[name]


def test_a_typo_is_refused_with_the_known_keys(write):
    text = refusal(write(PLAIN + "step = 7\n"))
    assert "run.toml: unknown key step. Known keys: name, seed, initial, steps, precision" in text


def test_a_typo_in_a_table_names_the_table_and_its_keys(write):
    text = refusal(write(PLAIN + "[window]\nsise = 24\n"))
    assert (
        "run.toml [window]: unknown key sise. Known keys: factor, size, rim, operators, gain, band_gain, contrast"
        in text
    )


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "no.toml").endswith("no.toml. Name a TOML file.")


def test_a_folder_is_refused(tmp_path):
    assert "cannot be read" in refusal(tmp_path)


def test_a_file_that_is_no_toml_is_refused_with_its_line(write):
    assert "is not valid TOML" in (text := refusal(write(PLAIN + "steps 7\n")))
    assert "line 2" in text


def test_a_file_nested_without_end_is_refused(write):
    assert "nested too deep for a configuration" in refusal(write("a = " + "[" * 100_000))


def test_a_configuration_without_a_name_is_refused(write):
    assert "'name'. Add the missing key." in refusal(write("steps = 7\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('steps = "many"', "steps = 'many' is no int. Correct that line."),
        ("batch = 0", "run.toml: batch = 0 cannot work. Give 1 or more."),
        ("every = 0", "every = 0 cannot work. Give 1 or more."),
        ("steps = -1", "steps = -1 cannot work. Give 1 or more."),
        ("learning_rate = 0.0", "learning_rate = 0.0 cannot work. Give more than 0."),
        ("learning_rate = nan", "learning_rate = nan cannot work."),
        ("ema = 1.0", "ema = 1.0 never forgets the first weights. Give less than 1."),
        ("ema = -0.1", "ema = -0.1 cannot work. Give 0 or more."),
        ("warmup = -3", "warmup = -3 cannot work. Give 0 or more."),
        ("clip = 0.0", "clip = 0.0 cannot work. Give more than 0."),
        ("[window]\nrim = -1", "run.toml [window]: rim = -1 cannot work. Give 0 or more."),
        ("[window]\nsize = 0", "[window]: size = 0 cannot work. Give 1 or more."),
        ("[window]\nsize = 70", "size 70 with rim 8 cannot work. Give a size that is a multiple of 4"),
        ("[generator]\nstages = 0", "run.toml [generator]: stages = 0 cannot work. Give 1 or more."),
        ("steps = 7.5", "steps = 7.5 is no int"),
        ("clip = true", "clip = True is no float"),
        ("shares = 3", "shares = 3 is no dict"),
        ("generator = 3", "[generator] is 3, not a table of settings"),
        ("[window]\noperators = 0.3", "operators = 0.3 is no tuple"),
        ("[window]\noperators = [0.5, 0.5]", "operators [0.5, 0.5] are no chances of study, box, mtf, mtf_diff"),
        ("[window]\noperators = [0.5, 0.5, 0.5, 0.5]", "Give 4 numbers with a sum of at most 1."),
        ("[window]\nsize = 70\nfactor = 6\n[generator]\nfactor = 6\ntargets = 2\nmiddle_guides = 6", "multiple of 12"),
        ("[window]\nsize = 16", "size 16 with rim 8 cannot work"),
        ("[window]\nfactor = 6", "[generator] has factor 2 and [window] factor 6"),
        ("[window]\nfactor = 6\n[generator]\nfactor = 6", "has targets = 2, fine_guides = 4 and middle_guides = 6"),
        ("[shares]\na = 0.7\nb = 0.7", "Give numbers with a sum of at most 1."),
        ('loss = "l2"', "run.toml: loss = 'l2' is unknown. Give 'charbonnier', 'l1'."),
        ('optimiser = "sgd"', "optimiser = 'sgd' is unknown. Give 'muon', 'adamw', 'adam', 'nadam'."),
        ('precision = "fp16"', "precision = 'fp16' is unknown. Give 'bfloat16', 'float32', 'float64'."),
        ('schedule = "step"', "schedule = 'step' is unknown."),
        ('scaling = "sqrt"', "scaling = 'sqrt' is unknown. Give 'none', 'linear', 'modified'."),
        ('scaling = "modified"', "scaling = 'modified' halves the rate, schedule = 'cosine' does not. Give schedule"),
        ("betas = [0.9, 1.0]", "betas = [0.9, 1.0] cannot work. Give two numbers in [0, 1)."),
        ("betas = [0.9]", "Give two numbers in [0, 1)."),
        ('betas = ["a", "b"]', "betas = ('a', 'b') is no tuple"),
        ("floor = 2.0", "floor = 2.0 is above the highest rate. Give 1 or less."),
        ("tensorboard = 1", "tensorboard = 1 is no bool"),
        ("readers = 0", "readers = 0 cannot work. Give 1 or more."),
        ("[validation]\noperators = ['gauss']", "run.toml [validation]: operators = ['gauss'] is unknown."),
        ("[validation]\noperators = []", "run.toml [validation]: operators = [] is unknown."),
        (
            "[validation]\noperators = ['box']\n[window]\noperators = [1.0, 0.0, 0.0, 0.0]",
            "run.toml [validation]: no window is degraded by box (see operators below [window]). Validate under study.",
        ),
        ("[validation]\npatience = -1", "run.toml [validation]: patience = -1 cannot work. Give 0 or more."),
        ("[adversarial]\nloss = 'lsgan'", "run.toml [adversarial]: loss = 'lsgan' is unknown. Give '', 'vanilla'"),
        ("[adversarial]\nkind = 'unet'", "run.toml [adversarial]: kind = 'unet' is unknown."),
        ("[adversarial]\nloss = 'hinge'\nweight = 0.1", "Give one of them above 0, the other as 0."),
        ("[adversarial]\nloss = 'hinge'\ngradient_ratio = 0.0", "Give one of them above 0, the other as 0."),
        ("[adversarial]\nramps = 1", "run.toml [adversarial]: unknown key ramps. Known keys: loss, weight"),
        (
            "[adversarial]\nloss = 'hinge'\n[window]\nsize = 20",
            "windows of 4 pixels without rim are too small for a discriminator of 3 stages.",
        ),
    ],
)
def test_a_value_that_cannot_work_is_refused(text, said, write):
    assert said in refusal(write(PLAIN + text + "\n"))


def test_the_documentation_lists_every_key_with_its_default():
    """The table of docs/how-to/train-weights.md against the dataclasses, in order."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "train-weights.md").read_text()
    table = page[page.index("| key | default |") : page.index("## Other kinds")]
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines() if line.startswith("| `")]
    told = {key.strip("`"): default for key, default in rows}
    plain = TrainConfig(name="x")
    expected = {}
    for name in (f.name for f in fields(TrainConfig)):
        part = getattr(plain, name)
        if is_dataclass(part):
            expected |= {f"[{name}] {f.name}": getattr(part, f.name) for f in fields(part)}
        elif name not in ("kind", "shares"):
            expected[name] = part
    for key, default in expected.items():
        assert key in told, f"{key} is not in the table"
        given = "required" if key == "name" else toml_of(default)
        assert told[key] == given, key
    assert set(told) - set(expected) <= {"[shares]", "[generator] kind"}, "keys that no longer are"


def toml_of(value) -> str:
    if isinstance(value, str):
        return f'`"{value}"`' if value else "none"
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{one}"' if isinstance(one, str) else repr(one) for one in value) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
