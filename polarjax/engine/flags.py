"""Command lines: everything a user can mistype is answered in one line; without JAX."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from polarjax.core import ConfigError, closest


def parse_flags(
    arguments: Sequence[str],
    flags: Mapping[str, str],
    description: str,
    *,
    positional: str | None = None,
    switches: Collection[str] = (),
) -> tuple[dict[str, str], dict[str, str]]:
    """Reads a command line of `--name value` and `--name=value`.

    Args:
      arguments: the command line without the program.
      flags: {name: help}; `--config.a.b` is allowed where 'config' is.
      description: text above the list of flags for --help, which prints and leaves with code 0.
      positional: name in `flags` of the one value that is written without its name; it has to be there.
      switches: names in `flags` that take no value.

    Returns:
      {flag: value} and {'a.b': value} of the overrides, all as text; a switch that is given has the value ''.

    Raises:
      ConfigError: a stray or missing argument, an unknown flag, a flag without value or one given twice.
    """
    values: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in ("--help", "-h"):
            print(_help_text(flags, description))
            raise SystemExit(0)
        if argument.startswith("--"):
            name, value = _read_flag(argument, rest, flags, switches)
        elif positional:
            name, value = positional, argument
        else:
            raise ConfigError(
                f"stray argument {argument!r}; options are written --name value or --name=value"
            )
        if name in values:
            raise ConfigError(f"--{name} is given twice, as {values[name]!r} and {value!r}; keep one")
        values[name] = value
    if positional and positional not in values:
        raise ConfigError(f"{positional.upper()} is missing: {flags[positional]}")
    overrides = {
        name.removeprefix("config."): values.pop(name) for name in list(values) if name.startswith("config.")
    }
    return values, overrides


def read_step(text: str) -> int | str:
    """Reads the value of --step: the number of a step, 'best' or 'latest'.

    Raises:
      ConfigError: anything else.
    """
    if not text.isdecimal() and text not in ("best", "latest"):
        raise ConfigError(f"--step is {text!r}; expected the number of a step, best or latest")
    return int(text) if text.isdecimal() else text


def _read_flag(
    argument: str, rest: list[str], flags: Mapping[str, str], switches: Collection[str]
) -> tuple[str, str]:
    """Returns name and value of a flag; a value that is an argument of its own is taken out of `rest`."""
    name, equals, value = argument[2:].partition("=")
    if name not in flags and not (name.startswith("config.") and "config" in flags):
        raise ConfigError(f"unknown flag --{name}{closest(name, flags)}")
    if name in switches:
        if equals:
            raise ConfigError(f"--{name} takes no value, got {value!r}")
    elif not equals:
        if not rest or rest[0].startswith("--"):
            raise ConfigError(f"--{name} needs a value: --{name}=VALUE")
        value = rest.pop(0)
    return name, value


def _help_text(flags: Mapping[str, str], description: str) -> str:
    lines = [f"  --{name:<22}{text}" for name, text in flags.items()]
    if "config" in flags:
        lines.append(
            f"  --{'config.SECTION.NAME':<22}overrides one value of the config, as in --config.train.num_steps=500"
        )
    return "\n".join([description.strip(), "", "options:", *lines])
