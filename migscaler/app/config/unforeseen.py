"""What is said of a file on which a check itself fails: one finding, at the section it happens in.

No check is known to fail. One that did would else end the exporter over a value that nobody
thought of.
"""

import traceback
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from migscaler.app.config.compile import compile_config
from migscaler.app.config.findings import finding_at
from migscaler.app.config.model import Config
from migscaler.app.config.references import problems_between
from migscaler.app.config.yaml_text import Document, read_yaml
from migscaler.errors import Finding

_OURS = f"{Path(__file__).parents[2].name}/"
UNFORESEEN = "could not be judged"
"""Begins the problem of such a finding."""


def unforeseen(error: Exception, text: str | None = None) -> Finding:
    """Return the finding for a file on which a check failed with `error`.

    `text` is given for our own file, whose sections are then tried one by one. The finding names
    the kind of the error and the line of our source, never the error's own words: those may quote
    the file.
    """
    document, section = Document(value=None, places={}, findings=()), None
    try:
        if text is not None:
            document = read_yaml(text)
            section = _section_of(document)
    except Exception:  # noqa: BLE001, S110 - then the finding is about the whole file
        pass
    ours = [one for one in traceback.extract_tb(error.__traceback__) if _OURS in one.filename]
    place = "".join(f" in {Path(one.filename).name}, line {one.lineno}" for one in ours[-1:])
    return finding_at(
        document,
        () if section is None else (section,),
        f"{UNFORESEEN} ({type(error).__name__}{place})",
        "a fault of migscaler: report it, and write what was changed last in another way",
    )


def _section_of(document: Document) -> str | None:
    """Return the first section that fails also where it stands alone, None if none does."""
    sections = document.value if isinstance(document.value, Mapping) else {}
    for key, value in sections.items():
        try:
            tuple(problems_between({key: value}))
            compile_config(Config.model_validate({key: value}))
        except ValidationError:
            continue
        except Exception:  # noqa: BLE001 - whatever it is, it happens here
            return str(key)
    return None
