"""Settings as flags, and options of commands that query a service."""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from sidecar import errors, files
from sidecar.cli.output import INTERRUPTED, close_stdout, print_error_line, report_error
from sidecar.config.setting_types import format_duration
from sidecar.config.settings import ENV_PREFIX, SettingsGroup, parse_duration
from sidecar.plugins import own_settings_class, settings_class

BY_FILE = "@FILE"
"""Metavar of a flag with a secret ('@-' too), as other programs can read command lines."""

_FILE_ADDRESS = re.compile(r"file:(?://(?:localhost)?)?(/[^/].*)", re.IGNORECASE | re.DOTALL)
_SHOWN = "shown"
"""Key of the metadata that define how typer shows a parameter."""
SERVER_HELP = "Address of a running service, such as http://127.0.0.1:8765."
SERVER_OR_SETTINGS_HELP = f"{SERVER_HELP} Without it: where the settings say."


@dataclass(frozen=True, slots=True)
class SettingFlag:
    """One setting as a flag. ``choices`` is empty if any value is allowed."""

    name: str
    value: str
    choices: tuple[str, ...]
    default: str
    description: str

    @property
    def option(self) -> str:
        """Return the flag as it is written on the command line."""
        option = f"--{self.name.replace('_', '-')}"
        return f"{option}/--no-{option[2:]}" if self.value == "yes/no" else option

    @property
    def env(self) -> str:
        """Return the environment variable."""
        return f"{ENV_PREFIX}{self.name.upper()}"

    @property
    def help(self) -> str:
        """Return the whole help text in one line."""
        unsaid = [choice for choice in self.choices if f"'{choice}'" not in self.description]
        choices = f" One of {', '.join(self.choices)}." if unsaid else ""
        described = re.search("Default: |[Ii]f unset", self.description)
        default = "" if described else f" Default: {self.default}."
        return f"{self.description}{choices}{default} Env: {self.env}."

    @property
    def shown(self) -> dict[str, Any]:
        """Return how typer shows the flag."""
        metavar = None if self.value == "yes/no" else "choice" if self.choices else self.value
        completion = self.complete if self.choices else None
        return {
            "help": self.help,
            "show_default": False,
            "metavar": metavar,
            "autocompletion": completion,
        }

    def complete(self, incomplete: str) -> list[str]:
        """Return the choices with this prefix, for the shell."""
        return [choice for choice in self.choices if choice.startswith(incomplete)]


def describe() -> list[SettingFlag]:
    """Return all settings, group by group."""
    return [flag for group in settings_class().groups() for flag in described(group)]


def described(group: type[SettingsGroup]) -> list[SettingFlag]:
    """Return the settings of one group."""
    return [_flag(name, field) for name, field in group.model_fields.items()]


def serve_with(run: Callable[[dict[str, Any]], int]) -> Callable[..., int]:
    """Return ``run`` as a command for typer, with an option for every setting; it gets those that
    are given.

    Values stay text: the settings parse them, as they parse the environment.
    """

    def serve(**given: Any) -> int:
        return run({name: value for name, value in given.items() if value is not None})

    parameters = []
    for flag in describe():
        kind: Any = {"yes/no": bool, "path": Path}.get(flag.value, str)
        parser = _path if kind is Path else None
        option = typer.Option(None, flag.option, parser=parser, **flag.shown)
        parameters.append(
            inspect.Parameter(
                flag.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None
            )
        )
    serve.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    serve.__doc__ = run.__doc__
    return serve


def refuse_plain_secrets(given: Mapping[str, Any]) -> None:
    """Refuse secrets on the command line; names of files with secrets are allowed.

    Raises:
        errors.SettingsInvalid: there is a secret; the message does not repeat it.
    """
    for flag in describe():
        if flag.value == BY_FILE and not str(given.get(flag.name, "@")).startswith("@"):
            raise errors.SettingsInvalid(
                f"Other programs can read '{flag.name}' on the command line.",
                hint=f"Give it in {flag.env}, or by {flag.option} @FILE.",
            )


def _flag(name: str, field: FieldInfo) -> SettingFlag:
    choices = _choices(field.annotation)
    value = "|".join(choices) or _value(field)
    default = _text(field.default, duration=_is_duration(field))
    return SettingFlag(name, value, choices, default, field.description or "")


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Literal:
        return tuple(map(str, get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(str(member.value) for member in annotation)
    return ()


def _value(field: FieldInfo) -> str:
    if _is_duration(field):
        return "duration"
    kinds: Mapping[Any, str] = {
        bool: "yes/no",
        int: "integer",
        float: "number",
        str: "text",
        Path: "path",
        SecretStr: BY_FILE,
    }
    for kind in (field.annotation, *get_args(field.annotation)):
        if kind in kinds:
            return kinds[kind]
    return "text"


def _is_duration(field: FieldInfo) -> bool:
    return any(getattr(item, "func", None) is parse_duration for item in field.metadata)


def _text(value: Any, *, duration: bool) -> str:
    """Return a default value as a user would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if duration and value > 0:
        return format_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def option(default: Any, help: str, *flags: str, choices: Iterable[str] = (), **shown: Any) -> Any:
    """Return the default of a parameter, or of a dataclass field, that is an option of a command.

    ``default``: ... if it is required. ``flags``: if they differ from its own name. ``choices``:
    the allowed values, for its help and the shell. ``shown``: as `typer.Option`.
    """
    if known := list(choices):
        help = f"{help}: {', '.join(known)}."
        shown |= {"metavar": "NAME", "autocompletion": lambda: known}
    return field(default=default, metadata={_SHOWN: (typer.Option, flags, {"help": help, **shown})})


def setting_option(name: str) -> Any:
    """Return the default of a parameter that is the setting ``name``, as `serve` has it."""
    shown = _flag(name, own_settings_class().model_fields[name]).shown
    return option(None, shown.pop("help"), **shown)


def _path(name: str | Path) -> Path:
    """Return a path, of which ``~`` is the home folder, and which may be an address of a file, as
    programs copy it. An empty one, as of a variable that is not set, is not the working folder.

    Raises:
        typer.BadParameter: it is empty.
    """
    if not str(name):
        raise typer.BadParameter("The path is empty.")
    if address := _FILE_ADDRESS.fullmatch(str(name)):
        from urllib.request import url2pathname

        name = url2pathname(address[1])
    return files.expand_home(Path(name))


def argument(default: Any, help: str, metavar: str) -> Any:
    """Return the default of a parameter, or of a dataclass field, that is an argument of a
    command."""
    shown = {"help": help, "metavar": metavar}
    return field(default=default, metadata={_SHOWN: (typer.Argument, (), shown)})


def command(
    function: Callable[..., Any], server_help: str = SERVER_HELP, about: str = ""
) -> Callable[..., int]:
    """Return ``function``, which may be a coroutine function and may return an exit code, as a
    command for typer; its docstring is the help.

    The fields of a dataclass argument become options, at any depth. Those of a
    `backends.ServiceTarget` choose the service; ``server_help`` is the help of --server. Every
    failure is printed as one line on stderr, which begins with the value of the option ``about``.
    """
    options = {one.name: one for one in _options(function)}
    if "server" in options:
        server = Annotated[str | None, typer.Option(metavar="URL", help=server_help)]
        options["server"] = options["server"].replace(annotation=server)

    def run(**given: Any) -> int:
        subject, output = "", given.get("output", given.get("log"))
        try:
            _check_text(given)
            work = _prepared(function, given)
            subject = str(given.get(about) or "")
            code = work()
            return (asyncio.run(code) if inspect.iscoroutine(code) else code) or 0
        except errors.SidecarError as error:
            usual = errors.ServiceUnreachable.default_hint
            if error.hint == usual and not given.get("server", True):  # no server was named
                error.hint = "Start it with 'vibevoice-asr', or name another with --server URL."
            return report_error(error, about=subject)
        except OSError as error:
            if failed := close_stdout():
                return failed
            if not {"output", "log"} & given.keys() or not (error.filename or output):
                raise
            print_error_line(f"{error.filename or output}: cannot be written: {error.strerror}.")
            return 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            return INTERRUPTED

    run.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: one.annotation for name, one in options.items()}
    run.__doc__ = function.__doc__
    return run


def _check_text(given: Mapping[str, Any]) -> None:
    """Check that texts can be sent and stored; only the path of a file may have any bytes.

    Raises:
        typer.BadParameter: one cannot.
    """
    for name, value in given.items():
        try:
            _ = isinstance(value, str) and value.encode()
        except UnicodeEncodeError:
            raise typer.BadParameter(f"The value of '{name}' is not valid Unicode.") from None


def subcommands(
    group: Callable[[], None], *functions: Callable[..., Any], server_help: str = SERVER_HELP
) -> typer.Typer:
    """Return a command group with a command for each function, by its name and docstring; the
    docstring of ``group`` is its help."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
    app.callback()(group)
    for function in functions:
        word = function.__name__.strip("_").replace("_", "-")
        app.command(word)(command(function, server_help))
    return app


def _parameters(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function or dataclass; those of `option` in the form of typer."""
    own = inspect.signature(function, eval_str=True)
    made = {one.name: one for one in fields(function)} if is_dataclass(function) else {}
    for one in own.parameters.values():
        default = made.get(one.name, one.default)
        if isinstance(default, Field) and _SHOWN in default.metadata:
            kind, flags, shown = default.metadata[_SHOWN]
            if one.annotation in (Path, Path | None, list[Path] | None):
                shown = {"parser": _path, **shown}
            if one.annotation is Path:  # with a parser, typer's help shows the name of the class
                one = one.replace(annotation=type("path", (Path,), {}))
            if one.annotation is bool and not flags:  # otherwise typer adds its negation
                flags = (f"--{one.name.replace('_', '-')}",)
            one = one.replace(
                annotation=Annotated[one.annotation, kind(*flags, **shown)],
                default=one.empty if default.default is ... else default.default,
            )
        yield one


def _options(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of a function or dataclass; a dataclass parameter is replaced by its
    fields."""
    for one in _parameters(function):
        nested = is_dataclass(one.annotation)
        yield from _options(one.annotation) if nested else [one.replace(kind=one.KEYWORD_ONLY)]


def _prepared(function: Callable[..., Any], given: Mapping[str, Any]) -> Callable[[], Any]:
    """Return the function or dataclass, bound to its own values of ``given``."""
    values = {}
    for one in _parameters(function):
        nested = is_dataclass(one.annotation)
        values[one.name] = _prepared(one.annotation, given)() if nested else given[one.name]
    return partial(function, **values)
