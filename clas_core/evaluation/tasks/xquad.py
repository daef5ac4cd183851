"""XQuAD: a question on a paragraph, answered by words of the paragraph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...errors import ClasError
from ...text.raw import read_json
from ..judging.items import Item, Items, OpenItem, Split
from .base import Benchmark, part, shuffled
from .scoring import span_exact, span_f1, squad
from .sources import hub_rows, is_hub, language_files, value

_REPO = "google/xquad"
_Row = tuple[str, str, str, tuple[str, ...]]  # key, context, question, answers
# What context, question and answer are called.
LABELS = {
    "ar": ("السياق", "السؤال", "الإجابة"),
    "de": ("Kontext", "Frage", "Antwort"),
    "el": ("Κείμενο", "Ερώτηση", "Απάντηση"),
    "en": ("Context", "Question", "Answer"),
    "es": ("Contexto", "Pregunta", "Respuesta"),
    "hi": ("संदर्भ", "प्रश्न", "उत्तर"),
    "ro": ("Context", "Întrebare", "Răspuns"),
    "ru": ("Контекст", "Вопрос", "Ответ"),
    "th": ("บริบท", "คำถาม", "คำตอบ"),
    "tr": ("Bağlam", "Soru", "Cevap"),
    "vi": ("Ngữ cảnh", "Câu hỏi", "Câu trả lời"),
    "zh": ("语境", "问题", "答案"),
}


@dataclass(frozen=True)
class XQuAD(Benchmark):
    """Answers as spans (Artetxe et al., 2020), from its files xquad.<code>.json.

    Metrics: `f1` and `exact` with the language's articles and tokens (`scoring.mlqa`), `squad_f1`
    and `squad_exact` by the script it was published with (`scoring.squad`). The prompt is
    lm-evaluation-harness's in form. There is only one split, so a fifth of the paragraphs is for
    validation here.
    """

    source: str
    name: str = "xquad"
    kind = "generate"
    metrics = ("f1", "exact", "squad_f1", "squad_exact")

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Those of the folder's files; of the hub's, the published ones."""
        if is_hub(self.source):
            return tuple(LABELS)
        return tuple(language_files(self.source, "xquad.*.json"))

    def draw(self, language: str, split: type[Split], count: int | None) -> Sequence[Item]:
        """Questions, dealt to the splits by paragraph: a fifth for validation.

        A paragraph goes by its first question's name, which is the same in all languages.
        """
        rows = self._hub_rows if is_hub(self.source) else self._file_rows
        context_label, question_label, answer_label = LABELS.get(language, LABELS["en"])
        found, groups = [], dict[str, str]()
        for key, context, question, answers in rows(language):
            group = groups.setdefault(context, key)
            prompt = (
                f"{context_label}: {context}\n\n{question_label}: {question}\n\n{answer_label}:"
            )
            found.append(OpenItem(key, group, prompt, answers, max_new_tokens=50))
        return shuffled(part(found, split, 0.2))

    def judge(self, items: Items[Any], predictions: Any) -> Iterable[Sequence[float]]:
        """F1 and exact match, first normalised by language, then as SQuAD's own script does."""
        pairs = list(zip(predictions, items.of(OpenItem)))
        code = items.language
        return (
            [span_f1(said, item.answers, code) for said, item in pairs],
            [span_exact(said, item.answers, code) for said, item in pairs],
            [span_f1(said, item.answers, code, squad) for said, item in pairs],
            [span_exact(said, item.answers, code, squad) for said, item in pairs],
        )

    def _file_rows(self, language: str) -> list[_Row]:
        path = language_files(self.source, "xquad.*.json")[language]
        try:
            found = [
                (q["id"], paragraph["context"], q["question"], texts)
                for article in read_json(path)["data"]
                for paragraph in article["paragraphs"]
                for q in paragraph["qas"]
                if (texts := tuple(a["text"] for a in q["answers"] if a["text"].strip()))
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise ClasError(f"{path.name} is not in SQuAD's format: {error} is missing.") from error
        if not found:
            raise ClasError(
                f"{path.name} has no answers, as copies for a leaderboard have none: take XQuAD's "
                "files as they were published."
            )
        return found

    def _hub_rows(self, language: str) -> list[_Row]:
        found = []
        for row in hub_rows(self.source, _REPO, f"xquad.{language}", "validation"):
            key, context, question, answers = (
                value(row, name, "XQuAD") for name in ("id", "context", "question", "answers")
            )
            found.append((key, context, question, tuple(answers["text"])))
        return found
