"""What texts mean, as vectors: each is the mean of its pieces of words, which a table has. The extra `semantic`.

The table is WordLlama's, 32,000 pieces of 256 numbers, 16 MB of memory; its package ships it, so that nothing is
fetched. The package's own code is not imported: it would set up logging for the whole process, and looks for the pieces
where they are not, and then on the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway.errors import SettingsError
from gateway.settings import NO_SEMANTIC

_PACKAGE = "wordllama"
_PIECES = "tokenizers/l2_supercat_tokenizer_config.json"
_TABLE = "weights/l2_supercat_256.safetensors"
_MAX_TEXT = 1_000  # characters
_LEAST_LIKENESS = 0.1  # what is less like has nothing to do with it


class WordVectors:
    """A table of words' meanings."""

    def __init__(self) -> None:
        """Read it from its package. Raises SettingsError where the extra is not installed."""
        try:
            import numpy
            from safetensors.numpy import load
            from tokenizers import Tokenizer

            spec = find_spec(_PACKAGE)
            if spec is None or spec.origin is None:
                raise ImportError(_PACKAGE)
        except ImportError:
            raise SettingsError(NO_SEMANTIC) from None
        folder = Path(spec.origin).parent
        try:
            self._pieces = Tokenizer.from_buffer((folder / _PIECES).read_bytes())
            self._table = load((folder / _TABLE).read_bytes())["embedding.weight"]
        except Exception as error:  # the libraries have errors of their own
            raise SettingsError(f"GATEWAY_TOOL_RANKING: semantic can't read {_PACKAGE}'s table: {error}.") from None
        self._pieces.no_padding()
        self._pieces.no_truncation()
        self._numpy = numpy
        self.size = int(self._table.shape[1])

    def table(self, rows: int) -> Any:
        """Room for so many vectors: an array of numpy's, of zeros."""
        return self._numpy.zeros((rows, self.size), self._numpy.float32)

    def of(self, text: str) -> Any:
        """A text's vector, of length 1; of zeros for a text without pieces. 20 us for a few words."""
        readable = text[:_MAX_TEXT].encode(errors="replace").decode()  # halves of surrogate pairs are no text
        numbers = self._pieces.encode(readable, add_special_tokens=False).ids
        if not numbers:
            return self.table(1)[0]
        found = self._table[numbers].mean(axis=0, dtype=self._numpy.float32)
        return found / max(math.sqrt(found @ found), 1e-9)

    def nearest(self, vectors: Any, wanted: Any, limit: int, among: Sequence[int] | None = None) -> list[int]:
        """The numbers of the vectors that are nearest to one, the nearest first; of what is not far from it."""
        likeness = vectors @ wanted
        if among is not None:
            likeness = likeness[among]
        limit = min(limit, len(likeness))
        best = likeness.argpartition(-limit)[-limit:] if limit else likeness.argsort()
        best = best[likeness[best] > _LEAST_LIKENESS]
        found: list[int] = best[likeness[best].argsort()[::-1]].tolist()
        return found if among is None else [among[number] for number in found]
