from __future__ import annotations

import contextlib
import struct
import tracemalloc

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clas_core.errors import ClasError
from clas_core.steering import control_vectors
from clas_core.steering.control_vectors import read_control_vector, write_control_vector
from clas_core.steering.plan import LayerPlan, SteeringPlan, steered


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


# One direction of layer 2, laid out by hand after the specification of GGUF.
KEYS = text("general.architecture") + struct.pack("<I", 8) + text("controlvector")
INFO = text("direction.2") + struct.pack("<IQIQ", 1, 3, 0, 0)
HEAD = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + KEYS + INFO
BY_HAND = HEAD + bytes(-len(HEAD) % 32) + struct.pack("<3f", 1.5, -2.0, 0.25)


def shifts(plan: SteeringPlan) -> dict[int, bytes]:
    return {index: layer.shift.numpy().tobytes() for index, layer in plan.layers.items()}


def random_plan(layers=(1, 2), hidden=32) -> SteeringPlan:
    generator = torch.Generator().manual_seed(0)
    return SteeringPlan(
        {layer: LayerPlan(shift=torch.randn(hidden, generator=generator)) for layer in layers}
    )


def test_reads_a_file_made_by_hand(tmp_path) -> None:
    path = tmp_path / "mood.gguf"
    path.write_bytes(BY_HAND)
    plan = read_control_vector(path)
    assert list(plan.layers) == [2]
    assert plan.layers[2].shift.tolist() == [1.5, -2.0, 0.25]
    assert plan.layers[2].neurons is None
    assert plan.label == "1 * control vector mood.gguf"
    assert read_control_vector(path, -2).layers[2].shift.tolist() == [-3.0, 4.0, -0.5]
    with pytest.raises(ClasError, match="isn't finite"):
        read_control_vector(path, float("inf"))


def test_bfloat16_is_read(tmp_path) -> None:
    numbers = torch.tensor([1.5, -2.0, 0.2578125], dtype=torch.bfloat16)
    info = text("direction.2") + struct.pack("<IQIQ", 1, 3, 30, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + KEYS + info
    data = numbers.view(torch.int16).numpy().tobytes()
    (tmp_path / "a.gguf").write_bytes(head + bytes(-len(head) % 32) + data)
    plan = read_control_vector(tmp_path / "a.gguf")
    assert plan.layers[2].shift.tolist() == numbers.tolist()


vectors = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=5, max_size=5
)


@settings(max_examples=50)
@given(st.dictionaries(st.integers(1, 200), vectors.filter(any), min_size=1, max_size=5))
def test_round_trips_keep_every_bit(tmp_path_factory, layers) -> None:
    path = tmp_path_factory.mktemp("gguf") / "vector.gguf"
    plan = SteeringPlan({i: LayerPlan(shift=torch.tensor(v)) for i, v in layers.items()})
    write_control_vector(plan, path, "llama")
    assert shifts(read_control_vector(path)) == shifts(plan)


@pytest.mark.parametrize("layer", [1, 2])
def test_a_direction_acts_on_the_output_of_the_block_of_its_number(any_lm, tmp_path, layer) -> None:
    """repeng's `ControlModule`: the block at index N of the list adds direction N to its output."""
    vector = torch.linspace(-1, 1, 32)
    info = text(f"direction.{layer}") + struct.pack("<IQIQ", 1, 32, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + KEYS + info
    path = tmp_path / "vector.gguf"
    path.write_bytes(head + bytes(-len(head) % 32) + vector.numpy().tobytes())
    batch = any_lm.encode(["The cat sleeps."]).inputs

    def repeng(module, args, output):
        return (
            (output[0] + 0.5 * vector, *output[1:])
            if isinstance(output, tuple)
            else output + 0.5 * vector
        )

    handle = any_lm.blocks[layer].register_forward_hook(repeng)
    with torch.no_grad():
        expected = any_lm.model(**batch).logits
        handle.remove()
        bare = any_lm.model(**batch).logits
        with steered(any_lm, read_control_vector(path, 0.5)):
            found = any_lm.model(**batch).logits
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, bare, atol=1e-2)


# Against the format's own package


def test_repengs_files_are_read(tmp_path) -> None:
    path, rng = tmp_path / "repeng.gguf", np.random.default_rng(0)
    directions = {layer: rng.normal(size=7).astype(np.float32) for layer in (3, 2, 1)}
    directions[4] = rng.normal(size=7).astype(np.float16)
    writer = gguf.GGUFWriter(path, "controlvector")  # the calls of ControlVector.export_gguf
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(directions))
    writer.add_array("controlvector.extra", ["a", "b"])
    writer.add_array("controlvector.numbers", [1.5, 2.5])
    writer.add_custom_alignment(64)
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", direction)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    plan = read_control_vector(path)
    assert list(plan.layers) == [1, 2, 3, 4]
    for layer, direction in directions.items():
        assert np.array_equal(plan.layers[layer].shift.numpy(), direction.astype(np.float32))


def test_repeng_reads_our_files(tmp_path) -> None:
    plan, path = random_plan((1, 2, 30)), tmp_path / "ours.gguf"
    write_control_vector(plan, path, "llama")
    reader = gguf.GGUFReader(path)
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 3
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert list(found) == ["direction.1", "direction.2", "direction.30"]
    for layer, wanted in plan.layers.items():
        tensor = found[f"direction.{layer}"]
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32  # llama.cpp takes no other
        assert np.array_equal(tensor.data, wanted.shift.numpy())


# What can't be written, what can't be read


@pytest.mark.parametrize(
    ("layer", "part", "message"),
    [
        (1, LayerPlan(scale=torch.full((4,), 2.0)), "a scale of neurons in layer 1"),
        (2, LayerPlan(bias=torch.ones(4), shift=torch.ones(3)), "a bias of neurons in layer 2"),
        (0, LayerPlan(shift=torch.ones(3)), "no place for layer 0"),
        (1, LayerPlan(shift=torch.zeros(3)), "shifts nothing"),
    ],
)
def test_plans_that_are_more_than_shifts_are_refused(layer, part, message, tmp_path) -> None:
    with pytest.raises(ClasError, match=message):
        write_control_vector(SteeringPlan({layer: part}), tmp_path / "a.gguf", "llama")
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_nothing_are_left_out(tmp_path) -> None:
    idle = LayerPlan(scale=torch.ones(4), bias=torch.zeros(4), shift=torch.zeros(3))
    busy = LayerPlan(scale=torch.ones(4), shift=torch.ones(3))
    write_control_vector(SteeringPlan({0: idle, 1: busy}), tmp_path / "a.gguf", "llama")
    assert shifts(read_control_vector(tmp_path / "a.gguf")) == {1: torch.ones(3).numpy().tobytes()}


def test_every_file_cut_short_is_refused(tmp_path) -> None:
    path = tmp_path / "cut.gguf"
    for length in range(len(BY_HAND)):
        path.write_bytes(BY_HAND[:length])
        with pytest.raises(ClasError, match="isn't a control vector in GGUF: it "):
            read_control_vector(path)


def made_of(keys: bytes = b"", infos: bytes = INFO, num_infos: int = 1) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", 3, num_infos, 1 if keys else 0) + keys + infos
    return head + bytes(-len(head) % 32) + bytes(64)


def key(kind: int, value: bytes) -> bytes:
    return text("general.alignment") + struct.pack("<I", kind) + value


def array(kind: int, count: int) -> bytes:
    return key(9, struct.pack("<IQ", kind, count))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK" + BY_HAND[2:], "doesn't begin with GGUF"),
        (b"GGUF" + struct.pack("<I", 1) + BY_HAND[8:], "version is 1"),
        (BY_HAND.replace(b"controlvector", b"llama_model_x"), "holds a 'llama_model_x'"),
        (BY_HAND.replace(b"direction.2", b"token_embd1"), "tensor 'token_embd1' isn't"),
        (BY_HAND.replace(b"direction.2", b"direction.x"), "tensor 'direction.x' isn't"),
        (made_of(infos=text("direction.2") + struct.pack("<IQQIQ", 2, 1, 3, 0, 0)), "isn't one"),
        (made_of(infos=text("direction.2") + struct.pack("<IQIQ", 1, 32, 8, 0)), "isn't one"),
        (made_of(infos=INFO * 2, num_infos=2), "isn't one"),
        (made_of(infos=b"", num_infos=0), "directions are none"),
        (made_of(infos=text("direction.2") + struct.pack("<IQIQ", 1, 0, 0, 0)), "are none, empty"),
        (
            made_of(
                infos=INFO + text("direction.3") + struct.pack("<IQIQ", 1, 4, 0, 0), num_infos=2
            ),
            "of different lengths",
        ),
        (made_of(key(4, struct.pack("<I", 0))), "alignment is 0"),
        (made_of(key(8, text("x"))), "alignment is 'x'"),
        (made_of(key(77, b"")), "unknown type 77"),
        (made_of(array(9, 1)), "array of unknown type 9"),
        # A few bytes that claim very much
        (made_of(array(0, 2**60)), "ends too early"),
        (made_of(array(8, 2**60)), "ends too early"),
        (made_of(array(9, 2**60)), "array of unknown type 9"),
        (made_of(num_infos=2**60), "ends too early|isn't one"),
        (made_of(infos=text("direction.2") + struct.pack("<IQIQ", 1, 2**60, 0, 0)), "too early"),
        (made_of(infos=text("direction.2") + struct.pack("<IQIQ", 1, 3, 0, 2**63)), "too early"),
    ],
)
def test_other_files_are_refused_at_once(content, message, tmp_path) -> None:
    (tmp_path / "other.gguf").write_bytes(content)
    with pytest.raises(ClasError, match=message):
        read_control_vector(tmp_path / "other.gguf")


def test_a_long_array_is_passed_over(tmp_path) -> None:
    """Millions of numbers in the metadata cost no object each."""
    count = 2**22
    keys = array(0, count).replace(b"alignment", b"something") + bytes(count)
    (tmp_path / "long.gguf").write_bytes(made_of(keys))
    tracemalloc.start()
    assert list(read_control_vector(tmp_path / "long.gguf").layers) == [2]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * count


def test_directions_that_share_bytes_fill_no_memory(tmp_path) -> None:
    infos = [text(f"direction.{i}") + struct.pack("<IQIQ", 1, 16, 0, 0) for i in range(1, 100)]
    (tmp_path / "shared.gguf").write_bytes(made_of(infos=b"".join(infos), num_infos=99))
    with pytest.raises(ClasError, match="ends too early"):
        read_control_vector(tmp_path / "shared.gguf")


def test_files_must_be_there_and_small(tmp_path, monkeypatch) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ClasError, match="Can't read"):
            read_control_vector(path)
    monkeypatch.setattr(control_vectors, "_BYTES", len(BY_HAND) - 1)
    (tmp_path / "big.gguf").write_bytes(BY_HAND)
    with pytest.raises(ClasError, match="so it is no control vector"):
        read_control_vector(tmp_path / "big.gguf")


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(BY_HAND) - 1), st.integers(0, 255)), max_size=4))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, changes) -> None:
    content = bytearray(BY_HAND)
    for place, byte in changes:
        content[place] = byte
    path = tmp_path_factory.mktemp("fuzz") / "file.gguf"
    path.write_bytes(content)
    with contextlib.suppress(ClasError):
        assert isinstance(read_control_vector(path), SteeringPlan)
