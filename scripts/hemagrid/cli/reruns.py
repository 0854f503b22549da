"""Why finished jobs will run again, in words for people."""

import json
import re
from pathlib import Path

from hemagrid import names
from hemagrid.config.loading import differences, load_config, recorded_config
from hemagrid.config.messages import listed
from hemagrid.errors import InputError

_REVISION = re.compile(r"'([a-z_]+) (\d+)'")  # as in a job's params; of code, it is a digest
_CODE = re.compile(r"'code \w+'")
OTHER_CODE = "code or packages are not those that made them"


def causes(dag):
    """Find the finished jobs that Snakemake will run again, and why.

    Jobs that only follow from others have no cause of their own and are left out.

    Args:
        dag: Snakemake's DAG, once it has settled what is to run.

    Returns:
        {cause, in words: list of rules, one entry per job}.
    """
    found = {}
    for job in dag.needrun_jobs():
        reason = dag.reason(job)
        if not reason.missing_output and (cause := _cause(reason)):
            found.setdefault(cause, []).append(job.rule.name)
    return found


def describe(found, folder, config):
    """Spell what `causes` found, a line per cause, each with its end; nothing for nothing.

    Args:
        found: What `causes` returned.
        folder: Folder of the study, which records the commit and the config of its last run.
        config: Validated config of this run.
    """
    if not found:
        return ""
    lines = ["Finished already, and run again with all that follows from them:"]
    for cause, rules in found.items():
        counts = {rule: rules.count(rule) for rule in rules}
        jobs = listed(rule if n == 1 else f"{rule} ({n})" for rule, n in counts.items())
        lines.append(f"  {cause}: {jobs}")
    other_code = re.search(f"revision|{OTHER_CODE}", " ".join(found))
    if other_code and (commit := _recorded_commit(folder)):
        lines.append(f"To keep them, use the commit that made them and its packages: {commit}")
    recorded = recorded_config(folder)
    if changed := _changed_keys(recorded, config) if recorded else []:
        lines.append(
            f"The study last ran with another config ({listed(changed, 5)}). To go on with "
            f"that one: --configfile {recorded.absolute()}"
        )
    return "\n".join([*lines, ""])


def _changed_keys(recorded, config):
    """List the keys in which a config differs from the recorded one, if that can be read."""
    try:
        return differences(config, load_config([recorded]))
    except InputError:  # of another release
        return []


def _recorded_commit(folder):
    path = Path(folder, names.STUDY)
    record = json.loads(path.read_text()) if path.is_file() else {}
    commit, changed = record.get("commit"), record.get("changed")
    return f"{commit} with changes" if commit and changed else commit


def _cause(reason):
    """Spell why a finished job runs again, or nothing where it only follows from others."""
    said = []
    if changed := reason.params_changed:
        before, now = changed.only_old, changed.only_new
        former = dict(_REVISION.findall(" ".join(before)))
        present = dict(_REVISION.findall(" ".join(now)))
        said += [
            f"the revision of {stage} is {number} here and was {former.get(stage, 'none')}"
            for stage, number in present.items()
            if former.get(stage) != number
        ]
        others = [text for text in before | now if not _is_version(text)]
        if others:
            said.append("settings or pictures changed")
        if not said:
            said.append(OTHER_CODE)
    if reason.input_changed:
        said.append("they rest on other files than before")
    if reason.updated_input - reason.updated_input_run:
        said.append("files that they rest on are newer")
    return " and ".join(said)


def _is_version(text):
    return bool(_CODE.fullmatch(text) or _REVISION.fullmatch(text))
