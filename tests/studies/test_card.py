"""The card that ships is what its template makes of its own figures."""

import json

from clas_core.model.loading import load
from clas_core.paths import ASSETS
from clas_core.studies.card import card
from clas_core.studies.scores import LanguageScores
from clas_core.village.grammar import CODES
from clas_core.village.train import Settings

FOLDER = ASSETS / "village" / "model"


def test_the_shipped_card_is_the_template_s():
    """So that a word changed in one is changed in the other."""
    shipped = (FOLDER / "README.md").read_text("utf-8")
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in shipped.splitlines()]
    scores = {
        row[0]: LanguageScores(*(float(cell) / 100 for cell in row[1:]))
        for row in rows[rows.index(["## Measured"]) :]
        if row[0] in CODES
    }
    counts = [list(map(int, row[1:])) for row in rows if row[0].isdigit()]
    stages = [Settings(**one) for one in json.loads((FOLDER / "settings.json").read_text())]
    assert card(load("village").model, stages, scores, 300, counts, 0.1) == shipped
