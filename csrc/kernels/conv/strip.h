// What every vector convolution needs: a strip of outputs, its weights read from their packing, and which inputs they meet. Part of
// tile.h and of conv_amx.cc, in the namespace of an instruction set, after its struct `Vector`.

using I = Vector::I;

constexpr int kLanes = Vector::kLanes;
constexpr int kSums = Vector::kSums;      // vectors of the widest strip
constexpr int kPixels = Vector::kPixels;  // of its largest tile
template <int OV>
constexpr int kSumsOf = OV < 2 ? 2 : OV;  // vectors of sums a pixel, in a strip of OV vectors of outputs
template <int OV>
constexpr int kPixelsOf = kPixels * kSums / kSumsOf<OV>;
template <int PX, int S>
constexpr bool kFewSums = PX * S <= 2 * kSums;  // so few that registers are left
constexpr int kVectorBytes = 4 * kLanes;
constexpr ConvVectors kVectors = {kLanes, kSums, Vector::kWords};

// Runs of quads in memory: byte offsets from the pixel, a list so that the loop over them needs few registers. A scattered run is not
// contiguous: its quads lie in taps of `tap_quads`, `tap_step` bytes apart.
constexpr int64_t kMaxTaps = 1024;
struct Runs {
  int64_t count, quads;
  bool scattered;
  int64_t tap_quads, tap_step;
  int64_t offset[kMaxTaps];
};

// One strip of outputs and what it needs; arrays are padded with zeros to whole vectors.
struct Strip {
  const ConvArgs* args;
  const Runs* runs;
  const uint8_t* weights;
  const uint8_t* ahead;              // weights to ask for meanwhile, a line a block: those of the next strip
  int64_t output, outputs, vectors;  // first output channel, how many
  bool ternary;
  int64_t word_blocks;  // how many blocks' sums int16 holds, see words.h; 0: sums are int32 all along
  alignas(64) int16_t units[2 * kSums * kLanes];
  alignas(64) int32_t bias[kSums * kLanes];
  alignas(64) float multiplier[kSums * kLanes];

  Vector::B arrange(Vector::B bytes) const { return Vector::in_order(bytes); }
  template <int OV>
  void load_residual(const uint8_t* r, I* v) const {
    Vector::load_bytes<OV>(r, v, outputs);
  }
};

// The pixels of one tile, with room for what Cursor writes.
struct Pixels {
  const uint8_t* x[2 * kPixelsOf<1>];
  int64_t y[2 * kPixelsOf<1>], r[2 * kPixelsOf<1>];  // byte offsets
};

// Readers of blocks: a step's S vectors of weights at a time. PX is the tile's width.
template <int PX, int S>
struct Int8Weights {
  const uint8_t* at;
  explicit Int8Weights(const uint8_t* weights) : at(weights) {}
  void next() { at += 4 * kVectorBytes; }
  template <int Step>
  void read(I (&w)[S]) {
    TRITKIT_UNROLL
    for (int s = 0; s < S; ++s) w[s] = Vector::load(at + (Step * S + s) * kVectorBytes);
  }
};

template <int PX, int S>
struct TernaryWeights {
  const uint8_t *tables, *at;
  explicit TernaryWeights(const uint8_t* weights) : tables(weights), at(weights + S * kVectorBytes) {}
  void next() { at += kVectorBytes; }
  template <int Step>
  void read(I (&w)[S]) {
    if (!kFewSums<PX, S>) __asm__("" : "+r"(tables));  // load the tables each time: kept in registers they would drive the sums out
    const I codes = Vector::load(at);
    w[0] = Vector::decode<2 * Step * S>(codes, table(0));
    w[1] = Vector::decode<2 * Step * S + 2>(codes, table(1));
    if constexpr (S == 4) {
      w[2] = Vector::decode<4>(codes, table(2));
      w[3] = Vector::decode<6>(codes, table(3));
    }
  }

 private:
  I table(int s) const { return Vector::load(tables + s * kVectorBytes); }
};

void fill_runs(const ConvArgs& a, int64_t vectors, Runs& runs) {
  const ConvShape& s = a.shape;
  const ConvRuns packed = conv_runs(s);
  int64_t columns = packed.columns;
  runs.quads = packed.quads;
  runs.tap_quads = (s.in_channels / s.groups + 3) / 4;
  runs.tap_step = s.dilation_w * a.x_pixel;
  const bool apart = packed.quads > runs.tap_quads && a.x_pixel > 4 * runs.tap_quads;
  runs.scattered = apart && runs.tap_quads % (4 / vectors) != 0;
  if (apart && !runs.scattered) {  // every tap starts a block: each is a run
    columns = s.kernel_w;
    runs.quads = runs.tap_quads;
  }
  runs.count = packed.rows * columns;
  for (int64_t i = 0; i < runs.count; ++i) {
    runs.offset[i] = i / columns * s.dilation_h * a.x_row + i % columns * runs.tap_step;
  }
}

void fill_strip(const ConvArgs& a, Strip& strip) {
  for (int64_t j = 0; j < strip.vectors * kLanes; ++j) {
    const bool real = j < strip.outputs;
    strip.bias[j] = real ? a.bias[strip.output + j] : 0;
    strip.multiplier[j] = real ? a.multiplier[strip.output + j] : 0.0f;
  }
}

bool fits(const ConvShape& s, bool) { return s.kernel_h * s.kernel_w <= kMaxTaps; }
size_t packed_bytes(const ConvShape& s, bool ternary) { return conv_packed_bytes(kVectors, s, ternary); }
void pack(const ConvShape& s, const ConvWeights& weights, void* packed) { conv_pack(kVectors, s, weights, packed); }
