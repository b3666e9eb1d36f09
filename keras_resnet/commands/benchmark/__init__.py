"""usage: keras-resnet benchmark SUBJECT [--flag=value ...]

Measures how fast one part of training runs on this machine. SUBJECT is one of

  input       the input pipeline: images/s of each stage, and the cores it takes
  step        the compiled training step: images/s, compile time, memory, FLOP/s

keras-resnet benchmark SUBJECT --help shows the flags of a subject."""

SUMMARY = "Measure the speed of the input pipeline or of the training step (input, step)."

# Subject -> a command module of its own.
SUBCOMMANDS = {
    "input": "keras_resnet.commands.benchmark.input",
    "step": "keras_resnet.commands.benchmark.step",
}
