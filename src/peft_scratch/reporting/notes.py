"""The student's notes: Markdown as a tree that the template lays out.

The text goes to Typst as data, never as code, so nothing in the notes is executed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

Node = dict[str, Any]

# HTML in the notes is shown as typed.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def parse(markdown: str) -> list[Node]:
    """The blocks of `markdown`: headings, paragraphs, lists, quotes, code, tables and rules."""
    return _blocks(SyntaxTreeNode(_MARKDOWN.parse(markdown)).children)


def reads_right_to_left(text: str) -> bool:
    """Whether most letters of `text` are of a script that is written from right to left."""
    directions = [unicodedata.bidirectional(letter) for letter in text if letter.isalpha()]
    return 2 * sum(direction in ("R", "AL") for direction in directions) > len(directions)


def _blocks(nodes: Iterable[SyntaxTreeNode]) -> list[Node]:
    return [block for node in nodes if (block := _block(node)) is not None]


def _block(node: SyntaxTreeNode) -> Node | None:
    match node.type:
        case "paragraph":
            return {"kind": "paragraph", "text": _inline(node.children)}
        case "heading":
            return {"kind": "heading", "level": int(node.tag[1:]), "text": _inline(node.children)}
        case "bullet_list" | "ordered_list":
            return {
                "kind": "list",
                "ordered": node.type == "ordered_list",
                "items": [_blocks(item.children) for item in node.children],
            }
        case "blockquote":
            return {"kind": "quote", "blocks": _blocks(node.children)}
        case "fence" | "code_block":
            return {"kind": "code", "text": node.content.rstrip("\n")}
        case "hr":
            return {"kind": "rule"}
        case "table":
            rows = [row for part in node.children for row in part.children]
            return {
                "kind": "table",
                "rows": [[_inline(cell.children) for cell in row.children] for row in rows],
            }
    return None


def _inline(nodes: Iterable[SyntaxTreeNode]) -> list[Node]:
    parts: list[Node] = []
    for node in nodes:
        match node.type:
            case "inline":
                parts += _inline(node.children)
            case "text":
                parts.append({"style": "text", "text": node.content})
            case "code_inline":
                parts.append({"style": "code", "text": node.content})
            case "softbreak":
                parts.append({"style": "text", "text": " "})
            case "hardbreak":
                parts.append({"style": "break"})
            case "strong" | "em":
                parts.append({"style": node.type, "parts": _inline(node.children)})
            case "link":
                target = str(node.attrs.get("href", ""))
                parts.append({"style": "link", "target": target, "parts": _inline(node.children)})
            case "image":  # no file is read for the notes; the description replaces the picture
                parts.append({"style": "text", "text": f"[{node.content}]"})
    return parts
