"""What the command line asks for, and what snakemake says beside its own words.

Needs: all rules. Makes: nothing.
"""

from hemagrid.cli import start, targets

# What wildcards stand for in the names of files.
NAMED = {
    "run": [*KNOWN, *COMBINED, *names.CONTROLS],
    "backbone": [*config["backbones"]],
    "subset": [*names.AUGMENTED],
    "test_set": [*config["test_sets"]],
}

# Where this is a module of another workflow, its files have other names.
if workflow.modifier.is_main_snakefile():
    try:
        targets.check(targets.of_command_line(), workflow, NAMED)
    except InputError as error:
        raise WorkflowError(str(error)) from None


# The only one: a second `onstart` would replace it.
onstart:
    start.announce(workflow.dag, workflow.executor_settings, config)


onerror:
    print(
        "What is finished stays. To go on, run the same command again.",
        file=sys.stderr,
    )
