"""Exit with 0 if this Python has what the given requirement files ask for; else say what is missing."""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement


def unmet(line: str) -> bool:
    requirement = Requirement(line)
    try:
        return not requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return True


lines = [line.split("#")[0].strip() for file in sys.argv[1:] for line in Path(file).read_text().splitlines()]
missing = [line for line in lines if line and not line.startswith("-r") and unmet(line)]
if missing:
    sys.exit(f"setup: missing {', '.join(missing)}")
