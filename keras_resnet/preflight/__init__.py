"""Compile the training step for a Cloud TPU on a machine without one, and read what it will cost.

`topologies` the chips and slices, `lowering` from the trainer's step to the compiler's input,
`compiler` the real TPU compiler in a process of its own, `hlo` reading what it made, `report` the
figures, `search` and `tune` for more than one compilation, `plot` the picture.
"""
