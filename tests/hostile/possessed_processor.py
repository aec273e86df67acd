"""processor.py whose songs can take over their processes; see possessed.py."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

    import processor
    from common.separation.child import Separator

    sys.argv = ["processor.py"]
    processor.Separator = partial(Separator, module="tools.fuzz.possessed")  # type: ignore[attr-defined,assignment]
    sys.exit(processor.main())
