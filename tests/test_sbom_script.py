"""The bill of materials lists exactly the installed packages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import av


def test_every_pinned_package_is_listed_with_its_hashes_and_the_ffmpeg_inside(tmp_path):
    bill_file = tmp_path / "sbom.json"
    done = subprocess.run(
        [sys.executable, "scripts/sbom.py", "--output", str(bill_file)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")

    bill = json.loads(bill_file.read_text())
    listed = {part["name"]: part for part in bill["components"]}
    pinned = dict(
        re.findall(r"^([\w.-]+)==([^\s;]+)", Path("requirements.txt").read_text(), re.MULTILINE)
    )

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {name: part["version"] for name, part in listed.items()} == {
        **pinned,
        "ffmpeg": av.ffmpeg_version_info,
    }
    for name in pinned:
        (files,) = listed[name]["externalReferences"]
        assert files["hashes"], name
    # Installed packages have a licence; those of other platforms are listed without one.
    assert sum("licenses" in part for part in listed.values()) > len(pinned) / 2
