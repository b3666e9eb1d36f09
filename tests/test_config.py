"""Config files, overrides and their error messages; none of it imports TensorFlow."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags as absl_flags

from keras_resnet import config as configs
from keras_resnet.commands import main
from keras_resnet.config import overrides, records
from keras_resnet.config.keras_optimizers import OptimizerNames, keras_optimizers, parse_arguments
from keras_resnet.config.key import FREELY, NO, NOTED, Key, Range
from keras_resnet.config.registries import Registry
from keras_resnet.config.schema import KEYS
from keras_resnet.errors import UsageError, UserError, close_names, did_you_mean, nearest

REFERENCES = Path(__file__).parent / "references"


def parse(config, *arguments):
    """Applies command-line arguments to a config as the commands do."""
    flags = absl_flags.FlagValues()
    overrides.define(flags)
    try:
        flags(["test", *arguments])
    except absl_flags.UnrecognizedFlagError as error:
        overrides.check_flag(error.flagname)
        raise
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
        ("--config.optimizer.momentun=0.9", "'optimizer.momentum'"),
        ("--noconfig.optimizer.nestrov", "'optimizer.nesterov'"),
        ("--noconfig.epochs", "there is no flag --noconfig.epochs: write --config.epochs=VALUE"),
        ("--config.batchsize=3", "'batch_size'"),
        ("--config.lr=3", "'optimizer.learning_rate'"),
        ("--config.optimizer=sgd", "is a group"),
        ("--config.schedule.boundaries=(3,", "(3,"),
        ("--config.epochs=abc", "epochs='abc' is not an integer; for example --config.epochs=90"),
        ("--config.optimizer.learning_rate=fast", "is not a number; for example"),
        ("--config.model.dropout_rate=x", "for example --config.model.dropout_rate=0.2"),
        ("--config.loss.class_weights=a,b", "example --config.loss.class_weights='(1.0, 3.0)'"),
        ("--config.model.residual=perhaps", "is not true or false"),
    ],
)
def test_bad_overrides_quote_the_value_and_the_nearest_key(argument, quoted):
    with pytest.raises(UsageError) as error:
        parse(configs.default_config(), argument)
    assert quoted in str(error.value)


@pytest.mark.parametrize(
    ("name", "argument", "quoted"),
    [
        ("RMSprp", "rho=0.5", "Did you mean 'RMSprop'"),
        ("muon", "ns_steps=3", "Did you mean 'Muon'"),
        ("Adamw", "beta_1=0.5", "Did you mean 'adamw'"),
        ("LossScaleOptimizer", "", "is not one of the"),
        ("RMSprop", "roh=0.5", "rho, momentum, epsilon, centered; did you mean 'rho'"),
        ("RMSprop", "rho", "should be NAME=VALUE, such as rho=0.9"),
        ("RMSprop", "rho=high", "rho of RMSprop takes a number, for example rho=0.9"),
        ("RMSprop", "rho=none", "rho of RMSprop takes a number"),
        ("RMSprop", "rho=1e999", "rho of RMSprop takes a number"),
        ("RMSprop", "centered=1", "takes true or false, for example centered=False"),
        ("Muon", "ns_steps=2.5", "takes a whole number, for example ns_steps=5"),
        ("Muon", "exclude_layers=3", "takes a list of texts or None"),
        ("Lion", "weight_decay=0.1", "set config.optimizer.weight_decay"),
        ("Lion", "use_ema=true", "set config.ema.decay"),
        ("Lion", "name=x", "Lion takes beta_1, beta_2"),
        ("Lion", "beta_1=0.5,beta_1=0.6", "has beta_1 twice"),
        ("sgd", "momentum=0.5", "goes with optimizers of Keras by name"),
    ],
)
def test_bad_arguments_of_keras_optimizers(name, argument, quoted):
    config = configs.default_config()
    config.optimizer.name = name
    with pytest.raises(UsageError) as error:
        configs.check(parse(config, f"--config.optimizer.arguments={argument}"))
    assert quoted in str(error.value)


@pytest.mark.parametrize(
    ("name", "key", "value", "quoted"),
    [
        ("RMSprop", "momentum", 0.5, "and write config.optimizer.arguments=momentum=0.5"),
        ("Lion", "nesterov", False, "leave config.optimizer.nesterov at True"),
    ],
)
def test_keys_that_a_keras_optimizer_does_not_hear_of(name, key, value, quoted):
    config = configs.default_config()
    config.optimizer.name, config.optimizer[key] = name, value
    with pytest.raises(UsageError) as error:
        configs.check(config)
    assert quoted in str(error.value)


def test_arguments_of_keras_optimizers():
    config = configs.default_config()
    config.optimizer.name = "Muon"
    given = "ns_steps=3,rms_rate=none,nesterov=false,adam_lr_ratio=2,exclude_layers=predictions"
    config = configs.check(parse(config, f"--config.optimizer.arguments={given}"))
    assert parse_arguments(config) == {
        "ns_steps": 3,
        "rms_rate": None,
        "nesterov": False,
        "adam_lr_ratio": 2.0,
        "exclude_layers": ["predictions"],
    }
    config.optimizer.arguments = ("exclude_layers=['stem', 'predictions']",)
    assert parse_arguments(config) == {"exclude_layers": ["stem", "predictions"]}


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("--config.strategy=mirored", "Did you mean 'mirrored'"),
        ("--config.precision=bfloat16", "Did you mean 'mixed_bfloat16'"),
        ("--config.xla=yes", "auto, on, off"),
        ("--config.model.name=Cifarresnet20", "that there are. Did you mean 'CifarResNet20'"),
        ("--config.model.name=x", "that there are. `keras-resnet config model.name` has them."),
        ("--config.batch_size=0", "at least 1"),
        ("--config.epochs=99999999999999999999", "at least 1 and at most 1,000,000"),
        ("--config.devices=99999999999999999999", "at least 0 and at most 4,096"),
        ("--config.optimizer.learning_rate=-1", "must be at least 0"),
        ("--config.optimizer.learning_rate=nan", "not a finite number"),
        ("--config.optimizer.momentum=1", "below 1"),
        ("--config.data.crop_ratio=0", "must be above 0 and at most 1"),
        ("--config.data.max_broken_share=1.5", "data.max_broken_share is 1.5; it must be in 0..1"),
        ("--config.data.augment.policy=trivail", "Did you mean 'trivial'"),
        ("--config.tensorboard.profile_steps=(5,3)", "(first, last + 1)"),
        ("--config.data.mean=(0.5,)", "three numbers"),
        ("--config.data.std=(1e400,1,1)", "std=(inf, 1, 1) is not a finite number"),
        ("--config.seed=4294967296", "at least 0 and at most 4,294,967,295"),
        ("--config.data.std=(0.5,0.5,0.0)", "above 0"),
        ("--config.schedule.name=step", "boundaries"),
        ("--config.schedule.boundaries=(5,3)", "rising"),
        ("--config.model.unfreeze_epoch=2", "nothing to unfreeze; set config.model.freeze=body"),
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
        ("\nraise SystemExit(3)", "failed in line 2 with SystemExit: 3"),
        ("def get_config(): return {'model': {'widths': ['8']}}", "widths=('8',) takes numbers"),
        ("BASE = 3\ndef get_config(): return {}", "BASE=3 is not a text"),
        ("BASE = 'mine.py'\ndef get_config(): return {}", "builds on itself"),
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
    with pytest.raises(UsageError, match=r"Did you mean 'digits'"):
        configs.load_config("digit")


def test_overrides_in_all_their_forms():
    config = configs.default_config()
    config.model.dropout_rate = 0.5
    parse(
        config,
        "--config.schedule.boundaries=3,5.5",
        "--config.model.depths=2",
        "--config.model.widths=",
        "--config.model.dropout_rate=None",
        "--config.model.shortcut=B",
        "-config.ema.warmup=false",
        "--config.epochs=3",
        "--config.epochs=4",
    )
    assert config.schedule.boundaries == (3, 5.5)
    assert (config.model.depths, config.model.widths) == ((2,), ())
    assert (config.model.dropout_rate, config.model.shortcut) == (None, "B")
    assert (config.ema.warmup, config.epochs) == (False, 4)


def test_every_key_says_what_it_does():
    for name, key in KEYS.items():
        assert key.name == name
        assert key.help[0].isupper() or key.help.split(":")[0] in key.allowed(), name
        assert key.help.endswith("."), name
        assert not key.allowed() or key.default in (None, *key.allowed()), name
        assert key.range is None or key.default in key.range, name
        assert set(key.formerly) <= set(range(1, configs.CONFIG_VERSION)), name
        assert key.resume in (NO, NOTED, FREELY), name
        # What a run without the key meant is said for each older version, and only for those.
        assert set(key.absent) == set(range(1, key.since)), name
        assert key.since <= configs.CONFIG_VERSION
        shown = key.default if key.example is None else key.example
        text = str(shown)
        assert key.parse(text) == shown, name


@pytest.mark.parametrize(
    "registry",
    [key.choices for key in KEYS.values() if isinstance(key.choices, Registry)],
    ids=lambda registry: registry.table,
)
def test_names_read_from_source_are_those_of_the_imported_registry(registry):
    table = getattr(importlib.import_module(f"keras_resnet.{registry.module}"), registry.table)
    of_keras = keras_optimizers() if isinstance(registry, OptimizerNames) else ()
    assert registry.names() == (*registry.also, *table, *of_keras)


def test_a_registry_that_is_not_there_says_so():
    with pytest.raises(LookupError, match="no table NOTHING"):
        Registry("training.optimizers", "NOTHING").names()


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "words"),
    [
        (Range(low=1), 1, 0.5, "at least 1"),
        (Range(low=0, open_low=True), 1e-9, 0, "above 0"),
        (Range(0, 1, open_high=True), 0, 1, "at least 0 and below 1"),
        (Range(0, 1, open_low=True), 1, 0, "above 0 and at most 1"),
    ],
)
def test_ranges(limits, inside, outside, words):
    assert inside in limits
    assert outside not in limits
    assert str(limits) == words


def _plain(values):
    """JSON has lists for tuples."""
    return json.loads(json.dumps(values))


# What later versions changed: a new key's value in older files, and another default.
LATER = {
    "engine": "tensorflow",
    "distributed.coordinator": "",
    "distributed.num_processes": 0,
    "distributed.process_id": -1,
    "log_gradient_norms": "off",
    "fused_step": "never",
    "data.exclude": "",
    "model.classifier_initializer": "normal",
    "model.kernel_initializer": None,
    "model.padding": None,
    "model.antialias": None,
    "data.resize": "round",
    "data.sampler": "shuffle",
    "data.test_split": "",
    "evaluation.image_size": 0,
    "model.unfreeze_epoch": 0,
    "model.weights_match": "names",
    "model.weights_rename": (),
    "optimizer.arguments": (),
    "evaluation.tta": "none",
    "distill.teacher": "",
    "distill.temperature": 4.0,
    "distill.weight": 0.9,
    "schedule.patience": 10,
    "early_stopping.patience": 0,
    "checkpoint.model": "newest",
    "data.exif": "ignore",
    "data.max_pixels": 2**28,
    "data.scaled_decoding": "never",
    "data.multi_label": False,
    "report": True,
    "training.callbacks": (),
}
OTHER_DEFAULTS = {"precision": "float32", "model.zero_init_last_gamma": True}


def test_defaults_are_those_of_the_first_version_but_for_what_the_table_says():
    recorded = dict(
        configs.flatten(json.loads((REFERENCES / "config_defaults_1.json").read_text()))
    )
    now = dict(configs.flatten(_plain(configs.default_config().to_dict())))
    assert {name: KEYS[name].absent[1] for name in LATER} == LATER
    assert {name: KEYS[name].formerly[1] for name in OTHER_DEFAULTS} == OTHER_DEFAULTS
    today = {**_plain(LATER), "model.classifier_initializer": None, "data.exif": "auto"}
    today["log_gradient_norms"] = today["engine"] = today["fused_step"] = "auto"
    today["data.scaled_decoding"] = "auto"
    assert {**now, **OTHER_DEFAULTS} == {**recorded, **today}
    assert now["model.zero_init_last_gamma"] is None
    assert [name for name, key in KEYS.items() if key.formerly] == list(OTHER_DEFAULTS)


def test_config_json_of_the_first_version_is_read_unchanged():
    path = REFERENCES / "config_version_1.json"
    config = configs.from_json(path.read_text(), str(path))
    recorded = json.loads(path.read_text())
    assert "config_version" not in recorded
    assert dict(configs.flatten(_plain(config.to_dict()))) == {
        **dict(configs.flatten(recorded)),
        **_plain(LATER),
    }
    assert config.schedule.boundaries == (3, 5)
    assert config.data.augment.color_jitter == (0.4, 0.4, 0.4, 0.1)
    again = configs.from_json(configs.to_json(config), "config.json")
    assert again == config
    for name, value in _plain(LATER).items():
        *groups, key = name.split(".")
        holder = recorded.setdefault(*groups, {}) if groups else recorded
        holder[key] = value
    assert json.loads(configs.to_json(config)) == {
        "config_version": configs.CONFIG_VERSION,
        **recorded,
    }
    # What version 1 called bicubic has another name today.
    recorded["data"]["interpolation"] = "bicubic"
    for version, meaning in ((1, "bicubic_float"), (2, "bicubic")):
        text = json.dumps({"config_version": version, **recorded})
        assert configs.from_json(text, "config.json").data.interpolation == meaning


def test_json_round_trip_and_later_keys():
    config = configs.load_config("digits")
    text = configs.to_json(config)
    assert configs.from_json(text, "config.json") == config
    older = {"config_version": configs.CONFIG_VERSION, **config.to_dict()}
    del older["tensorboard"]
    assert configs.from_json(json.dumps(older), "config.json") == config
    assert records.changes(config, config) == {}
    other = configs.load_config("digits")
    other.epochs = 31
    assert records.describe_changes(records.changes(config, other)) == "epochs: 8 -> 31"


def test_a_key_of_a_later_version_means_in_older_files_what_the_table_says(monkeypatch):
    later = Key("loss.sum_classes", False, help="", since=3, absent={1: True, 2: False})
    monkeypatch.setitem(KEYS, "loss.sum_classes", later)
    monkeypatch.setattr(records, "CONFIG_VERSION", 3)
    values = configs.default_config().to_dict()
    del values["loss"]["sum_classes"]

    def read(**version):
        return configs.from_json(json.dumps({**version, **values}), "config.json").loss.sum_classes

    assert read() is True
    assert [read(config_version=version) for version in (1, 2, 3)] == [True, False, False]
    values["loss"]["sum_classes"] = False
    assert read() is False


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (
            configs.CONFIG_VERSION + 1,
            "a newer one wrote it: pip install --upgrade keras-resnet-tpu",
        ),
        (
            "1",
            f"must be an integer from 1 to {configs.CONFIG_VERSION}; put a copy of it",
        ),
        (
            0,
            f"must be an integer from 1 to {configs.CONFIG_VERSION}; put a copy of it",
        ),
        (
            None,
            f"must be an integer from 1 to {configs.CONFIG_VERSION}; put a copy of it",
        ),
    ],
)
def test_other_versions_of_config_json_are_refused(version, advice):
    text = json.dumps({"config_version": version, "epochs": 3})
    with pytest.raises(UsageError) as error:
        configs.from_json(text, "runs/a/config.json")
    assert f"runs/a/config.json: config_version is {version!r}" in str(error.value)
    assert advice in str(error.value)


def test_a_config_json_that_is_none():
    for text in ("{", "[1]", "", "null", "[" * 100_000):
        with pytest.raises(UsageError, match=r"config\.json is not"):
            configs.from_json(text, "config.json")


def test_what_may_change_when_a_run_resumes():
    recorded = configs.load_config("digits")
    changed = parse(
        configs.load_config("digits"),
        "--config.data.path=/elsewhere",
        "--config.strategy=mirrored",
        "--config.checkpoint.keep=7",
    )
    found = records.check_resumption(recorded, changed, "--workdir=w")
    assert records.select_changes(found, NOTED) == {
        "strategy": ("auto", "mirrored"),
        "data.path": ("", "/elsewhere"),
    }
    assert records.select_changes(found, FREELY) == {"checkpoint.keep": (3, 7)}
    changed.seed = 31
    with pytest.raises(UserError) as error:
        records.check_resumption(recorded, changed, "--workdir=w")
    message = str(error.value)
    assert "--workdir=w belongs to a run with another config: seed: 0 -> 31." in message
    assert "only deterministic, engine, strategy, devices, " in message
    assert "data.path" in message


def test_what_changes_the_mathematics_may_not_change():
    for name, key in KEYS.items():
        if name.startswith(("optimizer.", "schedule.", "loss.", "ema.", "data.augment.")):
            assert key.resume == NO, name
    assert {KEYS[name].resume for name in ("seed", "batch_size", "precision")} == {NO}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("optimizer.lr", "optimizer.learning_rate"),
        ("pretrained", "model.weights"),
        ("bs", "batch_size"),
        ("wd", "optimizer.weight_decay"),
        ("weight_decay", "optimizer.weight_decay"),
        ("num_epochs", "epochs"),
        ("size", "data.image_size"),
        ("img_size", "data.image_size"),
        ("resolution", "data.image_size"),
        ("arch", "model.name"),
        ("model", "model.name"),
        ("random_seed", "seed"),
        ("num_workers", "devices"),
        ("mixup", "data.augment.mixup"),
        ("label_smoothing", "loss.label_smoothing"),
        ("milestones", "schedule.boundaries"),
    ],
)
def test_words_of_other_libraries_lead_to_the_key(typed, meant):
    assert close_names(typed, KEYS)[0] == meant


def test_did_you_mean():
    assert did_you_mean("flipp", ["flip", "crop"]) == " Did you mean 'flip'?"
    assert nearest("flipp", ["flip", "crop"]) == "; did you mean 'flip'?"
    assert did_you_mean("xyz", ["flip", "crop"]) == nearest("xyz", ["flip", "crop"]) == ""
    assert did_you_mean(49, ["ResNet50"]) == ""
    assert close_names("resnet49", ["ResNet18", "ResNet50", "ResNet34"])[0] == "ResNet50"


def test_config_lists_every_key(capsys):
    assert main(["config"]) == 0
    printed = capsys.readouterr().out
    for name, key in KEYS.items():
        assert f"  {name} = {key.default!r}" in printed
        assert key.help in " ".join(printed.split())
    assert "\n* " not in printed
    assert "(one of sgd, lars, adamw, lamb, Ad" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_config_marks_what_differs_and_takes_keys_and_groups(capsys):
    assert main(["config", "digits", "--config.seed=7"]) == 0
    printed = capsys.readouterr().out
    values = dict(configs.flatten(configs.load_config("digits")))
    marked = [line.split()[1] for line in printed.splitlines() if line.startswith("* ")]
    assert marked == ["seed", *[name for name in KEYS if values[name] != KEYS[name].default]]
    assert "* epochs = 8  (at least 1 and at most 1,000,000; default 90; resume: noted)" in printed
    assert main(["config", "digits", "epochs", "data.augment"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(" = ") == 1 + sum(name.startswith("data.augment.") for name in KEYS)


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        (["lr"], "'lr' is not a config, a key or a group of keys. Did you mean 'optimizer.learn"),
        (["digitz"], "Did you mean 'digits'"),
        (["digits", "cifar10", "epochs"], "name one config, not digits and cifar10"),
        ([""], "'' is not a config"),
        (["none.py"], "none.py is neither"),
        (["--config.epochs=0"], "at least 1"),
    ],
)
def test_config_refuses_what_is_neither(arguments, quoted, capsys):
    assert main(["config", *arguments]) == 2
    assert quoted in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["config"],
        ["config", "resnet50_imagenet"],
        ["train", "--config.x=1"],
        ["train", "--config=digits", "--workdir=w", "--config.optimizer.name=sdg"],
        ["train", "--config=digits", "--workdir=w", "--config.model.name=ResNet51"],
        ["libtpu-flags", "train", "--config=resnet50_imagenet_tpu"],
    ],
)
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
    assert done.returncode == (2 if arguments[0] == "train" and "--help" not in arguments else 0)
