"""A studio on a tiny random model and a made-up corpus in twelve languages; seconds to make."""

from __future__ import annotations

from dataclasses import replace

from tiny import make_tokenizer, tiny_llama_model

from clas_core.atlas.atlas import Atlas
from clas_core.model.loading import load
from clas_core.steering.recipe import Recipe
from clas_core.studies.first_screen import answers
from clas_core.text.corpus import ParallelCorpus
from clas_core.ui.behind.choice import Choice
from clas_core.ui.behind.profile import Profile
from clas_core.ui.behind.stored import Stored
from clas_core.ui.behind.studio import Studio

STRENGTHS = (-1.0, 0.0, 0.5, 0.75, 1.0, 2.0)  # at which there are stored answers

# A frame a language and the same fillers in all of them.
FRAMES = {
    "en": "{} sees {}.|Anna,Tom,the cat,the river|a boat,the moon,bread",
    "es": "{} ve {}.|Ana,Tomás,el gato,el río|un barco,la luna,pan",
    "de": "{} sieht {}.|Anna,Tom,die Katze,der Fluss|ein Boot,den Mond,Brot",
    "fr": "{} voit {}.|Anne,Tom,le chat,la rivière|un bateau,la lune,du pain",
    "ru": "{} видит {}.|Анна,Том,кошка,река|лодку,луну,хлеб",
    "zh": "{}看见{}。|安娜,汤姆,猫,河|船,月亮,面包",
    "ar": "{} يرى {}.|أحمد,سامي,القط,النهر|قاربا,القمر,الخبز",
    "hi": "{} {} देखता है।|अन्ना,टॉम,बिल्ली,नदी|नाव,चाँद,रोटी",
    "tr": "{} {} görüyor.|Ayşe,Can,kedi,nehir|tekneyi,ayı,ekmeği",
    "vi": "{} nhìn thấy {}.|Lan,Nam,con mèo,dòng sông|thuyền,mặt trăng,bánh mì",
    "th": "{}เห็น{}|แอนนา,ทอม,แมว,แม่น้ำ|เรือ,ดวงจันทร์,ขนมปัง",
    "sw": "{} anaona {}.|Anna,Juma,paka,mto|mashua,mwezi,mkate",
}


def made_up_corpus() -> ParallelCorpus:
    sentences = {}
    for code, row in FRAMES.items():
        frame, people, things = row.split("|")
        sentences[code] = [
            frame.format(who, what) for who in people.split(",") for what in things.split(",")
        ]
    return ParallelCorpus("made-up", sentences)


def made_up_village() -> ParallelCorpus:
    """The made-up corpus in the place of the bundled village."""
    return replace(made_up_corpus(), is_bundled=True)


def examples(code: str) -> list[str]:
    corpus = made_up_corpus()
    return [" ".join(corpus.sentences[code][n : n + 3]) + "\n" for n in (0, 4, 8)]


def tiny_studio(profile: Profile | None = None) -> Studio:
    lm = load(tiny_llama_model(), make_tokenizer())
    corpus = made_up_village()
    choice = Choice("village", None, "village", corpus)
    studio = Studio(lm, choice, Atlas.measure(lm, corpus), examples=examples, profile=profile)
    studio.collapse = 1.4
    studio.stored = tiny_stored(studio)
    return studio


def tiny_stored(studio: Studio) -> Stored:
    """Real answers of the tiny model at a few strengths in three languages, and made-up curves."""
    question = {"story": "Anna sees a boat.", "ask": "What does Anna see?", "asked": "a boat"}
    data = {
        code: answers(studio, Recipe(), code, STRENGTHS, question) for code in ("sw", "en", "ar")
    }
    line = [[share, share - 0.05, share + 0.05] for share in (0.9, 0.9, 0.9, 0.85, 0.8, 0.3)]
    curves = {
        "strengths": list(STRENGTHS),
        "knows": {"steered": line, "controls": [line[::-1], line]},
        "speaks": {"steered": line, "controls": [line[:3] * 2, line]},
    }
    index = {
        "opening": "sw",
        "recipe": {},
        "counts": {"questions": 4, "stories": 4, "controls": 2},
        "curves": dict.fromkeys(data, curves),
        "vocabulary": None,
    }
    return Stored(index, data.__getitem__)
