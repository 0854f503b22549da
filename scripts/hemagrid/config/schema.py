"""Validate a config and bring it into the one form that all configs of its meaning share."""

import contextlib
import copy
import unicodedata
from pathlib import PurePosixPath

from jsonschema import Draft202012Validator, validators

from hemagrid.config.checks import CROSS_CHECKS, check_space
from hemagrid.config.messages import problems_of
from hemagrid.errors import InputError


def validated(config, schema):
    """Return a valid config in its canonical form.

    Two configs that mean the same are equal in this form, down to their JSON text:

    - Every default is filled in.
    - Keys come in the order of the schema; free names, such as those of heads, in that of the
      alphabet.
    - A number is a float where the schema says "number".
    - A list is sorted where the schema says `sort`: its order means nothing.
    - Text has its accents composed (NFC), but for paths. A free name that is a whole number, as
      labels are, becomes text.
    - A path, where the schema says `format: path`, has no trailing slash.

    Args:
        config: Mapping as read from YAML. It is left alone.
        schema: JSON Schema as a mapping.

    Raises:
        InputError: The config has problems. The message has one line for each: the path of the
            key, what was found, what was expected.
    """
    errors = list(_Strict(schema).iter_errors(config))
    # Two keys missing from one place are two errors that each name both.
    problems = list(dict.fromkeys(p for error in errors for p in problems_of(error)))
    if isinstance(config, dict):
        config = _canonical(config, schema)
        malformed = {
            error.absolute_path[0] for error in errors if error.validator in ("type", "anyOf")
        }
        for sections, check in CROSS_CHECKS:
            if not malformed.intersection(sections):
                problems.extend(check(config, schema))
    if not problems:
        problems.extend(check_space(config))  # it counts, which takes sound numbers
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError("\n  ".join([f"the configuration has {count}:", *problems]))
    return config


def _canonical(value, schema):
    """Return a copy of `value` in canonical form; what the schema refuses stays as it is."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        filled = {
            key: _canonical(value[key] if key in value else subschema["default"], subschema)
            for key, subschema in known.items()
            if key in value or "default" in subschema
        }
        free = schema.get("additionalProperties") or {}
        others = sorted(value.keys() - known.keys(), key=str)
        return filled | {_name(key): _canonical(value[key], free) for key in others}
    if isinstance(value, list):
        items = [_canonical(item, schema.get("items", {})) for item in value]
        if "sort" in schema:
            with contextlib.suppress(TypeError):  # of items that are refused
                items.sort(reverse=schema["sort"] == "descending")
        return items
    if value in schema.get("enum", ()):
        return next(member for member in schema["enum"] if member == value)  # 128, not 128.0
    if "number" in schema.get("type", ()) and _is_number(None, value):
        return float(value) + 0.0  # which makes -0.0 of it 0.0
    if schema.get("format") == "path" and isinstance(value, str):
        return str(PurePosixPath(value))
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    return copy.deepcopy(value)


def _name(key):
    if type(key) is int:
        return str(key)
    return unicodedata.normalize("NFC", key) if isinstance(key, str) else key


def _is_number(_, value):
    """Python's numbers, but for truth values, NaN and what a float cannot hold."""
    return type(value) in (int, float) and abs(value) < 1e300


# Stricter than JSON Schema: 30.0 is no number of epochs.
_Strict = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": lambda _, value: type(value) is int, "number": _is_number}
    ),
)
