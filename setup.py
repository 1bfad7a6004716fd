"""Map the folders cli/, prompts/ and data/ into the package; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["safesail", "safesail.*"]),
        "safesail.cli",
        "safesail.prompts",
        "safesail.data",
    ],
    package_dir={
        "safesail.cli": "cli",
        "safesail.prompts": "prompts",
        "safesail.data": "data",
    },
)
