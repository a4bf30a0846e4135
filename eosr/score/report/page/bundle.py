"""What is part of every page: the libraries of ``vendor/`` with their licences, and eosr's own style and script."""

from __future__ import annotations

import hashlib
import re
import tomllib
from base64 import b64encode
from dataclasses import dataclass
from importlib.resources import files

_PACKAGE = "eosr.score.report.page"
#: Parts of the page's script, in the order they are joined.
_PARTS = ("start.js", "charts.js", "scores.js", "exhibits.js", "run.js")


@dataclass(frozen=True, kw_only=True)
class Library:
    """One library that the page carries with it."""

    name: str
    version: str
    licence: str
    homepage: str
    use: str
    licence_text: str
    scripts: tuple[str, ...]
    styles: tuple[str, ...]


def libraries() -> tuple[Library, ...]:
    """Return the libraries of ``vendor/VENDOR.toml``, in its order."""
    folder = files(_PACKAGE) / "vendor"
    found = []
    for entry in tomllib.loads((folder / "VENDOR.toml").read_text("utf-8"))["library"]:
        texts = {file["name"]: (folder / file["name"]).read_text("utf-8") for file in entry["file"]}
        found.append(
            Library(
                **{key: entry[key] for key in ("name", "version", "licence", "homepage", "use")},
                licence_text=(folder / entry["licence_file"]).read_text("utf-8"),
                scripts=tuple(inline(text) for name, text in texts.items() if name.endswith(".js")),
                styles=tuple(inline(text) for name, text in texts.items() if name.endswith(".css")),
            )
        )
    return tuple(found)


def own(name: str) -> str:
    """Return the text of one of eosr's own parts of the page."""
    return (files(_PACKAGE) / "assets" / name).read_text("utf-8")


def own_script() -> str:
    """Return eosr's script of the page; its names are its own."""
    return "(() => {\n'use strict';\n" + "\n".join(own(name) for name in _PARTS) + "})();\n"


def inline(text: str) -> str:
    """Return a script or style that can stand inside HTML: it ends no element early and points at no other file."""
    text = re.sub(r"\n?(//|/\*)# sourceMappingURL=[^\n*]*(\*/)?", "", text)
    return re.sub(r"</(?=script|style)", r"<\\/", text, flags=re.IGNORECASE)


def fingerprint(script: str) -> str:
    """Return the source expression by which a page allows this one script and no other (Content Security Policy)."""
    return "'sha256-" + b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii") + "'"
