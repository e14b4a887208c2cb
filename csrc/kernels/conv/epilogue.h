// From sums to outputs; part of tile.h, in the namespace of an instruction set. Before it stand Strip and Pixels.
//
// A group is kSums vectors: the sums of kSums / OV pixels of OV vectors of outputs. Its bytes are packed at once.

using F = Vector::F;
using B = Vector::B;

// rint(value) as int32, right wherever clip() to [0, 255] follows: the limit keeps the conversion from overflowing upwards, and
// what it gives below -2^31 is negative enough.
inline I round_to_int(F value) { return Vector::to_int(Vector::min(value, Vector::splat(1048576.0f))); }

// f32(value - zero) * scale
inline F dequantize(I value, I zero, F scale) { return Vector::mul(Vector::to_float(Vector::sub(value, zero)), scale); }

// Writes the bytes of the group of pixels that begins at `first`, of which there are `count`.
template <int OV>
void store_group(const Strip& strip, uint8_t* y, const int64_t* at, int64_t count, B bytes) {
  constexpr int kGroup = kSums / OV;
  const int64_t outputs = strip.outputs;
  if (outputs == OV * kLanes && count >= kGroup) {
    if (at[kGroup - 1] - at[0] == (kGroup - 1) * OV * kLanes) return Vector::store_all(y + at[0], bytes);
    Vector::store_each<OV>(y, at, bytes);
  } else {
    Vector::store_some<OV>(y, at, count, outputs, bytes);
  }
}

// Writers of a group's outputs, from acc * multiplier. `at` and `residual` are byte offsets of its pixels' first outputs.
template <int OV>
struct ToFloat {
  static constexpr int kGroup = kSums / OV;
  uint8_t* const y;
  explicit ToFloat(const Strip& strip) : y(static_cast<uint8_t*>(strip.args->y) + 4 * strip.output) {}
  void operator()(const Strip& strip, const F* value, const int64_t* at, const int64_t*, int64_t count) const {
    for (int v = 0; v < kSums && v / OV < count; ++v) {
      const int64_t done = v % OV * kLanes, left = strip.outputs - done;
      if (left > 0) Vector::store_floats(y + at[v / OV] + 4 * done, value[v], left < kLanes ? left : kLanes);
    }
  }
};

template <int OV>
struct Requantize {
  uint8_t* const y;
  const Vector::Zero zero;
  explicit Requantize(const Strip& strip)
      : y(static_cast<uint8_t*>(strip.args->y) + strip.output), zero(Vector::zero_point(strip.args->y_zero)) {}
  void operator()(const Strip& strip, const F* value, const int64_t* at, const int64_t*, int64_t count) const {
    I rounded[kSums];
    TRITKIT_UNROLL
    for (int v = 0; v < kSums; ++v) rounded[v] = round_to_int(value[v]);
    store_group<OV>(strip, y, at, count, strip.arrange(Vector::narrow(rounded, zero)));
  }
};

template <int OV>
struct RequantizeAdd {
  static constexpr int kGroup = kSums / OV;
  const uint8_t* const r;
  const I r_zero;
  const F v_zero, v_limit, v_scale, r_scale;
  const Requantize<OV> requantize;
  explicit RequantizeAdd(const Strip& strip)
      : r(strip.args->r + strip.output),
        r_zero(Vector::splat(strip.args->r_zero)),
        v_zero(Vector::splat(static_cast<float>(-strip.args->v_zero))),
        v_limit(Vector::splat(static_cast<float>(255 - strip.args->v_zero))),
        v_scale(Vector::splat(strip.args->v_scale)),
        r_scale(Vector::splat(strip.args->r_scale)),
        requantize(strip) {}
  void operator()(const Strip& strip, const F* value, const int64_t* at, const int64_t* residual, int64_t count) const {
    I added[kSums];
    F sum[kSums];
    TRITKIT_UNROLL
    for (int p = 0; p < kGroup; ++p) strip.template load_residual<OV>(r + residual[p < count ? p : 0], added + p * OV);
    TRITKIT_UNROLL
    for (int v = 0; v < kSums; ++v) {
      const F clipped = Vector::min(Vector::max(Vector::round(value[v]), v_zero), v_limit);  // clip(.. + v_zero) - v_zero
      sum[v] = Vector::add(Vector::mul(clipped, v_scale), dequantize(added[v], r_zero, r_scale));
    }
    requantize(strip, sum, at, nullptr, count);
  }
};

// Sums as the kernels leave them; others are a class like this.
struct LongSums {
  using Element = int32_t;
  static constexpr int kElements = 1;  // an output
  template <int OV>
  static I load(const Strip&, const Element* sums, int v) { return Vector::load(sums + v * kLanes); }
};

// `sums` has whole groups.
template <int OV, class Output, class Sums>
void finish_as(const Strip& strip, const Pixels& pixels, int64_t count, const void* from) {
  constexpr int kGroup = kSums / OV;
  const Output write(strip);
  const typename Sums::Element* sums = static_cast<const typename Sums::Element*>(from);
  F multiplier[OV];
  TRITKIT_UNROLL
  for (int v = 0; v < OV; ++v) multiplier[v] = Vector::load_floats(strip.multiplier + v * kLanes);
  for (int64_t p = 0; p < count; p += kGroup, sums += kSums * kLanes * Sums::kElements) {
    F value[kSums];
    TRITKIT_UNROLL
    for (int v = 0; v < kSums; ++v) value[v] = Vector::mul(Vector::to_float(Sums::template load<OV>(strip, sums, v)), multiplier[v % OV]);
    write(strip, value, pixels.y + p, pixels.r + p, count - p);
  }
}

using Finish = void (*)(const Strip&, const Pixels&, int64_t, const void*);

template <int OV, class Sums>
Finish pick_finish_of(ConvOutput output) {
  switch (output) {
    case ConvOutput::requantize: return finish_as<OV, Requantize<OV>, Sums>;
    case ConvOutput::requantize_add: return finish_as<OV, RequantizeAdd<OV>, Sums>;
    default: return finish_as<OV, ToFloat<OV>, Sums>;
  }
}

template <class Sums = LongSums>
Finish pick_finish(const Strip& strip) {
  const ConvOutput output = strip.args->output;
  if (strip.vectors == 1) return pick_finish_of<1, Sums>(output);
  return strip.vectors == 2 ? pick_finish_of<2, Sums>(output) : pick_finish_of<kSums, Sums>(output);
}
