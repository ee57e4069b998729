"""Write the libraries to the folder that is named."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cuda_driver.no_kernels import build

if __name__ == "__main__":
    build(Path(sys.argv[1]))
