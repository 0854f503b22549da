"""The configuration: checked by its schema, filled with defaults, read as a grid."""

import copy
import math

from jsonschema import Draft202012Validator, validators

from hemagrid.config.checks import CROSS_CHECKS, check_space
from hemagrid.config.messages import problems_of
from hemagrid.errors import InputError


def validated(config, schema):
    """Return a deep copy of `config` in which every default of `schema` is filled in.

    Raises InputError that lists every problem, one per line: the key's path, what was
    found, what was expected.
    """
    errors = list(_Strict(schema).iter_errors(config))
    # Two keys missing from one place are two errors that each name both.
    problems = list(
        dict.fromkeys(problem for error in errors for problem in problems_of(error))
    )
    filled = copy.deepcopy(config)
    if isinstance(filled, dict):
        # Exhausted for its side effect: validation is what fills the defaults in.
        list(_DefaultsFilling(schema).iter_errors(filled))
        malformed = {error.absolute_path[0] for error in errors if error.validator == "type"}
        for sections, check in CROSS_CHECKS:
            if not malformed.intersection(sections):
                problems.extend(check(filled, schema))
    if not problems:
        problems.extend(check_space(filled))  # it counts, which takes sound numbers
    if problems:
        raise InputError(
            f"the configuration has {len(problems)} "
            f"{'problem' if len(problems) == 1 else 'problems'}:\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )
    return filled


def defaults(schema):
    """Return the configuration that an empty one stands for."""
    return validated({}, schema)


# Python's own numbers are stricter here than JSON's: 30.0 epochs, NaN and infinity are
# refused, and true is no number.
_Strict = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int,
            "number": lambda _, value: (
                type(value) is int or type(value) is float and math.isfinite(value)
            ),
        }
    ),
)


def _fill_properties(validator, properties, instance, schema):
    """Set missing keys before they are validated: the recipe of jsonschema's FAQ."""
    if validator.is_type(instance, "object"):
        for key, subschema in properties.items():
            if "default" in subschema:
                instance.setdefault(key, copy.deepcopy(subschema["default"]))
    yield from _Strict.VALIDATORS["properties"](validator, properties, instance, schema)


_DefaultsFilling = validators.extend(_Strict, {"properties": _fill_properties})
