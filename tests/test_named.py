"""What the pages name exists: every command with its options, every proof, every page and section."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from deployments.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("alerts", "backfill", "deploy", "grants", "operations", "personal-data", "reconcile", "runbook")
    ),
]

# In code only: in prose `tidegate` is a name.
CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
COMMAND = re.compile(r"(?:^|[\s$])(?:\.venv/bin/)?tidegate ([a-z][^|#\n→`]*)", re.MULTILINE)
PROOF = re.compile(r"`(?:\w+\.py::)?(test_\w+)`")
LINK = re.compile(r"\]\((?!http)([^)#]*)(?:#([\w-]+))?\)")

each_page = pytest.mark.parametrize("page", PAGES)


def commands(page: str) -> list[list[str]]:
    """Every call of `tidegate` in the code of a page, as words."""
    code = "\n".join("".join(found) for found in CODE.findall((ROOT / page).read_text()))
    return [call.split() for call in COMMAND.findall(code)]


@each_page
def test_every_command_and_option_it_names_exists(page: str) -> None:
    for words in commands(page):
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands") and words and re.fullmatch(r"[a-z-]+(\\?\|[a-z]+)*", words[0]):
            name = words.pop(0)
            assert name in command.commands, f"tidegate … {name}"
            command = command.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            if re.match(r"\[?--?[a-z]", word):
                option = word.strip("[]").split("=")[0]
                assert option in known, f"{command.name} {option}"


@each_page
def test_every_proof_it_names_exists(page: str) -> None:
    written = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    for proof in PROOF.findall((ROOT / page).read_text()):
        assert f"def {proof}(" in written, proof


@each_page
def test_every_page_and_section_it_links_to_exists(page: str) -> None:
    for target, section in LINK.findall((ROOT / page).read_text()):
        there = (ROOT / page).parent / target if target else ROOT / page
        assert there.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            assert section in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
