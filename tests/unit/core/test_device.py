"""The device that is asked for, and what is set for the whole process."""

from __future__ import annotations

import pytest
import torch

from bids_wmh_uad.core.device import configure_torch, resolve_device
from bids_wmh_uad.errors import TemporaryError


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(TemporaryError, match="--device cuda:1"):
        resolve_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cpu") == "cpu"


def test_only_the_start_up_sets_what_holds_for_the_process(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    try:
        resolve_device("cpu")
        assert torch.backends.cudnn.allow_tf32
        configure_torch()
        assert torch.get_num_threads() == before
        configure_torch(threads=before + 1)
        assert torch.get_num_threads() == before + 1
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.set_num_threads(before)
