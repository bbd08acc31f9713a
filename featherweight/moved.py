"""Keeps modules that moved since version 0.1 importable under their old names."""

import importlib
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "compress.pruning": "compress.lstm.pruning",
    "featherweight.dataset": "featherweight.data.dataset",
    "featherweight.evaluation": "featherweight.quality.evaluation",
    "featherweight.inference": "featherweight.prediction.predict",
    "featherweight.reporting": "featherweight.reports.reporting",
}


class OldNames(MetaPathFinder, Loader):
    """Imports the module with the new name for the old one: both are the same object."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns a spec for a module that moved, or None for any other."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Imports the module under its new name."""
        module = importlib.import_module(MOVED[spec.name])
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restores the spec of the module, which is already initialized."""
        module.__spec__ = self._spec
