// The pointwise kernels in vectors, written once: included by an instruction set's file after its `Lanes`, inside its namespace.

#include "kernels/lanes.h"

// f32(x - zero) * ratio of kWords codes.
struct Dequantizer {
  Lanes::I zero;
  Lanes::F ratio;
  Dequantizer(int32_t z, float r) : zero(Lanes::splat(z)), ratio(Lanes::splat(r)) {}
  Lanes::F operator()(const uint8_t* x) const { return Lanes::mul(Lanes::to_float(Lanes::sub(Lanes::widen(x), zero)), ratio); }
};

// Functions of kBytes codes of one row, or of two.
struct AddBlock {
  Dequantizer left, right;
  Rounder round;
  explicit AddBlock(const AddArgs& args) : left(args.a.zero, args.a_ratio), right(args.b.zero, args.b_ratio), round(args.y.zero) {}
  Lanes::B operator()(const uint8_t* a, const uint8_t* b) const {
    Lanes::I v[4];
    for (int k = 0; k < 4; ++k) v[k] = round(Lanes::add(left(a + k * Lanes::kWords), right(b + k * Lanes::kWords)));
    return Lanes::narrow(v);
  }
};

struct RescaleBlock {
  Dequantizer dequantize;
  Rounder round;
  explicit RescaleBlock(const RescaleArgs& args) : dequantize(args.x.zero, args.ratio), round(args.y.zero) {}
  Lanes::B operator()(const uint8_t* x, const uint8_t*) const {
    Lanes::I v[4];
    for (int k = 0; k < 4; ++k) v[k] = round(dequantize(x + k * Lanes::kWords));
    return Lanes::narrow(v);
  }
};

struct ClipBlock {
  Lanes::B low, high;
  explicit ClipBlock(const ClipArgs& args) : low(Lanes::splat_code(args.low)), high(Lanes::splat_code(args.high)) {}
  Lanes::B operator()(const uint8_t* x, const uint8_t*) const { return Lanes::min_code(Lanes::max_code(Lanes::load(x), low), high); }
};

// y = block(a, b) over a row of `bytes`, a multiple of 4; its end goes through memory that is whole.
template <class Block>
void run_row(const Block& block, const uint8_t* a, const uint8_t* b, uint8_t* y, int64_t bytes) {
  int64_t k = 0;
  for (; k + Lanes::kBytes <= bytes; k += Lanes::kBytes) Lanes::store(y + k, block(a + k, b + k));
  if (k == bytes) return;
  alignas(64) uint8_t a_end[Lanes::kBytes], b_end[Lanes::kBytes];
  Lanes::store(a_end, Lanes::load_some(a + k, bytes - k));
  Lanes::store(b_end, Lanes::load_some(b + k, bytes - k));
  Lanes::store_some(y + k, block(a_end, b_end), bytes - k);
}

// Rows without a halo follow one another: they are run as one.
inline bool in_one_piece(const Image& image) { return image.row == image.width * image.pixel && image.image == image.height * image.row; }

template <class Block>
void run_rows(const Block& block, const Image& a_shape, const uint8_t* a, const Image& b_shape, const uint8_t* b, const Image& y_shape,
              uint8_t* y, Rows rows) {
  const int64_t bytes = y_shape.width * y_shape.pixel, count = rows.end - rows.begin;
  if (count <= 0) return;
  if (in_one_piece(a_shape) && in_one_piece(b_shape) && in_one_piece(y_shape)) {
    const int64_t at = rows.begin * bytes;
    return run_row(block, a + at, b + at, y + at, count * bytes);
  }
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / y_shape.height, i = row % y_shape.height;
    run_row(block, a + offset_of(a_shape, n, i, 0), b + offset_of(b_shape, n, i, 0), y + offset_of(y_shape, n, i, 0), bytes);
  }
}

void add(const AddArgs& args, const uint8_t* a, const uint8_t* b, uint8_t* y, Rows rows) {
  run_rows(AddBlock(args), args.a, a, args.b, b, args.y, y, rows);
}

void rescale(const RescaleArgs& args, const uint8_t* x, uint8_t* y, Rows rows) {
  run_rows(RescaleBlock(args), args.x, x, args.x, x, args.y, y, rows);
}

void clip(const ClipArgs& args, const uint8_t* x, uint8_t* y, Rows rows) {
  run_rows(ClipBlock(args), args.x, x, args.x, x, args.y, y, rows);
}
