"""Languages, and parallel text in the forms people have it in.

    languages, scripts                what a language is called, and how it is written
    detection, profiles               which language a text is in, by what letter statistics
    corpus.py                         the same sentences in several languages

Readers return a `RawCorpus`: what was found, as it was spelled, with every problem on the way.
`ParallelCorpus` is what is left when there is none.

    one table         tables.py     .tsv, .csv, .jsonl: all languages side by side
    a file a language files.py      folders and lists of text files; NTREX, FLORES, Moses, XQuAD
                      parquet.py    one of these, bounded as it is unpacked
    the hub           hub.py        hub:owner/name, through the datasets library
                      reading.py    which of these a path or name is
                      checks.py     what makes text unusable, and what is only suspicious
                      report.py     both, as a whole, for a page to show
"""
