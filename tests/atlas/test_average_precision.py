from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score

from clas_core.atlas.precision import average_precision, median, precision_and_median


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties) -> None:
    values = torch.randn(20, 5, 7, generator=torch.Generator().manual_seed(0))
    if ties:  # as of ReLU, where many sentences leave a unit at 0
        values = (2 * values).round().relu()
    found = average_precision(values)
    for unit in range(20):
        for language in range(5):
            labels = torch.zeros(5, 7)
            labels[language] = 1
            wanted = average_precision_score(labels.flatten(), values[unit].flatten())
            assert found[unit, language] == pytest.approx(wanted, abs=1e-6)


def test_a_perfect_unit_and_a_useless_one() -> None:
    perfect = torch.tensor([[3.0, 4.0], [1.0, 2.0], [0.0, -1.0]])
    found = average_precision(torch.stack([perfect, torch.zeros(3, 2)]))
    assert found[0, 0] == 1
    torch.testing.assert_close(found[1], torch.full((3,), 1 / 3))


def test_the_median_of_an_even_number_is_between_the_middle_two() -> None:
    assert median(torch.tensor([4.0, 1.0, 3.0])) == 3
    assert median(torch.tensor([4.0, 1.0, 3.0, 2.0])) == 2.5


def test_parts_are_put_together_in_place(monkeypatch) -> None:
    sentences = torch.randn(3, 4, 2, 10, generator=torch.Generator().manual_seed(1)).half()
    whole = precision_and_median(sentences)
    monkeypatch.setattr("clas_core.atlas.precision._AT_ONCE", 36)  # three neurons
    for part, wanted in zip(precision_and_median(sentences), whole):
        assert part.shape == (2, 3, 10)
        assert torch.equal(part, wanted)
    one = sentences[:, :, 1, 7].float()
    torch.testing.assert_close(
        whole[0][1, :, 7].float(), average_precision(one[None])[0], atol=1e-3, rtol=0
    )
    torch.testing.assert_close(whole[1][1, :, 7].float(), median(one), atol=2e-3, rtol=0)
