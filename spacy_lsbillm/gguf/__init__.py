"""Using GGUF files (of llama.cpp, Ollama, LM Studio and others) as bases. Imports no spaCy."""

from .convert import DTYPES, import_gguf

__all__ = ["DTYPES", "import_gguf"]
