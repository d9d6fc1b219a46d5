"""``python -m alchemist_ray.cli`` is the command ``alchemist``."""

import sys

from alchemist_ray.cli import main

if __name__ == "__main__":
    sys.exit(main())
