"""Compile the training step for a Cloud TPU on a machine without one, and read what it will cost.

`topologies` the chips and slices, `lowering` from the trainer's step to the compiler's input,
`compiler` the real TPU compiler in a process of its own, `jax_step` the same for the JAX engine's
whole slice; `hlo`, `collectives` and `roofline` read what it made; `published` and `calibration`
what real chips do, `cost` the run's minutes and money; `report` the figures, `by_size` those of a
schedule of image sizes, `describe` them in words, `plot` the picture; `search` and `tune` for more
than one compilation.
"""
