"""Run the supervisor of the instances in a folder: supervisor_main.py FOLDER.

scripts/services.py starts it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # The checkout instead of tools/services/.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tools.services.supervisor import Supervisor

if __name__ == "__main__":
    supervisor = Supervisor(Path(sys.argv[1]), os.environ)
    supervisor.listen()
    supervisor.run()
