"""Writes what the documentation has from the code: tables of settings and metrics, and `.env.example`.

`make docs` writes them; with `--check` nothing is written, and the exit code is 1 when something is behind.
"""

from __future__ import annotations

import inspect
import re
import sys
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from counterfoil.settings import PREFIX, Settings
from counterfoil.telemetry.metrics import describe

ROOT = Path(__file__).resolve().parents[1]
OPERATE = ROOT / "docs" / "operate.md"
ENV_EXAMPLE = ROOT / ".env.example"

_GROUP_OR_FIELD = re.compile(r"^    (?:# (?P<group>.+)|(?P<field>[a-z_]+): .+)$", re.MULTILINE)


def groups() -> list[tuple[str, list[str]]]:
    """The settings under the comments that stand above them in settings.py."""
    found: list[tuple[str, list[str]]] = []
    for match in _GROUP_OR_FIELD.finditer(inspect.getsource(Settings)):
        if match["group"]:
            found.append((match["group"], []))
        elif match["field"] in Settings.model_fields:
            found[-1][1].append(match["field"])
    listed = [name for _, names in found for name in names]
    if sorted(listed) != sorted(Settings.model_fields):
        raise ValueError("settings.py: a setting stands under no comment")
    return found


def default_of(name: str) -> str:
    """The default as it would stand in the environment; '' for none."""
    value = Settings.model_fields[name].default
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case timedelta():
            return f"{value.total_seconds() * (1000 if name.endswith('_ms') else 1):g}"
        case tuple():
            return ",".join(value)
        case Enum():
            return str(value.value)
    return str(value)


def meaning_of(name: str) -> str:
    """The description, and the choices where there are only some."""
    field = Settings.model_fields[name]
    about = (field.description or "").replace("`", "")
    choices = choices_of(field.annotation)
    return f"{about} ({', '.join(choices)})" if choices else about


def choices_of(annotation: Any) -> list[str]:
    """What a Literal or an Enum takes."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    return []


def settings_table() -> str:
    """Markdown: one table for each group."""
    lines: list[str] = []
    for group, names in groups():
        lines += [f"**{group}**", "", "| variable | default | meaning |", "|---|---|---|"]
        for name in names:
            default = default_of(name)
            shown = f"`{default}`" if default else ""
            lines.append(f"| `{PREFIX}{name.upper()}` | {shown} | {meaning_of(name)} |")
        lines.append("")
    return "\n".join(lines)


def metrics_table() -> str:
    """Markdown: every metric of /metrics."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in describe():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join([*lines, ""])


def env_example() -> str:
    """Every setting, commented out at its default."""
    lines = ["# Copy this to .env, and take away the # of what you set. A variable of the environment wins."]
    for group, names in groups():
        lines += ["", f"# --- {group} ---"]
        for name in names:
            lines += ["", f"# {meaning_of(name)}", f"# {PREFIX}{name.upper()}={default_of(name)}"]
    return "\n".join([*lines, ""])


def with_tables(text: str) -> str:
    """The page with its generated parts made anew."""
    for name, table in (("settings", settings_table()), ("metrics", metrics_table())):
        begin, end = f"<!-- {name}: written by `make docs` -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        if not after:
            raise ValueError(f"{OPERATE.name} has no place for {name}")
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def main(check: bool) -> int:
    """Write what is behind; answers the exit code."""
    wanted = {ENV_EXAMPLE: env_example(), OPERATE: with_tables(OPERATE.read_text(encoding="utf-8"))}
    behind = [
        path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in behind:
        print(f"{path.relative_to(ROOT)}: {'is behind, run `make docs`' if check else 'written'}")
        if not check:
            path.write_text(wanted[path], encoding="utf-8")
    return 1 if check and behind else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
