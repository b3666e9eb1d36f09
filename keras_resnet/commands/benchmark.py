"""usage: keras-resnet benchmark SUBJECT [--flag=value ...]

Measures one part of a run on this machine:

  step        the compiled training step: images/s, compile time, memory, FLOP/s

keras-resnet benchmark SUBJECT --help shows the flags of a subject."""

SUMMARY = "Measure a part of a run on this machine (step)."

# Subject -> a command module of its own.
SUBCOMMANDS = {
    "step": "keras_resnet.commands.benchmark_step",
}
