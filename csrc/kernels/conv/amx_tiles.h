// The tile registers of AMX; included inside a namespace of its own. A tile holds 16 rows of 64 bytes. Sums are the tiles 0 to 3,
// inputs 4 and 5, weights 6 and 7. Assembly, as the intrinsics of GCC 12 do not say which memory they read.

struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Tiles of `pixels` rows of `bytes` (a multiple of 4) input bytes, until release_tiles().
inline void configure_tiles(int64_t pixels, int64_t bytes) {
  TileConfig config = {};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.rows[tile] = static_cast<uint8_t>(tile < 6 ? pixels : bytes / 4);
    config.row_bytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? bytes : 64);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
}

inline void release_tiles() { __asm__ volatile("tilerelease" : : : "memory"); }

template <int Tile>
inline void load_tile(const void* at, int64_t row) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(at), "r"(row), "i"(Tile) : "memory");
}

template <int Tile>
inline void store_tile(void* at, int64_t row) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(at), "r"(row), "i"(Tile) : "memory");
}

// Sums [pixel][output] += inputs [pixel][4 q + i] * weights [q][4 output + i].
template <int SumTile, int Inputs, int Weight>
inline void dot_tiles() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SumTile), "i"(Inputs), "i"(Weight) : "memory");
}

// Where the weights of some outputs lie as tiles: each step has one or two, `column` bytes apart, their rows (quads) `row` bytes apart.
struct WeightTiles {
  const uint8_t* at;
  int64_t column, row, step;
};

// Where inputs lie: tile p of step s is at x[p] + offsets[s], its pixels `pixel` bytes apart.
struct InputTiles {
  const int64_t* offsets;
  int64_t steps, pixel;
};

// PT tiles of pixels times V tiles of outputs.
template <int PT, int V>
struct TileProduct {
  static_assert(PT * V <= 4 && V <= 2, "four tiles of sums, two of weights");

  // After each step `beside` does a little, with vectors, while the tile registers work.
  template <class Beside>
  static void run(const InputTiles& inputs, const WeightTiles& weights, const uint8_t* const* x, const int32_t* bias, Beside& beside) {
    begin<0>(bias);
    const uint8_t* w = weights.at;
    for (int64_t s = 0; s < inputs.steps; ++s, w += weights.step) {
      step<0>(inputs, weights, x, inputs.offsets[s], w);
      beside.some();
    }
  }

  // sums[p][pixel][V * 16]
  template <int T = 0>
  static void store(int32_t* sums) {
    store_tile<T>(sums + T / V * 16 * V * 16 + T % V * 16, V * 64);
    if constexpr (T + 1 < PT * V) store<T + 1>(sums);
  }

 private:
  template <int T>
  static void begin(const int32_t* bias) {
    load_tile<T>(bias + T % V * 16, 0);
    if constexpr (T + 1 < PT * V) begin<T + 1>(bias);
  }

  template <int P>
  static void step(const InputTiles& inputs, const WeightTiles& weights, const uint8_t* const* x, int64_t offset, const uint8_t* w) {
    load_tile<4 + P % 2>(x[P] + offset, inputs.pixel);
    outputs<P, 0>(weights, w);
    if constexpr (P + 1 < PT) step<P + 1>(inputs, weights, x, offset, w);
  }

  template <int P, int O>
  static void outputs(const WeightTiles& weights, const uint8_t* w) {
    if constexpr (P == 0) load_tile<6 + O>(w + O * weights.column, weights.row);
    dot_tiles<P * V + O, 4 + P % 2, 6 + O>();
    if constexpr (O + 1 < V) outputs<P, O + 1>(weights, w);
  }
};
