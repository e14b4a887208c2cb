// Winograd's minimal filtering F(4x4, 3x3) in exact integers: 36 products where 16 outputs of a 3x3 convolution have 144, at any density.
// Same arguments, same bits as the kernels of conv.h.
//
//   Y = A' [ (24 G g 24 G') * (B' d B) ] A / 576     for a patch d of 6 x 6 inputs and the weights g, summed over channels before A
//
// At the points 0, 1, -1, 2, -2 and infinity B has integers, and B' d B of bytes fits 16 bits (at most 255 * 68). G has fractions, so it
// is 24 times as large here. The sum in brackets is a multiple of 576 by nature, and is right in 32 bits whatever overflows on the way,
// as long as it is below 2^31 itself: that of weights -1, 0 and 1 is for up to 1,624 channels, that of 8-bit weights for a dozen.
// What the values of an output have in common, its unit, is multiplied last.
//
// Transformed weights are four times as many, and words. They are kept as bytes, each divided by the factor of its place, and become words
// near the core when a block of tiles is to be multiplied by them.
#pragma once
#include <memory>

#include "base/memory.h"
#include "kernels/conv/conv.h"

namespace tritkit {

inline constexpr int64_t kWinogradTile = 4, kWinogradPatch = 6, kWinogradPlaces = kWinogradPatch * kWinogradPatch;
inline constexpr int64_t kWinogradMostTiles = 100;
inline constexpr int64_t kWinogradChunk = 32;  // quads of channels, see below, whose weights at a place the first cache holds as words
// 24 G is an integer matrix times these.
inline constexpr int kWinogradFactors[kWinogradPatch] = {6, 4, 4, 1, 1, 12};

// How a layer's numbers lie. Four channels are a quad, of which the even two are one pair for the dot product and the odd two another.
struct WinogradLayout {
  int64_t quads;    // of channels
  int64_t outputs;  // that the widest panel has room for: 16, 32 or 64
  int64_t tiles;    // at a time: more widen weights less often and take more of the second cache

  explicit WinogradLayout(const ConvShape& shape);
  static int64_t width(int64_t outputs) { return outputs > 32 ? 64 : outputs > 16 ? 32 : 16; }

  // Bytes of a place's weights, [quad][output][channel of the quad], and of a panel's, place after place; all panels but the last have
  // 64 outputs.
  int64_t place_bytes(int64_t width) const { return quads * width * 4; }
  int64_t panel_bytes(int64_t width) const { return kWinogradPlaces * place_bytes(width); }
  // Words of a tile's transformed inputs at a place: of each 64 channels, first the even ones.
  int64_t pitch() const { return (quads + 15) / 16 * 64; }
  // From a place to the next of transformed inputs, [tile][channel], and of products, [tile][output], of `count` tiles: one line more
  // than they take, as lines 4 KiB apart would drive each other out.
  int64_t input_step(int64_t count) const { return count * pitch() + 32; }
  static int64_t product_step(int64_t count, int64_t width) { return count * width + 16; }
  // Words of a chunk of a place's weights, [quad][even, odd][output][2].
  static int64_t chunk_words(int64_t width) { return kWinogradChunk * width * 4; }
};

class WinogradConv {
 public:
  // Null where the CPU or `isa_limit` (as in conv_kernels) lacks AVX-512 VNNI, where the convolution is not a ternary 3x3 one of one
  // group at stride 1 whose outputs have p = n, where sums could pass 2^31 / 576, or where an estimate does not find fewer cycles for
  // an image than `rival`.
  static std::unique_ptr<WinogradConv> make(const ConvShape& shape, const ConvWeights& weights, const char* isa_limit, double rival);

  // `args` as for a kernel of conv.h, without packed weights; scratch memory of scratch_bytes(). Panels as conv_panels() counts them.
  void run(const ConvArgs& args, const ConvRange& range) const;

  size_t packed_bytes() const { return packed_.size() + factors_.size(); }
  static size_t scratch_bytes(const ConvShape& shape);
  static double cycles(const ConvShape& shape);  // an estimate of an image on one thread
  static bool available(const char* isa_limit);
  static const char* name() { return "avx512vnni_winograd"; }
  static const char* isa() { return "avx512vnni"; }

 private:
  void pack(const ConvShape& shape, const ConvWeights& weights);

  AlignedBuffer packed_, factors_;
};

// What an instruction set's file runs.
struct WinogradWork {
  const ConvArgs& args;
  const ConvRange& range;
  const WinogradLayout& layout;
  const int8_t* weights;   // panel after panel
  const int32_t* factors;  // [padded_outputs]: of an output, its unit / 9 modulo 2^32
};
void run_winograd_avx512vnni(const WinogradWork& work);

}  // namespace tritkit
