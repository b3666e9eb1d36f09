"""keras-resnet preflight without the TPU compiler: reading its output, arithmetic, errors."""

import json
import sys

import pytest

from keras_resnet.commands import main
from keras_resnet.preflight import collectives, compiler, hlo, search, tune
from keras_resnet.preflight import report as reports
from keras_resnet.preflight.compiler import Compiled
from keras_resnet.preflight.describe import describe
from keras_resnet.preflight.lowering import Lowered, lower_train_step
from keras_resnet.preflight.plot import draw
from keras_resnet.preflight.report import Report
from keras_resnet.preflight.topologies import CHIPS, parse_topology
from keras_resnet.training import load_config

# Shortened from a real program: what the parser meets in one. S(1) is on-chip memory.
PROGRAM = """\
HloModule step, is_scheduled=true

%fused_computation.1 (param_0.1: bf16[8,4,4,16], param_1.1: bf16[3,3,16,16]) -> bf16[8,4,4,16] {
  %param_0.1 = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  %param_1.1 = bf16[3,3,16,16]{3,2,1,0} parameter(1)
  ROOT %convolution.1 = bf16[8,4,4,16]{3,2,1,0} convolution(%param_0.1, %param_1.1), window={size=3x3}
}

%fused_computation.2 (param_0.2: bf16[8,4,4,16]) -> f32[16] {
  %param_0.2 = bf16[8,4,4,16]{3,2,1,0} parameter(0)
  ROOT %reduce.1 = f32[16]{0} reduce(%param_0.2, %zero), dimensions={0,1,2}, to_apply=%sum
}

%fused_computation.3 (param_0.3: f32[16]) -> f32[16] {
  %param_0.3 = f32[16]{0} parameter(0)
  ROOT %add.1 = f32[16]{0} add(%param_0.3, %param_0.3)
}

%body (state: (f32[16])) -> (f32[16]) {
  %state = (f32[16]{0}) parameter(0)
  %item = f32[16]{0} get-tuple-element(%state), index=0
  %add.2 = f32[16]{0} fusion(%item), kind=kLoop, calls=%fused_computation.3, backend_config={"window_config":{"estimated_cycles":"7"}}
  ROOT %tuple.1 = (f32[16]{0}) tuple(%add.2)
}

ENTRY %main (images: bf16[8,4,4,16], kernel: bf16[3,3,16,16]) -> f32[16] {
  %images = bf16[8,4,4,16]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  %kernel = bf16[3,3,16,16]{3,2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  %fusion.1 = bf16[8,4,4,16]{3,0,2,1:T(8,128)(2,1)} fusion(%images, %kernel), kind=kOutput, calls=%fused_computation.1, metadata={op_name="net_1/stage1_block1_conv1_1/convolution"}, backend_config={"window_config":{"estimated_cycles":"1000"}}
  %fusion.2 = (f32[16]{0:T(128)S(1)}, bf16[8,4,4,16]{3,0,2,1:T(8,128)(2,1)}) fusion(%fusion.1), kind=kInput, calls=%fused_computation.2, metadata={op_name="gradient_tape/net_1/stage2_block1_norm1_1/FusedBatchNormGradV3"}, backend_config={"window_config":{"estimated_cycles":"300"}}
  %copy.1 = bf16[8,4,4,16]{0,3,2,1} copy(%fusion.1), metadata={op_name="net_1/stem_conv_1/convolution"}, backend_config={"window_config":{"estimated_cycles":"50"}}
  %select-and-scatter.1 = bf16[8,8,8,16]{3,0,2,1} select-and-scatter(%fusion.1, %copy.1, %zero.1), window={size=1x3x3x1}, metadata={op_name="gradient_tape/net_1/pool_1/MaxPoolGrad"}, backend_config={"window_config":{"estimated_cycles":"200"}}
  %while.1 = (f32[16]{0}) while(%tuple.2), condition=%until, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %result = f32[16]{0} get-tuple-element(%while.1), index=0
}
"""  # noqa: E501
LAYERS = ("stem_conv", "stage1_block1_conv1", "stage2_block1_norm1", "pool")
MIB, GIB = 1 << 20, 1 << 30


def lowered(batch=128, **changes):
    values = {
        "hlo": b"",
        "batch": batch,
        "model_flops": 3 * 2 * 4e9 * batch,
        "gradient_bytes": 100_000_000,
        "variable_bytes": GIB // 4,
        "parameters": 25_000_000,
        "layers": LAYERS,
    }
    return Lowered(**{**values, **changes})


@pytest.mark.parametrize(("train_size", "size"), [(0, 8), (16, 16)], ids=["one size", "two"])
def test_the_step_sees_images_of_the_training_size(train_size, size):
    tiny = {"model.depths": (1,), "model.widths": (16,), "data.train_image_size": train_size}
    config = load_config("smoke", tiny)
    step = lower_train_step(config, batch=4, classes=10)
    # The stem 3x3x3x16, a block of two 3x3x16x16, the classifier 16x10.
    multiply_adds = size * size * (3 * 3 * 3 * 16 + 2 * 3 * 3 * 16 * 16) + 16 * 10
    assert step.model_flops == 3 * 2 * 4 * multiply_adds
    # A shape in the serialized program: field 3, four numbers of a byte each.
    assert bytes([3 << 3 | 2, 4, *(4, size, size, 3)]) in step.hlo


def test_instructions_of_a_program():
    found = {entry.name: entry for entry in hlo.instructions(PROGRAM, LAYERS)}
    assert list(found) == ["fusion.1", "fusion.2", "select-and-scatter.1", "copy.1", "add.2"]
    rows = [
        (entry.cycles, entry.kind, entry.backward, entry.layer, entry.stage)
        for entry in found.values()
    ]
    assert rows == [
        (1000, "convolution", False, "stage1_block1_conv1", "stage1"),
        (300, "reduction", True, "stage2_block1_norm1", "stage2"),
        (200, "pooling", True, "pool", "head"),
        (50, "copy", False, "stem_conv", "stem"),
        (5 * 7, "elementwise", False, "", "other"),
    ]
    assert hlo.estimated_cycles(found.values()) == 1585
    image = 8 * 4 * 4 * 16 * 2
    # Images read and written; the kernel is on the chip, as are the sums of the reduction.
    assert found["fusion.1"].hbm_bytes == 2 * image
    assert found["fusion.2"].hbm_bytes == 2 * image
    assert found["add.2"].hbm_bytes == 2 * 16 * 4


SLICE = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%summed (p: f32[100]) -> f32[100] {
  %p = f32[100]{0} parameter(0)
  ROOT %inner = f32[100]{0} all-reduce(%p), to_apply=%add
}

ENTRY %main (g: f32[1000], h: f32[250], k: f32[100]) -> f32[1000] {
  %g = f32[1000]{0} parameter(0)
  %h = f32[250]{0} parameter(1)
  %k = f32[100]{0} parameter(2)
  %all-reduce-start.1 = f32[1000]{0:T(1024)} all-reduce-start(%g), to_apply=%add
  %negate.1 = f32[250]{0:S(1)} negate(%h), backend_config={"estimated_cycles":"700"}
  %async.1 = ((f32[100]{0}), f32[100]{0}, u32[]) async-start(%k), calls=%summed
  %negate.2 = f32[250]{0} negate(%negate.1), backend_config={"estimated_cycles":"40"}
  %done.1 = f32[1000]{0} all-reduce-done(%all-reduce-start.1)
  %negate.3 = f32[250]{0} negate(%negate.2), backend_config={"estimated_cycles":"2"}
  %done.2 = f32[100]{0} async-done(%async.1), calls=%summed
  %all-reduce.3 = (f32[250]{0:S(1)}, f32[4]{0}) all-reduce(%negate.3, %k), to_apply=%add
  ROOT %add.9 = f32[1000]{0} add(%done.1, %done.1), backend_config={"estimated_cycles":"9"}
}
"""


ASYNCHRONOUS = """HloModule jit_step, is_scheduled=true

%begin (p: f32[1000000]) -> (f32[1000000], u32[]) {
  %p = f32[1000000]{0} parameter(0)
  %inner = f32[1000000]{0} all-reduce(%p), frontend_attributes={chain_id="3"}, to_apply=%add
  ROOT %call = (f32[1000000]{0}, u32[]) custom-call(%inner), custom_call_target="AsyncCollectiveStart"
}

%between (p: f32[1000000], q: f32[8]) -> (f32[8], f32[1000000]) {
  %p = f32[1000000]{0} parameter(0)
  %q = f32[8]{0} parameter(1)
  %inner = f32[1000000]{0} all-reduce(%p), frontend_attributes={chain_id="3"}, to_apply=%add
  ROOT %both = (f32[8]{0}, f32[1000000]{0}) tuple(%q, %inner)
}

%end (p: f32[1000000]) -> f32[1000000] {
  %p = f32[1000000]{0} parameter(0)
  %inner = f32[1000000]{0} all-reduce(%p), frontend_attributes={chain_id="3"}, to_apply=%add
  ROOT %call = f32[1000000]{0} custom-call(%inner), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (g: f32[1000000], h: f32[8]) -> f32[1000000] {
  %g = f32[1000000]{0} parameter(0)
  %h = f32[8]{0} parameter(1)
  %start = (f32[1000000]{0}, u32[]) fusion(%g), kind=kCustom, calls=%begin
  %fusion.7 = (f32[8]{0}, f32[1000000]{0}) fusion(%g, %h), kind=kOutput, calls=%between, backend_config={"estimated_cycles":"30000"}
  %part = f32[1000000]{0} get-tuple-element(%fusion.7), index=1
  ROOT %done = f32[1000000]{0} fusion(%part), kind=kCustom, calls=%end
}
"""  # noqa: E501


def test_a_sum_in_fusions_that_compute_is_hidden_for_as_long_as_they_take():
    (found,) = collectives.all_reduces(ASYNCHRONOUS)
    assert (found.size, found.hidden_cycles) == (4_000_000, 30_000)
    compiled = Compiled("", False, 8 * GIB, 0, flops=3e12, bytes_accessed=4e10, text=ASYNCHRONOUS)
    figures = Report(parse_topology("v5e:4x4"), lowered(), compiled, engine="jax").figures()
    # 20 µs at 1.5 GHz, of 2 · 15 / 16 · 4 MB at 100 GB/s = 75 µs.
    assert figures["all_reduce_hidden_bytes"] == pytest.approx(4_000_000 * 20 / 75, rel=1e-6)


def test_sums_over_chips_and_what_hides_them():
    found = [(one.size, one.hidden_cycles) for one in collectives.all_reduces(SLICE)]
    assert found == [(4000, 740), (400, 42), (1016, 0)]
    topology = parse_topology("v5e:4x4")
    compiled = Compiled("", False, 8 * GIB, 0, flops=3e12, bytes_accessed=4e10, text=SLICE)
    report = Report(topology, lowered(), compiled, engine="jax")
    figures = report.figures()
    assert (figures["all_reduces"], figures["all_reduce_bytes"]) == (3, 5416)
    assert figures["all_reduce_hidden_bytes"] == 4400
    waits = 2 * 15 / 16 * 1016 / 1e11
    assert figures["all_reduce_seconds_by_formula"] == pytest.approx(waits)
    assert "in 3 sums, 81% of it behind computation" in describe(report)


@pytest.mark.parametrize(
    "name",
    [
        "jit(traced)/shard_map/transpose(jvp(stage1_block1_conv1))/conv",
        "stage1_block1_conv1_1/x",
    ],
)
def test_layers_in_the_names_of_both_engines(name):
    negate = f'negate(%a), metadata={{op_name="{name}"}}'
    program = (
        "ENTRY %main (a: f32[4]) -> f32[4] {\n"
        "  %a = f32[4]{0} parameter(0)\n"
        f'  ROOT %r = f32[4]{{0}} {negate}, backend_config={{"estimated_cycles":"3"}}\n'
        "}\n"
    )
    (found,) = hlo.instructions(program, LAYERS)
    assert (found.layer, found.backward) == ("stage1_block1_conv1", "transpose" in name)


def test_figures_are_the_arithmetic_of_the_program():
    topology = parse_topology("v5e:4x4")
    compiled = Compiled("", False, 8 * GIB, 0, flops=3e12, bytes_accessed=4e10, text=PROGRAM)
    figures = Report(topology, lowered(), compiled).figures()
    assert figures["compiles"] is figures["fits"] is True
    assert (figures["chips"], figures["hosts"], figures["batch_size"]) == (16, 4, 16 * 128)
    assert figures["estimated_cycles"] == 1585
    seconds = 1585 / 1.5e9
    assert figures["step_seconds"] == pytest.approx(seconds)
    assert figures["images_per_second_per_chip"] == pytest.approx(128 / seconds)
    assert figures["arithmetic_intensity"] == pytest.approx(75)
    utilization = 3 * 2 * 4e9 * 128 / seconds / 197e12
    assert figures["model_flop_utilisation"] == pytest.approx(utilization)
    # Ring: 15/16 of the gradients out twice, at 100 GB/s.
    reduce = 2 * 15 / 16 * 1e8 / 1e11
    assert figures["all_reduce_seconds_by_formula"] == pytest.approx(reduce)
    assert figures["images_per_second"] == pytest.approx(16 * 128 / (seconds + reduce))
    assert figures["images_per_second_per_host"] == pytest.approx(4 * 128 / (seconds + reduce))
    assert figures["cycles_by_kind"] == {
        **{"convolution": 1000, "reduction": 300, "pooling": 200, "copy": 50, "elementwise": 35}
    }
    assert sum(figures["cycles_by_stage"].values()) == 1585
    text = describe(Report(topology, lowered(), compiled), measured_input=1000.0)
    for word in ("fits", "estimate", "by formula", "stage1_block1_conv1", "one was measured"):
        assert word in text
    json.dumps(figures)


def test_two_cores_of_a_chip_are_two_replicas():
    topology = parse_topology("v3:2x2")
    assert (topology.chips, topology.replicas, topology.hosts) == (4, 8, 1)
    compiled = Compiled(hbm_needed_bytes=17 * GIB, text=PROGRAM)
    report = Report(topology, lowered(), compiled)
    assert report.exit_code == reports.DOES_NOT_FIT  # 16 GiB are a core's
    figures = report.figures()
    assert figures["images_per_second_per_chip"] == pytest.approx(2 * 128 * 0.94e9 / 1585)
    assert figures["model_flop_utilisation"] == pytest.approx(
        3 * 2 * 4e9 * 128 * 0.94e9 / 1585 / 61.5e12
    )


def test_parts_of_accumulation_count():
    compiled = Compiled(flops=1e12, bytes_accessed=1e10, text=PROGRAM)
    figures = Report(parse_topology("v5e:2x2"), lowered(), compiled, parts=4).figures()
    assert figures["batch_size"] == 4 * 4 * 128
    assert figures["estimated_cycles"] == 4 * 1585
    assert figures["flops"] == 4e12
    assert sum(figures["cycles_by_kind"].values()) == 4 * 1585


def test_peaks_follow_from_clock_and_matrix_units():
    """Independent of the table: side and number of a chip's matrix units, from the same papers."""
    units = {"v2": (128, 2), "v3": (128, 4), "v4": (128, 8), "v5e": (128, 4), "v5p": (128, 8)}
    for name, (side, count) in {**units, "v6e": (256, 4)}.items():
        chip = CHIPS[name]
        assert 2 * side * side * count * chip.clock == pytest.approx(chip.flops, rel=0.01), name


@pytest.mark.parametrize(
    ("name", "replicas", "hosts", "accelerator"),
    [
        ("v2:2x2", 8, 1, "v2-8"),
        ("v4:2x2x1", 4, 1, "v4-8"),
        ("v4:2x2x4", 16, 4, "v4-8"),
        ("v5e:1x1", 1, 1, "v5litepod-4"),
        ("v5e:2x4", 8, 1, "v5litepod-4"),
        ("v5e:4x4", 16, 4, "v5litepod-4"),
        ("v5p:2x2x1", 4, 1, "v5p-8"),
        ("v6e:2x4", 8, 1, "v6e-4"),
    ],
)
def test_slices(name, replicas, hosts, accelerator):
    topology = parse_topology(name)
    assert (topology.replicas, topology.hosts) == (replicas, hosts)
    assert topology.chip.accelerator_type(topology.chip.smallest) == accelerator


OUT_OF_MEMORY = """\
RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used \
22.50G of 15.75G hbm. Exceeded hbm capacity by 6.75G.

Total hbm usage >= 22.75G:
"""


def test_errors_of_the_compiler():
    fields = compiler.read_error(OUT_OF_MEMORY)
    assert fields["hbm_needed_bytes"] == 22.5 * GIB
    assert fields["hbm_limit_bytes"] == 15.75 * GIB
    report = Report(parse_topology("v5e:2x2"), lowered(), Compiled(**fields))
    assert report.exit_code == reports.DOES_NOT_FIT
    assert "22.50 GiB of 15.75 GiB per replica: does NOT fit" in describe(report)
    # The compiler has made no program, and memory is the reason.
    assert "compiles     no: it needs too much memory" in describe(report)
    figures = report.figures()
    assert (figures["compiles"], figures["fits"], figures["reason"]) == (False, False, "memory")
    early = compiler.read_error(
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (15.87G) exceeds available HBM (15.75G). HLO module: a."
    )
    assert (early["out_of_memory"], early["hbm_limit_bytes"]) == (True, 15.75 * GIB)
    assert early["hbm_needed_bytes"] == round(15.87 * GIB)
    fields = compiler.read_error("\nINTERNAL: Mosaic failed\nmore")
    assert fields == {"error": "INTERNAL: Mosaic failed", "out_of_memory": False}
    report = Report(parse_topology("v5e:2x2"), lowered(), Compiled(**fields))
    assert report.exit_code == reports.DOES_NOT_COMPILE
    assert "compiles     no: INTERNAL: Mosaic failed" in describe(report)
    figures = report.figures()
    assert figures["estimated_cycles"] is None
    assert (figures["compiles"], figures["reason"]) == (False, "compiler")


@pytest.mark.parametrize("most", [200, 8, 0, 511])
def test_search_finds_the_largest_batch(most):
    """On a compiler whose memory grows faster than a straight line, as rematerialization ends."""
    topology = parse_topology("v5e:2x2")

    def compiled(batch):
        need = (GIB // 4) + int((15 * GIB) * (batch / max(most, 1)) ** 1.2 * 15.5 / 15.25)
        limit = need if batch == most else int(15.75 * GIB)
        fits = batch <= most
        needed = min(need, limit) if fits else max(need, limit + 1)
        return Report(
            topology, lowered(batch), Compiled("" if fits else "OOM", not fits, needed, limit)
        )

    largest, tried = search.largest_batch(compiled, compiled(512), most_tries=12)
    assert largest == most // 8 * 8
    assert all(report.lowered.batch % 8 == 0 for report in tried)
    assert len({report.lowered.batch for report in tried}) == len(tried)


def test_tuning_tries_other_batches_with_the_best_flags():
    topology = parse_topology("v5e:2x2")
    asked = []

    def compile_with(flags, batch):
        asked.append((flags, batch))
        cycles = {"": 1000, "--fast": 600, "--broken": 0}[flags] * (batch / 128) ** 0.9
        text = PROGRAM.replace('"1000"', f'"{int(cycles)}"') if cycles else ""
        return Report(topology, lowered(batch), Compiled("" if text else "no such flag", text=text))

    trials = list(tune.tune(compile_with, (128, 256), ("", "--fast", "--broken")))
    assert asked == [("", 128), ("--fast", 128), ("--broken", 128), ("--fast", 256)]
    assert max(trials, key=lambda trial: trial.images_per_second).batch == 256
    assert "no such flag" in tune.describe(trials[2])


def test_picture(tmp_path, monkeypatch):
    from matplotlib.axes import Axes
    from PIL import Image

    titles = []
    set_all = Axes.set
    monkeypatch.setattr(
        Axes, "set", lambda axes, **said: titles.append(said["title"]) or set_all(axes, **said)
    )
    path = tmp_path / "cycles.png"
    draw(Report(parse_topology("v5e:2x2"), lowered(), Compiled(text=PROGRAM)), path, "ResNet")
    assert titles == ["ResNet: estimate of the compiler, not measured"]
    image = Image.open(path)
    assert image.size[0] == 1080
    # Convolutions have two thirds of the cycles: theirs is the color most seen after the white.
    colors = sorted(image.convert("RGB").getcolors(1 << 20), reverse=True)
    assert [color for _, color in colors[:2]] == [(255, 255, 255), (0x44, 0x77, 0xAA)]


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        ([], "--config is missing; for example: keras-resnet preflight --config="),
        (["--config=smoke", "--topology=v5:2x2"], "Did you mean 'v5p' or 'v5e'"),
        (["--config=smoke", "--topology=v5e"], "v5e:2x2"),
        (["--config=smoke", "--topology=v4:2x2"], "slices of v4 have 3 sides"),
        (["--config=smoke", "--topology=v5e:16x16", "--config.batch_size=100"], "take 256"),
        (["--config=smoke", "--topology=v5e:2x2", "--config.epoch=1"], "'epochs'"),
    ],
)
def test_wrong_use(arguments, quoted, capsys):
    assert main(["preflight", *arguments]) == 2
    message = capsys.readouterr().err
    assert quoted in message
    assert message.count("\n") == 1


def test_without_the_compiler_the_extra_is_named(capsys, monkeypatch):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "libtpu" else find(name)
    )
    assert main(["preflight", "--config=smoke", "--topology=v5e:2x2"]) == 1
    assert "keras-resnet-tpu[preflight]" in capsys.readouterr().err


def test_a_file_that_is_no_input_result(capsys, tmp_path):
    path = tmp_path / "input.json"
    path.write_text("{}")
    arguments = ["--config=smoke", "--topology=v5e:2x2", f"--input={path}"]
    assert main(["preflight", *arguments]) == 1
    assert (
        f"--input={path} is not a result of keras-resnet benchmark input" in capsys.readouterr().err
    )


def test_a_compiler_that_crashes_is_no_crash_of_ours(monkeypatch):
    monkeypatch.setattr(compiler, "__name__", "keras_resnet.no_such_module")
    result = compiler.compile_step(b"", CHIPS["v5e"])
    assert "the TPU compiler ended" in result.error
    assert "no_such_module" in result.error
    assert sys.executable in result.error or "No module" in result.error
