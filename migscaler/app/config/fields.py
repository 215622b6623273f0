"""Types of settings: what a text of the file becomes, and how the JSON schema describes it."""

from datetime import timedelta
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
)

from migscaler.app.config.texts import (
    SettingRefused,
    check_absolute_path,
    check_glob,
    check_gpu_uuid,
    check_http_url,
    check_listen,
    check_name,
    check_query,
    check_secret_path,
    check_size,
    check_socket_path,
    check_timezone,
    check_until,
    check_window_text,
    format_bytes,
    format_duration,
    parse_bytes,
    parse_duration,
    text_of,
)


class Section(BaseModel):
    """A part of the file: unknown keys refused, no silent conversions, immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        populate_by_name=True,
    )


def within(least: str, most: str) -> AfterValidator:
    """Return a check that a duration lies between two texts, both included."""
    low, high = parse_duration(least), parse_duration(most)

    def check(duration: timedelta) -> timedelta:
        if not low <= duration <= high:
            raise SettingRefused(
                f"{format_duration(duration)} is out of range", f"write {least} to {most}"
            )
        return duration

    return AfterValidator(check)


def _command(value: object) -> object:
    """Refuse a shell line: without a shell, nothing of it would be expanded or quoted."""
    if isinstance(value, str):
        words = ", ".join(f'"{word}"' for word in value.split())
        raise SettingRefused("a hook is a list of words, not a shell line", f"write [{words}]")
    if value == ():
        raise SettingRefused("the command is empty", 'write ["program", "argument"]')
    return value


def _text(value: object) -> str:
    return text_of(value, "a text")


def _text_schema(description: str, **more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, **more})


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    _text_schema(
        "duration such as 90s, 1h30m", pattern="^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", minLength=2
    ),
]
Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    PlainSerializer(format_bytes),
    _text_schema("size such as 64MiB", pattern="^[0-9]+(B|KiB|MiB|GiB|TiB)$"),
]
Size = Annotated[
    str, BeforeValidator(check_size), _text_schema("size class (1g) or profile (3g.20gb)")
]
Name = Annotated[
    str,
    BeforeValidator(check_name),
    _text_schema("name", pattern="^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"),
]
Text = Annotated[str, BeforeValidator(_text), _text_schema("text", minLength=1)]
Window = Annotated[
    str, BeforeValidator(check_window_text), _text_schema("window: mon-fri 08:30-19:00")
]
Timezone = Annotated[str, BeforeValidator(check_timezone), _text_schema("IANA time zone")]
Until = Annotated[str, BeforeValidator(check_until), _text_schema("date or date with time")]
Uuid = Annotated[
    str, BeforeValidator(check_gpu_uuid), _text_schema("UUID of a GPU", pattern="^GPU-")
]
Glob = Annotated[
    str, BeforeValidator(check_glob), _text_schema("shell pattern for GPU product names")
]
Url = Annotated[
    str, BeforeValidator(check_http_url), _text_schema("http address", pattern="^https?://")
]
Query = Annotated[str, BeforeValidator(check_query), _text_schema("PromQL expression", minLength=1)]
Listen = Annotated[str, BeforeValidator(check_listen), _text_schema("host:port")]
FilePath = Annotated[
    str, BeforeValidator(check_absolute_path), _text_schema("absolute path", pattern="^/")
]
SecretPath = Annotated[
    str, BeforeValidator(check_secret_path), _text_schema("absolute path", pattern="^/")
]
SocketPath = Annotated[
    str, BeforeValidator(check_socket_path), _text_schema("absolute path", pattern="^/")
]
Command = Annotated[tuple[Text, ...], BeforeValidator(_command)]
