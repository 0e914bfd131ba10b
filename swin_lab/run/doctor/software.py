"""Checks of installed packages: the releases that swin_lab needs, and those that are known to be bad."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from swin_lab.run.doctor.findings import Finding

SHOWN = ("torch", "torchvision", "lightning", "timm")
"""Packages whose versions are shown."""

KNOWN_BAD = {
    "lightning==2.6.2": "a malicious upload that steals credentials (advisory GHSA-w37p-236h-pfx3); change your passwords",
    "lightning==2.6.3": "a malicious upload that steals credentials (advisory GHSA-w37p-236h-pfx3); change your passwords",
    "pillow==11.2.1": "it crashes on some images, such as n04532106_1553 of ImageNet (python-pillow/Pillow issue 8957)",
}
"""Release -> what is wrong with it, and where that is said."""


def check_software() -> Iterator[Finding]:
    """Yields what is found of Python and packages."""
    shown = ", ".join(f"{name} {_version(name)}" for name in SHOWN)
    yield Finding("versions", f"Python {platform.python_version()}, {shown}")
    wrong = [text for package in ("swin-lab", "torchvision") for text in unsatisfied(package)]
    advice = "Install the releases that are needed: pip install --upgrade swin-lab"
    yield Finding("requirements", "; ".join(wrong), "problem", advice) if wrong else Finding("requirements", "satisfied")
    bad = [f"{release}: {reason}" for release, reason in KNOWN_BAD.items() if _is_installed(Requirement(release))]
    advice = "Install another release"
    yield Finding("bad releases", "; ".join(bad), "problem", advice) if bad else Finding("bad releases", "none is installed")


def unsatisfied(package: str) -> list[str]:
    """Returns the requirements of a package that the installed releases do not satisfy."""
    try:
        needed = [Requirement(text) for text in requires(package) or ()]
    except PackageNotFoundError:
        return [f"{package} is not installed"]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = [one for one in needed if not _is_installed(one)]
    return [f"{package} needs {one.name}{one.specifier}, found {_version(one.name)}" for one in wrong]


def _is_installed(requirement: Requirement) -> bool:
    found = _version(requirement.name)
    return found != "none" and requirement.specifier.contains(found, prereleases=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
