// The kernels of float32.h, written once: included by an instruction set's file inside its namespace. No library here.

// Output planes of one image and group that are computed together, so that each input is loaded once for all of them.
constexpr int64_t kTogether = 4;

// One tap of a plane: the outputs [first, last) of a row whose input lies inside the image, and where that of output 0 would lie.
struct Tap {
  int64_t shift_h, shift_w, first, last;
  Tap(const FloatConvArgs& a, int64_t ky, int64_t kx) : shift_h(ky * a.dilation_h - a.top), shift_w(kx * a.dilation_w - a.left) {
    first = shift_w >= 0 ? 0 : (-shift_w + a.stride_w - 1) / a.stride_w;
    last = shift_w >= a.in_w ? 0 : (a.in_w - 1 - shift_w) / a.stride_w + 1;
    if (last > a.out_w) last = a.out_w;
  }
};

// y[p][j] += w[p] * x[j * stride] for `Planes` rows, `plane` apart.
template <int64_t Planes>
void add_row(const float* w, const float* __restrict x, float* __restrict y, int64_t plane, int64_t stride, int64_t count) {
  for (int64_t p = 0; p < Planes; ++p) {
    float* const to = y + p * plane;
    if (stride == 1) {
      for (int64_t j = 0; j < count; ++j) to[j] += w[p] * x[j];
    } else {
      for (int64_t j = 0; j < count; ++j) to[j] += w[p] * x[j * stride];
    }
  }
}

template <int64_t Planes>
void add_tap(const FloatConvArgs& a, const Tap& tap, const float* w, const float* x, float* y) {
  if (tap.first >= tap.last) return;
  for (int64_t i = 0; i < a.out_h; ++i) {
    const int64_t h = i * a.stride_h + tap.shift_h;
    if (h < 0 || h >= a.in_h) continue;
    const float* const from = x + h * a.in_w + tap.shift_w + tap.first * a.stride_w;
    add_row<Planes>(w, from, y + i * a.out_w + tap.first, a.out_h * a.out_w, a.stride_w, tap.last - tap.first);
  }
}

// Planes of outputs o .. o + Planes - 1 of one image; x is the first plane of their group.
template <int64_t Planes>
void conv_planes(const FloatConvArgs& a, int64_t o, const float* x, float* y) {
  const int64_t channels = a.in_channels / a.groups, taps = a.kernel_h * a.kernel_w, plane = a.out_h * a.out_w;
  for (int64_t p = 0; p < Planes; ++p) {
    for (int64_t k = 0; k < plane; ++k) y[p * plane + k] = a.bias[o + p];
  }
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t t = 0; t < taps; ++t) {
      float w[Planes];
      for (int64_t p = 0; p < Planes; ++p) w[p] = a.weights[((o + p) * channels + c) * taps + t];
      add_tap<Planes>(a, Tap(a, t / a.kernel_w, t % a.kernel_w), w, x + c * a.in_h * a.in_w, y);
    }
  }
}

// The sum of products of a Gemm, in 32 sums that are added up at the end.
inline float dot(const float* a, const float* b, int64_t count, float bias) {
  constexpr int64_t kSums = 32;
  float sums[kSums] = {};
  int64_t k = 0;
  for (; k + kSums <= count; k += kSums) {
    for (int64_t i = 0; i < kSums; ++i) sums[i] += a[k + i] * b[k + i];
  }
  for (int64_t i = 0; k < count; ++i, ++k) sums[i] += a[k] * b[k];
  float sum = bias;
  for (int64_t i = 0; i < kSums; ++i) sum += sums[i];
  return sum;
}

inline bool is_gemm(const FloatConvArgs& a) { return a.in_h * a.in_w * a.kernel_h * a.kernel_w == 1 && a.out_h * a.out_w == 1; }

void conv(const FloatConvArgs& a, const float* x, float* y, int64_t begin, int64_t end) {
  const int64_t channels = a.in_channels / a.groups, outputs = a.out_channels / a.groups;
  const int64_t in_plane = a.in_h * a.in_w, out_plane = a.out_h * a.out_w;
  for (int64_t plane = begin; plane < end;) {
    const int64_t n = plane / a.out_channels, o = plane % a.out_channels;
    const float* const group = x + (n * a.in_channels + o / outputs * channels) * in_plane;
    const int64_t left = outputs - o % outputs < end - plane ? outputs - o % outputs : end - plane;
    float* const to = y + plane * out_plane;
    if (is_gemm(a)) {
      *to = dot(group, a.weights + o * channels, channels, a.bias[o]);
      ++plane;
    } else if (left >= kTogether) {
      conv_planes<kTogether>(a, o, group, to);
      plane += kTogether;
    } else {
      conv_planes<1>(a, o, group, to);
      ++plane;
    }
  }
}

void clip(float low, float high, const float* x, float* y, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float v = x[i] < low ? low : x[i];
    y[i] = v > high ? high : v;
  }
}
