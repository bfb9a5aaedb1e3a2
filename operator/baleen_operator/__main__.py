"""Run the operator: `python -m baleen_operator`."""

import sys

from baleen_core.importing import lasting

with lasting():
    from baleen_operator.main import main

sys.exit(main())
