// Sums in int16, for CPUs without a dot product instruction; part of tile.h, in the namespace of an instruction set.
//
// Two products of a ternary layer are at most 2 * 255 * m, m its largest value in units (see layout.h), so 64 / m of such pairs add up
// within int16: half of the multiplications that int32 sums take. Then they are multiplied by the unit and added to int32.

constexpr int64_t kPairs = 64;
static_assert(kPairs * 2 * 255 <= 32767, "a sum of pairs fits int16");

template <class Operations, int PX, int OV>
struct WordSums {
  static constexpr int kWays = kSums / OV;
  I v[PX][kSums];

  WordSums() { clear(); }

  void clear() {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) {
      TRITKIT_UNROLL
      for (int s = 0; s < kSums; ++s) v[p][s] = Vector::splat(0);
    }
  }

  void add(int p, I quads, const I* w) {
    TRITKIT_UNROLL
    for (int s = 0; s < kSums; ++s) v[p][s] = Operations::dot_words(v[p][s], quads, w[s]);
  }

  void step(const uint8_t* const* x, int64_t at, const I* w) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) add(p, Vector::quads<kWays>(x[p] + at), w);
  }

  void last_step(const uint8_t* const* x, int64_t at, const I* w) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) add(p, Vector::quads<1>(x[p] + at), w);
  }

  void flush(Sums<PX, OV>& sums, const int16_t* units) {
    TRITKIT_UNROLL
    for (int p = 0; p < PX; ++p) {
      TRITKIT_UNROLL
      for (int s = 0; s < kSums; ++s) {
        sums.v[p][s] = Operations::add_words(sums.v[p][s], v[p][s], Vector::load(units + s * 2 * kLanes));
      }
    }
    clear();
  }
};

template <int PX, int OV, template <int, int> class Weights>
void accumulate_words(const Strip& strip, const uint8_t* const* pixels, int32_t* out) {
  constexpr int kBlockQuads = 4 / OV;
  const Runs& runs = *strip.runs;
  Walk<PX, OV, Weights> walk(strip, pixels);
  Sums<PX, OV> sums(strip);
  WordSums<Vector, PX, OV> words;
  int64_t room = strip.word_blocks;
  for (int64_t run = 0; run < runs.count; ++run) {
    int64_t at = runs.offset[run], left = runs.quads;
    while (left > 0) {
      const int64_t whole = left / kBlockQuads, blocks = whole < room ? whole : room;
      for (const int64_t end = at + blocks * 4 * kBlockQuads; at != end; at += 4 * kBlockQuads) walk.block(words, at);
      left -= blocks * kBlockQuads;
      room -= blocks;
      if (left > 0 && left < kBlockQuads && room > 0) {
        walk.last_block(words, at, left);
        left = 0;
        --room;
      }
      if (room == 0) {
        words.flush(sums, strip.units);
        room = strip.word_blocks;
      }
    }
  }
  words.flush(sums, strip.units);
  sums.store(out);
}

// The block at byte 0 of one pixel, in units if `Words`.
template <class Operations, bool Words, int OV, template <int, int> class Weights>
void add_block(Walk<1, OV, Weights>& walk, Sums<1, OV>& sums, const int16_t* units) {
  if constexpr (Words) {
    WordSums<Operations, 1, OV> words;
    walk.block(words, 0);
    words.flush(sums, units);
  } else {
    walk.block(sums, 0);
  }
}

// Whether the strip's sums go through int16, and how far, from its tables.
void fill_units(Strip& strip) {
  strip.word_blocks = 0;
  if (!Vector::kWords || !strip.ternary) return;
  int largest = 1;
  for (int i = 0; i < kSums * kLanes; ++i) {
    const uint8_t* const values = strip.weights + 4 * i;
    for (int at = 1; at < 4; at += 2) {
      const int value = static_cast<int8_t>(values[at]), size = value < 0 ? -value : value;
      if (size > largest) largest = size;
    }
    strip.units[2 * i] = strip.units[2 * i + 1] = static_cast<int16_t>(values[2]);
  }
  if (largest <= kConvLargestInUnits) strip.word_blocks = kPairs / largest * kSums / 4;  // a block is 4 / kSums steps
}
