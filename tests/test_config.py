"""Config files, overrides and their error messages; none of it imports TensorFlow."""

import subprocess
import sys

import pytest
from absl import flags as absl_flags

from keras_resnet import config as configs
from keras_resnet.config import overrides
from keras_resnet.errors import UsageError


def parse(config, *arguments):
    """Applies command-line arguments to a config as the commands do."""
    flags = absl_flags.FlagValues()
    overrides.define(flags)
    flags(["test", *overrides.collect(arguments, flags)])
    return overrides.apply(config, flags)


@pytest.mark.parametrize("name", configs.bundled_configs())
def test_bundled_configs_are_complete_and_valid(name):
    config = configs.check(configs.load_config(name))
    assert [key for key, _ in configs.flatten(config)] == [
        key for key, _ in configs.flatten(configs.default_config())
    ]


def test_the_keys_promised_to_users_exist():
    keys = dict(configs.flatten(configs.default_config()))
    promised = (
        "seed strategy precision xla batch_size epochs model.name data.source data.name data.path"
    )
    assert set(promised.split()) | {"data.image_size"} <= set(keys)
    assert keys["strategy"] == "auto"


def test_overrides_take_the_type_of_the_key():
    config = parse(
        configs.default_config(),
        "--config.epochs=7",
        "--config.optimizer.learning_rate",
        "1",
        "--config.data.augment.flip",
        "--noconfig.optimizer.nesterov",
        "--config.schedule.boundaries=(3, 5)",
        "--config.data.path=a b=c",
        "--config.model.drop_path_rate=0.1",
        "--config.model.residual=false",
    )
    assert (config.epochs, config.optimizer.learning_rate) == (7, 1.0)
    assert type(config.optimizer.learning_rate) is float
    assert config.data.augment.flip is True
    assert config.optimizer.nesterov is False
    assert config.schedule.boundaries == (3, 5)
    assert config.data.path == "a b=c"
    assert (config.model.drop_path_rate, config.model.residual) == (0.1, False)
    assert config.model.dropout_rate is None  # the variant's own


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("--config.epochs=ten", "ten"),
        ("--config.epochs=1.5", "1.5"),
        ("--config.optimizer.nesterov=maybe", "maybe"),
        ("--config.optimizer.momentum=0.9", "'optimizer.momentum'"),
        ("--config.batchsize=3", "'batch_size'"),
        ("--config.optimizer=sgd", "is a group"),
        ("--config.schedule.boundaries=(3,", "(3,"),
    ],
)
def test_bad_overrides_quote_the_value_and_the_nearest_key(argument, quoted):
    with pytest.raises(UsageError) as error:
        parse(configs.default_config(), argument)
    assert quoted in str(error.value)


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("--config.strategy=mirored", "did you mean 'mirrored'"),
        ("--config.precision=bfloat16", "did you mean 'mixed_bfloat16'"),
        ("--config.xla=yes", "auto, on, off"),
        ("--config.model.name=Cifarresnet20", "did you mean 'CifarResNet20'"),
        ("--config.batch_size=0", "at least 1"),
        ("--config.optimizer.learning_rate=-1", "must not be negative"),
        ("--config.optimizer.learning_rate=nan", "not a finite number"),
        ("--config.optimizer.momentum=1", "below 1"),
        ("--config.data.crop_ratio=0", "(0, 1]"),
        ("--config.data.mean=(0.5,)", "three numbers"),
        ("--config.data.std=(0.5,0.5,0.0)", "above 0"),
        ("--config.schedule.name=step", "boundaries"),
        ("--config.schedule.boundaries=(5,3)", "rising"),
    ],
)
def test_bad_values_are_refused_before_anything_starts(argument, quoted):
    with pytest.raises(UsageError) as error:
        configs.check(parse(configs.default_config(), argument))
    assert quoted in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("def get_config(): return {'epoch': 3}", "'epochs'"),
        ("def get_config(): return {'epochs': '3'}", "takes int"),
        ("def get_config(): return {'model': 'ResNet'}", "is a group"),
        ("def get_config(): return 3", "TypeError"),
        ("def get_config(: return {}", "SyntaxError"),
        ("x = 1", "get_config"),
    ],
)
def test_broken_config_files_say_what_is_wrong(tmp_path, text, quoted):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        configs.load_config(str(path))
    assert quoted in str(error.value)
    assert "mine.py" in str(error.value)


def test_own_config_file_needs_only_its_differences(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def get_config(): return {'epochs': 3, 'optimizer': {'learning_rate': 1}}")
    config = configs.load_config(str(path))
    expected = configs.default_config()
    expected.epochs, expected.optimizer.learning_rate = 3, 1.0
    assert config.to_dict() == expected.to_dict()


def test_unknown_config_names_the_nearest():
    with pytest.raises(UsageError, match=r"did you mean 'digits'"):
        configs.load_config("digit")


def test_json_round_trip_and_later_keys():
    config = configs.load_config("digits")
    text = configs.to_json(config)
    assert configs.from_json(text, "config.json") == config
    older = config.to_dict()
    del older["tensorboard"]
    import json

    assert configs.from_json(json.dumps(older), "config.json") == config
    assert configs.differing_keys(config, config) == []
    other = configs.load_config("digits")
    other.epochs = 31
    assert configs.differing_keys(other, config) == ["epochs: 30 -> 31"]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--config.x=1"]])
def test_help_and_usage_errors_do_not_import_tensorflow(arguments):
    program = (
        "import sys; from keras_resnet.commands import main; code = main(sys.argv[2:]); "
        "print(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules))); sys.exit(code)"
    )
    # The name of the command is what keeps the package light.
    command = [
        sys.executable,
        "-c",
        f"import sys, keras_resnet_cli; keras_resnet_cli.defer_loading(); {program}",
        "-",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] in ("[]", "['numpy']"), done.stdout + done.stderr
    assert done.returncode == (0 if "--help" in arguments else 2)
