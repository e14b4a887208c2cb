// From sums to outputs; part of tile.h, in the namespace of an instruction set.

using F = Vector::F;

// rint(value) + zero as int32, right wherever clip() to [0, 255] follows: the limit keeps the conversion from overflowing
// upwards, and what it gives below -2^31 is negative enough.
inline I round_to_int(F value, I zero) {
  return Vector::add(Vector::to_int(Vector::min(value, Vector::splat(1048576.0f))), zero);
}

// f32(value - zero) * scale
inline F dequantize(I value, I zero, F scale) { return Vector::mul(Vector::to_float(Vector::sub(value, zero)), scale); }

struct ToFloat {
  explicit ToFloat(const ConvArgs&) {}
  void operator()(const ConvArgs& a, F value, int64_t y, int64_t, int64_t o, int64_t count) const {
    Vector::store_floats(static_cast<uint8_t*>(a.y) + y + 4 * o, value, count);
  }
};

struct Requantize {
  I zero;
  explicit Requantize(const ConvArgs& a) : zero(Vector::splat(a.y_zero)) {}
  void operator()(const ConvArgs& a, F value, int64_t y, int64_t, int64_t o, int64_t count) const {
    Vector::store_bytes(static_cast<uint8_t*>(a.y) + y + o, Vector::clip(round_to_int(value, zero)), count);
  }
};

struct RequantizeAdd {
  I y_zero, v_zero, r_zero;
  F v_scale, r_scale;
  explicit RequantizeAdd(const ConvArgs& a)
      : y_zero(Vector::splat(a.y_zero)),
        v_zero(Vector::splat(a.v_zero)),
        r_zero(Vector::splat(a.r_zero)),
        v_scale(Vector::splat(a.v_scale)),
        r_scale(Vector::splat(a.r_scale)) {}
  void operator()(const ConvArgs& a, F value, int64_t y, int64_t r, int64_t o, int64_t count) const {
    const F left = dequantize(Vector::clip(round_to_int(value, v_zero)), v_zero, v_scale);
    const F right = dequantize(Vector::load_bytes(a.r + r + o, count), r_zero, r_scale);
    const I sum = round_to_int(Vector::add(left, right), y_zero);
    Vector::store_bytes(static_cast<uint8_t*>(a.y) + y + o, Vector::clip(sum), count);
  }
};

template <class Output>
void finish_as(const Strip& strip, const Pixels& pixels, int64_t count, const int32_t* sums) {
  const ConvArgs& a = *strip.args;
  const Output write(a);
  for (int64_t v = 0; v < strip.vectors; ++v) {
    const int64_t left = strip.outputs - v * kLanes, width = left < kLanes ? left : kLanes;
    if (width <= 0) return;
    const F multiplier = Vector::load_floats(strip.multiplier + v * kLanes);
    const int32_t* sum = sums + v * kLanes;
    for (int64_t p = 0; p < count; ++p, sum += strip.vectors * kLanes) {
      const F value = Vector::mul(Vector::to_float(Vector::load(sum)), multiplier);
      write(a, value, pixels.y[p], pixels.r[p], strip.output + v * kLanes, width);
    }
  }
}

void finish(const Strip& strip, const Pixels& pixels, int64_t count, const int32_t* sums) {
  switch (strip.args->output) {
    case ConvOutput::requantize: return finish_as<Requantize>(strip, pixels, count, sums);
    case ConvOutput::requantize_add: return finish_as<RequantizeAdd>(strip, pixels, count, sums);
    case ConvOutput::to_float: return finish_as<ToFloat>(strip, pixels, count, sums);
  }
}
