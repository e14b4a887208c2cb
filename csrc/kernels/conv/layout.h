// Packed weights of the vector kernels, and how outputs are cut into panels and strips.
//
// A panel is up to 64 output channels of one group; a strip is 1, 2 or 4 vectors of `lanes` int32 sums out of it, so many as one
// tile keeps in registers. A strip is a run of blocks, each four vectors' worth of weights: vector f = q * vectors + v of a
// block holds input quad q (of 4 / vectors) for output vector v; its byte 4 j + i weighs channel 4 quad + i for output j. Taps
// (ky, kx) follow one another and each starts a block, missing channels and outputs weigh 0.
//   int8:     a block is the four vectors.
//   ternary:  a block is one vector, code of field f in bits 2 f and 2 f + 1 of each byte; before the first block stand
//             `vectors` tables for the in-lane byte shuffle: entry 4 (j mod 4) + code is the value of the code for output j.
#pragma once
#include "kernels/conv/conv.h"

namespace tritkit {

struct ConvPanel {
  int64_t group, first_output, outputs;  // outputs <= 64, of one group
};

struct ConvVectors {
  int64_t lanes, max_vectors;  // int32 lanes of a vector; vectors of the widest strip: 1, 2 or 4
};

inline constexpr int64_t kConvPackedHeader = 64;  // bytes in front of the first strip; the first one says if it is ternary

int64_t conv_panels(const ConvShape& shape);
ConvPanel conv_panel(const ConvShape& shape, int64_t panel);

// Vectors of the strip that begins where `outputs` of the panel are left.
int64_t conv_strip_vectors(const ConvVectors& v, int64_t outputs);
int64_t conv_strip_bytes(const ConvVectors& v, const ConvShape& shape, bool ternary, int64_t vectors);
int64_t conv_panel_offset(const ConvVectors& v, const ConvShape& shape, bool ternary, int64_t panel);

size_t conv_packed_bytes(const ConvVectors& v, const ConvShape& shape, bool ternary);
void conv_pack(const ConvVectors& v, const ConvShape& shape, const ConvWeights& weights, void* packed);

}  // namespace tritkit
