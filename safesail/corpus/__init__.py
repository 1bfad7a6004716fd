"""Documents from local files and the Hugging Face hub, read one at a time."""

from safesail.corpus._corpus import Corpus
from safesail.corpus._document import Document, Message
from safesail.corpus._rows import read_rows

__all__ = ["Corpus", "Document", "Message", "read_rows"]
