"""Spell the problems of a config: where, what was found, what was expected."""

import difflib
import re
import reprlib

_TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a finite number",
    "boolean": "true or false",
    "null": "null",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
# What is no text in YAML unless it stands in quotes.
_PLAIN = {"boolean": "true|false", "null": "null"}
_PLAIN |= dict.fromkeys(("number", "integer"), r"[+-]?\d+(\.\d*)?")


def problems_of(error):
    """Yield one line per problem that a jsonschema error stands for."""
    path = key_path(error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        for key in error.instance:
            if key not in known:
                yield (
                    f"{key_path([*error.absolute_path, key])}: found an unknown key, "
                    f"expected one of {', '.join(known)}{did_you_mean(key, known)}"
                )
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                expected = _expected(error.schema["properties"][key])
                where = key_path([*error.absolute_path, key])
                yield f"{where}: found nothing, expected {expected}"
    elif "propertyNames" in error.schema_path:
        yield (
            f"{key_path([*error.absolute_path, error.instance])}: "
            f"found the name {reprlib.repr(error.instance)}, "
            f"expected {_expected(error.schema)}"
        )
    elif error.validator == "uniqueItems":
        items = error.instance
        for index, item in enumerate(items):
            if item in items[:index]:
                yield f"{path}: found {as_written(item)} again, expected every entry once"
    else:
        yield (
            f"{path or 'the configuration'}: found {as_written(error.instance)}, "
            f"expected {_expected(error.schema)}{_hint(error.instance, error.schema)}"
        )


def key_path(keys):
    """Spell the path of a key, such as training.finetune_all.epochs or filters[1]."""
    path = ""
    for key in keys:
        if type(key) is int:
            path += f"[{key}]"
        else:
            plain = isinstance(key, str) and re.fullmatch(r"[\w-]+", key)
            path += f"{'.' if path else ''}{key if plain else reprlib.repr(key)}"
    return path


def as_written(value):
    """Spell a value as it stands in YAML, in one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, str):
        return f"the text {reprlib.repr(value)}"
    return reprlib.repr(value)


def did_you_mean(word, known):
    """Return "; did you mean X?" with the closest of the `known` words, or nothing."""
    close = difflib.get_close_matches(str(word), map(str, known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def listed(words, most=40):
    """Spell a list, but for what is beyond the first `most` words."""
    words = list(words)
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _expected(schema):
    """Say what a schema asks of a value."""
    if "title" in schema:
        return schema["title"]
    if "anyOf" in schema:
        return " or ".join(_expected(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    words = " or ".join(_TYPE_NAMES[name] for name in types)
    bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
    if bounds:
        words += " " + " and ".join(bounds)
    if "minLength" in schema:
        words += ", not empty"
    if "minItems" in schema:
        words += f", with {schema['minItems']} or more entries"
    return words


def _hint(value, schema):
    """Return the usual way out of a mistake that YAML or a command line invites, or nothing."""
    wanted = schema.get("type", ())
    if wanted == "object" and value is not None:
        return "; single keys of a mapping are set in a file, with --configfile"
    if isinstance(value, str):
        exponent = re.fullmatch(r"([+-]?\d+)(\.\d*)?[eE]([+-]?\d+)", value)
        if exponent and wanted in ("number", "integer"):
            whole, fraction, power = exponent.groups()
            number = f"{whole}{fraction or '.0'}e{int(power):+d}"
            return f"; YAML reads {value} as text, write {number}"
        wanted = [wanted] if isinstance(wanted, str) else wanted
        if any(re.fullmatch(_PLAIN.get(name, "(?!)"), value) for name in wanted):
            return (
                "; write it without quotes, in a config file: a mapping after --config holds "
                "only text"
            )
        return did_you_mean(value, schema.get("enum", ()))
    # A class named no, 12 or 2026-11-25.
    scalar = value is not None and not isinstance(value, dict | list)
    return "; write it in quotes" if scalar and wanted == "string" else ""
