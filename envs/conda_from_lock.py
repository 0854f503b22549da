"""Write the conda file from the lock: the same versions of the same packages."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def conda_file(lock):
    """Return the text of a conda environment that holds exactly what `lock` pins."""
    pins = re.findall(r"^([a-z0-9._-]+==[^\s\\]+)", lock, flags=re.MULTILINE)
    lines = "\n".join(f"      - {pin}" for pin in pins)
    return (
        "# Made from cpu.lock by `make lock`.\n"
        "channels:\n  - conda-forge\n  - nodefaults\n"
        "dependencies:\n  - python=3.11\n  - pip\n  - pip:\n"
        f"{lines}\n"
    )


if __name__ == "__main__":
    (HERE / "cpu.yaml").write_text(conda_file((HERE / "cpu.lock").read_text()))
