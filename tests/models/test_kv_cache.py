import pytest
import torch

from instantvir_models.students.kv_cache import KVCache


def kept(cache, sizes):
    """Sorted keys after blocks of `sizes` tokens that count up from 0; values are their negatives."""
    start = 0
    for size in sizes:
        block = torch.arange(start, start + float(size)).reshape(1, size, 1, 1)
        keys, values = cache.append(block, -block)
        start += size
    assert torch.equal(values, -keys)
    return sorted(keys.flatten().int().tolist())


def test_window_keeps_the_newest():
    assert kept(KVCache(4), [2, 2, 2]) == [2, 3, 4, 5]


def test_the_sink_keeps_the_first():
    assert kept(KVCache(3, sink=2), [3, 3, 3]) == [0, 1, 6, 7, 8]


@pytest.mark.parametrize("sink", [0, 1, 4, 7])
def test_blocks_of_any_size_keep_sink_and_window(sink):
    sizes = [5, 1, 3, 4, 2, 5, 5, 1, 1, 3]
    for count in range(1, len(sizes) + 1):
        total = sum(sizes[:count])
        expected = sorted({*range(min(sink, total)), *range(max(0, total - 5), total)})
        assert set(expected) <= set(kept(KVCache(5, sink=sink), sizes[:count]))
        assert len(kept(KVCache(5, sink=sink), sizes[:count])) == min(total, sink + 5)


def test_the_buffer_is_written_in_place():
    cache = KVCache(6)
    places = set()
    for _ in range(100):
        keys, _ = cache.append(torch.zeros(1, 4, 1, 1), torch.zeros(1, 4, 1, 1))
        places.add(keys.data_ptr())
    assert len(cache) == 6
    assert len(places) == 1


def test_a_block_larger_than_the_window_is_refused():
    with pytest.raises(ValueError, match="block of 5 tokens does not fit a cache window of 4"):
        KVCache(4).append(torch.zeros(1, 5, 1, 1), torch.zeros(1, 5, 1, 1))


def test_clear_forgets():
    cache = KVCache(4)
    cache.append(torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1))
    cache.clear()
    assert len(cache) == 0
    assert kept(cache, [2]) == [0, 1]


@pytest.mark.parametrize("sizes", [[3], [3, 3], [3, 3, 3, 3, 2]])
def test_a_smaller_window_keeps_the_newest_and_goes_on(sizes):
    cache, total = KVCache(6, sink=2), sum(sizes)
    kept(cache, sizes)
    cache.shrink(4)
    block = torch.arange(float(total), total + 3).reshape(1, 3, 1, 1)
    keys, values = cache.append(block, -block)
    total += 3
    expected = {*range(min(2, total)), *range(max(0, total - 4), total)}
    assert set(keys.flatten().int().tolist()) == expected
    assert torch.equal(values, -keys)


def test_the_same_window_again_copies_nothing():
    cache = KVCache(4)
    cache.reserve((1, 3, 1, 2), like=torch.zeros(1))
    before = cache._k
    cache.shrink(4)
    assert cache._k is before
    with pytest.raises(AssertionError, match="reserved"):
        cache.commit()


def test_a_block_can_be_appended_again():
    cache, again = KVCache(4, sink=1), KVCache(4, sink=1)
    for each in (cache, again):
        kept(each, [2, 2, 2])
    block = torch.full((1, 2, 1, 1), 9.0)
    again.append(block * 7, block)
    again.rewind(6)
    torch.testing.assert_close(again.append(block, block), cache.append(block, block))


@pytest.mark.parametrize("sink", [0, 1, 4, 7])
def test_writing_into_reserved_slots_is_appending(sink):
    """Token s goes to slot (first_slot + s) modulo the ring, whatever the cache is made of."""
    reserving, appending, start = KVCache(5, sink=sink), KVCache(5, sink=sink), 0
    for size in [5, 1, 3, 4, 2, 5, 5, 1, 1, 3]:
        block = torch.arange(start, start + float(size)).reshape(1, size, 1, 1)
        slots = reserving.reserve(block.shape, like=block)
        for s in range(size):
            slot = (slots.first_slot + s) % slots.k_ring.shape[1]
            slots.k_ring[:, slot], slots.v_ring[:, slot] = block[:, s], -block[:, s]
        for mine, other in zip(reserving.commit(), appending.append(block, -block), strict=True):
            assert torch.equal(mine, other)
        start += size


def test_a_block_counts_once_however_often_it_is_written():
    cache, once = KVCache(4, sink=1), KVCache(4, sink=1)
    for each in (cache, once):
        kept(each, [3, 3])
    block = torch.full((1, 2, 1, 1), 9.0)
    for value in (7.0, 9.0):  # as a warm-up and a recording would
        slots = cache.reserve(block.shape, like=block)
        for s in range(2):
            slot = (slots.first_slot + s) % slots.k_ring.shape[1]
            slots.k_ring[:, slot] = slots.v_ring[:, slot] = value
        assert cache.tokens_seen == 6
    torch.testing.assert_close(cache.commit(), once.append(block, block))


def test_only_a_reserved_block_is_committed():
    cache = KVCache(4)
    with pytest.raises(AssertionError, match="reserved before it is committed"):
        cache.commit()
    block = torch.zeros(1, 2, 1, 1)
    cache.append(block, block)
    cache.reserve(block.shape, like=block)
    cache.rewind(0)
    with pytest.raises(AssertionError, match="reserved before it is committed"):
        cache.commit()
