import pytest
import torch

from cxr_assets.learning.muon import Muon, orthogonalised


def test_muon_is_adamw_for_all_but_the_hidden_matrices():
    torch.manual_seed(0)
    ours, theirs = (
        [torch.nn.Parameter(torch.ones(5)), torch.nn.Parameter(torch.ones(2, 3, 4))]
        for _ in range(2)
    )
    muon = Muon([{"params": ours, "lr": 0.1, "weight_decay": 0.2, "hidden_matrices": False}])
    adamw = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.2)
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        muon.step()
        adamw.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [(40, 160), (160, 40), (32, 64)])
def test_orthogonalised_keeps_directions_and_evens_their_lengths(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    lengths = torch.diagonal(left.T @ orthogonalised(matrix) @ right.T)
    assert lengths.min() > 0.3
    assert lengths.max() < 1.3


def test_muon_steps_as_far_as_adamw_does():
    torch.manual_seed(0)
    matrix = torch.nn.Parameter(torch.zeros(64, 256))
    muon = Muon([{"params": [matrix], "lr": 1.0, "weight_decay": 0.0, "hidden_matrices": True}])
    matrix.grad = torch.randn_like(matrix)
    muon.step()
    assert matrix.detach().square().mean().sqrt() == pytest.approx(0.2, rel=0.3)


def test_muon_resumes_from_its_saved_state():
    def steps(parameter, optimizer, gradients):
        for gradient in gradients:
            parameter.grad = gradient
            optimizer.step()

    def new(values):
        parameter = torch.nn.Parameter(values.clone())
        group = {"params": [parameter], "lr": 0.1, "weight_decay": 0.1, "hidden_matrices": True}
        return parameter, Muon([group])

    torch.manual_seed(0)
    gradients = torch.randn(6, 8, 16)
    straight, optimizer = new(torch.ones(8, 16))
    steps(straight, optimizer, gradients)
    first, optimizer = new(torch.ones(8, 16))
    steps(first, optimizer, gradients[:3])
    second, resumed = new(first.detach())
    resumed.load_state_dict(optimizer.state_dict())
    steps(second, resumed, gradients[3:])
    assert torch.equal(second, straight)
