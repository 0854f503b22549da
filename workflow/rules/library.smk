"""Where the library and the default config are: this workflow may be a module of another one.

They are beside these rules or, for a module from GitHub, in Snakemake's cache. Snakemake
fetches what it is asked for, so library.txt names each file.
"""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(str(workflow.current_basedir), "..", "..").resolve()
if not workflow.current_basedir.is_local:
    for file in Path(workflow.source_path("../library.txt")).read_text().split():
        fetched = workflow.source_path(f"../../{file}")
    ROOT = Path(fetched.removesuffix(file)).resolve()
    for program in ROOT.glob("profiles/*/bin/*"):
        program.chmod(0o755)  # Snakemake's cache keeps the text alone

sys.path.insert(0, f"{ROOT}/scripts")
# In jobs, too, this library comes before one that is installed.
os.environ.update(
    PYTHONPATH=os.pathsep.join(
        [f"{ROOT}/scripts", *filter(None, [os.environ.get("PYTHONPATH")])]
    )
)

import hemagrid

if ROOT not in Path(hemagrid.__file__).resolve().parents:
    raise WorkflowError(
        f"found two libraries of hemagrid in one workflow, {ROOT} and "
        f"{Path(hemagrid.__file__).parents[2]}, expected one: give all modules the same source "
        "and tag, or run a workflow for each"
    )


configfile: f"{ROOT}/config/config.yaml"


# A profile names rules. Under other names, jobs would run without their GPU.
NAMED = workflow.resource_settings.overwrite_resources
LOST = {
    name: renamed
    for name in NAMED
    if Path(ROOT, "scripts", f"{name}.py").exists()
    and (renamed := workflow.modifier.avail_rulename(name)) not in (None, *NAMED)
}
if LOST:
    raise WorkflowError(
        f"set-resources: found {', '.join(LOST)}, which this workflow calls "
        f"{', '.join(LOST.values())}, expected these names: their jobs would run without what the "
        "profile gives them. Profiles of hemagrid have a line `rules:` for it, see docs/module.md"
    )

# The environment of rules that compute with Keras. Where the profile asks for GPUs, it has CUDA.
ON_GPU = any("gpu" in asked or "gres" in asked for asked in NAMED.values())
NETWORKS = f"../../envs/{'gpu' if ON_GPU else 'cpu'}.yaml"
