"""What was found on real models, on the page."""

from clas_core.evaluation.telling.real import Row
from clas_core.ui.parts import findings as module


class Told:
    name, about, shown = "A<b>", "a & b", -1

    def __init__(self):
        self.data = {"command": "run <it>", "languages": ["en", "sw"]}
        self.rows, self.helped = [Row("what <x>", "steered", "beside")], []


def test_nothing_found_shows_nothing():
    assert module.findings_markup([]) == ""


def test_it_stands_beside_the_village_and_the_paper():
    text = module.findings_markup([Told()], "it helps in village-qa")
    assert "The village: it helps in “" in text
    assert "village-qa" not in text
    assert "XNLI Llama-3.1-8B +1.93" in text
    assert "A&lt;b&gt;" in text
    assert "what &lt;x&gt;" in text
    assert "run &lt;it&gt;" in text
    assert "<x>" not in text
