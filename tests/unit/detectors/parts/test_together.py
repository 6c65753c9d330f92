"""What a part of a batch draws and normalises is what the whole batch would have drawn, and been normalised by."""

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, nn

from components.detectors.parts.together import Part, averaged, firsts, sharing, summed

WHOLE = torch.linspace(-3, 5, 6 * 4 * 3).reshape(6, 4, 3)


@pytest.fixture
def group():
    """One process that is a group: what it adds up over all is its own."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def drawn(rows):
    """Of *rows* what a loss may draw, row by row; and what it draws once for the batch."""
    count = len(rows)
    turned = rows.transpose(1, 2)  # lies in memory in another order
    each = [
        torch.rand(count, 1, 1),
        torch.randn((count, 2)),
        torch.randn_like(turned),
        torch.rand_like(rows),
        torch.randint(9, (2 * count,)).view(count, 2),
        F.dropout(rows, 0.4, training=True),
        nn.Dropout(0.5)(turned),
    ]
    return each, (torch.rand(()), torch.randint(1, 50, (7,)), F.dropout(rows[:1], 0.5, training=False).sum())


def test_parts_draw_what_the_whole_batch_draws():
    torch.manual_seed(3)
    whole, once = drawn(WHOLE)
    found = []
    for part in (Part(0, 2, 6), Part(2, 6, 6)):
        torch.manual_seed(3)
        with sharing(part):
            found.append(drawn(WHOLE[part.start : part.end]))
        torch.testing.assert_close(found[-1][1][:2], once[:2], rtol=0, atol=0)
    for number, value in enumerate(whole):
        torch.testing.assert_close(torch.cat([each[number] for each, _ in found]), value, msg=str(number))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.usefixtures("group")
def test_the_shared_normalisation_is_that_of_torch(affine):
    torch.manual_seed(0)
    rows = torch.randn(6, 4, 5, 5, dtype=torch.float64) * 3 + 40
    left = rows.clone().requires_grad_(), nn.BatchNorm2d(4, affine=affine).double()
    right = rows.clone().requires_grad_(), nn.BatchNorm2d(4, affine=affine).double()
    for (x, norm), part in ((left, None), (right, Part(0, 6, 6))):
        with sharing(part):
            for _ in range(2):
                norm(x).pow(3).mean().backward()
    torch.testing.assert_close(right[0].grad, left[0].grad)
    for key, value in left[1].state_dict().items():
        torch.testing.assert_close(right[1].state_dict()[key], value, msg=key)
    right[1].eval()
    with sharing(Part(0, 6, 6)):
        torch.testing.assert_close(right[1](rows), left[1].eval()(rows))


@pytest.mark.usefixtures("group")
def test_sums_are_weighed_by_rows_and_nothing_is_asked_for_outside():
    value = torch.tensor([6.0], requires_grad=True)
    assert (summed(value), averaged(value), firsts(value)) == (value, value, value)
    with sharing(Part(0, 2, 6)):
        assert float(averaged(value)) == 2
        summed(3 * value).sum().backward()
        assert float(firsts(value.detach())) == 6
    assert float(value.grad) == 3
