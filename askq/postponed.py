"""Packages that are imported when something of them is first used, for programs that end sooner than that."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def postpone(package: str) -> None:
    """Let `import` give an empty package of this name, which becomes itself when anything is asked of it.

    Its submodules are imported as ever. Does nothing where it was imported already. importlib's own LazyLoader does
    not do: its packages become themselves when a submodule is imported.
    """
    known = any(isinstance(one, _Finder) and one.name == package for one in sys.meta_path)
    if package not in sys.modules and not known:
        sys.meta_path.insert(0, _Finder(package))


class _Finder(MetaPathFinder):
    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        def become(name: str) -> Any:
            # The import system asks for things that a package need not have.
            if name.startswith("__") or "__getattr__" not in vars(module):
                raise AttributeError(name)
            del vars(module)["__getattr__"]
            self._loader.exec_module(module)
            return getattr(module, name)

        vars(module)["__getattr__"] = become
