// From sums to outputs; part of tile.h, in the namespace of an instruction set.

using F = Vector::F;

// rint(value) as int32, right wherever clip() to [0, 255] follows: the limit keeps the conversion from overflowing upwards, and
// what it gives below -2^31 is negative enough.
inline I round_to_int(F value) { return Vector::to_int(Vector::min(value, Vector::splat(1048576.0f))); }

// f32(value - zero) * scale
inline F dequantize(I value, I zero, F scale) { return Vector::mul(Vector::to_float(Vector::sub(value, zero)), scale); }

// Writers of one pixel's `count` outputs, OV vectors of acc * multiplier. y and r are byte offsets of its first output.
template <int OV>
struct ToFloat {
  explicit ToFloat(const ConvArgs&) {}
  void operator()(const ConvArgs& a, const F* value, int64_t y, int64_t, int64_t o, int64_t count) const {
    for (int v = 0; v < OV && v * kLanes < count; ++v) {
      const int64_t left = count - v * kLanes;
      uint8_t* const at = static_cast<uint8_t*>(a.y) + y + 4 * (o + v * kLanes);
      Vector::store_floats(at, value[v], left < kLanes ? left : kLanes);
    }
  }
};

template <int OV>
struct Requantize {
  Vector::Zero zero;
  explicit Requantize(const ConvArgs& a) : zero(Vector::zero_point(a.y_zero)) {}
  void operator()(const ConvArgs& a, const F* value, int64_t y, int64_t, int64_t o, int64_t count) const {
    I rounded[OV];
    TRITKIT_UNROLL
    for (int v = 0; v < OV; ++v) rounded[v] = round_to_int(value[v]);
    Vector::store_bytes<OV>(static_cast<uint8_t*>(a.y) + y + o, rounded, zero, count);
  }
};

template <int OV>
struct RequantizeAdd {
  Vector::Zero y_zero;
  I v_zero, v_limit, r_zero;
  F v_scale, r_scale;
  explicit RequantizeAdd(const ConvArgs& a)
      : y_zero(Vector::zero_point(a.y_zero)),
        v_zero(Vector::splat(-a.v_zero)),
        v_limit(Vector::splat(255 - a.v_zero)),
        r_zero(Vector::splat(a.r_zero)),
        v_scale(Vector::splat(a.v_scale)),
        r_scale(Vector::splat(a.r_scale)) {}
  void operator()(const ConvArgs& a, const F* value, int64_t y, int64_t r, int64_t o, int64_t count) const {
    I residual[OV], rounded[OV];
    Vector::load_bytes<OV>(a.r + r + o, residual, count);
    TRITKIT_UNROLL
    for (int v = 0; v < OV; ++v) {
      const I clipped = Vector::min(Vector::max(round_to_int(value[v]), v_zero), v_limit);  // clip(.. + v_zero) - v_zero
      const F left = Vector::mul(Vector::to_float(clipped), v_scale);
      rounded[v] = round_to_int(Vector::add(left, dequantize(residual[v], r_zero, r_scale)));
    }
    Vector::store_bytes<OV>(static_cast<uint8_t*>(a.y) + y + o, rounded, y_zero, count);
  }
};

template <int OV, class Output>
void finish_as(const Strip& strip, const Pixels& pixels, int64_t count, const int32_t* sums) {
  const ConvArgs a = *strip.args;
  const Output write(a);
  F multiplier[OV];
  TRITKIT_UNROLL
  for (int v = 0; v < OV; ++v) multiplier[v] = Vector::load_floats(strip.multiplier + v * kLanes);
  for (int64_t p = 0; p < count; ++p, sums += OV * kLanes) {
    F value[OV];
    TRITKIT_UNROLL
    for (int v = 0; v < OV; ++v) value[v] = Vector::mul(Vector::to_float(Vector::load(sums + v * kLanes)), multiplier[v]);
    write(a, value, pixels.y[p], pixels.r[p], strip.output, strip.outputs);
  }
}

using Finish = void (*)(const Strip&, const Pixels&, int64_t, const int32_t*);

template <int OV>
Finish pick_finish(ConvOutput output) {
  switch (output) {
    case ConvOutput::requantize: return finish_as<OV, Requantize<OV>>;
    case ConvOutput::requantize_add: return finish_as<OV, RequantizeAdd<OV>>;
    default: return finish_as<OV, ToFloat<OV>>;
  }
}

Finish pick_finish(const Strip& strip) {
  const ConvOutput output = strip.args->output;
  if (strip.vectors == 1) return pick_finish<1>(output);
  return strip.vectors == 2 ? pick_finish<2>(output) : pick_finish<kSums>(output);
}
