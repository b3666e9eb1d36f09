"""From a folder of labelled images to the config of a run.

splits     what to train on, to choose by and to report
device     what computes, and about how fast
recipe     network, image size, epochs, rates
plan       all of it as a config, and the lines that say why
"""
