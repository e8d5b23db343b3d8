"""The documentation names what there is, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from clusterkit.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("experiments/*/*.md")]
)
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def section(command: str) -> str:
    """What docs/commands.md says about one command."""
    found = re.search(
        rf"^## clusterkit {re.escape(command)}\n(.*?)(?=^## |\Z)",
        COMMANDS_PAGE,
        re.DOTALL | re.MULTILINE,
    )
    assert found, f"docs/commands.md has no heading `## clusterkit {command}`"
    return found[1]


def options(command: click.Command) -> set[str]:
    """Every spelling of every option, also of a group's commands (but not of the program's)."""
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    named = (p for one in (command, *inner) for p in one.params if isinstance(p, click.Option))
    return {word for option in named for word in (*option.opts, *option.secondary_opts)}


def real_command(name: str) -> click.Command:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    return command


def mentioned(text: str) -> set[str]:
    """Options in a text. `--to` is not mentioned by `--together`."""
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_option_is_described(name: str) -> None:
    # Only list items count: the synopsis alone describes nothing.
    described = "\n".join(re.findall(r"^- (`-.*)$", section(name), re.MULTILINE))
    assert options(real_command(name)) == mentioned_heads(described)


def mentioned_heads(items: str) -> set[str]:
    """Options that list items are about: those in the code spans before the colon."""
    return {word for item in items.splitlines() for word in mentioned(item.partition(": ")[0])}


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_synopsis_names_the_command_and_no_unknown_option(name: str) -> None:
    synopsis = re.search(r"^    (clusterkit .*)$", section(name), re.MULTILINE)
    assert synopsis
    assert synopsis[1].split()[:2] == ["clusterkit", name]
    assert mentioned(synopsis[1]) <= options(real_command(name))


def test_no_command_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^## clusterkit (\S+)$", COMMANDS_PAGE, re.MULTILINE)
    assert described == list(main.COMMANDS)


def test_the_options_of_the_group_are_described() -> None:
    assert options(main.cli) <= mentioned(COMMANDS_PAGE.partition("\n## ")[0])


def prose(page: Path) -> str:
    """A page without its blocks of code, where brackets are no links."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), f"{page.name}: {target}"
        assert there.is_relative_to(ROOT), f"{page.name}: {target} leads out of the project"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target} has no such heading"


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s:#]+\.md)", prose(page)):
            there = (page.parent / target).resolve()
            if there.is_file() and there not in seen:
                waiting.append(there)
    assert set((ROOT / "docs").rglob("*.md")) <= seen


def test_every_module_is_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \**`(clusterkit/[^`]+)`\** \|", page, re.MULTILINE))
    there = set()
    for file in (ROOT / "clusterkit").rglob("*.py"):
        name = file.relative_to(ROOT)
        if "migrations" in name.parts:
            there.add("clusterkit/store/migrations/")  # Alembic's files, described together
        elif name.name == "__init__.py" and f"{name.parent.as_posix()}/" in listed:
            there.add(f"{name.parent.as_posix()}/")  # a package, described by its folder
        else:
            there.add(name.as_posix())
    assert listed == there


def test_the_example_of_the_readme_is_whole() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    script, grid = (
        re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[0]
        for language in ("python", "yaml")
    )
    compile(script, "train.py", "exec")
    for parameter in ("width", "seed"):
        assert f'"--{parameter}"' in script
        assert f"{parameter}" in grid


def test_the_grid_of_the_readme_has_forty_points(tmp_path: Path) -> None:
    from clusterkit.sweep import grid

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    file = tmp_path / "grid.yaml"
    file.write_text(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0], encoding="utf-8")
    assert len(grid.load(file).points) == 40
