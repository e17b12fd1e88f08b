"""Finding a user's module and importing it, in the process that runs functions and in no other."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from askq.tools import Tool, tool_of


class LoadError(Exception):
    """A function that cannot be loaded. `file` and `line` tell where the mistake is, if that is known."""

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line

    def __str__(self) -> str:
        place = "" if self.file is None else f"{self.file}{'' if self.line is None else f':{self.line}'}: "
        return place + self.message


def file_of(module: str, folders: Sequence[Path]) -> Path | None:
    """The file of a module in the first folder that has it."""
    parts = module.split(".")
    for folder in folders:
        for path in (folder.joinpath(*parts).with_suffix(".py"), folder.joinpath(*parts, "__init__.py")):
            if path.is_file():
                return path
    return None


def reserved(module: str) -> bool:
    """Whether a module of this name can not be a user's: it would be taken for Python's own, or for askq."""
    first = module.partition(".")[0]
    return first in sys.stdlib_module_names or first in ("askq", "__main__")


def make_importable(folders: Sequence[Path]) -> None:
    """Let modules of these folders be imported: after Python's own, so that a `queue.py` breaks nothing, and before
    installed packages, so that a `config.py` beside them is theirs and not askq's."""
    places = [str(folder) for folder in folders if str(folder) not in sys.path]
    installed = (at for at, place in enumerate(sys.path) if "site-packages" in place or "dist-packages" in place)
    at = next(installed, len(sys.path))
    sys.path[at:at] = places


def load(module: str, function: str, folders: Sequence[Path]) -> Tool:
    """A registered function. Raises LoadError; whatever else the module does, it does."""
    path = file_of(module, folders)
    if path is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise LoadError(f"there is no module {module!r}: looked for {module.replace('.', '/')}.py in {looked}")
    if reserved(module):
        raise LoadError(f"the name {module!r} is taken by Python or askq; give the file another one", file=str(path))
    found = _imported(module, path)
    value = getattr(found, function, None)
    if value is None:
        names = [name for name, part in vars(found).items() if tool_of(part) is not None]
        near = difflib.get_close_matches(function, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"functions with @tool in it: {', '.join(names) or 'none'}"
        raise LoadError(f"has no function {function!r}; {hint}", file=str(path))
    made = tool_of(value)
    if made is None:
        raise LoadError(
            f"{function!r} is not marked with @tool, so it is never run", file=str(path), line=line_of(value)
        )
    return made


def line_of(value: object) -> int | None:
    """The line a function begins on."""
    try:
        return inspect.getsourcelines(value)[1]  # type: ignore[arg-type]
    except (OSError, TypeError):
        return None


def _imported(module: str, path: Path) -> ModuleType:
    known = sys.modules.get(module)
    if known is None:
        try:
            known = importlib.import_module(module)
        except SyntaxError as error:
            place = error.filename or str(path)
            raise LoadError(f"is not Python: {error.msg}", file=place, line=error.lineno) from error
        except BaseException as error:
            # Whatever it raises, `SystemExit` included: it must not end whoever only wants to know.
            file, line = _where(error, path)
            told = f"cannot be imported: {type(error).__name__}: {error}"
            raise LoadError(told[:500], file=file, line=line) from error
    found = getattr(known, "__file__", None)
    if found is None or Path(found).resolve() != path.resolve():
        raise LoadError(
            f"the name {module!r} is taken by {found or 'a package'}; give the file another one", file=str(path)
        )
    return known


def _where(error: BaseException, path: Path) -> tuple[str, int | None]:
    """The last place among the user's own files that led to an error."""
    folder = str(path.parent.resolve())
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if str(Path(frame.filename).resolve()).startswith(folder):
            return frame.filename, frame.lineno
    return str(path), None
