"""Model cards: what each model needs, read from data/models.toml. Without them a newer model refuses the older parameters.

An id that stands nowhere gets the cautious card [unknown], so that any compatible server's model can be used.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from chatpro.config import ROOT
from chatpro.errors import ConfigError
from chatpro.models import ModelCard

PATH = ROOT / "data" / "models.toml"
REQUIRED = {"title", "context", "output_limit", "tokenizer"}


class Cards:
    """The cards by model id."""

    def __init__(self, path: Path = PATH) -> None:
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"The model cards in {path} can't be read: {error}") from error
        self._cards = {model_id: _card(model_id, table, path) for model_id, table in tables.items()}
        if "unknown" not in self._cards:
            raise ConfigError(f"The model cards in {path} lack the table [unknown], which stands in for models that have none.")

    def of(self, model_id: str) -> ModelCard:
        """The card of a model: its own, its base's (a fine-tuned `ft:BASE:…`, a dated `BASE-2025-04-14`), or the cautious one."""
        base = model_id.split(":")[1] if model_id.startswith("ft:") else model_id
        for known in (base, re.sub(r"-(\d{4}-\d{2}-\d{2}|\d{4})$", "", base)):
            if known in self._cards and known != "unknown":
                card = self._cards[known]
                return card if model_id == known else replace(card, id=model_id)
        return replace(self._cards["unknown"], id=model_id, title=model_id)


def _card(model_id: str, table: Any, path: Path) -> ModelCard:
    known = {field.name: field.type for field in fields(ModelCard)} if isinstance(table, dict) else {}
    if not known or not REQUIRED <= table.keys() <= known.keys() - {"id"}:
        raise ConfigError(f"The card [{model_id}] in {path} is wrong: it needs {', '.join(sorted(REQUIRED))} and takes {', '.join(sorted(known))}.")
    return ModelCard(id=model_id, **table)
