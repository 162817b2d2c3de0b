import pytest
import torch

from instantvir_models.kv_cache import KVCache


def test_window_keeps_the_newest():
    cache = KVCache(4)
    for start in (0, 2, 4):
        block = torch.arange(start, start + 2.0).reshape(1, 2, 1, 1)
        keys, values = cache.append(block, -block)
    assert keys.flatten().tolist() == [2, 3, 4, 5]
    assert values.flatten().tolist() == [-2, -3, -4, -5]


def test_memory_is_constant():
    cache = KVCache(6)
    for _ in range(100):
        cache.append(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
    assert len(cache) == 6


def test_a_block_larger_than_the_window_is_refused():
    with pytest.raises(ValueError, match="block of 5 tokens does not fit a cache window of 4"):
        KVCache(4).append(torch.zeros(1, 5, 1, 1), torch.zeros(1, 5, 1, 1))


def test_clear_forgets():
    cache = KVCache(4)
    cache.append(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
    cache.clear()
    assert len(cache) == 0
