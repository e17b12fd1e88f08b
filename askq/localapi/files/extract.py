"""The text of a file, by the ending of its name: text in several encodings, HTML without its markup, PDF."""

from __future__ import annotations

import asyncio
import html.parser
import json
import shutil
import tempfile
from pathlib import Path

_TEXTS = (
    ".c .cc .cfg .conf .cpp .cs .css .csv .go .h .hpp .htm .html .ini .java .js .json .jsonl .kt .log .lua .md .php "
    ".pl .py .r .rb .rs .rst .scala .sh .sql .srt .swift .tex .toml .ts .tsv .txt .xml .yaml .yml"
)
TEXTS = frozenset(_TEXTS.split())
CHARACTERS = 20_000_000
"""About the five million tokens that OpenAI takes of one file."""

_PROGRAM = f"""\
import json
import logging

from pypdf import PdfReader

logging.disable()
pages, size = [], 0
for page in PdfReader("in.pdf").pages:
    pages.append(page.extract_text())
    size += len(pages[-1])
    if size > {CHARACTERS}:
        break
with open("out.json", "w", encoding="ascii") as file:
    json.dump(pages, file)
"""


class Unreadable(Exception):
    """There is no text to be had of this file. `code` is OpenAI's word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


async def text_of(path: Path, name: str, work: Path) -> str:
    """The text of the file at `path`, which is called `name`; raises Unreadable. `work`: where to put things."""
    ending = Path(name).suffix.lower()
    if ending == ".pdf":
        text = await _of_pdf(path, work)
    elif ending in TEXTS:
        text = await asyncio.to_thread(_of_text, path, ending)
    else:
        raise Unreadable(
            "unsupported_file",
            f"The file type '{ending or 'none'}' is not supported; PDF, text, Markdown, CSV, JSON, HTML and code are.",
        )
    if not text.strip():
        raise Unreadable("invalid_file", "The file has no text.")
    if len(text) > CHARACTERS:
        raise Unreadable("invalid_file", f"The file has too much text: more than {CHARACTERS} characters.")
    return text


def _of_text(path: Path, ending: str) -> str:
    text = decoded(path.read_bytes())
    if ending in (".html", ".htm"):
        reader = _Reader()
        reader.feed(text)
        reader.close()
        return reader.text()
    return text


def decoded(content: bytes) -> str:
    """Bytes as text; raises Unreadable for what is none."""
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in content and not wide:
        raise Unreadable("invalid_file", "The file is not text: it has NUL bytes.")
    for encoding in ("utf-16",) if wide else ("utf-8-sig", "euc_kr", "cp1252"):
        try:
            text = content.decode(encoding).replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
        if encoding == "euc_kr":
            beyond = [sign for sign in text if not sign.isascii()]
            if sum("\uac00" <= sign <= "\ud7a3" for sign in beyond) < len(beyond) / 2:
                continue  # other encodings of the East use the same bytes
        return text
    raise Unreadable("invalid_file", "The file's encoding is unknown; UTF-8 always works.")


_BLOCKS = "address article br dd div dt h1 h2 h3 h4 h5 h6 hr li p pre section table td th tr ul ol"


class _Reader(html.parser.HTMLParser):
    """Collects what a person would see."""

    _HIDDEN = ("script", "style", "template", "head")
    _ENDS_LINE = frozenset(_BLOCKS.split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._HIDDEN:
            self._hidden += 1
        if tag in self._ENDS_LINE:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._HIDDEN:
            self._hidden = max(self._hidden - 1, 0)
        if tag in self._ENDS_LINE:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data)

    def text(self) -> str:
        """The lines, without empty ones."""
        lines = (" ".join(line.split()) for line in "".join(self._parts).splitlines())
        return "\n".join(line for line in lines if line)


async def _of_pdf(path: Path, work: Path) -> str:
    """Read in the sandbox: a PDF file is a program of a kind, and may be made to never end."""
    from askq.localapi.tutor.sandbox import Limits, shared  # it brings SymPy's weight

    limits = Limits(
        seconds=60.0,
        cpu_seconds=50,
        memory_bytes=1 << 30,
        output_bytes=1 << 16,
        file_bytes=4 * CHARACTERS,
        folder_bytes=1 << 30,
        files=2,
    )
    folder = Path(tempfile.mkdtemp(dir=work))
    try:
        await asyncio.to_thread(shutil.copyfile, path, folder / "in.pdf")
        run = await shared().run(_PROGRAM, folder=folder, limits=limits)
        if run.ended == "unavailable":
            raise Unreadable("server_error", "No confined process could be started to read PDF files.")
        if run.ended != "ok":
            last = run.output.strip().splitlines()[-1:] or [run.ended]
            raise Unreadable("invalid_file", f"The PDF file cannot be read: {last[0][:200]}.")
        pages: list[str] = json.loads((folder / "out.json").read_bytes())
        return "\n\n".join(pages).encode("utf-8", "replace").decode()
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
