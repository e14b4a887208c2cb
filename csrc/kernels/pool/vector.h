// The kernels of pool.h in vectors of channels, written once: included by an instruction set's file after its `Lanes`, inside its
// namespace. The last channels of a pixel are taken with the bytes that fill it up to a multiple of 4.

#include "kernels/lanes.h"

// A window's taps inside the image: rows x cols of them from byte `first`.
struct Window {
  int64_t first, rows, cols, row_step, col_step;
};

// Taps [first, last) of a window at `start` that lie inside [0, size).
struct Taps {
  int64_t first, count;
  Taps(int64_t start, int64_t kernel, int64_t dilation, int64_t size) : first(start >= 0 ? 0 : (-start + dilation - 1) / dilation) {
    const int64_t inside = start >= size ? 0 : (size - 1 - start) / dilation + 1, last = inside < kernel ? inside : kernel;
    count = last > first ? last - first : 0;
  }
};

// The largest code of V vectors of channels; of `bytes` < kBytes channels if V is 0.
template <int V>
void max_channels(const Window& w, const uint8_t* x, uint8_t* y, int64_t bytes) {
  constexpr int kVectors = V > 0 ? V : 1;
  Lanes::B best[kVectors];
  for (int v = 0; v < kVectors; ++v) best[v] = Lanes::splat_code(0);
  const uint8_t* row = x + w.first;
  for (int64_t ky = 0; ky < w.rows; ++ky, row += w.row_step) {
    const uint8_t* from = row;
    for (int64_t kx = 0; kx < w.cols; ++kx, from += w.col_step) {
      for (int v = 0; v < kVectors; ++v) {
        const Lanes::B tap = V > 0 ? Lanes::load(from + v * Lanes::kBytes) : Lanes::load_some(from, bytes);
        best[v] = Lanes::max_code(best[v], tap);
      }
    }
  }
  for (int v = 0; v < V; ++v) Lanes::store(y + v * Lanes::kBytes, best[v]);
  if (V == 0) Lanes::store_some(y, best[0], bytes);
}

void max_pixel(const Window& w, const uint8_t* x, uint8_t* y, int64_t bytes) {
  int64_t c = 0;
  for (; c + 4 * Lanes::kBytes <= bytes; c += 4 * Lanes::kBytes) max_channels<4>(w, x + c, y + c, 0);
  for (; c + 2 * Lanes::kBytes <= bytes; c += 2 * Lanes::kBytes) max_channels<2>(w, x + c, y + c, 0);
  for (; c + Lanes::kBytes <= bytes; c += Lanes::kBytes) max_channels<1>(w, x + c, y + c, 0);
  if (c < bytes) max_channels<0>(w, x + c, y + c, bytes - c);
}

void max_pool(const MaxPoolArgs& a, const uint8_t* x, uint8_t* y, Rows range) {
  const int64_t bytes = (a.y.channels + 3) / 4 * 4;
  for (int64_t row = range.begin; row < range.end; ++row) {
    const int64_t n = row / a.y.height, i = row % a.y.height, from_h = i * a.stride_h - a.top;
    const Taps rows(from_h, a.kernel_h, a.dilation_h, a.x.height);
    for (int64_t j = 0; j < a.y.width; ++j) {
      const int64_t from_w = j * a.stride_w - a.left;
      const Taps cols(from_w, a.kernel_w, a.dilation_w, a.x.width);
      const int64_t first = offset_of(a.x, n, from_h + rows.first * a.dilation_h, from_w + cols.first * a.dilation_w);
      const Window window = {first, rows.count, cols.count, a.dilation_h * a.x.row, a.dilation_w * a.x.pixel};
      max_pixel(window, x, y + offset_of(a.y, n, i, j), bytes);
    }
  }
}

// Averages of one window, kWords channels a vector of sums.
struct Average {
  Window window;
  Lanes::I start;
  Lanes::F multiplier;
  Rounder round;

  template <int V>
  void sum(const uint8_t* x, Lanes::I (&sums)[4]) const {
    for (int v = 0; v < V; ++v) sums[v] = start;
    const uint8_t* row = x + window.first;
    for (int64_t i = 0; i < window.rows; ++i, row += window.row_step) {
      const uint8_t* from = row;
      for (int64_t j = 0; j < window.cols; ++j, from += window.col_step) {
        for (int v = 0; v < V; ++v) sums[v] = Lanes::add(sums[v], Lanes::widen(from + v * Lanes::kWords));
      }
    }
    for (int v = 0; v < V; ++v) sums[v] = round(Lanes::mul(Lanes::to_float(sums[v]), multiplier));
  }

  // `bytes` < kBytes channels: each pixel's are copied to where a whole vector may be read.
  void some(const uint8_t* x, uint8_t* y, int64_t bytes) const {
    alignas(64) uint8_t whole[Lanes::kBytes];
    Lanes::I sums[4] = {start, start, start, start};
    const uint8_t* row = x + window.first;
    for (int64_t i = 0; i < window.rows; ++i, row += window.row_step) {
      const uint8_t* from = row;
      for (int64_t j = 0; j < window.cols; ++j, from += window.col_step) {
        Lanes::store(whole, Lanes::load_some(from, bytes));
        for (int v = 0; v < 4; ++v) sums[v] = Lanes::add(sums[v], Lanes::widen(whole + v * Lanes::kWords));
      }
    }
    for (int v = 0; v < 4; ++v) sums[v] = round(Lanes::mul(Lanes::to_float(sums[v]), multiplier));
    Lanes::store_some(y, Lanes::narrow(sums), bytes);
  }

  void pixel(const uint8_t* x, uint8_t* y, int64_t bytes) const {
    int64_t c = 0;
    for (; c + Lanes::kBytes <= bytes; c += Lanes::kBytes) {
      Lanes::I sums[4];
      sum<4>(x + c, sums);
      Lanes::store(y + c, Lanes::narrow(sums));
    }
    for (; c + Lanes::kWords <= bytes; c += Lanes::kWords) {
      Lanes::I sums[4] = {start, start, start, start};
      sum<1>(x + c, sums);
      Lanes::store_some(y + c, Lanes::narrow(sums), Lanes::kWords);
    }
    if (c < bytes) some(x + c, y + c, bytes - c);
  }
};

void average_pool(const AveragePoolArgs& a, const uint8_t* x, uint8_t* y, Rows range) {
  const int64_t bytes = (a.y.channels + 3) / 4 * 4;
  for (int64_t row = range.begin; row < range.end; ++row) {
    const int64_t n = row / a.y.height, i = row % a.y.height;
    const PoolRun rows = a.rows[i];
    for (int64_t j = 0; j < a.y.width; ++j) {
      const PoolRun cols = a.cols[j];
      const int64_t first = offset_of(a.x, n, rows.begin, cols.begin), height = rows.end - rows.begin, width = cols.end - cols.begin;
      const int32_t zeros = static_cast<int32_t>(height * width) * a.x.zero;
      const Average average = {{first, height, width, a.x.row, a.x.pixel},
                               Lanes::splat(-zeros),
                               Lanes::splat(a.multiplier[i * a.y.width + j]),
                               Rounder(a.y.zero)};
      average.pixel(x, y + offset_of(a.y, n, i, j), bytes);
    }
  }
}
