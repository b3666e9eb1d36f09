"""usage: keras-resnet benchmark SUBJECT [--flag=value ...]

Measures one part of a run on this machine:

  input       the input pipeline: images/s of each stage, and the cores it takes
  step        the compiled training step: images/s, compile time, memory, FLOP/s

keras-resnet benchmark SUBJECT --help shows the flags of a subject."""

SUMMARY = "Measure a part of a run on this machine (input, step)."

# Subject -> a command module of its own.
SUBCOMMANDS = {
    "input": "keras_resnet.commands.benchmark_input",
    "step": "keras_resnet.commands.benchmark_step",
}
