// The kernels of quantize.h in vectors, written once: included by an instruction set's file after its `Lanes`, inside its namespace.
//
// Four channels at a time: the codes of kWords pixels are the four bytes of as many int32, which is how NHWC pixels of up to four
// channels lie in memory; of wider pixels they are the words at one place.

#include "kernels/lanes.h"

// The planes of the up to four channels from `channel`, at image row `row` of image `n`.
struct Planes {
  int64_t at[4], count;
  Planes(const Image& s, int64_t n, int64_t row, int64_t channel) {
    count = s.channels - channel < 4 ? s.channels - channel : 4;
    for (int64_t k = 0; k < 4; ++k) at[k] = ((n * s.channels + channel + (k < count ? k : 0)) * s.height + row) * s.width;
  }
};

// Words of `count` <= kWords pixels from and to memory.
inline Lanes::I load_pixels(const uint8_t* x, int64_t pixel, int64_t count) {
  if (pixel == 4) return count == Lanes::kWords ? Lanes::load_words(x) : Lanes::load_some(x, 4 * count);
  alignas(64) uint8_t words[Lanes::kBytes] = {};
  for (int64_t j = 0; j < count; ++j) __builtin_memcpy(words + 4 * j, x + j * pixel, 4);
  return Lanes::load_words(words);
}

inline void store_pixels(uint8_t* y, int64_t pixel, Lanes::I v, int64_t count) {
  if (pixel == 4 && count == Lanes::kWords) return Lanes::store(y, v);
  if (pixel == 4) return Lanes::store_some(y, v, 4 * count);
  alignas(64) uint8_t words[Lanes::kBytes];
  Lanes::store(words, v);
  for (int64_t j = 0; j < count; ++j) __builtin_memcpy(y + j * pixel, words + 4 * j, 4);
}

struct Quantizer {
  Lanes::F scale;
  Rounder round;
  Lanes::NanWatch nan;
  Quantizer(float s, int32_t zero) : scale(Lanes::splat(s)), round(zero) {}

  template <int Bits>
  Lanes::I codes(Lanes::F x) {
    nan.look(x);
    return Lanes::left<Bits>(round(Lanes::div(x, scale)));
  }

  template <int Channels>
  Lanes::I words(const float* x, const Planes& planes, int64_t j, int64_t count) {
    const auto load = [&](int k) {
      const float* from = x + planes.at[k] + j;
      return count == Lanes::kWords ? Lanes::load_floats(from) : Lanes::load_floats(from, count);
    };
    Lanes::I word = codes<0>(load(0));
    if (Channels > 1) word = Lanes::either(word, codes<8>(load(1)));
    if (Channels > 2) word = Lanes::either(word, codes<16>(load(2)));
    if (Channels > 3) word = Lanes::either(word, codes<24>(load(3)));
    return word;
  }

  template <int Channels>
  void row(const float* x, const Planes& planes, uint8_t* y, int64_t pixel, int64_t width) {
    for (int64_t j = 0; j < width; j += Lanes::kWords) {
      const int64_t count = width - j < Lanes::kWords ? width - j : Lanes::kWords;
      store_pixels(y + j * pixel, pixel, words<Channels>(x, planes, j, count), count);
    }
  }
};

int64_t quantize(const Image& shape, float scale, const float* x, uint8_t* y, Rows rows) {
  int64_t nan_image = -1;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / shape.height, i = row % shape.height;
    Quantizer quantizer(scale, shape.zero);
    for (int64_t c = 0; c < shape.channels; c += 4) {
      const Planes planes(shape, n, i, c);
      uint8_t* const to = y + offset_of(shape, n, i, 0) + c;
      switch (planes.count) {
        case 1: quantizer.row<1>(x, planes, to, shape.pixel, shape.width); break;
        case 2: quantizer.row<2>(x, planes, to, shape.pixel, shape.width); break;
        case 3: quantizer.row<3>(x, planes, to, shape.pixel, shape.width); break;
        default: quantizer.row<4>(x, planes, to, shape.pixel, shape.width);
      }
    }
    if (quantizer.nan.any() && nan_image < 0) nan_image = n;
  }
  return nan_image;
}

struct Dequantizer {
  Lanes::I zero;
  Lanes::F scale;
  template <int Bits>
  void plane(Lanes::I words, float* y, int64_t count) const {
    Lanes::store_floats(y, Lanes::mul(Lanes::to_float(Lanes::sub(Lanes::code_at<Bits>(words), zero)), scale), count);
  }
};

void dequantize(const Image& shape, float scale, const uint8_t* x, float* y, Rows rows) {
  const Dequantizer to = {Lanes::splat(shape.zero), Lanes::splat(scale)};
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t n = row / shape.height, i = row % shape.height;
    for (int64_t c = 0; c < shape.channels; c += 4) {
      const Planes planes(shape, n, i, c);
      const uint8_t* const from = x + offset_of(shape, n, i, 0) + c;
      for (int64_t j = 0; j < shape.width; j += Lanes::kWords) {
        const int64_t count = shape.width - j < Lanes::kWords ? shape.width - j : Lanes::kWords;
        const Lanes::I words = load_pixels(from + j * shape.pixel, shape.pixel, count);
        to.plane<0>(words, y + planes.at[0] + j, count);
        if (planes.count > 1) to.plane<8>(words, y + planes.at[1] + j, count);
        if (planes.count > 2) to.plane<16>(words, y + planes.at[2] + j, count);
        if (planes.count > 3) to.plane<24>(words, y + planes.at[3] + j, count);
      }
    }
  }
}
