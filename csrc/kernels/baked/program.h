// The weights of a ternary convolution as machine code.
//
// A tile is as many outputs as an instruction set has registers for sums, or half as many where plus and minus weigh differently: then
// each has two sums, of its plus and of its minus weights. Its code comes in chunks, each a function (x, sums): for every tap and
// channel that some output uses it loads 32 pixels (AVX2: 16) once and adds them to, or subtracts them from, the sums, some of them
// together with those of another tap and channel (pairing.h); then it stores the sums. A chunk ends before its instructions leave
// the CPU's cache of decoded ones: a chunk runs over all blocks of a band before the next begins. It also ends before a 16-bit sum could
// overflow, where one could at all; else the next chunk goes on with the sums of the one before.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/baked/geometry.h"

namespace tritkit {

struct BakedTile {
  int64_t output, outputs;         // first output channel, of all groups
  bool two_sums;
  std::vector<size_t> chunks;      // byte offsets into the code
  std::vector<int32_t> values;     // an output: its p in the lower 16 bits and -n in the upper ones (0 with one sum)
};

// Up to 64 outputs of one group that are finished together.
struct BakedPanel {
  int64_t group, output, outputs;
  bool short_sums;  // no 16-bit sum can overflow
  std::vector<BakedTile> tiles;
};

struct BakedProgram {
  std::vector<uint8_t> code;
  std::vector<BakedPanel> panels;
  int64_t instructions = 0;
};

inline constexpr int64_t kBakedSums = 24;   // of a tile at most
inline constexpr int64_t kBakedPanel = 64;  // outputs
inline constexpr int64_t kBakedChunk = 20 * 1024;  // bytes of a chunk at most: decoded, it fits a cache of 6,144 instructions (Zen 5) with room

// How many additions the first tile takes for each of its weights that are not zero; `sums` of a tile at most.
double additions_of_weight(const ConvShape& shape, const BakedGeometry& geometry, const ConvWeights& weights, int64_t sums);

// Empty code if it would pass `limit` bytes. `Emitter` is one of emitter.h.
template <class Emitter>
BakedProgram bake(const ConvShape& shape, const BakedGeometry& geometry, const ConvWeights& weights, size_t limit);

}  // namespace tritkit
