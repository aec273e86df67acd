"""The operator's own songs, from the lines of `scripts/separate.py --json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from tools.capacity import measured
from tools.capacity.plan import Load


class Unusable(Exception):
    """Raised when a file holds no receipts."""


@dataclass(frozen=True)
class Receipts:
    """The songs that succeeded: their receipts, and their stems' bytes."""

    receipts: list[dict[str, Any]]
    stem_bytes: int

    @classmethod
    def read(cls, path: Path) -> Receipts:
        """Read the lines of a file; songs that failed are left out.

        Raises:
            Unusable: it cannot be read, or no song in it succeeded.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            results = [json.loads(line) for line in lines if line.strip()]
            done = [result for result in results if result["status"] == "succeeded"]
            found = cls(
                [result["receipt"] for result in done],
                sum(stem["bytes"] for result in done for stem in result["stems"].values()),
            )
        except OSError as error:
            raise Unusable(f"{path}: {(error.strerror or str(error)).lower()}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise Unusable(
                f"{path} does not hold the output of scripts/separate.py --json: {error!r}"
            ) from error
        if not done:
            raise Unusable(f"{path} holds no song that was separated")
        return found

    def applied_to(self, load: Load) -> Load:
        """Return *load* with the songs' engine, speed, lengths and sizes.

        Raises:
            Unusable: more than one engine separated them.
        """
        engines = {receipt["engine"] for receipt in self.receipts}
        if len(engines) != 1 or not engines <= measured.ENGINES.keys():
            raise Unusable(f"The songs need one known engine, not {', '.join(sorted(engines))}")
        lengths = [receipt["source"]["seconds"] for receipt in self.receipts]
        working = sum(receipt["seconds"]["separate"] for receipt in self.receipts)
        return replace(
            load,
            engine=engines.pop(),
            realtime_factor=sum(lengths) / working,
            song_seconds=fmean(lengths),
            song_spread=pstdev(lengths) / fmean(lengths),
            stem_kbps=self.stem_bytes / 2 / sum(lengths) / 125,
        )
