"""`python3 keras_resnet/launcher OPTION ... -- train ...`: run_tpu.sh starts it as a folder."""

import sys
from pathlib import Path

# As a folder, Python would import the modules here as top-level ones. Behind the standard library
# instead of before it, the folder above hides none of its modules.
sys.path[0:1] = []
sys.path.append(str(Path(__file__).resolve().parent.parent))

from launcher.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
