"""Try recipes out from Python, in one call: `clas.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

from ..atlas.atlas import Atlas
from ..model.architecture import LanguageModel
from ..running.batch import Progress
from ..steering.recipe import Recipe
from .judging.comparison import Comparison, compare
from .judging.conditions import standard_conditions
from .judging.engine import load_items, run_tasks, tuning_runs
from .judging.items import Task, Validation
from .judging.prompting import Prompting
from .judging.results import Results, describe
from .tasks import open_task


def evaluate(
    lm: LanguageModel,
    atlas: Atlas,
    recipes: Recipe | Sequence[Recipe],
    tasks: Sequence[str | Task],
    languages: Sequence[str] | None = None,
    *,
    items: int | None = 200,
    controls: int = 3,
    progress: Progress | None = None,
) -> Comparison:
    """What recipes gain over the unsteered model on validation items; `.frame` is the table.

    Each recipe is steered for each language in turn, English for all of them; beside them stand
    the model merely asked in words, and `controls` random controls of the first recipe. `tasks` are
    names that need no files, such as "village-qa", or what `open_task` gave. `languages` None: all
    that a task has. `items`: of each task and language. The first recipe's `chat` and `system` say
    how questions are put. `progress(done, total)` counts items.

    Test items are for settings that were chosen before: the shell's `sweep`, then `evaluate
    --chosen`. Raises ClasError for two recipes of one method, and for unknown tasks and languages.
    """
    recipes = [recipes] if isinstance(recipes, Recipe) else list(recipes)
    opened = [open_task(task) if isinstance(task, str) else task for task in tasks]
    runs = tuning_runs(
        load_items(opened, Validation, languages, items),
        standard_conditions(recipes, controls),
        prompting=Prompting.of(recipes[0], lm),
    )
    scores = [one for some in run_tasks(lm, atlas, runs, progress) for one in some]
    return compare(Results(tuple(scores), describe(lm, atlas, Validation, runs)))
