"""Write each conda file from its lock: the same versions of the same packages."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def conda_file(name):
    """Return the text of a conda environment that holds exactly what `{name}.lock` pins."""
    lock = (HERE / f"{name}.lock").read_text()
    pins = re.findall(r"^([a-z0-9._-]+==[^\s\\]+)", lock, flags=re.MULTILINE)
    lines = "\n".join(f"      - {pin}" for pin in pins)
    return (
        f"# Made from {name}.lock by `make lock`.\n"
        "channels:\n  - conda-forge\n  - nodefaults\n"
        "dependencies:\n  - python=3.11\n  - pip\n  - pip:\n"
        f"{lines}\n"
    )


if __name__ == "__main__":
    for name in ("cpu", "gpu", "light"):
        (HERE / f"{name}.yaml").write_text(conda_file(name))
