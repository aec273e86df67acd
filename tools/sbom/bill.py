"""The services' software bill of materials, as CycloneDX."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import av
from cyclonedx.contrib.hash.factories import HashTypeFactory
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from pip_requirements_parser import RequirementsFile

from common.version import VERSION


def write(requirements: Path) -> str:
    """Return the bill of all packages in *requirements* and of PyAV's FFmpeg, as JSON."""
    parts = []
    for requirement in RequirementsFile.from_file(str(requirements)).requirements:
        name, version = requirement.name, requirement.get_pinned_version
        hashes = [HashTypeFactory().from_composite_str(each) for each in requirement.hash_options]
        files = ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION,
            url=XsUri(f"https://pypi.org/project/{name}/{version}/#files"),
            hashes=hashes,
        )
        purl = PackageURL("pypi", name=name, version=version)
        package = Component(
            name=name,
            version=version,
            purl=purl,
            bom_ref=str(purl),
            external_references=[files],
            licenses=_licences(name),
        )
        parts.append(package)
    ffmpeg = Component(
        name="ffmpeg",
        version=av.ffmpeg_version_info,
        description="FFmpeg's libraries, inside the wheel of av",
    )
    parts.append(ffmpeg)
    whole = Component(name="uvr-pipeline", version=VERSION, type=ComponentType.APPLICATION)
    bill = Bom(components=parts)
    bill.metadata.component = whole
    bill.register_dependency(whole, parts)
    return JsonV1Dot6(bill).output_as_string(indent=2) + "\n"


def _licences(name: str) -> list[License]:
    """Return the licence of the installed package; nothing for one of another platform."""
    try:
        facts = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in facts.get_all("Classifier") or []
        if "License ::" in text
    ]
    names = [
        *(facts.get_all("License-Expression") or []),
        *classifiers,
        *(facts.get_all("License") or []),
    ]
    # Some packages have the licence's whole text in place of its name.
    return [LicenseFactory().make_from_string(name) for name in names[:1] if "\n" not in name]
