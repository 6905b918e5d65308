"""The README as a package index shows it, and where its links lead.

``project.urls`` of pyproject.toml is the one place with the address of the repository. Once it has
a ``Repository``, links and pictures of the README lead there, and badges stand below its title.
"""

from __future__ import annotations

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(r"\]\((?!https?://|#)([^)]+)\)")
"""Where a link in Markdown leads, if not to an address."""
BADGES = """\
[![tests]({0}/actions/workflows/test.yml/badge.svg)]({0}/actions/workflows/test.yml)
[![PyPI](https://img.shields.io/pypi/v/scovert)](https://pypi.org/project/scovert)
[![codecov](https://codecov.io/gh/{1}/graph/badge.svg)](https://codecov.io/gh/{1})
"""


class ReadmeHook(MetadataHookInterface):
    """Fill the dynamic field ``readme``."""

    def update(self, metadata: dict) -> None:
        """Read README.md, and give its links the address of the repository if there is one."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        if repository:
            text = with_addresses(text, repository, f"v{metadata['version']}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def with_addresses(text: str, repository: str, tag: str) -> str:
    """Return the README with badges, and links to the files of a tag of the repository."""

    def lead(match: re.Match) -> str:
        kind = "raw" if match[1].endswith(".png") else "blob"
        return f"]({repository}/{kind}/{tag}/{match[1]})"

    title, rest = RELATIVE.sub(lead, text).split("\n", 1)
    badges = BADGES.format(repository, "/".join(repository.split("/")[-2:]))
    return f"{title}\n\n{badges}{rest}"
