"""Packages that are imported when something of them is first used, for programs that end sooner than that."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:
    # The module that has them takes longer to import than some of what is postponed.
    Loader = MetaPathFinder = object


def postpone(package: str, *, names: Mapping[str, str] | None = None) -> None:
    """Let `import` give an empty package of this name, which becomes itself when anything is asked of it.

    Its submodules are imported as ever, and do not make it so; nor do `names`, each of which is found in the submodule
    given with it. Does nothing where it was imported already. For
    programs of one thread: while a package becomes itself, another thread may find something missing.
    importlib's own LazyLoader does not do: its packages become themselves when a submodule is imported.
    """
    known = any(isinstance(one, _Finder) and one.name == package for one in sys.meta_path)
    if package not in sys.modules and not known:
        sys.meta_path.insert(0, _Finder(package, names or {}))


class _Finder(MetaPathFinder):
    def __init__(self, name: str, names: Mapping[str, str]) -> None:
        self.name = name
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader, self._names)
        return spec


class _Later(Loader):
    def __init__(self, loader: Loader, names: Mapping[str, str]) -> None:
        self._loader = loader
        self._names = names

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        def become(name: str) -> Any:
            # The import system asks for things that a package need not have.
            if (name.startswith("__") and name != "__version__") or "__getattr__" not in vars(module):
                raise AttributeError(name)
            if name in self._names:
                return getattr(importlib.import_module(f"{module.__name__}.{self._names[name]}"), name)
            whole = f"{module.__name__}.{name}"
            if PathFinder.find_spec(whole, module.__path__) is not None:
                # `from package import submodule` asks the package first.
                return importlib.import_module(whole)
            del vars(module)["__getattr__"]
            self._loader.exec_module(module)
            return getattr(module, name)

        vars(module)["__getattr__"] = become
