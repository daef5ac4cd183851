"""Tasks: published file formats, prompts, splits and scores, on little files of our own."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from clas_core.errors import ClasError
from clas_core.evaluation.judging.items import ChoiceItem, Items, OpenItem, Test, Validation
from clas_core.evaluation.tasks import KINDS, FewShot, Likelihood, by_likelihood, open_task
from clas_core.evaluation.tasks.parallel import BitsPerByte, Fidelity, Retrieval
from clas_core.evaluation.tasks.xnli import ENGLISH, VERDICTS, XNLI
from clas_core.text.corpus import ParallelCorpus
from clas_core.village.grammar import CODES, Grammar
from clas_core.village.tasks import nli_items, qa_items

LABELS = ("entailment", "neutral", "contradiction")


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def xnli_rows(split, count=6):
    return [
        {
            "language": code,
            "gold_label": LABELS[(prompt + k) % 3],
            "sentence1": f"{code} {split} premise {prompt}.",
            "sentence2": f'{code} "hypothesis {k}.',  # a quote that nothing closes
            "promptID": str(prompt),
            "pairID": str(3 * prompt + k),
            "genre": "letters",
        }
        for code in ("en", "sw")
        for prompt in range(count)
        for k in range(3)
    ]


@pytest.fixture
def xnli(tmp_path):
    for split in ("dev", "test"):
        rows = xnli_rows(split)
        lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
        path = tmp_path / "XNLI-1.0" / f"xnli.{split}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


@pytest.fixture
def xquad(tmp_path):
    for code in ("en", "zh"):
        paragraphs = [
            {
                "context": f"{code} context {n}",
                "qas": [
                    {
                        "id": f"id{n}-{k}",
                        "question": f"{code} question {k}?",
                        "answers": [{"text": f"answer {n}", "answer_start": 3}],
                    }
                    for k in range(2)
                ],
            }
            for n in range(40)
        ]
        data = {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (tmp_path / f"xquad.{code}.json").write_text(json.dumps(data), "utf-8")
    return tmp_path


@pytest.fixture
def xcopa(tmp_path):
    for code, premise in (("tr", "Kapı açıldı."), ("th", "ประตูเปิด")):
        for split in ("val", "test"):
            rows = [
                {
                    "premise": premise,
                    "choice1": "Rüzgar esti.",
                    "choice2": "Kedi uyudu.",
                    "question": ("cause", "effect")[n % 2],
                    "label": n % 2,
                    "idx": n,
                    "changed": False,
                }
                for n in range(4)
            ]
            write_jsonl(tmp_path / "data" / code / f"{split}.{code}.jsonl", rows)
    return tmp_path


@pytest.fixture
def belebele(tmp_path):
    for code in ("eng_Latn", "swh_Latn", "zho_Hant"):
        rows = [
            {
                "link": f"https://example.org/{page}",
                "question_number": number,
                "flores_passage": f"{code} passage {page}",
                "question": f" {code} question {number}? ",
                **{f"mc_answer{k}": f"answer {k}" for k in range(1, 5)},
                "correct_answer_num": str(1 + page % 4),
                "dialect": code,
                "ds": "2023-05-03",
            }
            for page in range(30)
            for number in (1, 2)
        ]
        write_jsonl(tmp_path / f"{code}.jsonl", rows)
    return tmp_path


@pytest.fixture
def corpus():
    languages = {"en": "English", "de": "Deutsch", "zh": "中文"}
    return ParallelCorpus(
        "little", {code: [f"{n} {word} {n}" for n in range(30)] for code, word in languages.items()}
    )


def test_every_task_keeps_its_promises(tmp_path, request):
    """Same items in every language, the first few are the first of more, and no text is in both
    splits."""
    folders = {}
    for name in ("xnli", "xquad", "xcopa", "belebele"):
        folders[name] = request.getfixturevalue(name)
    for name, kind in KINDS.items():
        if name == "belebele":  # its files are any .jsonl: a folder of its own
            (tmp_path / "b").mkdir()
            for path in tmp_path.glob("*_*.jsonl"):
                path.rename(tmp_path / "b" / path.name)
            task = open_task(name, str(tmp_path / "b"))
        else:
            task = open_task(name, str(folders[name]) if kind.needs == "files" else None)
        assert task.name == name
        one, other = task.languages[0], task.languages[-1]
        for split in (Validation, Test):
            some, many = task.items(one, split, 3), task.items(one, split, 6)
            assert some.items == many.items[:3]
            assert (some.task, some.language, some.split) == (name, one, split)
            there = task.items(other, split, 6)
            assert there.keys == many.keys
            assert there.groups == many.groups
        count = 10 if kind.needs == "nothing" else None  # all, but drawing stories takes a while
        held = set(task.items(one, Validation, count).groups)
        assert held.isdisjoint(task.items(one, Test, count).groups)
        with pytest.raises(ClasError, match="xx; its languages are"):
            task.items("xx", Test)


@pytest.mark.parametrize("split", [Validation, Test])
def test_village_tasks_are_the_models_own(split):
    grammar = Grammar.load("th")
    task = open_task("village-nli")
    assert task.languages == CODES
    for item, own in zip(task.items("th", split, 5).of(ChoiceItem), nli_items(split.name, 5)):
        prompt = own.render(grammar)
        assert (item.prompt, item.choices) == (prompt.text, prompt.choices)
        assert item.choices[item.answer] == prompt.answer
    task = open_task("village-qa")
    for item, own in zip(task.items("th", split, 5).of(OpenItem), qa_items(split.name, 5)):
        prompt = own.render(grammar)
        assert (item.prompt, item.answers) == (prompt.text, (prompt.answer,))


def test_village_qa_is_scored_in_three_ways():
    task = open_task("village-qa")
    items = task.items("en", Test, 3)
    right = [item.answers[0] for item in items.of(OpenItem)]
    f1, exact, asked = task.score(items, [right[0], "", right[2].upper()])
    assert [s.metric for s in (f1, exact, asked)] == list(task.metrics) == ["f1", "exact", "asked"]
    for scores in (f1, exact, asked):
        assert scores.values == (1.0, 0.0, 1.0)
        assert scores.keys == items.keys


def test_choices_are_right_where_the_truth_is_likeliest():
    items = Items(
        "task", "en", Test, tuple(ChoiceItem(str(n), str(n), "", ("a", "b"), n) for n in range(2))
    )
    (scores,) = open_task("village-nli").score(items, [[-1.0, -2.0], [-1.0, -2.0]])
    assert scores.values == (1.0, 0.0)


def test_xnli_from_tsv_and_jsonl(xnli, tmp_path):
    task = open_task("xnli", str(xnli))
    assert task.languages == ("en", "sw")
    items = task.items("sw", Validation)
    assert len(items) == 18
    first = next(item for item in items.of(ChoiceItem) if item.key == "validation/4")
    assert first.group == "validation/1"
    assert first.prompt == ""
    assert first.answer == 2
    assert first.choices == tuple(
        f' sw dev premise 1., sivyo? {word}, sw "hypothesis 1.'
        for word in ("Ndiyo", "Pia", "Hapana")
    )
    for split in ("dev", "test"):
        write_jsonl(tmp_path / "lines" / f"xnli.{split}.jsonl", xnli_rows(split))
    lines = open_task("xnli", str(tmp_path / "lines"))
    assert lines.items("sw", Validation) == items
    english = XNLI(str(xnli), dict.fromkeys(VERDICTS, ENGLISH)).items("sw", Validation, 1)
    assert ", right? Yes, " in english.of(ChoiceItem)[0].choices[0]


def test_xnli_languages_have_different_words():
    """Three words that can be told apart, in all fifteen languages."""
    assert len(VERDICTS) == 15
    for verdicts in VERDICTS.values():
        assert len({verdicts.yes, verdicts.also, verdicts.no}) == 3


def test_xquad(xquad):
    task = open_task("xquad", str(xquad))
    assert task.languages == ("en", "zh")
    validation, test = (task.items("en", split) for split in (Validation, Test))
    assert len(validation) + len(test) == 80
    assert 4 <= len(validation) <= 30  # a fifth of 40 paragraphs, two questions each
    item = next(item for item in test.of(OpenItem) if item.key.endswith("-1"))
    n = item.key[2:-2]
    assert item.group == f"id{n}-0"
    assert item.prompt == f"Context: en context {n}\n\nQuestion: en question 1?\n\nAnswer:"
    assert item.answers == (f"answer {n}",)
    few = task.items("zh", Test, 2)
    predictions = [f"the {few.of(OpenItem)[0].answers[0]}", " "]
    found = task.score(few, predictions)
    assert [s.metric for s in found] == ["f1", "exact", "squad_f1", "squad_exact"]
    # English articles count in Chinese answers, but for SQuAD's own script.
    assert [s.values[0] for s in found] == pytest.approx([4 / 5, 0, 1, 1])
    assert [s.values[1] for s in found] == [0, 0, 0, 0]


def test_xcopa(xcopa):
    task = open_task("xcopa", str(xcopa))
    assert task.languages == ("th", "tr")
    by_key = {item.key: item for item in task.items("tr", Test).of(ChoiceItem)}
    assert by_key["test/0"].prompt == "Kapı açıldı çünkü"
    assert by_key["test/1"].prompt == "Kapı açıldı bu yüzden"
    assert by_key["test/1"].choices == (" rüzgar esti.", " kedi uyudu.")
    assert by_key["test/1"].answer == 1
    assert task.items("th", Test).of(ChoiceItem)[0].prompt.startswith("ประตูเปิด ")


def test_belebele(belebele):
    task = open_task("belebele", str(belebele))
    assert task.languages == ("en", "sw", "zh-Hant")
    validation, test = (task.items("sw", split) for split in (Validation, Test))
    assert len(validation) + len(test) == 60
    item = test.of(ChoiceItem)[0]
    page = int(item.group.rpartition("/")[2])
    assert item.prompt == (
        f"P: swh_Latn passage {page}\nQ: swh_Latn question {item.key[-3]}?\n"
        "A: answer 1\nB: answer 2\nC: answer 3\nD: answer 4\nAnswer:"
    )
    assert item.choices == (" A", " B", " C", " D")
    assert item.answer == page % 4


def test_prompts_are_those_of_lm_evaluation_harness(xcopa):
    """Where they should be: English XNLI, XCOPA where premises end in a full stop, Belebele."""
    tasks = pytest.importorskip("lm_eval.tasks")
    jinja2, yaml = pytest.importorskip("jinja2"), pytest.importorskip("yaml")
    folder = tasks.__path__[0]

    def template(path, name, **fields):
        with open(f"{folder}/{path}", encoding="utf-8") as file:
            return jinja2.Template(yaml.safe_load(file)[name]).render(fields)

    theirs = template("xnli/xnli_en.yaml", "doc_to_choice", premise="It is.", hypothesis="Is it?")
    ours = ENGLISH.join("It is.", "Is it?")
    assert theirs == str([text.removeprefix(" ") for text in ours])

    utils = pytest.importorskip("lm_eval.tasks.xcopa.utils")
    item = open_task("xcopa", str(xcopa)).items("tr", Test).of(ChoiceItem)[0]
    asked = "cause" if "çünkü" in item.prompt else "effect"
    row = {"premise": "Kapı açıldı.", "question": asked}
    row |= {"choice1": "Rüzgar esti.", "choice2": "Kedi uyudu."}
    assert utils.doc_to_text_tr(row) == item.prompt
    assert [f" {text}" for text in utils.doc_to_choice(row)] == list(item.choices)


def test_belebele_prompt_is_the_harness_s(belebele):
    tasks = pytest.importorskip("lm_eval.tasks")
    jinja2, yaml = pytest.importorskip("jinja2"), pytest.importorskip("yaml")
    item = open_task("belebele", str(belebele)).items("sw", Test).of(ChoiceItem)[0]
    page, number = item.group.rpartition("/")[2], item.key[-3]
    fields = {"flores_passage": f"swh_Latn passage {page}"}
    fields |= {"question": f" swh_Latn question {number}? "}
    fields |= {f"mc_answer{k}": f"answer {k}" for k in range(1, 5)}
    with open(f"{tasks.__path__[0]}/belebele/_default_template_yaml", encoding="utf-8") as file:
        prompt = yaml.safe_load(file)["doc_to_text"]
    assert jinja2.Template(prompt).render(fields) == item.prompt


def test_retrieval_finds_the_nearest_in_the_anchor(corpus):
    task = Retrieval(corpus)
    assert task.languages == ("de", "zh")
    items = task.items("de", Test, 3)
    first = items.items[0]
    assert (first.text, first.anchor) == (
        f"{first.key} Deutsch {first.key}",
        f"{first.key} English {first.key}",
    )
    text = np.array([[1.0, 0.1], [0.1, 1.0], [5.0, 5.0]])
    anchor = np.array([[9.0, 0.0], [1.0, 0.9], [0.0, 1.0]])
    (scores,) = task.score(items, (text, anchor))
    assert scores.values == (1.0, 0.0, 0.0)


def test_bits_per_byte_is_all_bits_over_all_bytes(corpus):
    task = BitsPerByte(corpus)
    items = task.items("zh", Test, 4)
    sizes = [len(item.text.encode()) for item in items.items]
    nats = [-3.0, -5.0, -7.0, -11.0]
    (scores,) = task.score(items, nats)
    assert scores.mean == pytest.approx(26.0 / math.log(2) / sum(sizes))
    assert scores.values[1] / scores.values[0] == pytest.approx(5 / 3)


def test_fidelity_is_the_language_of_what_follows(corpus):
    task = Fidelity(corpus)
    items = task.items("de", Test, 4)
    said = [
        "Das ist ein ganz gewöhnlicher deutscher Satz.",
        "This is a perfectly ordinary English sentence.",
        "",
        "这是一个句子。",
    ]
    (scores,) = task.score(items, said)
    assert scores.values == (1.0, 0.0, 0.0, 0.0)
    assert "Deutsch" in items.of(OpenItem)[0].prompt
    forced = Fidelity(corpus, prompts="en").items("de", Test, 4)
    assert "English" in forced.of(OpenItem)[0].prompt
    assert forced.language == "de"


@pytest.mark.parametrize(
    ("language", "said", "score"),
    [
        ("tr", "ok ok ok ok ok ok ok ok ok", 0.0),
        ("tr", "evet evet evet evet evet evet", 0.0),  # the language, but nothing is said
        ("en", "Vi rakk ikke det siste toget, så vi gikk hjem langs elva.", 0.0),
        ("pt-BR", "A biblioteca fecha cedo às sextas, mas abre aos domingos.", 1.0),
        ("pt", "A biblioteca fecha cedo às sextas, mas abre aos domingos.", 1.0),
    ],
)
def test_fidelity_is_not_won_by_loops_or_neighbours(language, said, score):
    codes = ["en", "tr", "pt", "pt-BR"]
    corpus = ParallelCorpus("a", {code: ["One.", "Two.", "Three."] for code in codes})
    task = Fidelity(corpus)
    (scores,) = task.score(task.items(language, Test, 1), [said])
    assert scores.values == (score,)


def test_few_shot_examples_are_solved_validation_items(xnli):
    plain = open_task("xnli", str(xnli))
    task = open_task("xnli", str(xnli), shots=2)
    english, swahili = (task.items(code, Test, 4) for code in ("en", "sw"))
    assert english.items == plain.items("en", Test, 4).items
    assert english.task == task.name == "xnli, 2 examples"
    validation = plain.items("en", Validation)
    truths = {item.choices[item.answer].strip(): item for item in validation.of(ChoiceItem)}
    first, second, end = english.lead.split("\n\n")
    assert end == ""
    assert truths[first].group != truths[second].group
    # The same examples in every language, left out where they come from.
    swahili_first = swahili.lead.split("\n\n")[0]
    match = next(
        i for i in plain.items("sw", Validation).of(ChoiceItem) if i.key == truths[first].key
    )
    assert swahili_first == match.choices[match.answer].strip()
    used = {truths[first].group, truths[second].group}
    assert set(task.items("en", Validation).groups) == set(validation.groups) - used
    assert len(task.items("en", Validation, 12)) == 12
    (scores,) = task.score(english, [[0, -1, -2]] * 4)
    assert scores.task == "xnli, 2 examples"
    assert FewShot(plain, 2, seed=1).items("en", Test, 4).examples != english.examples
    with pytest.raises(ClasError, match="has 6 validation texts in en, too few for 6 examples"):
        FewShot(plain, 6).items("en", Test)


def test_few_shot_answers_stand_after_their_prompts(xquad):
    lead = open_task("xquad", str(xquad), shots=1).items("en", Test, 1).lead
    assert lead.split("Answer:")[1].startswith(" answer ")
    lead = open_task("village-qa", shots=1).items("en", Test, 1).lead
    assert len(lead.strip().split("\n")) == 3  # story, question, answer


def test_a_paragraph_is_one_group_however_a_file_parts_its_questions(xquad):
    """As in copies that give every question a paragraph of its own."""
    before = open_task("xquad", str(xquad)).items("en", Test)
    path = xquad / "xquad.en.json"
    data = json.loads(path.read_text("utf-8"))
    data["data"] = [
        {"paragraphs": [{"context": paragraph["context"], "qas": [q]}]}
        for article in data["data"]
        for paragraph in article["paragraphs"]
        for q in paragraph["qas"]
    ]
    path.write_text(json.dumps(data), "utf-8")
    assert open_task("xquad", str(xquad)).items("en", Test) == before


def test_files_without_answers_are_refused(xquad):
    """Every answer would be wrong."""
    path = xquad / "xquad.en.json"
    text = path.read_text("utf-8")
    for n in range(40):
        text = text.replace(f'"answer {n}"', '""')
    path.write_text(text, "utf-8")
    with pytest.raises(ClasError, match="has no answers"):
        open_task("xquad", str(xquad)).items("en", Test)


def test_likelihood_of_the_truth(xquad):
    task = Likelihood(open_task("xquad", str(xquad)))
    items = task.items("en", Test, 2)
    one = items.of(ChoiceItem)[0]
    assert one.choices[0].startswith(" answer ")
    (scores,) = task.score(items, [[-1.5], [-2.5]])
    assert (scores.metric, scores.values) == ("log_p", (-1.5, -2.5))
    nli = Likelihood(open_task("village-nli")).items("en", Test, 3)
    true = open_task("village-nli").items("en", Test, 3)
    assert [i.choices for i in nli.of(ChoiceItem)] == [
        (i.choices[i.answer],) for i in true.of(ChoiceItem)
    ]
    with pytest.raises(ClasError, match="no answers"):
        Likelihood(open_task("fidelity")).items("en", Test, 2)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the datasets library, that notes what it's asked."""
    asked = []
    rows = {
        ("facebook/xnli", "sw", "test"): [
            {"premise": f"p{n // 3}", "hypothesis": f"h{n}", "label": n % 3} for n in range(6)
        ],
        ("google/xquad", "xquad.en", "validation"): [
            {
                "id": f"q{n}",
                "context": f"c{n // 2}",
                "question": "?",
                "answers": {"text": ["yes"], "answer_start": [0]},
            }
            for n in range(60)
        ],
        ("my/copy", "swh_Latn", "test"): [
            {
                "link": f"l{n}",
                "question_number": 1,
                "flores_passage": "p",
                "question": "q",
                "correct_answer_num": "2",
                **{f"mc_answer{k}": "a" for k in range(1, 5)},
            }
            for n in range(20)
        ],
        ("cambridgeltl/xcopa", "tr", "validation"): [
            {"idx": n, "premise": "A.", "choice1": "B.", "choice2": "C."}
            | {"question": "cause", "label": 0}
            for n in range(3)
        ],
    }

    class DatasetsError(Exception):
        pass

    def load_dataset(repo, config, split):
        asked.append((repo, config, split))
        if asked[-1] not in rows:
            raise DatasetsError(f"Couldn't find {repo}.\nMore words")
        return rows[asked[-1]]

    module = SimpleNamespace(
        load_dataset=load_dataset,
        get_dataset_config_names=lambda repo: ["eng_Latn", "swh_Latn"],
    )
    exceptions = SimpleNamespace(DatasetsError=DatasetsError)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", exceptions)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_only_true_answers_have_a_likelihood():
    corpus = ParallelCorpus.bundled("everyday")
    assert by_likelihood(open_task("village-qa")).metrics == ("log_p",)
    assert by_likelihood(open_task("village-nli")).metrics == ("log_p",)
    for task in (Fidelity(corpus), Retrieval(corpus)):
        assert by_likelihood(task) is task


def test_benchmarks_from_the_hub(hub):
    xnli = open_task("xnli", "hub").items("sw", Test)
    assert sorted(zip(xnli.keys, xnli.groups))[4] == ("test/4", "test/1")
    xquad = open_task("xquad", "hub")
    pairs = {**dict(zip(*parts(xquad, Test))), **dict(zip(*parts(xquad, Validation)))}
    assert pairs["q5"] == "q4"
    assert len(pairs) == 60
    belebele = open_task("belebele", "hub:my/copy")
    assert belebele.languages == ("en", "sw")
    assert belebele.items("sw", Test).of(ChoiceItem)[0].answer == 1
    assert len(open_task("xcopa", "hub").items("tr", Validation)) == 3
    with pytest.raises(
        ClasError, match=r"facebook/xnli \(de, test\) can't be read: Couldn't find"
    ) as e:
        open_task("xnli", "hub").items("de", Test)
    assert "More words" not in str(e.value)


def parts(task, split):
    items = task.items("en", split)
    return items.keys, items.groups


def test_the_hub_needs_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ClasError, match=r"pip install 'clas-studio\[hub\]'"):
        open_task("xnli", "hub").items("sw", Test)


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("squad", None, "no task 'squad'; there are village-nli"),
        ("xnli", None, "xnli needs its files"),
        ("village-qa", "here", "brings its own items"),
    ],
)
def test_tasks_that_cannot_be_opened(name, source, message):
    with pytest.raises(ClasError, match=message):
        open_task(name, source)


def break_file(folder, name, text):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    ("task", "name", "text", "message"),
    [
        ("xnli", "other.tsv", "", "holds no xnli.dev.tsv or xnli.dev.jsonl"),
        ("xnli", "xnli.dev.tsv", "a\tb\n1\t2\n", "XNLI: a row has no 'language', only a, b"),
        ("xquad", "xquad.en.json", "{", "xquad.en.json is not valid JSON"),
        ("xquad", "xquad.en.json", "{}", "not in SQuAD's format: 'data' is missing"),
        ("xquad", "xquad.en.txt", "", r"holds no file xquad.\*.json"),
        ("xcopa", "test.tr.jsonl", '{"idx": 1}\n[]\n', "test.tr.jsonl, line 2 is not an object"),
        ("xcopa", "test.de.jsonl", "", "no connectors for de"),
        ("belebele", "eng_Latn.jsonl", b"\xff\xfe{", "eng_Latn.jsonl is UTF-16"),
        (
            "belebele",
            "eng_Latn.jsonl",
            '{"link": "a"}\n',
            "Belebele: a row has no 'question_number'",
        ),
    ],
)
def test_broken_files_are_told_in_a_sentence(tmp_path, task, name, text, message):
    break_file(tmp_path, name, text)
    opened = open_task(task, str(tmp_path))

    def use():
        return opened.items(opened.languages[0], Test)

    with pytest.raises(ClasError, match=message):
        use()


def test_a_label_that_is_none(tmp_path):
    row = {"premise": "A.", "choice1": "B.", "choice2": "C.", "question": "why", "label": 0}
    write_jsonl(tmp_path / "test.tr.jsonl", [row | {"idx": 0}])
    with pytest.raises(ClasError, match="'why' is no label; they are cause, effect"):
        open_task("xcopa", str(tmp_path)).items("tr", Test)


@pytest.mark.parametrize("codes", [("sw", "hi"), ("en",)])
def test_retrieval_needs_english_and_one_more(tiny_corpus, codes):
    with pytest.raises(ClasError, match="take a text in 'en' and one more"):
        Retrieval(tiny_corpus.subset(codes))
