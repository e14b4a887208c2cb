"""Deep Compression (Han, Mao, Dally 2015, https://arxiv.org/abs/1510.00149): pruning, weight sharing, Huffman coding.

    prune_(net, BySparsity(0.8))                      # or ByDeviation(1.0); the mask stays from here on
    ... train on as ever ...
    share_(net, conv_bits=5, linear_bits=5)           # k-means; what trains on are the centroids
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)    # a new one: the parameters are others
    ... train on ...
    compressed = compress(net)
    compressed.save("net.tkdc")
    print(sizes(compressed).ratio)                    # bytes at every stage, by layer and in all
    strip_(net)                                       # plain layers with these weights
    net.load_state_dict(decompress(Compressed.load("net.tkdc")))            # the same bits

The steps, layer by layer, with g = dL/dweight:

    prune     w → 0 where |w| ≤ quality · σ, σ the deviation of the weights that are not zero (`ByDeviation`), or the
              smallest share (`BySparsity`); they stay 0, the others train on: dL/dw = g where kept, else 0
    share     kept w → c[index], the nearest of 2^bits − 1 centroids by k-means, which starts evenly spaced between the
              least and the greatest weight; indices stay from then on, and dL/dc_k = Σ g over the weights of index k
    Huffman   of the indices, and of the gaps: the zeros before each kept weight, in gap_bits bits, with a stored zero
              (a filler) where more follow each other

Bytes of a layer with n entries (kept weights and fillers), each part rounded up: n·(4 + gap_bits/8) pruned,
4·(2^bits − 1) + n·(bits + gap_bits)/8 shared; after Huffman what the file holds, code lengths and all.
Ties: |w| = quality · σ is removed, and of equal magnitudes the earlier; a weight between two centroids takes the lower.
Defaults: 8 bits for indices and gaps of convolutions, 5 for those of linear layers, as in the paper's tables.

Layers and their weights stay float: this is what ternary methods are compared with, not one of them.
"""

from __future__ import annotations

from tritkit.compress.container import Compressed, compress, decompress, sizes
from tritkit.compress.kmeans import DensityInit, Init, LinearInit, RandomInit
from tritkit.compress.pruning import ByDeviation, BySparsity, Pruned, Rule, masks, prune_
from tritkit.compress.sharing import Shared, centroids_of, restore_, share_, shared_layers, strip_
from tritkit.compress.sizes import STAGES, LayerSizes, Sizes

__all__ = [
    "STAGES",
    "ByDeviation",
    "BySparsity",
    "Compressed",
    "DensityInit",
    "Init",
    "LayerSizes",
    "LinearInit",
    "Pruned",
    "RandomInit",
    "Rule",
    "Shared",
    "Sizes",
    "centroids_of",
    "compress",
    "decompress",
    "masks",
    "prune_",
    "restore_",
    "share_",
    "shared_layers",
    "sizes",
    "strip_",
]
