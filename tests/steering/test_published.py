from __future__ import annotations

import contextlib
import os
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from clas_core.atlas.atlas import Atlas
from clas_core.atlas.selection import PARTIAL, SPECIFIC, lape_select, select
from clas_core.errors import ClasError
from clas_core.shell.cli import main
from clas_core.steering import published
from clas_core.steering.methods import CLAS, LAPE, DiffMean, IntMu, LanguageArithmetic
from clas_core.steering.plan import steered
from clas_core.steering.published import (
    PublishedNeurons,
    PublishedVectors,
    plan_from_vectors,
    read_neurons,
    read_vectors,
    recategorize,
)

CODES = ("en", "sw", "hi")


def index(*neurons: int) -> torch.Tensor:
    return torch.tensor(neurons).long()  # as the authors make them, empty ones too


# Three languages, two layers, as `identify.py` of LAPE's authors writes it.
LISTS = [[index(0, 3), index()], [index(3), index(1)], [index(), index(4, 1)]]


@pytest.fixture
def lape_file(tmp_path):
    torch.save(LISTS, tmp_path / "LAPE.neuron.pth")
    return tmp_path / "LAPE.neuron.pth"


def random_atlas(languages=CODES, layers=4, neurons=300, hidden=6) -> Atlas:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(layers, len(languages), neurons, generator=generator) ** 3
    p[:, :, :20] = 0
    p[:, :, 20:25] = 1
    mean = torch.randn(p.shape, generator=generator)
    residual = torch.randn(layers, len(languages), hidden, generator=generator)
    count = torch.full((len(languages),), 100)
    norm = residual.norm(dim=-1)
    return Atlas(languages, p, mean, residual, norm, p.half(), mean.half(), count)


# Neurons


def test_neurons_by_hand(lape_file) -> None:
    found = read_neurons(lape_file, CODES, 5)
    assert found.languages == CODES
    assert found.widths == (5, 5)
    assert found.neurons_of("en").nonzero().tolist() == [[0, 0], [0, 3]]
    assert found.neurons_of("sw").nonzero().tolist() == [[0, 3], [1, 1]]
    assert found.neurons_of("hi").nonzero().tolist() == [[1, 1], [1, 4]]
    uneven = read_neurons(lape_file, CODES, (4, 6))
    assert uneven.belongs.shape == (2, 3, 6)
    assert uneven.widths == (4, 6)
    with pytest.raises(ClasError, match=r"Nothing was published here for 'xx': .* en, sw, hi"):
        found.neurons_of("xx")


def test_saves_and_loads(lape_file, tmp_path) -> None:
    found, path = read_neurons(lape_file, CODES, (4, 6)), tmp_path / "neurons.safetensors"
    found.save(path)
    again = PublishedNeurons.load(path)
    assert torch.equal(again.belongs, found.belongs)
    assert (again.languages, again.widths) == (found.languages, found.widths)
    with pytest.raises(ClasError, match="holds no vectors of languages"):
        PublishedVectors.load(path)
    with pytest.raises(ClasError, match="Can't read neurons"):
        PublishedNeurons.load(tmp_path / "missing")
    save_file({"neurons": torch.zeros(1)}, path)
    with pytest.raises(ClasError, match="holds no neurons of languages"):
        PublishedNeurons.load(path)


def published_by_lape(atlas: Atlas, path) -> PublishedNeurons:
    """LAPE's neurons of this atlas through a file of the published form, languages reversed."""
    belongs = lape_select(atlas, keep=0.05).belongs
    codes = atlas.languages[::-1]
    lists = [
        [layer[atlas.languages.index(code)].nonzero().flatten() for layer in belongs]
        for code in codes
    ]
    torch.save(lists, path)
    return read_neurons(path, codes, atlas.widths)


def test_matched_neurons_are_those_of_our_own_lape(tmp_path) -> None:
    atlas = random_atlas()
    found = published_by_lape(atlas, tmp_path / "lape.pth").matched(atlas)
    own = lape_select(atlas, keep=0.05)
    assert own.belongs.any(2).all()
    for code in atlas.languages:
        assert torch.equal(found.neurons_of(code), own.neurons_of(code))
    for code in ("en", "sw"):
        ours, theirs = (IntMu(layers=(1, 3)).plan(atlas, sel, code) for sel in (own, found))
        assert list(theirs.layers) == [1, 2]
        for layer in theirs.layers:
            assert torch.equal(theirs.layers[layer].scale, ours.layers[layer].scale)
            assert torch.equal(theirs.layers[layer].bias, ours.layers[layer].bias)


def test_int_mu_writes_the_mean_on_published_neurons(lape_file) -> None:
    atlas = random_atlas(layers=2, neurons=5)
    found = read_neurons(lape_file, CODES, 5).matched(atlas)
    plan = IntMu(layers=(0, 2)).plan(atlas, found, "hi")
    assert plan.layers[0].is_identity
    assert plan.layers[1].scale.tolist() == [1, 0, 1, 1, 0]
    mu = atlas.mean[1, 2]
    assert plan.layers[1].bias.tolist() == [0, mu[1].item(), 0, 0, mu[4].item()]


def test_language_arithmetic_without_lambda_deactivates_as_lape_does(tmp_path) -> None:
    atlas = random_atlas()
    belongs = lape_select(atlas).belongs
    found = PublishedNeurons(belongs, atlas.languages, atlas.widths)
    ours = LanguageArithmetic(lam=0, source="sw", layers=(0, 4)).plan(atlas, found, "en")
    lape = LAPE(source="sw", layers=(0, 4)).plan(atlas, found, "en")
    for layer in range(4):
        assert torch.equal(ours.layers[layer].scale, lape.layers[layer].scale)
        assert not ours.layers[layer].bias.any()
    assert not all(layer.is_identity for layer in lape.layers.values())


def test_neurons_of_another_model_or_languages_are_refused(lape_file) -> None:
    found = read_neurons(lape_file, CODES, 5)
    with pytest.raises(ClasError, match="2 layers of 5 neurons, the atlas of one of 4 layers"):
        found.matched(random_atlas())
    with pytest.raises(ClasError, match="Nothing was published here for 'xx'"):
        found.matched(random_atlas(("en", "xx"), layers=2, neurons=5))
    assert found.matched(random_atlas(("hi", "en"), layers=2, neurons=5)).languages == ("hi", "en")


# Categories


def test_categories_by_hand() -> None:
    p = torch.tensor(
        [[[0.9, 0.9, 0.9, 0.0, 0.9, 0.9], [0, 0.9, 0.9, 0, 0.9, 0], [0, 0, 0.9, 0, 0.9, 0]]]
    )
    zeros = torch.zeros_like(p)
    residual, norm = torch.zeros(1, 3, 2), torch.zeros(1, 3)
    atlas = Atlas(CODES, p, zeros, residual, norm, p.half(), zeros.half(), torch.ones(3), {}, (6,))
    measured = select(atlas)
    assert measured.category.tolist() == [[1, 2, 3, 0, 3, 1]]
    belongs = torch.zeros(1, 3, 6, dtype=torch.bool)
    belongs[0, 1, [1, 5]] = True  # Swahili's: one measured partial, one measured as English's
    belongs[0, [0, 2], 4] = True  # of two languages, measured shared
    found = recategorize(measured, PublishedNeurons(belongs, CODES, (6,)))
    assert found.category.tolist() == [[2, 1, 3, 0, 2, 1]]
    assert found.owner.tolist() == [[-1, 1, -1, -1, -1, 1]]
    assert (found.category.dtype, found.owner.dtype) == (torch.int8, torch.int16)
    assert torch.equal(found.active, measured.active)
    assert measured.category.tolist() == [[1, 2, 3, 0, 3, 1]]
    plan = CLAS(alpha=1, beta=3, gamma=0.25, layers=(0, 1)).plan(atlas, found, "sw")
    assert plan.layers[0].scale.tolist() == [1, 0.25, 3, 1, 1, 0.25]


@given(st.integers(0, 10_000))
def test_specific_is_what_one_language_owns(seed) -> None:
    atlas = random_atlas(neurons=50)
    generator = torch.Generator().manual_seed(seed)
    belongs = torch.rand(4, 3, 50, generator=generator) < 0.3
    found = recategorize(select(atlas), PublishedNeurons(belongs, CODES, atlas.widths))
    for k, code in enumerate(CODES):
        alone = belongs[:, k] & ~belongs[:, [i for i in range(3) if i != k]].any(1)
        assert torch.equal(found.neurons_of(code), alone)
    assert torch.equal(found.category == SPECIFIC, belongs.sum(1) == 1)
    assert (found.category[belongs.sum(1) > 1] == PARTIAL).all()


def test_neurons_must_be_matched_before_they_are_sorted(lape_file) -> None:
    found, measured = read_neurons(lape_file, CODES, 5), select(random_atlas(("hi", "en")))
    with pytest.raises(ClasError, match="are of en, sw, hi, the measured ones of hi, en"):
        recategorize(measured, found)
    with pytest.raises(ClasError, match="of another model"):
        recategorize(select(random_atlas()), found)


# Vectors


def test_vectors_from_one_file_or_one_a_language(tmp_path) -> None:
    en, sw = torch.randn(3, 4), torch.randn(3, 4).double()
    torch.save({"en": en, "sw": sw}, tmp_path / "both")
    torch.save(en, tmp_path / "en.pt")
    # CLaS-Bench's form
    torch.save(
        {"steering_vectors": sw, "token_counts": index(7, 7, 7), "num_tokens": 7}, tmp_path / "sw"
    )
    one = read_vectors(tmp_path / "both")
    two = read_vectors({"en": tmp_path / "en.pt", "sw": tmp_path / "sw"})
    for found in (one, two):
        assert found.languages == ("en", "sw")
        assert found.vectors.dtype == torch.float32
        assert torch.equal(found.of("en"), en)
        assert torch.equal(found.of("sw"), sw.float())
    one.save(tmp_path / "vectors.safetensors")
    again = PublishedVectors.load(tmp_path / "vectors.safetensors")
    assert torch.equal(again.vectors, one.vectors)
    assert again.languages == one.languages


def test_plans_from_vectors_point_where_diffmean_does() -> None:
    atlas = random_atlas()
    means = PublishedVectors(atlas.residual, atlas.languages)
    plan = plan_from_vectors(means.of("sw") - means.of("en"), (1, 3), 0.5, unit=True)
    expected = DiffMean(alpha=0.5, source="en", layers=(1, 3)).plan(atlas, select(atlas), "sw")
    assert list(plan.layers) == list(expected.layers) == [1, 2]
    for layer in plan.layers:
        length = atlas.norm.mean(1)[layer] / 2  # two layers share it
        wanted = expected.layers[layer].shift / length
        torch.testing.assert_close(plan.layers[layer].shift, wanted)
        assert plan.layers[layer].neurons is None
    unit = plan_from_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), (0, 2), 5.0, unit=True)
    torch.testing.assert_close(unit.layers[0].shift, torch.tensor([3.0, 4.0]))
    assert unit.layers[1].shift.tolist() == [0, 0]
    with pytest.raises(ClasError, match=r"half-open range within \(0, 4\)"):
        plan_from_vectors(means.of("sw"), (3, 5))
    with pytest.raises(ClasError, match="isn't finite"):
        plan_from_vectors(means.of("sw"), (1, 2), float("nan"))


def test_vectors_steer_the_layer_they_were_measured_at(tiny_lm) -> None:
    vectors, batch = torch.randn(3, 32), tiny_lm.encode(["The cat sleeps."]).inputs
    with torch.no_grad(), steered(tiny_lm, plan_from_vectors(vectors, (1, 2))):
        states = tiny_lm.model(**batch, output_hidden_states=True).hidden_states
    with torch.no_grad():
        bare = tiny_lm.model(**batch, output_hidden_states=True).hidden_states
    assert torch.equal(states[1], bare[1])  # after layer 0
    torch.testing.assert_close(states[2], bare[2] + vectors[1])


# Files that are refused


class Code:
    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_never_runs(tmp_path) -> None:
    torch.save([Code(tmp_path / "ran")], tmp_path / "evil.pth")
    with pytest.raises(ClasError, match="isn't a torch file of plain tensors"):
        read_neurons(tmp_path / "evil.pth", CODES, 5)
    with pytest.raises(ClasError, match="isn't a torch file of plain tensors"):
        read_vectors(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def compress(path) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, record in records.items():
            archive.writestr(name, record)


def test_only_whole_small_torch_files_are_read(lape_file, tmp_path, monkeypatch) -> None:
    plain, other = "isn't a torch file of plain tensors", tmp_path / "other"
    data = lape_file.read_bytes()
    for content in (b"", b"some text", data[:-1], data[: len(data) // 2], b"PK\x03\x04 and more"):
        other.write_bytes(content)
        with pytest.raises(ClasError, match=plain):
            read_neurons(other, CODES, 5)
    torch.save(LISTS, other, _use_new_zipfile_serialization=False)
    with pytest.raises(ClasError, match=plain):
        read_neurons(other, CODES, 5)
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ClasError, match=r"Can't read|isn't a torch file"):
            read_neurons(path, CODES, 5)
    monkeypatch.setattr(published, "_BYTES", len(data) - 1)
    with pytest.raises(ClasError, match="more than the 0 MB"):
        read_neurons(lape_file, CODES, 5)
    monkeypatch.undo()
    compress(lape_file)
    with pytest.raises(ClasError, match=plain):
        read_neurons(lape_file, CODES, 5)


HUGE = torch.zeros(1).expand(10**6, 10**6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"en": 1}, "holds no language neurons"),
        ([1, 2, 3], "holds no language neurons"),
        ([], "neurons of 0 languages, but 3 codes"),
        (LISTS[:2], "neurons of 2 languages, but 3 codes"),
        ([LISTS[0], LISTS[1], LISTS[2][:1]], "but the model has"),
        ([[], [], []], "has neurons in 0 layers"),
        ([[index(5), index()], *LISTS[1:]], "beyond the 5 of layer 0"),
        ([[index(-1), index()], *LISTS[1:]], "beyond the 5 of layer 0"),
        ([[index(0).expand(10**12), index()], *LISTS[1:]], "beyond the 5 of layer 0"),
        ([[index(0).float(), index()], *LISTS[1:]], "something else than neuron numbers"),
        ([[[0], index()], *LISTS[1:]], "something else than neuron numbers"),
        ([[index(0).to_sparse(), index()], *LISTS[1:]], "something else than neuron numbers"),
        ([[index(0).to("meta"), index()], *LISTS[1:]], "something else than neuron numbers"),
    ],
)
def test_other_shapes_of_neurons_are_refused(content, message, tmp_path) -> None:
    torch.save(content, tmp_path / "file")
    with pytest.raises(ClasError, match=message):
        read_neurons(tmp_path / "file", CODES, 5)


def test_layers_and_codes_must_be_the_files(lape_file, tmp_path) -> None:
    with pytest.raises(ClasError, match="in 2 layers, but the model has 3 layers of 5 neurons"):
        read_neurons(lape_file, CODES, (5, 5, 5))
    with pytest.raises(ClasError, match="named twice"):
        read_neurons(lape_file, ("en", "sw", "en"), 5)
    with pytest.raises(ClasError, match="more than any model's"):
        read_neurons(lape_file, CODES, 10**9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LISTS, "holds no vectors by language"),
        ({}, "holds no vectors by language"),
        ({0: torch.zeros(2, 3)}, "holds no vectors by language"),
        ({"en": torch.zeros(3)}, "holds no vectors by language"),
        ({"en": torch.zeros(2, 3).long()}, "holds no vectors by language"),
        ({"en": torch.zeros(2, 3), "sw": torch.zeros(3, 3)}, "different shapes"),
        ({"en": torch.full((2, 3), float("nan"))}, "aren't finite"),
        ({"en": HUGE}, "more than any model's"),
    ],
)
def test_other_shapes_of_vectors_are_refused(content, message, tmp_path) -> None:
    torch.save(content, tmp_path / "file")
    with pytest.raises(ClasError, match=message):
        read_vectors(tmp_path / "file")


def test_a_file_of_one_language_has_one_tensor(tmp_path) -> None:
    torch.save({"mean": torch.zeros(2, 3), "std": torch.zeros(2, 3)}, tmp_path / "en")
    with pytest.raises(ClasError, match="holds no vectors by language"):
        read_vectors({"en": tmp_path / "en"})


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "file"
    torch.save(LISTS, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(ClasError):
        assert isinstance(read_neurons(path, CODES, 5), PublishedNeurons)


# The shell


def test_import_in_the_shell(lape_file, tmp_path, capsys) -> None:
    out = str(tmp_path / "out.safetensors")
    options = ["--languages", ",".join(CODES), "--neurons", "5", "--out", out]
    assert main(["import", "neurons", str(lape_file), *options]) == 0
    assert capsys.readouterr().out == f"{out}: neurons from {lape_file}\n"
    expected = read_neurons(lape_file, CODES, 5)
    assert torch.equal(PublishedNeurons.load(out).belongs, expected.belongs)
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    for path, number in zip(files, (1.0, 2.0)):
        torch.save(torch.full((2, 3), number), path)
    assert main(["import", "vectors", *files, "--languages", "en,sw", "--out", out]) == 0
    assert PublishedVectors.load(out).of("sw").tolist() == [[2, 2, 2]] * 2
    torch.save({"hi": torch.ones(2, 3)}, files[0])
    assert main(["import", "vectors", files[0], "--out", out]) == 0
    assert PublishedVectors.load(out).languages == ("hi",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["neurons", "x"], "give --languages and --neurons"),
        (["neurons", "x", "y"], "Give one file of neurons, not 2"),
        (["vectors", "x", "--languages", "en,sw"], "one file of vectors for each language"),
        (["vectors", "x"], "Can't read x"),
        (["control", "x"], "Can't read x"),
    ],
)
def test_import_refuses_in_one_sentence(arguments, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["import", *arguments, "--out", "out"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("clas: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []
