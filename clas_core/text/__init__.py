"""Languages, and parallel text in the forms people have it in.

    languages, scripts, detection     what a language is called, how it is written, which one it is
    corpus.py                         the same sentences in several languages

Readers return a `RawCorpus`: what was found, as it was spelled, with every problem on the way.
`ParallelCorpus` is what is left when there is none.

    one table         tables.py     .tsv, .csv, .jsonl: all languages side by side
    a file a language files.py      folders and lists of text files; NTREX, FLORES, Moses, XQuAD
    the hub           hub.py        hub:owner/name, through the datasets library
                      reading.py    which of these a path or name is
                      checks.py     what makes text unusable, and what is only suspicious
                      report.py     both, as a whole, for a page to show
"""
