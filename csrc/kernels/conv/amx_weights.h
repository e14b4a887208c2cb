// The steps and the weights of AMX tiles; part of conv_amx.cc. Packed weights are decoded ahead, into memory near the core.

constexpr int64_t kMaxSteps = 512, kTileBytes = 1024;
constexpr int64_t kMaxParts = 32;            // of weights decoded at a time
constexpr int64_t kWeightBytes = 512 << 10;  // of them, where that holds a panel

// The steps over the inputs of a pixel, each of `quads` quads. The last of a run begins earlier if it would pass the run's end; what
// it takes again weighs 0.
struct Steps {
  int64_t count, of_run, quads;
  int64_t offset[kMaxSteps];

  explicit Steps(const Runs& runs) {
    of_run = (runs.quads + 15) / 16;
    quads = (runs.quads + of_run - 1) / of_run;
    count = runs.count * of_run;
    for (int64_t run = 0; run < runs.count; ++run) {
      for (int64_t s = 0; s < of_run; ++s) offset[run * of_run + s] = runs.offset[run] + 4 * first_quad(runs, s);
    }
  }
  int64_t first_quad(const Runs& runs, int64_t step) const {
    const int64_t last = runs.quads - quads;
    return step * quads < last ? step * quads : last;
  }
  bool overlap(const Runs& runs) const { return of_run * quads > runs.quads; }
};

// At most so many steps, whatever the strides.
int64_t most_steps(const ConvShape& s) {
  const int64_t quads = (s.in_channels / s.groups + 3) / 4;
  return s.kernel_h * s.kernel_w * ((quads + 15) / 16);
}

// Row `quad` of the weights of 16 outputs, from a step's vectors: lane d of vector t is of output d ^ t and quad d % Ways.
template <int Ways>
I tile_row(const I* w, int quad) {
  if constexpr (Ways == 1) return w[0];
  const __mmask16 second = 0xaaaa;
  const I other = Vector::exchange(w[Ways - 1]);
  return quad == 0 ? _mm512_mask_mov_epi32(w[0], second, other) : _mm512_mask_mov_epi32(other, second, w[0]);
}

// Writes the weights of a strip of V vectors as tiles: [half][step][vector of the half][quad][16 outputs][4].
template <int V, template <int, int> class Weights>
class TileWriter {
 public:
  TileWriter(const uint8_t* weights, const Runs& runs, const Steps& steps, uint8_t* tiles)
      : runs_(runs), steps_(steps), tiles_(tiles), half_(steps.count * kStep) {
    Weights<1, S> reader(weights);
    for (int64_t run = 0; run < runs_.count; ++run, tiles_ += steps_.of_run * kStep) {
      if (steps_.overlap(runs_)) clear_last();
      begin_step(0);
      for (int64_t quad = 0; quad < runs_.quads; quad += kBlockQuads) {
        reader.template read<0>(w_[0]);
        if constexpr (S == 2) reader.template read<1>(w_[1]);
        put(runs_.quads - quad);
        reader.next();
      }
    }
  }

 private:
  static constexpr int S = kSumsOf<V>, kWays = S / V, kBlockQuads = 4 / V;
  static constexpr int64_t kStep = (V < 2 ? 1 : 2) * kTileBytes;

  uint8_t* tile(int64_t step, int v) const { return tiles_ + v / 2 * half_ + step * kStep + v % 2 * kTileBytes; }

  void begin_step(int64_t step) {
    step_ = step;
    row_ = step * steps_.quads - steps_.first_quad(runs_, step);
  }

  // The next block of a run, of whose quads `left` are left.
  void put(int64_t left) {
    for (int i = 0; i < kBlockQuads && i < left; ++i, ++row_) {
      if (row_ == steps_.quads) begin_step(step_ + 1);
      TRITKIT_UNROLL
      for (int v = 0; v < V; ++v) Vector::store(tile(step_, v) + row_ * 64, tile_row<kWays>(w_[i / kWays] + v * kWays, i % kWays));
    }
  }

  void clear_last() {
    const int64_t again = steps_.of_run * steps_.quads - runs_.quads;
    for (int64_t row = 0; row < again; ++row) {
      for (int v = 0; v < V; ++v) Vector::store(tile(steps_.of_run - 1, v) + row * 64, Vector::splat(0));
    }
  }

  const Runs& runs_;
  const Steps& steps_;
  uint8_t* tiles_;
  const int64_t half_;             // bytes
  int64_t step_ = 0, row_ = 0;     // of the next quad
  I w_[4 / S][S];  // of a block: its steps
};

// Up to 32 outputs and their weights.
struct Part {
  Strip strip;
  WeightTiles weights;
  int64_t group_offset;
};

// What all parts need.
struct Work {
  const ConvArgs& args;
  const Grid& grid;
  const LinePlan& plan;
  const Runs& runs;
  const Steps& steps;
  InputTiles inputs;
};

// The parts of some panels.
class Parts {
 public:
  explicit Parts(const Work& work) : work_(work), packed_(static_cast<const uint8_t*>(work.args.packed)) {}

  // Takes panels from `panel` to at most `end`, as many as there is room for; returns the first it did not take.
  int64_t take(int64_t panel, int64_t end) {
    count_ = 0, used_ = 0;
    const int64_t most = work_.steps.count * 4 * kTileBytes;
    for (; panel < end; ++panel) {
      if (count_ > 0 && (count_ + 2 > kMaxParts || used_ + most > kWeightBytes)) break;
      take(panel);
    }
    return panel;
  }
  const Part* begin() const { return parts_; }
  const Part* end() const { return parts_ + count_; }

 private:
  void take(int64_t index) {
    const ConvArgs& a = work_.args;
    const bool ternary = packed_[0] != 0;
    const ConvPanel panel = conv_panel(a.shape, index);
    const uint8_t* weights = packed_ + conv_panel_offset(kVectors, a.shape, ternary, index);
    for (int64_t done = 0; done < panel.outputs;) {
      const int64_t left = panel.outputs - done, vectors = conv_strip_vectors(kVectors, left), room = vectors * kLanes;
      const int64_t outputs = left < room ? left : room;
      take_strip(weights, ternary, vectors);
      for (int64_t first = 0; first < outputs; first += 2 * kLanes) {
        add(panel.first_output + done + first, outputs - first < 2 * kLanes ? outputs - first : 2 * kLanes, vectors < 2 ? 1 : 2, panel);
      }
      weights += conv_strip_bytes(kVectors, a.shape, ternary, vectors);
      done += outputs;
    }
  }

  // Sets next_ to the strip's tiles: where they lie packed, or written to the scratch memory.
  void take_strip(const uint8_t* weights, bool ternary, int64_t vectors) {
    const int64_t quads = work_.steps.quads, step = (vectors < 2 ? 1 : 2) * kTileBytes;
    if (!ternary && vectors == 4 && !work_.steps.overlap(work_.runs)) {
      next_ = {weights, 64, 256, quads * 256}, half_ = 128;
      return;
    }
    uint8_t* const tiles = work_.args.scratch + used_;
    next_ = {tiles, kTileBytes, 64, step}, half_ = work_.steps.count * step;
    used_ += work_.steps.count * vectors * kTileBytes;
    if (vectors == 1) write<1>(weights, ternary, tiles);
    if (vectors == 2) write<2>(weights, ternary, tiles);
    if (vectors == 4) write<4>(weights, ternary, tiles);
  }

  template <int V>
  void write(const uint8_t* weights, bool ternary, uint8_t* tiles) {
    if (ternary) TileWriter<V, TernaryWeights>(weights, work_.runs, work_.steps, tiles);
    if (!ternary) TileWriter<V, Int8Weights>(weights, work_.runs, work_.steps, tiles);
  }

  void add(int64_t output, int64_t outputs, int64_t vectors, const ConvPanel& panel) {
    Part& part = parts_[count_++];
    part.strip.args = &work_.args;
    part.strip.runs = &work_.runs;
    part.strip.vectors = vectors;
    part.strip.output = output;
    part.strip.outputs = outputs;
    fill_strip(work_.args, part.strip);
    part.weights = next_;
    part.group_offset = conv_group_begin(work_.args.shape, panel.group);
    next_.at += half_;
  }

  const Work& work_;
  const uint8_t* const packed_;
  Part parts_[kMaxParts];
  int64_t count_ = 0, used_ = 0, half_ = 0;
  WeightTiles next_ = {};
};
