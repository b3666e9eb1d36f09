"""The launcher behind `run_tpu.sh launch`: looks at a TPU, decides the next step and takes it.

It runs on a workstation that has gcloud and Python 3.9 or later, and nothing of this project
installed: Python's standard library only, and nothing of the rest of the package, whose import
needs Keras.
"""
