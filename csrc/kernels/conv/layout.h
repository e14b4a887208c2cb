// Packed weights of the vector kernels, and how outputs are cut into panels and strips.
//
// A panel is up to 64 output channels of one group, a strip 1, 2 or 4 vectors of `lanes` outputs of it, as many as it needs and at
// most `widest`. A pixel has as many vectors of int32 sums in registers, but two where the strip is one. Then two input quads (4
// channels) are taken at a time, a quad in each of `ways` = sums / vectors: sum (v, t) holds in lane d what quad d mod ways adds to
// output d xor t of vector v. The ways are added up at the end. So one load serves two products at least.
//
// A strip is `sums` tables (ternary only) and then blocks of 4 / vectors quads, each block `4` vectors of int8 weights, number
// f = step * sums + v * ways + t:
//   int8:     they follow one another.
//   ternary:  they share one vector, weight f as a code in bits 2 f and 2 f + 1 of each byte. Table v * ways + t serves the in-lane
//             byte shuffle: its byte 4 (d mod 4) + code is the value of the code for lane d. With `units`, where that leaves values
//             of at most 16 in all of the strip, the values are divided by what those of an output have in common, its unit; it
//             stands at the code 2, which no weight has (otherwise 1).
// Quads run over the kernel row (kx, channel) where the taps of a row are neighbours, over one tap's channels otherwise; each run
// starts a block. Missing channels and outputs weigh 0.
#pragma once
#include "kernels/conv/conv.h"

namespace tritkit {

struct ConvPanel {
  int64_t group, first_output, outputs;  // outputs <= 64, of one group
};

struct ConvVectors {
  int64_t lanes, widest;
  bool units;
};

// Runs of quads: `rows` x `columns` of them.
struct ConvRuns {
  int64_t rows, columns, quads;
};

inline constexpr int kConvLargestInUnits = 16;
inline constexpr int64_t kConvPackedHeader = 64;  // bytes in front of the first strip; the first one says if it is ternary

int64_t conv_panels(const ConvShape& shape);

// The first of the round_up(channels, 4) input channels that a group's quads take. The last groups begin before their first channel, so
// that their last quad ends with the pixel; what they take of others weighs 0.
int64_t conv_group_begin(const ConvShape& shape, int64_t group);

ConvPanel conv_panel(const ConvShape& shape, int64_t panel);
ConvRuns conv_runs(const ConvShape& shape);

// Vectors of the strip that begins where `outputs` of the panel are left.
int64_t conv_strip_vectors(const ConvVectors& v, int64_t outputs);
inline int64_t conv_strip_sums(int64_t vectors) { return vectors < 2 ? 2 : vectors; }
int64_t conv_strip_bytes(const ConvVectors& v, const ConvShape& shape, bool ternary, int64_t vectors);
int64_t conv_panel_offset(const ConvVectors& v, const ConvShape& shape, bool ternary, int64_t panel);

size_t conv_packed_bytes(const ConvVectors& v, const ConvShape& shape, bool ternary);
void conv_pack(const ConvVectors& v, const ConvShape& shape, const ConvWeights& weights, void* packed);

}  // namespace tritkit
