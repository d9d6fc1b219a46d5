"""Two parts of the build that pyproject.toml cannot express: links in the sdist, and the page on a package index."""

from __future__ import annotations

import os
import re
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
LINKS = sorted(path.relative_to(ROOT) for path in (ROOT / "alchemist_ray").iterdir() if path.is_symlink())


class SdistWithLinks(sdist):
    """Keeps the symbolic links of the tree, so that the archive has each file once and unpacks to a working tree.

    Setuptools follows the links: it would copy ``mpi_backend/`` a second time, to ``alchemist_ray/mpi_backend/``.
    """

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy `files` to `base_dir`, and the links as links."""
        behind_links = tuple(f"{link}{os.sep}" for link in LINKS)
        super().make_release_tree(base_dir, [file for file in files if not file.startswith(behind_links)])
        for link in LINKS:
            Path(base_dir, link).symlink_to(os.readlink(link))


def description(readme: str) -> str:
    """Return the README for a package index, where no file of the tree can be linked to.

    A link to a file becomes the path of the file. A picture of the tree is omitted.
    """
    within = r"\]\((?!\w+:|#)([^)\s]+)\)"
    text = re.sub(rf"^!\[[^\]]*{within}\s*$\n?", "", readme, flags=re.MULTILINE)
    text = re.sub(rf"\[([^\]]*){within}", _as_path, text)
    return f"{text.rstrip()}\n\nFiles such as `docs/architecture.md` are in the source distribution.\n"


def _as_path(link: re.Match[str]) -> str:
    text, path = link.groups()
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"


if __name__ == "__main__":
    setup(
        cmdclass={"sdist": SdistWithLinks},
        long_description=description((ROOT / "README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
    )
