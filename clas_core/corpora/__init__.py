"""Reading parallel text in the forms people have it in, and saying what is wrong with it.

    one table         tables.py     .tsv, .csv, .jsonl: all languages side by side
    a file a language files.py      folders and lists of text files; NTREX, FLORES, Moses, XQuAD
    the hub           hub.py        hub:owner/name, through the datasets library
                      reading.py    which of these a path or name is
                      checks.py     what makes text unusable, and what is only suspicious
                      report.py     both, as a whole, for a page to show

Readers return a `RawCorpus`: what was found, as it was spelled, with every problem on the way.
`clas_core.corpus.ParallelCorpus` is what is left when there is none.
"""

from .reading import read
from .report import CorpusReport, check_corpus

__all__ = ["CorpusReport", "check_corpus", "read"]
