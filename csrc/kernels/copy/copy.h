// Operations that move codes: Pad, Slice, Concat, Reshape, and the halo around images.
#pragma once
#include "kernels/image.h"

namespace tritkit {

// Writes the zero point into the halo around `rows`, above that of an image's first row and below that of its last: threads that share
// an image each write beside their own rows, not into one another's cache lines.
void fill_halo(const Image& shape, uint8_t* y, Rows rows);

// y[n, i, j, c] = x[n, start + step * (i, j, c)] for Slice; rows are those of y.
struct SliceArgs {
  Image x, y;
  int64_t start_c = 0, start_h = 0, start_w = 0, step_c = 1, step_h = 1, step_w = 1;
};
void slice(const SliceArgs& args, const uint8_t* x, uint8_t* y, Rows rows);

// Writes all of x into y at (channel, top, left); rows are those of x. Concat is one paste an input.
struct PasteArgs {
  Image x, y;
  int64_t channel = 0, top = 0, left = 0;
};
void paste(const PasteArgs& args, const uint8_t* x, uint8_t* y, Rows rows);

// Fills rows of y, without the halo, with its zero point: what a Pad leaves around the paste.
void fill_zero(const Image& shape, uint8_t* y, Rows rows);

// Keeps the elements in (channel, row, column) order under another shape; images [begin, end).
void reshape(const Image& x_shape, const uint8_t* x, const Image& y_shape, uint8_t* y, int64_t begin, int64_t end);

}  // namespace tritkit
