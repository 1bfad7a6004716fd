"""Documents from local files and the Hugging Face hub, read one at a time."""

from safesail.corpus._corpus import Corpus
from safesail.corpus._document import Document, Message

__all__ = ["Corpus", "Document", "Message"]
