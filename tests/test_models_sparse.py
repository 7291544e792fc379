"""The first layer of networks on features that are mostly zero."""

import pickle

import pytest
import torch
from torch import Tensor, nn

from neuralpde.catalogue import ring
from neuralpde.models.baselines import KINDS, Convolutions
from neuralpde.models.sparse import SparseInput


def words(rows: int = 40, columns: int = 200, share: float = 0.05) -> Tensor:
    x = torch.randn(rows, columns, dtype=torch.float64)
    x = x * (torch.rand(rows, columns) < share)
    # A text without words.
    x[3] = 0.0
    return x


def layer(dropout: float = 0.0, *, bias: bool = True) -> SparseInput:
    return SparseInput(nn.Linear(200, 7, bias=bias), dropout).double()


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_is_the_plain_product_with_its_gradients(bias: bool) -> None:
    x, one = words(), layer(bias=bias)
    weight = one.linear.weight
    expected = x @ weight.T + (one.linear.bias if bias else 0.0)
    out = one(x)
    torch.testing.assert_close(out, expected)
    pull = torch.randn_like(out)
    (found,) = torch.autograd.grad(out, weight, pull)
    torch.testing.assert_close(found, pull.T @ x)


def test_dropout_drops_the_share_it_says_and_keeps_the_mean() -> None:
    x, one = torch.zeros(1000, 200), layer(0.3).float()
    x[:, 5] = 1.0
    one.linear.weight.data[:] = 1.0
    one.linear.bias.data[:] = 0.0
    out = one(x)[:, 0]
    assert out.unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    assert float((out == 0).double().mean()) == pytest.approx(0.3, abs=0.05)
    assert torch.equal(one.eval()(x)[:, 0], torch.ones(1000))


def test_changed_and_other_features_are_seen() -> None:
    x, one = words(), layer().eval()
    first = one(x)
    other = words()
    torch.testing.assert_close(one(other), one.linear(other))
    assert torch.equal(one(x), first)
    x[0] = 0.0
    x[0, 9] = 3.0
    assert not torch.equal(one(x)[0], first[0])
    torch.testing.assert_close(one(x), one.linear(x))


def test_gradients_reach_features_that_ask_for_them() -> None:
    x, one = words().requires_grad_(), layer().eval()
    (found,) = torch.autograd.grad(one(x).sum(), x)
    torch.testing.assert_close(found, one.linear.weight.sum(0).expand_as(x))


def test_dense_features_take_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    one = layer().eval()
    x = words(share=0.9)
    monkeypatch.setattr(nn.functional, "embedding_bag", None)
    torch.testing.assert_close(one(x), one.linear(x))


def test_what_was_found_is_no_part_of_the_layer() -> None:
    x, one = words(), layer().eval()
    out = one(x)
    again = pickle.loads(pickle.dumps(one))
    assert set(one.state_dict()) == {"linear.weight", "linear.bias"}
    assert torch.equal(again(x), out)
    with torch.inference_mode():
        fresh = words()
        torch.testing.assert_close(one(fresh), one.linear(fresh))


@pytest.mark.parametrize("kind", KINDS)
def test_baselines_drop_features_and_what_lies_between_apart(kind: str) -> None:
    net = Convolutions(kind, 200, 8, 3, layers=3, dropout=0.25, input_dropout=0.75)
    drops = [one.p for one in net.modules() if isinstance(one, nn.Dropout)]
    assert sorted(drops) == [0.25, 0.25, 0.75]
    same = Convolutions(kind, 200, 8, 3, layers=3, dropout=0.25)
    assert [one.p for one in same.modules() if isinstance(one, nn.Dropout)] == [0.25] * 3
    # The features' dropout is before the first layer: without the others it alone is loud.
    only = Convolutions(kind, 200, 8, 3, dropout=0.0, input_dropout=0.75).double()
    x, graph = words(), ring(40)
    assert not torch.equal(only(x, graph), only(x, graph))
    assert torch.equal(only.eval()(x, graph), only(x, graph))
