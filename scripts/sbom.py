"""python scripts/sbom.py [--output FILE]

The software bill of materials of the two services: every package of requirements.txt with its
version, licence and hashes, and the FFmpeg that PyAV brings along, as CycloneDX 1.6 in JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # The checkout takes the place of scripts/, where kafka.py would be found for `import kafka`.
    sys.path[0] = str(ROOT)

from tools.environment import venv

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bill and return the exit code."""
    options = _parser().parse_args(arguments)
    venv.ensure()
    from cyclonedx.output.json import JsonV1Dot6

    text = JsonV1Dot6(_bill()).output_as_string(indent=2) + "\n"
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")
    return 0


def _bill() -> Bom:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType

    from common.version import VERSION

    parts = [*_packages(ROOT / "requirements.txt"), _ffmpeg()]
    whole = Component(name="uvr-pipeline", version=VERSION, type=ComponentType.APPLICATION)
    bill = Bom(components=parts)
    bill.metadata.component = whole
    bill.register_dependency(whole, parts)
    return bill


def _packages(requirements: Path) -> Iterator[Component]:
    """Yield the packages of a file that pins each with its hashes; those of other platforms are
    among them.
    """
    from cyclonedx.contrib.hash.factories import HashTypeFactory
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
    from cyclonedx.model.component import Component
    from packageurl import PackageURL
    from pip_requirements_parser import RequirementsFile

    for requirement in RequirementsFile.from_file(str(requirements)).requirements:
        name, version = requirement.name, requirement.get_pinned_version
        files = ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION,
            url=XsUri(f"https://pypi.org/project/{name}/{version}/#files"),
            hashes=[
                HashTypeFactory().from_composite_str(option) for option in requirement.hash_options
            ],
        )
        purl = PackageURL("pypi", name=name, version=version)
        licences = _licences(name)
        yield Component(
            name=name,
            version=version,
            purl=purl,
            bom_ref=str(purl),
            external_references=[files],
            licenses=licences,
        )


def _licences(name: str) -> list[License]:
    """Return what the installed package says of its licence; nothing for one of another platform."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    try:
        facts = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in facts.get_all("Classifier") or []
        if "License ::" in text
    ]
    said = [
        *(facts.get_all("License-Expression") or []),
        *classifiers,
        *(facts.get_all("License") or []),
    ]
    # Some have the whole text of the licence where its name belongs.
    return [LicenseFactory().make_from_string(name) for name in said[:1] if "\n" not in name]


def _ffmpeg() -> Component:
    import av
    from cyclonedx.model.component import Component

    version = av.ffmpeg_version_info
    return Component(
        name="ffmpeg", version=version, description="FFmpeg's libraries, inside the wheel of av"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sbom.py",
        description=__doc__,
        epilog="Exit codes: 0 done; 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there (standard output)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
