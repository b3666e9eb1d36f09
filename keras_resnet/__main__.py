"""`python -m keras_resnet` is the command `keras-resnet`, without its quick start."""

import sys

from keras_resnet.commands import main

if __name__ == "__main__":
    sys.exit(main())
