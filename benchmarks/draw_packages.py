"""The picture of docs/explanation/architecture.md: packages of eosr by level, and which imports which.

    python benchmarks/draw_packages.py      # writes docs/images/packages.svg

Read from the source by `ast`, never run; levels are those of tests/test_layers.py. An arrow that follows from others is
left out. The same source gives the same bytes.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "packages.svg"
#: Size of a box, distance of two boxes in a row and of two rows, width of the picture [px].
BOX, APART, ROW, WIDTH = (104, 30), 30, 76, 760
#: Where packages stand in their rows, so that no arrow crosses a box; one that is missing here comes at the right end.
COLUMNS = {
    "testing": 0, "accessor": 2.6, "cli": 4, "train": 3, "score": 2, "batch": 4, "sharpen": 1, "nn": 0, "metrics": 2,
    "open": 3, "write": 4, "cube": 1.5, "host": 2.6, "errors": 2.05,
}  # fmt: skip
FILLS = ("#e8e8e8", "#d7e8d2", "#cfe3ec", "#cdd8f0", "#ddd2ee", "#f0d3e3", "#f5dcc4")


def levels() -> dict[str, int]:
    """Package -> level, without ``eosr/__init__.py`` and the number of the version."""
    for node in ast.parse((ROOT / "tests" / "test_layers.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LEVELS":
            return {name: level for name, level in ast.literal_eval(node.value).items() if name[:1] not in {"", "_"}}
    raise SystemExit("tests/test_layers.py has no LEVELS any more. Mend benchmarks/draw_packages.py.")


def imports(known: dict[str, int]) -> dict[str, set[str]]:
    """Package -> packages of eosr that its modules import, local imports included."""
    found: dict[str, set[str]] = {name: set() for name in known}
    for path in sorted((ROOT / "eosr").rglob("*.py")):
        here = path.relative_to(ROOT / "eosr").with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:  # eosr has no relative imports
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            parts = [name.split(".") for name in names]
            if here in known:
                found[here] |= {name[1] for name in parts if name[0] == "eosr" and name[1:2] and name[1] in known}
    return {name: targets - {name} for name, targets in found.items()}


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out what is reached through another arrow."""

    def reached(name: str) -> set[str]:
        return graph[name].union(*(reached(target) for target in graph[name]))

    return {name: targets - set().union(*(reached(one) for one in targets)) for name, targets in graph.items()}


def drawn(known: dict[str, int], arrows: dict[str, set[str]]) -> str:
    """The picture as SVG text."""
    rows = {level: sorted(name for name in known if known[name] == level) for level in sorted(set(known.values()))}
    wide, high = BOX
    height = ROW * len(rows) + 10
    places = {}
    for level, names in rows.items():
        for index, name in enumerate(names):
            column = COLUMNS.get(name, 5 + index)
            places[name] = (60 + round(column * (wide + APART)), height - ROW * (level + 1) + 20)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-size="13"'
        ' font-family="sans-serif">',
        "<title>Packages of eosr by level; an arrow leads to what is imported</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#666"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for level in rows:
        y = height - ROW * (level + 1) + 20 + high // 2 + 5
        lines.append(f'<text x="16" y="{y}" fill="#666">{level}</text>')
    for name in sorted(arrows):
        for target in sorted(arrows[name]):
            (x1, y1), (x2, y2) = places[name], places[target]
            x1, y1, x2 = x1 + wide // 2, y1 + high, x2 + wide // 2
            bend = (y2 - y1) // 2
            curve = f"M{x1} {y1}C{x1} {y1 + bend} {x2} {y2 - bend} {x2} {y2}"
            lines.append(f'<path d="{curve}" fill="none" stroke="#666" marker-end="url(#tip)"/>')
    for name, (x, y) in sorted(places.items()):
        lines.append(
            f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" rx="5" fill="{FILLS[known[name]]}" stroke="#888"/>'
        )
        lines.append(f'<text x="{x + wide // 2}" y="{y + 20}" text-anchor="middle">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])


def picture() -> str:
    """Draw the packages of this checkout."""
    known = levels()
    return drawn(known, reduced(imports(known)))


if __name__ == "__main__":
    PICTURE.write_text(picture())
