"""python tools/services/supervisor_main.py FOLDER: keeps the instances in FOLDER; services.py
starts it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(
        Path(__file__).resolve().parents[2]
    )  # the checkout instead of tools/services/

from tools.services.supervisor import Supervisor

if __name__ == "__main__":
    supervisor = Supervisor(Path(sys.argv[1]), os.environ)
    supervisor.listen()
    supervisor.run()
